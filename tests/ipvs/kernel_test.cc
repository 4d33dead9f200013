// The real kernel: run by tests/ipvs/uml/run on a User-Mode Linux kernel, as the host's may have no IPVS. The packet table with real
// packets; what a restart, a removal and a failure leave behind; how connections end; what each protocol and scheduler does.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdlib>
#include <set>
#include <thread>

#include "ipvs/dataplane.h"
#include "ipvs/host.h"
#include "ipvs/kernel_netlink.h"
#include "ipvs/layout.h"
#include "ipvs/text.h"
#include "netlink/sysctl.h"
#include "tests/ipvs/expect.h"
#include "tests/netlink/faults.h"
#include "tests/proxy/world_net.h"

namespace fairlead::ipvs {
namespace {

using namespace proxy::testing;
using namespace std::chrono_literals;
using proxy::Dataplane;
using proxy::Plan;
using proxy::PlanDelta;
using proxy::Snapshot;

template <typename T>
T in(const testnet::Namespace& ns, const std::function<Result<T>()>& f) {
  T out{};
  ns.in([&] {
    auto r = f();
    if (!r) ADD_FAILURE() << r.error().message;
    else out = std::move(*r);
  });
  return out;
}

// As on a node whose kubelet uses iptables-legacy, the only one that this kernel has.
struct Node {
  Node() { prepare(net.node); }
  static void prepare(const testnet::Namespace& ns) { (void)ns.sh("iptables-legacy -t mangle -N KUBE-KUBELET-CANARY"); }
  std::unique_ptr<Dataplane> open(const Options& o = {}) {
    return in<std::unique_ptr<Dataplane>>(net.node, [&] { return open_dataplane(o); });
  }
  std::unique_ptr<Kernel> kernel() { return in<std::unique_ptr<Kernel>>(net.node, [] { return open_kernel(); }); }
  WorldNet net;
};

proxy::ApplyReport apply(Dataplane& d, const PlanDelta& delta) {
  auto done = d.apply(delta);
  EXPECT_TRUE(done) << done.error().message;
  return done ? *done : proxy::ApplyReport{};
}
void expect_no_drift(Dataplane& d, const Plan& p) {
  const auto drift = d.verify(p);
  ASSERT_TRUE(drift) << drift.error().message;
  for (const auto& one : *drift) ADD_FAILURE() << "drift: " << one;
}

TEST(Kernel, PacketTable) {
  Node n;
  const auto d = n.open();
  ASSERT_TRUE(d);
  const Plan p = plan(world());
  const auto report = apply(*d, p.full_delta());
  EXPECT_TRUE(report.skipped.empty());
  expect_no_drift(*d, p);
  for (const auto& row : testing::packet_table()) {
    const auto traced = d->trace(row.packet);
    ASSERT_TRUE(traced) << row.name << ": " << traced.error().message;
    EXPECT_TRUE(*traced == row.expect) << row.name << "\ntraced:\n" << to_text(*traced);
    if (row.real) {
      EXPECT_EQ(n.net.play(row), "") << row.name;
    }
  }
  // For looking around: GUEST_SHELL='ipvsadm -Ln' runs in the node's namespace.
  if (const char* command = std::getenv("GUEST_SHELL"))
    if (const auto out = n.net.node.sh(command)) std::fputs(out->c_str(), stderr);
}

TEST(Kernel, ARestartWritesNothingAndARemovalLeavesNothing) {
  Node n;
  const Plan p = plan(world());
  {
    const auto d = n.open();
    ASSERT_TRUE(d);
    EXPECT_GT(apply(*d, p.full_delta()).operations, 100u);
  }
  (void)n.net.node.sh("ipvsadm -A -t 192.168.7.1:8443 -s wlc");  // somebody else's
  Options o;
  o.exclude = {cidr("192.168.7.1/32")};
  const auto again = n.open(o);
  ASSERT_TRUE(again);
  const auto report = apply(*again, p.full_delta());
  EXPECT_EQ(report.operations, 0u);
  EXPECT_TRUE(report.full);
  expect_no_drift(*again, p);

  const auto fresh = n.open();  // without memory
  ASSERT_TRUE(fresh);
  const auto removed = fresh->remove_all_owned();
  ASSERT_TRUE(removed) << removed.error().message;
  const auto servers = n.net.node.sh("ipvsadm -Sn");
  ASSERT_TRUE(servers);
  EXPECT_EQ(*servers, "-A -t 192.168.7.1:8443 -s wlc\n");
  const auto left = n.net.node.sh("ipset list -name; iptables-legacy-save | grep -i kube || true; ip6tables-legacy-save | grep -i kube || true; ip -o link show type dummy");
  ASSERT_TRUE(left);
  EXPECT_EQ(*left, ":KUBE-KUBELET-CANARY - [0:0]\n");
}

TEST(Kernel, TakesOverFromKubeProxy) {
  Node n;
  // The frame that kube-proxy's ipvs mode leaves, with a service that is still there and one that has gone.
  ASSERT_TRUE(n.net.node.sh(R"(
ip link add kube-ipvs0 type dummy; ip addr add 10.96.0.1/32 dev kube-ipvs0; ip addr add 10.96.7.7/32 dev kube-ipvs0
ipvsadm -A -t 10.96.0.1:80 -s rr; ipvsadm -a -t 10.96.0.1:80 -r 10.244.0.2:8080 -m -w 1; ipvsadm -A -t 10.96.7.7:80 -s rr
ipset create KUBE-CLUSTER-IP hash:ip,port; ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:80; ipset add KUBE-CLUSTER-IP 10.96.7.7,tcp:80
ipset create KUBE-IPVS-IPS hash:ip; ipset create KUBE-LOAD-BALANCER hash:ip,port; ipset create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
ipset create KUBE-SRC-POLICY hash:ip
iptables-legacy-restore --noflush <<END
*nat
:KUBE-SERVICES - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
END
)"));
  const auto d = n.open();
  ASSERT_TRUE(d);
  const Plan p = plan(world());
  apply(*d, p.full_delta());
  expect_no_drift(*d, p);
  const auto sets = n.net.node.sh("ipset list -name | sort | tr '\\n' ' '; iptables-legacy-save -t nat | grep -c portals || true");
  ASSERT_TRUE(sets);
  EXPECT_EQ(sets->find("KUBE-LOAD-BALANCER "), std::string::npos) << *sets;
  EXPECT_EQ(sets->find("KUBE-NODE-PORT-TCP"), std::string::npos) << *sets;
  EXPECT_NE(sets->find("KUBE-SRC-POLICY"), std::string::npos) << "a network policy's: " << *sets;
  EXPECT_TRUE(sets->ends_with("0\n")) << *sets;
  const auto servers = n.net.node.sh("ipvsadm -Sn -t 10.96.7.7:80 2>&1 || true");
  EXPECT_EQ(servers->find("-A -t 10.96.7.7:80"), std::string::npos) << *servers;
  for (const auto& row : testing::packet_table())
    if (row.name == "a pod reaches a ClusterIP with its own address") {
      EXPECT_EQ(n.net.play(row), "");
    }
}

// ---- draining

struct Connection {
  Fd client, server;
  std::string exchange(const std::string& text) {
    if (::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) return "send: " + std::string(std::strerror(errno));
    char buffer[64];
    const auto n = ::recv(server.get(), buffer, sizeof buffer, 0);
    return n < 0 ? "receive: " + std::string(std::strerror(errno)) : std::string(buffer, static_cast<std::size_t>(n));
  }
};

sockaddr_in address(const SocketAddress& a) {
  sockaddr_in s{};
  s.sin_family = AF_INET;
  s.sin_port = htons(a.port);
  std::memcpy(&s.sin_addr, a.ip.bytes().data(), 4);
  return s;
}

Fd listener(const testnet::Namespace& ns, const SocketAddress& at, int protocol) {
  Fd fd;
  ns.in([&] {
    fd = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, protocol));
    const auto s = address(at);
    const int one = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&s), sizeof s) || ::listen(fd.get(), 16)) ADD_FAILURE() << "listen: " << std::strerror(errno);
    const timeval patience{20, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  });
  return fd;
}

