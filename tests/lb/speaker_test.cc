// Whole speakers on a LAN of namespaces: three nodes, an API that all of them reach over a network of its own, and a client that
// asks with real tools (arping, ndisc6) who has an address. Speakers are killed, hang, are cut off from each other or from the API.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <sstream>
#include <thread>

#include "base/files.h"
#include "base/metrics.h"
#include "base/process.h"
#include "kube/api.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "lb/bgp/report.h"
#include "lb/facts.h"
#include "lb/speaker.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::lb {
namespace {

using kube::test::FakeApiserver;
using netlink::NetNs;
using netlink::RtSocket;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using Macs = std::set<std::string>;

// An io_context on a thread in a namespace; run() does something there and waits for it.
class Strand {
 public:
  explicit Strand(int netns) : thread_([this, netns] {
    EXPECT_TRUE(netlink::run_in_netns(netns, [this] {
      const auto guard = net::make_work_guard(io_);
      io_.run();
    }));
  }) {}
  ~Strand() {
    io_.stop();
    thread_.join();
  }
  template <typename F>
  auto run(F f) {
    std::promise<std::invoke_result_t<F>> done;
    net::post(io_, [&] {
      if constexpr (std::is_void_v<std::invoke_result_t<F>>) {
        f();
        done.set_value();
      } else {
        done.set_value(f());
      }
    });
    return done.get_future().get();
  }
  // The thread does nothing until the promise is kept: what SIGSTOP does to a process.
  void hang(std::shared_future<void> until) {
    net::post(io_, [until] { until.wait(); });
  }
  net::io_context& io() { return io_; }

 private:
  net::io_context io_;
  std::thread thread_;
};

struct Node {
  int number = 0;
  NetNs ns;
  std::string mac;
  std::unique_ptr<metrics::Registry> registry;
  std::shared_ptr<Speaker> speaker;
  std::unique_ptr<Strand> strand;  // last: it ends first

