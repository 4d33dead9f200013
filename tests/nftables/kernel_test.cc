// The dataplane on the real kernel: spread, hashing, draining, foreign flushes, and processes killed at every step of a sync.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <thread>

#include "nftables/dataplane.h"
#include "nftables/kernel_netlink.h"
#include "nftables/slots.h"
#include "tests/proxy/world_net.h"

namespace fairlead::nftables {
namespace {

using namespace proxy;
using namespace proxy::testing;
using testnet::Namespace;

std::unique_ptr<Dataplane> open_in(const Namespace& ns) {
  std::unique_ptr<Dataplane> d;
  ns.in([&] {
    auto r = open_dataplane();
    if (!r) ADD_FAILURE() << r.error().message;
    else d = std::move(*r);
  });
  return d;
}

std::string drift(Dataplane& d, const Plan& p) {
  const auto found = d.verify(p);
  if (!found) return found.error().message;
  std::string s;
  for (std::size_t i = 0; i < found->size() && i < 10; ++i) s += (*found)[i] + "\n";
  return s;
}

// A plan of one service with the given pods.
Plan one_service(const std::vector<Pod>& pods, const std::function<void(Service&)>& change = {}) {
  Snapshot w{global_plan(), node_facts(), {}};
  auto s = make_service("web", "10.96.0.1");
  if (change) change(s);
  w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints(pods)};
  return plan(w);
}
const Pod kHere2{"10.244.0.2", "n1"}, kHere3{"10.244.0.3", "n1"}, kThere2{"10.244.1.2", "n2"}, kThere3{"10.244.1.3", "n3"};

class KernelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testnet::available()) GTEST_SKIP() << "needs root";
    net = std::make_unique<WorldNet>();
    dataplane = open_in(net->node);
    ASSERT_TRUE(dataplane);
  }
  void apply(const Plan& p) {
    Result<ApplyReport> done = ApplyReport{};
    net->node.in([&] { done = dataplane->apply(p.full_delta()); });  // it begins to listen with the first one
    ASSERT_TRUE(done) << done.error().message;
  }
  std::unique_ptr<WorldNet> net;
  std::unique_ptr<Dataplane> dataplane;
};

// Chi-square of what was seen against shares; the limits are those that chance exceeds once in a million.
double chi_square(const std::map<SocketAddress, int>& seen, const std::map<SocketAddress, double>& shares, int total) {
  double chi = 0;
  for (const auto& [a, share] : shares) {
    const double want = share * total, got = seen.contains(a) ? seen.at(a) : 0;
    chi += (got - want) * (got - want) / want;
  }
  return chi;
}

TEST_F(KernelTest, ConnectionsSpreadEvenlyAndByWeight) {
  constexpr int kConnections = 600;
  const auto at = [](const Pod& p) { return SocketAddress{ip(p.address), 8080}; };
  struct Row {
    std::string name;
    Plan plan;
    std::map<SocketAddress, double> shares;
    double limit;
  };
  const std::vector<Row> rows{
      {"even", one_service({kHere2, kHere3, kThere2, kThere3}), {{at(kHere2), 0.25}, {at(kHere3), 0.25}, {at(kThere2), 0.25}, {at(kThere3), 0.25}}, 30.7},
      {"3:1", one_service({kHere3, kThere3}, [](Service& s) { s.weights = {{"10.244.0.3", 3}}; }), {{at(kHere3), 0.75}, {at(kThere3), 0.25}}, 23.9},
      {"a weight of 0 takes it out", one_service({kHere3, kThere3}, [](Service& s) { s.weights = {{"10.244.0.3", 0}}; }), {{at(kThere3), 1}}, 1e-9},
  };
  for (const auto& row : rows) {
    apply(row.plan);
    std::map<SocketAddress, int> seen;
    for (int i = 0; i < kConnections; ++i) {
      const auto a = testnet::ask(net->here2, Protocol::tcp, {ip("10.96.0.1"), 80}, nullptr, std::chrono::seconds(20));
      ASSERT_TRUE(a) << row.name << ": " << a.error().message;
      ++seen[a->server];
    }
    EXPECT_LE(chi_square(seen, row.shares, kConnections), row.limit) << row.name;
    for (const auto& [a, n] : seen) EXPECT_TRUE(row.shares.contains(a)) << row.name << ": " << n << " to " << a.to_string();
  }
}