Connection connect(const testnet::Namespace& from, const SocketAddress& to, const Fd& listener, int protocol) {
  Connection c;
  from.in([&] { c.client = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, protocol)); });
  const timeval patience{20, 0};
  ::setsockopt(c.client.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const auto s = address(to);
  if (::connect(c.client.get(), reinterpret_cast<const sockaddr*>(&s), sizeof s)) ADD_FAILURE() << "connect: " << std::strerror(errno);
  c.server = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!c.server) ADD_FAILURE() << "accept: " << std::strerror(errno);
  ::setsockopt(c.server.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return c;
}

Snapshot one_service(const std::vector<Pod>& pods, Protocol protocol = Protocol::tcp) {
  Snapshot w{global_plan(), node_facts(), {}};
  w.services["default/long"] = {std::make_shared<const proxy::Service>(make_service("long", "10.96.0.77", 80, protocol)), make_endpoints(pods, 9090, protocol)};
  return w;
}

const Pod kHere{"10.244.0.2", "n1"}, kThere{"10.244.1.2", "n2"};
const SocketAddress kVip{ip("10.96.0.77"), 80};

TEST(Draining, AConnectionLivesUntilItEnds) {
  Node n;
  const auto d = n.open({.drain_interval = 10ms});
  ASSERT_TRUE(d);
  apply(*d, plan(one_service({kHere})).full_delta());
  const auto pod = listener(n.net.here2, {ip("10.244.0.2"), 9090}, 0);
  auto c = connect(n.net.clients, kVip, pod, 0);
  EXPECT_EQ(c.exchange("before"), "before");

  const auto without = plan(one_service({kThere}));
  EXPECT_TRUE(apply(*d, without.full_delta()).call_again) << "one real server waits for its connection";
  EXPECT_EQ(c.exchange("meanwhile"), "meanwhile");
  expect_no_drift(*d, without);
  // A process that starts now knows it, too.
  const auto next = n.open({.drain_interval = 10ms});
  EXPECT_EQ(apply(*next, without.full_delta()).operations, 0u);
  EXPECT_EQ(c.exchange("after a restart"), "after a restart");

  const linger reset{1, 0};
  ::setsockopt(c.client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  c = Connection{};
  const PlanDelta nothing{without.global, false, false, {}};
  bool gone = false;
  for (int i = 0; i < 600 && !gone; ++i) {  // the kernel keeps a closed connection for 10 s
    gone = !apply(*next, nothing).call_again;
    if (!gone) std::this_thread::sleep_for(100ms);
  }
  EXPECT_TRUE(gone);
  const auto kernel = n.kernel();
  const auto real = kernel->real_servers({Protocol::tcp, kVip});
  ASSERT_TRUE(real) << real.error().message;
  ASSERT_EQ(real->size(), 1u);
  EXPECT_EQ(real->front().address.ip, ip("10.244.1.2"));
}

TEST(Protocols, Sctp) {
  Node n;
  const auto d = n.open();
  ASSERT_TRUE(d);
  apply(*d, plan(one_service({kHere}, Protocol::sctp)).full_delta());
  const auto pod = listener(n.net.here2, {ip("10.244.0.2"), 9090}, IPPROTO_SCTP);
  auto c = connect(n.net.clients, kVip, pod, IPPROTO_SCTP);
  EXPECT_EQ(c.exchange("sctp"), "sctp");
  expect_no_drift(*d, plan(one_service({kHere}, Protocol::sctp)));
}

TEST(Refusal, AnEndpointThatIsABroadcastAddressHere) {
  Node n;
  const auto d = n.open();
  ASSERT_TRUE(d);
  const auto report = apply(*d, plan(one_service({kHere, {"192.168.7.255", "n2"}})).full_delta());
  ASSERT_EQ(report.skipped.size(), 1u);
  EXPECT_NE(report.skipped[0].second.find("192.168.7.255"), std::string::npos) << report.skipped[0].second;
  const auto pod = listener(n.net.here2, {ip("10.244.0.2"), 9090}, 0);
  auto c = connect(n.net.clients, kVip, pod, 0);
  EXPECT_EQ(c.exchange("still served"), "still served");
}

// ---- settings

TEST(Settings, SchedulersOfTheKernel) {
  Node n;
  const auto kernel = n.kernel();
  ASSERT_TRUE(kernel);
  for (const char* name : {"rr", "wrr", "lc", "wlc", "sed", "nq", "dh", "sh", "mh", "fo", "ovf", "lblc", "lblcr"}) {
    const auto has = kernel->has_scheduler(name);
    ASSERT_TRUE(has) << name << ": " << has.error().message;
    EXPECT_TRUE(*has) << name;
    const auto d = n.open({.scheduler = name});
    ASSERT_TRUE(d);
    apply(*d, plan(one_service({kHere, kThere})).full_delta());
    expect_no_drift(*d, plan(one_service({kHere, kThere})));
  }
  for (const char* name : {"none-such", "", "a-name-that-is-much-too-long"}) {
    const auto has = kernel->has_scheduler(name);
    ASSERT_TRUE(has) << name << ": " << has.error().message;
    EXPECT_FALSE(*has) << name;
  }
  n.net.node.in([] {
    const auto d = open_dataplane({.scheduler = "none-such"});
    ASSERT_FALSE(d);
    EXPECT_NE(d.error().message.find("none-such"), std::string::npos) << d.error().message;
  });
}

TEST(Settings, KernelParametersAndTimeouts) {
  Node n;
  const auto d = n.open({.timeouts = {1234, 0, 56}, .strict_arp = true});
  ASSERT_TRUE(d);
  apply(*d, plan(one_service({kHere})).full_delta());
  const auto kernel = n.kernel();
  const auto state = kernel->list(Family::v4);
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(state->timeouts, (Timeouts{1234, 120, 56}));
  n.net.node.in([] {
    for (const auto& [key, value] : {std::pair{"net/ipv4/vs/conntrack", "1"}, std::pair{"net/ipv4/vs/expire_nodest_conn", "1"},
                                     std::pair{"net/ipv4/vs/expire_quiescent_template", "1"}, std::pair{"net/ipv4/ip_forward", "1"},
                                     std::pair{"net/ipv4/conf/all/arp_ignore", "1"}, std::pair{"net/ipv4/conf/all/arp_announce", "2"}}) {
      const auto is = netlink::read_sysctl(key);
      EXPECT_TRUE(is && *is == value) << key;
    }
  });
}

TEST(Traffic, IsCountedPerFrontendAndEndpoint) {
  Node n;
  const auto d = n.open();
  ASSERT_TRUE(d);
  apply(*d, plan(world()).full_delta());
  constexpr std::uint64_t kConnections = 12;
  for (std::uint64_t i = 0; i < kConnections; ++i) {
    const auto answer = testnet::ask(n.net.clients, Protocol::tcp, {ip("203.0.113.6"), 80}, nullptr, 5s);
    ASSERT_TRUE(answer) << answer.error().message;
  }
  std::uint64_t total = 0, split = 0;
  // The kernel sums its counters up every 2 s.
  for (int i = 0; i < 300 && total < kConnections; ++i) {
    total = split = 0;
    const auto all = d->traffic();
    ASSERT_TRUE(all) << all.error().message;
    for (const auto& t : *all)
      if (t.service == "default/external" && t.frontend.ip == ip("203.0.113.6")) (t.backend.port ? split : total) += t.connections;
    std::this_thread::sleep_for(100ms);
  }
  EXPECT_EQ(total, kConnections);
  EXPECT_EQ(split, kConnections);
}

TEST(Watch, HearsOfAddressesAndOfALostLink) {
  Node n;
  const auto d = n.open();
  ASSERT_TRUE(d);
  std::atomic<int> told{0};
  d->on_foreign_change([&] { ++told; });
  auto w = world();
  w.global.node_ports = {true, false, {}};
  const Plan p = plan(w);
  const PlanDelta nothing{p.global, false, false, {}};
  apply(*d, p.full_delta());
  const auto wait_for = [&](int more_than) {
    for (int i = 0; i < 600 && told <= more_than; ++i) std::this_thread::sleep_for(50ms);
    return told > more_than;
  };
  const int before = told;
  ASSERT_TRUE(n.net.node.sh("ip addr add 192.168.7.33/24 dev lan"));
  ASSERT_TRUE(wait_for(before));
  apply(*d, nothing);
  const auto answer = testnet::ask(n.net.clients, Protocol::tcp, {ip("192.168.7.33"), 30005}, nullptr, 5s);
  EXPECT_TRUE(answer) << answer.error().message;

  const int then = told;
  ASSERT_TRUE(n.net.node.sh("ip link delete kube-ipvs0"));
  ASSERT_TRUE(wait_for(then));
  apply(*d, nothing);
  expect_no_drift(*d, p);
  d->on_foreign_change({});
}

// ---- many

// Queues with room for some twenty answers: most answers are lost, what was asked is done all the same.
TEST(Faults, AnswersThatDoNotFitTheQueues) {
  Node n;
  Snapshot w{global_plan(), node_facts(), {}};
  w.global.ipv6 = false;
  for (int i = 0; i < 60; ++i) {
    auto s = make_service("s" + std::to_string(i), IpAddress::v4(10, 96, 10, static_cast<std::uint8_t>(i + 1)).to_string());
    const auto key = s.key;
    w.services[key] = {std::make_shared<const proxy::Service>(std::move(s)), make_endpoints({kHere, kThere})};
  }
  const Plan p = plan(w);
  const auto before = netlink::testing::netlink_sockets();
  auto d = n.open();
  ASSERT_TRUE(d);
  const auto shorten = [&] {
    int count = 0;
    for (const int fd : netlink::testing::netlink_sockets())
      if (!before.contains(fd)) netlink::testing::shorten_queue(fd, 8192), ++count;
    EXPECT_GE(count, 3) << "IPVS, sets, addresses";
  };
  shorten();
  EXPECT_GT(apply(*d, p.full_delta()).retries, 0u) << "no answer was lost";
  expect_no_drift(*d, p);
  d = n.open();
  shorten();
  EXPECT_EQ(apply(*d, p.full_delta()).operations, 0u);
  // Every service loses an endpoint, with signals in all calls.
  for (auto& [key, input] : w.services) input.endpoints = make_endpoints({kThere});
  const Plan q = plan(w);
  d = n.open();
  shorten();
  {
    const netlink::testing::Signals signals;
    apply(*d, q.full_delta());
  }
  expect_no_drift(*d, q);
  shorten();
  ASSERT_TRUE(d->remove_all_owned());
  const auto left = n.net.node.sh("cat /proc/net/ip_vs; ip link show kube-ipvs0 2>&1 || true");
  ASSERT_TRUE(left);
  EXPECT_EQ(left->find("TCP  "), std::string::npos) << *left;
}

TEST(Scale, AThousandServices) {
  Node n;
  Snapshot w{global_plan(), node_facts(), {}};
  for (int i = 0; i < 1000; ++i) {
    auto s = make_service("s" + std::to_string(i), IpAddress::v4(10, 96, static_cast<std::uint8_t>(10 + i / 250), static_cast<std::uint8_t>(i % 250 + 1)).to_string());
    std::vector<Pod> pods;
    for (int e = 0; e < 5; ++e) pods.push_back({IpAddress::v4(10, 244, static_cast<std::uint8_t>(e), static_cast<std::uint8_t>(i % 250 + 1)).to_string(), e ? "n2" : "n1"});
    const auto key = s.key;
    w.services[key] = {std::make_shared<const proxy::Service>(std::move(s)), make_endpoints(pods)};
  }
  const auto took = [](auto f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  const auto d = n.open();
  ASSERT_TRUE(d);
  const Plan p = plan(w);
  const double load = took([&] { apply(*d, p.full_delta()); });
  w.services["default/s500"].endpoints = make_endpoints({kHere, kThere});
  const Plan q = plan(w);
  PlanDelta change{q.global, false, false, {{"default/s500", q.services.at("default/s500")}}};
  const double one = took([&] { EXPECT_LT(apply(*d, change).operations, 30u); });
  const auto next = n.open();
  const double restart = took([&] { EXPECT_EQ(apply(*next, q.full_delta()).operations, 0u); });
  expect_no_drift(*next, q);
  std::printf("1,000 services of 5 endpoints: load %.0f ms, one change %.1f ms, restart %.0f ms\n", load, one, restart);
}

}  // namespace
}  // namespace fairlead::ipvs