  // As kill -9 does: no farewell.
  void vanish() {
    if (strand) strand->run([&] { speaker = nullptr; });
    strand = nullptr;
  }
};

class SpeakerLan : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fmt::format("/tmp/fairlead-speaker-{}", ::getpid());
    ASSERT_TRUE(make_dirs(folder_ + "/pools"));
    hub_.emplace(std::move(*NetNs::create()));
    auto rt = *RtSocket::open_in(hub_->fd());
    for (const char* bridge : {"lan", "mgmt"}) ASSERT_TRUE(rt.create_link({.name = bridge, .kind = netlink::BridgeKind{.mcast_snooping = false}, .up = true}));
    ASSERT_TRUE(rt.add_address({.link = rt.link("mgmt")->index, .ip = *InterfaceAddress::parse("10.9.0.254/24")}));
    api_strand_ = std::make_unique<Strand>(hub_->fd());
    api_strand_->run([&] { api_ = std::make_unique<FakeApiserver>(api_strand_->io().get_executor(), std::nullopt, SocketAddress{*IpAddress::parse("10.9.0.254"), 0}); });
    client_.emplace(std::move(*NetNs::create()));
    wire("client", client_->fd(), "lan", "eth0", "192.0.2.100/24");
    pools("---\n{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: p}, spec: {addresses: [192.0.2.200-192.0.2.230, \"2001:db8::200-2001:db8::2ff\"]}}\n"
          "---\n{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: a}}\n");
    options_.membership = {milliseconds(50), milliseconds(400)};
    options_.pools_interval = milliseconds(200);
    options_.address_lease_duration = seconds(2);
    for (int n = 1; n <= 3; ++n) make_node(n);
  }
  void TearDown() override {
    for (auto& n : nodes_) n->vanish();
    api_strand_->run([&] { api_.reset(); });
    api_strand_.reset();
    std::filesystem::remove_all(folder_);
  }

  void pools(const std::string& yaml) { ASSERT_TRUE(write_file_atomic(folder_ + "/pools/p.yaml", yaml)); }

  void wire(const std::string& name, int netns, const std::string& bridge, const std::string& link, const std::string& address) {
    auto hub = *RtSocket::open_in(hub_->fd());
    auto rt = *RtSocket::open_in(netns);
    ASSERT_TRUE(hub.create_link({.name = name + bridge.substr(0, 1), .kind = netlink::VethKind{.peer_name = link, .peer_netns_fd = netns}, .master = hub.link(bridge)->index, .up = true}));
    ASSERT_TRUE(rt.set_up(link));
    ASSERT_TRUE(rt.add_address({.link = rt.link(link)->index, .ip = *InterfaceAddress::parse(address)}));
    const auto v6 = fmt::format("2001:db8::{}/64", address.substr(address.rfind('.') + 1, address.find('/') - address.rfind('.') - 1));
    if (bridge == "lan") {
      ASSERT_TRUE(rt.add_address({.link = rt.link(link)->index, .ip = *InterfaceAddress::parse(v6), .no_dad = true}));
    }
  }

  void make_node(int n) {
    nodes_.push_back(std::make_unique<Node>(Node{n, *NetNs::create(), {}, {}, {}, {}}));
    auto& node = *nodes_.back();
    wire(fmt::format("n{}", n), node.ns.fd(), "lan", "eth0", fmt::format("192.0.2.{}/24", n));
    wire(fmt::format("n{}", n), node.ns.fd(), "mgmt", "mgmt0", fmt::format("10.9.0.{}/24", n));
    node.mac = RtSocket::open_in(node.ns.fd())->link("eth0")->mac->to_string();
    corev1::Node o;
    o.mutable_metadata()->set_name(name_of(n));
    auto* a = o.mutable_status()->add_addresses();
    a->set_type("InternalIP");
    a->set_address(fmt::format("192.0.2.{}", n));
    put(o);
  }
  static std::string name_of(int n) { return fmt::format("n{}", n); }
  Node& node(int n) { return *nodes_.at(static_cast<std::size_t>(n - 1)); }

  void start(int n) {
    auto& one = node(n);
    one.registry = std::make_unique<metrics::Registry>();
    one.strand = std::make_unique<Strand>(one.ns.fd());
    auto o = options_;
    o.node_name = name_of(n);
    o.pools.dir = folder_ + "/pools";
    const auto url = api_strand_->run([&] { return api_->url(); });
    one.strand->run([&] {
      kube::RestConfig config;
      config.server = url;
      auto client = kube::make_client(one.strand->io().get_executor(), config, "speaker-test/1", {.timeout = milliseconds(1000)});
      ASSERT_TRUE(client);
      auto started = start_speaker(*client, o, *one.registry);
      ASSERT_TRUE(started) << started.error().message;
      one.speaker = *started;
    });
  }
  void start_all() {
    for (int n = 1; n <= 3; ++n) start(n);
  }

  // ---- the API
  template <typename T>
  void put(const T& object) {
    api_strand_->run([&] { api_->put(object); });
  }
  void service(const std::string& name, const std::string& ip, const std::vector<int>& endpoints, const std::function<void(corev1::Service&)>& more = {}) {
    corev1::Service s;
    s.mutable_metadata()->set_name(name);
    s.mutable_metadata()->set_namespace_("ns");
    s.mutable_spec()->set_type("LoadBalancer");
    s.mutable_status()->mutable_loadbalancer()->add_ingress()->set_ip(ip);
    if (more) more(s);
    discoveryv1::EndpointSlice e;
    e.mutable_metadata()->set_name(name + "-1");
    e.mutable_metadata()->set_namespace_("ns");
    (*e.mutable_metadata()->mutable_labels())["kubernetes.io/service-name"] = name;
    for (const int n : endpoints) {
      auto* one = e.add_endpoints();
      one->add_addresses("10.244.0.1");
      one->set_nodename(name_of(n));
      one->mutable_conditions()->set_ready(true);
    }
    put(e);
    put(s);
  }
  void cordon(int n, bool on) {
    api_strand_->run([&] {
      corev1::Node o = static_cast<const corev1::Node&>(*api_->objects(kube::kind_of<corev1::Node>()).at(name_of(n)));
      o.mutable_spec()->set_unschedulable(on);
      api_->put(o);
    });
  }
  // "reason message" of all Events.
  std::string events() {
    return api_strand_->run([&] {
      std::string out;
      for (const auto& [key, o] : api_->objects(kube::kind_of<corev1::Event>())) {
        const auto& e = static_cast<const corev1::Event&>(*o);
        out += fmt::format("{} {} {}: {}\n", e.involvedobject().kind(), e.involvedobject().name(), e.reason(), e.message());
      }
      return out;
    });
  }

  // ---- the client
  // Hardware addresses that answer one question for the address: two only where two believe that it is theirs at that moment.
  Macs who_has(const std::string& ip) {
    const bool v4 = IpAddress::parse(ip)->is_v4();
    ProcessOptions o;
    o.argv = v4 ? std::vector<std::string>{"/usr/sbin/arping", "-r", "-c", "1", "-w", "0.3", "-W", "0.1", "-I", "eth0", ip} : std::vector<std::string>{"/usr/bin/ndisc6", "-q", "-m", "-r", "1", "-w", "300", ip, "eth0"};
    o.netns = fmt::format("/proc/{}/fd/{}", ::getpid(), client_->fd());
    const auto out = run_command(o, {}, seconds(20));
    EXPECT_TRUE(out);
    Macs macs;
    std::istringstream lines(out ? out->stdout_text : "");
    for (std::string line; std::getline(lines, line);) {
      std::transform(line.begin(), line.end(), line.begin(), [](unsigned char c) { return std::tolower(c); });
      while (!line.empty() && line.back() == ' ') line.pop_back();
      if (line.size() == 17) macs.insert(line);
    }
    return macs;
  }
  static bool until(const std::function<bool()>& condition, seconds limit = seconds(60)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(20));
    }
    return true;
  }
  bool answers(const std::string& ip, int n) {
    return until([&] { return who_has(ip) == Macs{node(n).mac}; });
  }
  int announcer(const std::string& ip) {
    const auto macs = who_has(ip);
    for (const auto& n : nodes_)
      if (macs == Macs{n->mac}) return n->number;
    return 0;
  }
  // Speakers that start settle at different moments, and an address may be handed over then: the node that has it for a second.
  int steady_announcer(const std::string& ip) {
    int node = 0;
    auto since = std::chrono::steady_clock::now();
    EXPECT_TRUE(until([&] {
      const int now = announcer(ip);
      if (now != node) since = std::chrono::steady_clock::now();
      node = now;
      return node != 0 && std::chrono::steady_clock::now() - since > seconds(1);
    }));
    return std::max(node, 1);
  }
  // For a while: never two nodes answer. The nodes that did.
  Macs never_two(const std::string& ip, seconds time) {
    Macs all;
    const auto end = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < end) {
      const auto now = who_has(ip);
      EXPECT_LE(now.size(), 1u) << "two owners";
      all.insert(now.begin(), now.end());
    }
    return all;
  }
  // Nodes a and b do not hear each other any more; everybody else hears both.
  void part(int a, int b) {
    for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
      auto rt = *RtSocket::open_in(node(from).ns.fd());
      netlink::Route r;
      r.destination = *Prefix::parse(fmt::format("192.0.2.{}/32", to));
      r.type = RTN_BLACKHOLE;
      ASSERT_TRUE(rt.add_route(r));
    }
  }

  std::string folder_;
  SpeakerOptions options_;
  std::optional<NetNs> hub_, client_;
  std::unique_ptr<FakeApiserver> api_;
  std::unique_ptr<Strand> api_strand_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