TEST_F(KernelTest, HashedClientsStayWhenAnotherEndpointLeaves) {
  // Two hundred client addresses behind the same link.
  ASSERT_TRUE(net->clients.sh("ip route add local 10.77.0.0/24 dev lo"));
  ASSERT_TRUE(net->node.sh("ip route add 10.77.0.0/24 via 192.168.7.100"));
  const auto hashed = [](std::vector<Pod> pods) { return one_service(pods, [](Service& s) { s.balance = Balance::maglev; }); };
  const auto ask_all = [&] {
    std::map<IpAddress, SocketAddress> out;
    for (int i = 1; i <= 200; ++i) {
      const auto client = IpAddress::v4(10, 77, 0, static_cast<std::uint8_t>(i));
      for (int again = 0; again < 2; ++again) {
        const auto a = testnet::ask(net->clients, Protocol::tcp, {ip("10.96.0.1"), 80}, &client, std::chrono::seconds(20));
        EXPECT_TRUE(a) << client.to_string() << (a ? "" : a.error().message);
        if (!a) return out;
        EXPECT_TRUE(again == 0 || out[client] == a->server) << "a client always reaches the same one";
        out[client] = a->server;
        // What the kernel does is what the table says that it does.
        const auto traced = dataplane->trace({client, ip("10.96.0.1"), Protocol::tcp, 80, "lan"});
        EXPECT_TRUE(traced && traced->endpoints == std::vector<SocketAddress>{a->server}) << client.to_string();
      }
    }
    return out;
  };
  apply(hashed({kHere2, kHere3, kThere2, kThere3}));
  const auto before = ask_all();
  apply(hashed({kHere2, kHere3, kThere2}));
  const auto after = ask_all();
  ASSERT_EQ(after.size(), 200u);
  int had_to = 0, moved = 0;
  for (const auto& [client, server] : before) {
    const bool lost = server.ip == ip("10.244.1.3");
    had_to += lost;
    moved += !lost && !(after.at(client) == server);
  }
  EXPECT_GT(had_to, 20) << "a quarter of the clients, more or less";
  EXPECT_LE(moved, 20) << "of those whose endpoint is still there";
}