const std::string kIp = "192.0.2.200";

TEST_F(SpeakerLan, OneAnswersSpreadPreferredLocalAndDrained) {
  start_all();
  std::set<int> used;
  for (int i = 0; i < 12; ++i) service(fmt::format("s{}", i), fmt::format("192.0.2.{}", 200 + i), {1, 2, 3});
  for (int i = 0; i < 12; ++i) {
    const auto ip = fmt::format("192.0.2.{}", 200 + i);
    EXPECT_TRUE(until([&] { return announcer(ip) != 0; })) << ip;
    used.insert(announcer(ip));
  }
  EXPECT_GE(used.size(), 2u) << "spread over the nodes";
  service("six", "2001:db8::200", {1, 2, 3});
  EXPECT_TRUE(until([&] { return announcer("2001:db8::200") != 0; })) << "neighbour discovery as well";
  for (const int n : {1, 2, 3}) {
    service("preferred", "192.0.2.220", {1, 2, 3}, [&](corev1::Service& s) { (*s.mutable_metadata()->mutable_annotations())[kPreferredNodes] = name_of(n); });
    EXPECT_TRUE(answers("192.0.2.220", n));
    service("local", "192.0.2.221", {n}, [](corev1::Service& s) { s.mutable_spec()->set_externaltrafficpolicy("Local"); });
    EXPECT_TRUE(answers("192.0.2.221", n)) << "the node that has the endpoint";
  }
  // A node that is cordoned gives its addresses away while its pods still run; the last word of a preferred one does not help it.
  cordon(3, true);
  EXPECT_TRUE(until([&] { return announcer("192.0.2.220") != 3 && announcer("192.0.2.220") != 0; }));
  EXPECT_TRUE(answers("192.0.2.221", 3)) << "nobody else can serve it";
  cordon(3, false);
  EXPECT_TRUE(answers("192.0.2.220", 3));
  EXPECT_THAT(events(), HasSubstr("Service preferred nodeAssigned: announcing 192.0.2.220 from node \"n3\" with protocol \"layer2\""));
}