// A connection through the service that stays open, and the pod's end of it.
struct Connection {
  Fd client, server;
  // Sends a few bytes there and back.
  bool alive() const {
    for (const auto& [from, to] : {std::pair(client.get(), server.get()), std::pair(server.get(), client.get())}) {
      char c = 0;
      pollfd p{to, POLLIN, 0};
      if (::send(from, "x", 1, MSG_NOSIGNAL) != 1 || ::poll(&p, 1, 20'000) != 1 || ::recv(to, &c, 1, 0) != 1 || c != 'x') return false;
    }
    return true;
  }
};

Fd listener(const Namespace& ns, const SocketAddress& at) {
  Fd fd;
  ns.in([&] { fd = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); });
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(at.port);
  std::memcpy(&a.sin_addr, at.ip.bytes().data(), 4);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  EXPECT_EQ(::listen(fd.get(), 64), 0);
  return fd;
}

TEST_F(KernelTest, ARemovedEndpointKeepsItsConnectionsAndGetsNoNewOnes) {
  const auto keep = listener(net->here3, {ip("10.244.0.3"), 9000}), leave = listener(net->there, {ip("10.244.1.2"), 9000});
  const auto with = [](const std::vector<Pod>& pods) {
    Snapshot w{global_plan(), node_facts(), {}};
    auto s = make_service("web", "10.96.0.1");
    w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints(pods, 9000)};
    return plan(w);
  };
  const auto open = [&]() -> std::pair<Connection, bool> {  // and whether it is with the one that will leave
    Fd c;
    net->here2.in([&] { c = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); });
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(80);
    std::memcpy(&a.sin_addr, ip("10.96.0.1").bytes().data(), 4);
    EXPECT_EQ(::connect(c.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    pollfd p[2] = {{keep.get(), POLLIN, 0}, {leave.get(), POLLIN, 0}};
    EXPECT_GT(::poll(p, 2, 20'000), 0);
    const bool left = p[1].revents != 0;
    return {Connection{std::move(c), Fd(::accept4(left ? leave.get() : keep.get(), nullptr, nullptr, SOCK_CLOEXEC))}, left};
  };
  apply(with({kHere3, kThere2}));
  std::vector<Connection> draining;
  for (int i = 0; i < 200 && draining.size() < 5; ++i)
    if (auto [c, left] = open(); left) draining.push_back(std::move(c));
  ASSERT_EQ(draining.size(), 5u);
  apply(with({kHere3}));
  for (int i = 0; i < 100; ++i) {
    const auto [c, left] = open();
    ASSERT_FALSE(left) << "a new connection to an endpoint that was removed";
    ASSERT_TRUE(c.alive());
    for (const auto& d : draining) ASSERT_TRUE(d.alive()) << "an established connection was cut";
  }
  // Even when the service has gone, and when the table has.
  apply(Plan{std::make_shared<GlobalPlan>(global_plan()), {}});
  for (const auto& d : draining) EXPECT_TRUE(d.alive());
}

bool wait_for(const std::function<bool()>& f) {
  for (int i = 0; i < 20'000 && !f(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return f();
}

TEST_F(KernelTest, ForeignChangesAreNoticedAndRepaired) {
  const Plan p = plan(world());
  std::atomic<int> heard{0};
  dataplane->on_foreign_change([&] { ++heard; });
  apply(p);
  EXPECT_EQ(heard, 0) << "our own changes are not foreign";
  for (const std::string command : {
           "nft flush ruleset",
           "nft delete table ip fairlead-proxy",
           "nft flush map ip6 fairlead-proxy services",
           "nft delete element ip fairlead-proxy services '{ 10.96.0.1 . tcp . 80 }'",
           "nft add element ip fairlead-proxy hairpin '{ 10.96.77.77 . 10.96.77.77 }'",
           "nft flush chain ip fairlead-proxy prerouting",
           "nft add rule ip fairlead-proxy services drop",
           "nft insert rule ip fairlead-proxy postrouting counter drop",
           "nft add chain ip fairlead-proxy stranger '{ type filter hook forward priority 0; policy drop; }'",
       }) {
    const int before = heard;
    ASSERT_TRUE(net->node.sh(command));
    ASSERT_TRUE(wait_for([&] { return heard != before; })) << command << " was not noticed";
    EXPECT_NE(drift(*dataplane, p), "") << command << " changed nothing?";
    apply(p);
    EXPECT_EQ(drift(*dataplane, p), "") << command;
  }
  // What others do to their own tables is none of our business.
  const int before = heard;
  ASSERT_TRUE(net->node.sh("nft add table ip mine; nft add chain ip mine c; nft delete table ip mine; nft flush ruleset"));
  ASSERT_TRUE(wait_for([&] { return heard != before; }));
  apply(p);
  EXPECT_EQ(drift(*dataplane, p), "");
}

// A table as layout 2 had it: verdicts in the service map. `services` services at 10.96.0.1 and up, all served by one pod.
std::string former_table(int services) {
  std::string elements;
  for (int n = 0; n < services; ++n)
    elements += fmt::format("{} . tcp . 80 : goto cluster-1,\n", IpAddress::v4(10, 96, 0, 1).plus(static_cast<std::uint64_t>(n)).to_string());
  return "table ip fairlead-proxy {\n comment \"Fairlead service proxy, layout 2\"\n"
         " map services { type ipv4_addr . inet_proto . inet_service : verdict; counter; elements = {\n" + elements + "} }\n"
         " chain cluster-1 { meta l4proto tcp dnat to 10.244.0.3:8080; }\n"
         " chain services { ip daddr . meta l4proto . th dport vmap @services; }\n"
         " chain prerouting { type nat hook prerouting priority -100; jump services; }\n"
         " chain output { type nat hook output priority -100; jump services; }\n"
         " chain postrouting { type nat hook postrouting priority 100; }\n}\n";
}

TEST_F(KernelTest, TheTableOfAFormerLayoutIsReplacedWithoutAMomentWithoutServices) {
  // So many that they would be several transactions otherwise.
  constexpr int kServices = 12'000;
  Snapshot w{global_plan(), node_facts(), {}};
  w.global.service_cidrs.clear();  // what is not translated shall go on and be seen
  w.global.ipv6 = false;
  for (int n = 0; n < kServices; ++n) {
    auto s = make_service(fmt::format("s{}", n), IpAddress::v4(10, 96, 0, 1).plus(static_cast<std::uint64_t>(n)).to_string());
    w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints({kHere3, kThere2})};
  }
  const Plan p = plan(w);
  const auto path = fmt::format("{}/fairlead-layout2-{}.nft", ::testing::TempDir(), ::getpid());
  std::ofstream(path) << former_table(kServices);
  const auto loaded = net->node.sh("nft -f " + path);
  ::unlink(path.c_str());
  ASSERT_TRUE(loaded);
  // A packet that is still addressed to a service when it is routed has met no rule of ours.
  ASSERT_TRUE(net->node.sh("nft 'add table ip watch; add chain ip watch f { type filter hook forward priority 0; };"
                           "add rule ip watch f ip daddr 10.96.0.0/12 counter'"));
  std::atomic<bool> stop{false};
  std::atomic<int> asked{0};
  std::string failure;
  std::thread client([&] {
    for (std::uint64_t n = 0; !stop && failure.empty(); n += 7919, ++asked) {
      const auto to = IpAddress::v4(10, 96, 0, 1).plus(n % kServices);
      const auto a = testnet::ask(net->here2, Protocol::tcp, {to, 80}, nullptr, std::chrono::seconds(20));
      if (!a) failure = to.to_string() + ": " + a.error().message;
    }
  });
  const auto some_more = [&] {
    const int seen = asked;
    return wait_for([&] { return asked >= seen + 20 || !failure.empty(); });
  };
  EXPECT_TRUE(some_more());
  apply(p);
  EXPECT_TRUE(some_more());
  stop = true;
  client.join();
  EXPECT_EQ(failure, "");
  const auto counted = net->node.sh("nft list table ip watch");
  EXPECT_TRUE(counted && counted->find("counter packets 0 ") != std::string::npos) << *counted;
  EXPECT_EQ(drift(*dataplane, p), "");
}

TEST_F(KernelTest, NoPacketKeepsThePriorityThatCarriedItThroughTheRules) {
  apply(plan(world()));
  ASSERT_TRUE(net->node.sh("nft 'add table ip watch; add chain ip watch p { type filter hook postrouting priority 300; };"
                           "add rule ip watch p meta priority != none counter; add rule ip watch p counter'"));
  for (const auto& row : packet_table())
    if (row.real && row.packet.destination.is_v4()) {
      EXPECT_EQ(net->play(row), "") << row.name;
    }
  const auto counted = net->node.sh("nft list table ip watch");
  ASSERT_TRUE(counted);
  EXPECT_NE(counted->find("meta priority != none counter packets 0 "), std::string::npos) << *counted;
  EXPECT_EQ(counted->find("\t\tcounter packets 0 "), std::string::npos) << "no packet came here: " << *counted;
}

// The real kernel, with a process behind it that ends at a given call: before it, or after it took effect.
class Dying final : public Kernel {
 public:
  Dying(Kernel& real, int at, bool after) : real_(real), at_(at), after_(after) {}
  Result<CommitReport> commit(const Batch& b) override {
    const bool last = --at_ == 0;
    if (last && !after_) ::_exit(42);
    auto r = real_.commit(b);
    if (last) ::_exit(42);
    return r;
  }
  Result<std::optional<Table>> list(Family f, std::string_view table) override {
    if (--at_ == 0) ::_exit(42);
    return real_.list(f, table);
  }
  Result<std::vector<CountedElement>> elements(Family f, std::string_view table, const Set& set) override {
    if (--at_ == 0) ::_exit(42);
    return real_.elements(f, table, set);
  }
  Result<std::optional<Element>> find(Family f, std::string_view table, const Set& set, const Element& key) override {
    if (--at_ == 0) ::_exit(42);
    return real_.find(f, table, set, key);
  }
  Result<std::uint32_t> generation() override { return real_.generation(); }
  Result<> watch(std::string, std::function<void()>) override { return {}; }

 private:
  Kernel& real_;
  int at_;
  bool after_;
};

TEST(Kill, AtEveryStepOfASyncTheNextProcessFinishesIt) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  // Large enough that a sync takes several transactions per family.
  Snapshot w{global_plan(), node_facts(), {}};
  for (int n = 0; n < 3'000; ++n) {
    auto s = make_service(fmt::format("s{}", n), IpAddress::v4(10, 96, 0, 0).plus(static_cast<std::uint64_t>(n) + 1).to_string());
    s.cluster_ips.push_back(ip(fmt::format("fd96::1:{:x}", n + 1)));
    if (n % 50 == 0) s.affinity_seconds = 60;
    if (n % 20 == 0) s.ports[0].node_port = static_cast<Port>(30000 + n / 20);
    std::vector<Pod> pods;
    for (int i = 0; i < 3 + n % 9; ++i) pods.push_back({IpAddress::v4(10, 128, 0, 0).plus(static_cast<std::uint64_t>(n * 16 + i + 1)).to_string(), "n2"});
    for (int i = 0; i < 3; ++i) pods.push_back({fmt::format("fd44:2::{:x}:{:x}", n + 1, i + 1), "n2"});
    w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints(pods)};
  }
  const Plan first = plan(w);
  // The second process has other services to bring in, so it finds old and new things mixed.
  for (int n = 0; n < 3'000; n += 3) w.services.erase(fmt::format("default/s{}", n));
  for (int n = 1; n < 3'000; n += 3)
    w.services[fmt::format("default/s{}", n)].endpoints = make_endpoints({{"10.200.0.1", "n2"}, {"10.200.0.2", "n1"}});
  const Plan second = plan(w);
  // Runs a process in the namespace that syncs and is killed at a call; true if it came to the end.
  const auto run = [](const Namespace& ns, const Plan& p, int at, bool after) {
    int status = -1;
    ns.in([&] {
      const pid_t child = ::fork();
      if (child == 0) {
        auto real = open_kernel();
        if (!real) ::_exit(1);
        Dying kernel(**real, at, after);
        const auto d = make_dataplane(kernel);
        ::_exit(d->apply(p.full_delta()) ? 0 : 1);
      }
      ::waitpid(child, &status, 0);
    });
    EXPECT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 42)) << status;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  int steps = 0;
  bool ended = false;
  for (int at = 1; !ended; ++at, ++steps)
    for (const bool after : {false, true}) {
      SCOPED_TRACE(fmt::format("killed {} call {}", after ? "after" : "before", at));
      const Namespace ns;
      ended = run(ns, first, at, after);
      ended = run(ns, second, at, after) && ended;
      const auto d = open_in(ns);
      ASSERT_TRUE(d);
      const auto done = d->apply(second.full_delta());
      ASSERT_TRUE(done) << done.error().message;
      ASSERT_EQ(drift(*d, second), "");
      ASSERT_TRUE(d->remove_all_owned());
      const auto left = ns.sh("nft list tables");
      ASSERT_TRUE(left && left->empty()) << *left;
    }
  EXPECT_GE(steps, 5) << "list and several transactions";
}

}  // namespace
}  // namespace fairlead::nftables