TEST_F(SpeakerLan, KilledStoppedAndComeBack) {
  start_all();
  service("web", kIp, {1, 2, 3});
  const int first = steady_announcer(kIp);
  node(first).vanish();
  EXPECT_TRUE(until([&] { return announcer(kIp) != 0 && announcer(kIp) != first; }));
  start(first);
  EXPECT_TRUE(answers(kIp, first)) << "the election is the same everywhere";
}

TEST_F(SpeakerLan, OneThatHangsLosesItsAddressAndIsSilentWhenItWakes) {
  for (const bool leases : {false, true}) {
    SCOPED_TRACE(leases);
    options_.address_leases = leases;
    start_all();
    service("web", kIp, {1, 2, 3});
    const int first = steady_announcer(kIp);
    std::promise<void> wake;
    node(first).strand->hang(wake.get_future().share());
    EXPECT_TRUE(until([&] { return announcer(kIp) != 0 && announcer(kIp) != first; }));
    // Questions lie in its sockets by now. It must not answer them when it goes on; later it takes the address back in order.
    wake.set_value();
    if (leases) never_two(kIp, seconds(4));
    EXPECT_TRUE(answers(kIp, first));
    for (auto& n : nodes_) n->vanish();
  }
}

TEST_F(SpeakerLan, LeaseModeNeverTwoOwnersInAPartition) {
  options_.address_leases = true;
  start_all();
  service("web", kIp, {1, 2, 3});
  const int first = steady_announcer(kIp);
  // The nodes do not hear each other: each takes itself for the first. The Lease says who it is.
  part(1, 2);
  part(1, 3);
  part(2, 3);
  EXPECT_EQ(never_two(kIp, seconds(6)), Macs{node(first).mac});
  // The holder dies in the partition: exactly one of the others follows.
  node(first).vanish();
  EXPECT_TRUE(until([&] { return announcer(kIp) != 0; }));
  EXPECT_EQ(never_two(kIp, seconds(4)).size(), 1u);
}

TEST_F(SpeakerLan, LeaseModeWithoutTheApiAddressesAreGivenUp) {
  options_.address_leases = true;
  start_all();
  service("web", kIp, {1, 2, 3});
  const int first = steady_announcer(kIp);
  auto rt = *RtSocket::open_in(node(first).ns.fd());
  ASSERT_TRUE(rt.remove_link("mgmt0"));
  part(1, 2);
  part(1, 3);
  part(2, 3);
  EXPECT_TRUE(until([&] {
    const auto now = who_has(kIp);
    EXPECT_LE(now.size(), 1u) << "two owners";
    return now.size() == 1 && !now.contains(node(first).mac);
  }));
}

TEST_F(SpeakerLan, BgpIsToldInEventsMetricsAndTheLease) {
  NetNs router = *NetNs::create();
  wire("router", router.fd(), "lan", "eth0", "192.0.2.254/24");
  const auto bird = [&] {
    EXPECT_TRUE(write_file_atomic(folder_ + "/bird.conf",
                                  "router id 192.0.2.254;\nlog stderr all;\nprotocol device {}\nprotocol direct { ipv4; }\nprotocol bgp n1 { local 192.0.2.254 as 64500; neighbor 192.0.2.1 as 64512; "
                                  "error wait time 1, 2; passive on; ipv4 { import all; export none; }; }\n"));
    ProcessOptions o;
    o.argv = {"/usr/sbin/bird", "-f", "-c", folder_ + "/bird.conf", "-s", folder_ + "/ctl", "-P", folder_ + "/pid"};
    o.stdout_file = o.stderr_file = folder_ + "/bird.log";
    o.netns = fmt::format("/proc/{}/fd/{}", ::getpid(), router.fd());
    auto p = Process::start(o);
    EXPECT_TRUE(p);
    return std::move(*p);
  };
  pools("---\n{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: p}, spec: {addresses: [198.51.100.0/24]}}\n"
        "---\n{apiVersion: metallb.io/v1beta1, kind: BGPAdvertisement, metadata: {name: a}}\n"
        "---\n{apiVersion: metallb.io/v1beta2, kind: BGPPeer, metadata: {name: tor, namespace: m}, spec: {myASN: 64512, peerASN: 64500, peerAddress: 192.0.2.254, connectTime: 1s, "
        "passwordSecret: {name: none}}}\n");
  auto process = bird();
  start(1);
  service("web", "198.51.100.7", {1});
  EXPECT_TRUE(until([&] { return events().find("Node n1 BGPPeerNotUsable: BGPPeer tor: spec.passwordSecret: Secret m/none") != std::string::npos; })) << events();
  pools("---\n{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: p}, spec: {addresses: [198.51.100.0/24]}}\n"
        "---\n{apiVersion: metallb.io/v1beta1, kind: BGPAdvertisement, metadata: {name: a}}\n"
        "---\n{apiVersion: metallb.io/v1beta2, kind: BGPPeer, metadata: {name: tor}, spec: {myASN: 64512, peerASN: 64500, peerAddress: 192.0.2.254, connectTime: 1s}}\n");
  EXPECT_TRUE(until([&] { return events().find("Node n1 BGPSessionUp: BGPPeer tor: session with 192.0.2.254 (AS 64500) is established") != std::string::npos; })) << events();
  EXPECT_TRUE(until([&] { return events().find("Service web nodeAssigned: announcing 198.51.100.7 from node \"n1\" with protocol \"bgp\"") != std::string::npos; })) << events();
  const auto metric = [&](const std::string& line) { return until([&] { return node(1).registry->text().find(line) != std::string::npos; }); };
  EXPECT_TRUE(metric("metallb_bgp_session_up{peer=\"192.0.2.254:179\"} 1"));
  EXPECT_TRUE(metric("metallb_bgp_announced_prefixes_total{peer=\"192.0.2.254:179\"} 1"));
  const auto reported = [&] {
    return api_strand_->run([&] {
      const auto all = api_->objects(kube::kind_of<coordinationv1::Lease>());
      const auto it = all.find("kube-system/fairlead-lb-speaker-n1");
      if (it == all.end()) return std::vector<bgp::SessionReport>();
      const auto& lease = static_cast<const coordinationv1::Lease&>(*it->second);
      return bgp::read_reports(lease.spec().holderidentity(), lease.metadata().annotations().at(bgp::kSessionsAnnotation));
    });
  };
  EXPECT_TRUE(until([&] {
    const auto r = reported();
    return r.size() == 1 && r[0].node == "n1" && r[0].peer == "tor" && r[0].state == "Established" && r[0].announced == 1;
  }));
  ASSERT_TRUE(process.kill(SIGKILL));
  ASSERT_TRUE(process.wait());
  EXPECT_TRUE(until([&] { return events().find("Node n1 BGPSessionDown: BGPPeer tor: session with 192.0.2.254 is down") != std::string::npos; })) << events();
  EXPECT_TRUE(metric("metallb_bgp_session_up{peer=\"192.0.2.254:179\"} 0"));
  EXPECT_TRUE(until([&] {
    const auto r = reported();
    return r.size() == 1 && r[0].state != "Established" && !r[0].last_error.empty();
  }));
}

}  // namespace
}  // namespace fairlead::lb
