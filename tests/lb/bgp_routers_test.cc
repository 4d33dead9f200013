// Sessions with real routers: BIRD and FRR, each in a network namespace of its own with its own configuration and folders, and
// up to three nodes of ours beside them on one LAN. What the router says of its routes, and the routes that its kernel then
// has, are the judges. Loosened bounds are for a busy machine; how fast things are is the benchmark's business.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <mutex>
#include <thread>

#include "base/files.h"
#include "base/process.h"
#include "base/scope_guard.h"
#include "lb/bgp/sessions.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::lb::bgp {
namespace {

using netlink::NetNs;
using netlink::RtSocket;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

IpAddress ip(std::string_view t) { return IpAddress::parse(t).value(); }
Prefix block(std::string_view t) { return Prefix::parse(t).value(); }

// A speaker's sessions on a thread of its own in a node's namespace.
class Node {
 public:
  Node(int number, int netns, Port listen_port) : number_(number), netns_(netns), listen_port_(listen_port) {}
  ~Node() { stop(Farewell::shutdown); }

  void start() {
    io_ = std::make_unique<net::io_context>();
    sessions_ = std::make_unique<Sessions>(io_->get_executor(), listen_port_, [this](const std::string&, const action::Tell& t) {
      const std::lock_guard lock(mutex_);
      told_.push_back(t.text);
    });
    thread_ = std::thread([this] {
      const auto run = netlink::run_in_netns(netns_, [this] {
        EXPECT_TRUE(sessions_->start());
        const auto guard = net::make_work_guard(*io_);
        io_->run();
      });
      EXPECT_TRUE(run);
    });
  }
  // restart: as when the program ends and another one is to follow.
  void stop(Farewell farewell) {
    if (!io_) return;
    net::co_spawn(*io_, end(sessions_.get(), farewell), [this](std::exception_ptr) { io_->stop(); });
    thread_.join();
    sessions_.reset();
    io_.reset();
  }
  // As kill -9 does: the kernel closes the sockets, nobody says anything.
  void vanish() {
    net::post(*io_, [this] { io_->stop(); });
    thread_.join();
    sessions_.reset();
    io_.reset();
  }
  void set(const BgpPlan& plan) {
    call([&] {
      LinkFacts l;
      l.index = 2;
      l.name = "eth0";
      l.addresses = {*InterfaceAddress::parse(fmt::format("192.0.2.{}/24", number_)), *InterfaceAddress::parse(fmt::format("2001:db8::{}/64", number_))};
      sessions_->set(plan, {l});
    });
  }
  std::vector<SessionStatus> status() {
    std::vector<SessionStatus> out;
    call([&] { out = sessions_->status(); });
    return out;
  }
  std::vector<std::string> told() {
    const std::lock_guard lock(mutex_);
    return told_;
  }
  int number() const { return number_; }

 private:
  static Task<> end(Sessions* s, Farewell f) { co_await s->stop(f); }
  template <typename F>
  void call(F f) {
    std::promise<void> done;
    net::post(*io_, [&] {
      f();
      done.set_value();
    });
    done.get_future().wait();
  }

  int number_, netns_;
  Port listen_port_;
  std::unique_ptr<net::io_context> io_;
  std::unique_ptr<Sessions> sessions_;
  std::thread thread_;
  std::mutex mutex_;
  std::vector<std::string> told_;
};

struct RouterOptions {
  int nodes = 2;
  bool v6 = false;  // the sessions are over IPv6
  std::string password;
  bool graceful_restart = false;
  int hold = 90;
  int router_asn = 64500;
  bool passive = false;  // the router waits; false: it opens connections as well
};

// One router in the namespace given. Files in a folder that is removed afterwards; ended by process id.
class Router {
 public:
  Router(std::string folder, std::string netns) : folder_(std::move(folder)), netns_(std::move(netns)) {}
  virtual ~Router() {
    stop();
    std::filesystem::remove_all(folder_);
  }
  virtual void configure(const RouterOptions& o) = 0;
  virtual void start() = 0;
  virtual std::string routes(Family f) = 0;      // with attributes, as the router prints them
  virtual std::string sessions() = 0;
  void kill(int signal) {
    for (auto& p : processes_) ASSERT_TRUE(p.kill(signal));
  }
  void stop() {
    for (auto& p : processes_) {
      EXPECT_TRUE(p.kill(SIGKILL));
      EXPECT_TRUE(p.wait());
    }
    processes_.clear();
  }

 protected:
  void run(std::vector<std::string> argv) {
    auto p = Process::start({.argv = std::move(argv), .environment = {}, .stdin_file = "/dev/null", .stdout_file = folder_ + "/log", .stderr_file = folder_ + "/log", .working_directory = {}, .netns = netns_});
    ASSERT_TRUE(p) << p.error().message;
    processes_.push_back(std::move(*p));
  }
  static std::string ask(std::vector<std::string> argv) {
    const auto out = run_command({.argv = std::move(argv)}, {}, seconds(20));
    return out ? out->stdout_text + out->stderr_text : out.error().message;
  }
  static std::string neighbour(const RouterOptions& o, int n) { return o.v6 ? fmt::format("2001:db8::{}", n) : fmt::format("192.0.2.{}", n); }
  std::string folder_, netns_;
  std::vector<Process> processes_;
};

class Bird final : public Router {
 public:
  using Router::Router;
  void configure(const RouterOptions& o) override {
    std::string text = "router id 192.0.2.254;\nlog stderr all;\nprotocol device { scan time 1; }\nprotocol direct { ipv4; ipv6; }\n";
    for (const char* f : {"ipv4", "ipv6"}) text += fmt::format("protocol kernel k{0} {{ {0} {{ import none; export where source = RTS_BGP; }}; merge paths on limit 8; }}\n", f);
    for (int n = 1; n <= o.nodes; ++n) {
      text += fmt::format("protocol bgp node{} {{\n  local {} as {};\n  neighbor {} as 64512;\n  direct;\n  hold time {};\n  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n{}{}{}", n,
                          o.v6 ? "2001:db8::254" : "192.0.2.254", o.router_asn, neighbour(o, n), o.hold, o.password.empty() ? "" : fmt::format("  password \"{}\";\n", o.password),
                          o.graceful_restart ? "  graceful restart on;\n" : "", o.passive ? "  passive on;\n" : "");
      for (const char* f : {"ipv4", "ipv6"}) text += fmt::format("  {} {{ import all; export none; }};\n", f);
      text += "}\n";
    }
    ASSERT_TRUE(write_file_atomic(folder_ + "/bird.conf", text));
  }
  void start() override { run({"/usr/sbin/bird", "-f", "-c", folder_ + "/bird.conf", "-s", folder_ + "/ctl", "-P", folder_ + "/pid"}); }
  std::string routes(Family f) override { return ask({"/usr/sbin/birdc", "-s", folder_ + "/ctl", "show", "route", "all", "table", f == Family::v4 ? "master4" : "master6"}); }
  std::string sessions() override { return ask({"/usr/sbin/birdc", "-s", folder_ + "/ctl", "show", "protocols", "all"}); }
};

class Frr final : public Router {
 public:
  using Router::Router;
  void configure(const RouterOptions& o) override {
    std::string text = fmt::format(
        "log file {}/frr.log\nrouter bgp {}\n bgp router-id 192.0.2.254\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n bgp bestpath as-path multipath-relax\n{}", folder_, o.router_asn,
        o.graceful_restart ? " bgp graceful-restart\n" : "");
    for (int n = 1; n <= o.nodes; ++n) {
      const auto a = neighbour(o, n);
      text += fmt::format(" neighbor {0} remote-as 64512\n neighbor {0} timers {1} {2}\n neighbor {0} timers connect 1\n neighbor {0} advertisement-interval 0\n", a, o.hold / 3, o.hold);
      if (!o.password.empty()) text += fmt::format(" neighbor {} password {}\n", a, o.password);
      if (o.passive) text += fmt::format(" neighbor {} passive\n", a);
    }
    for (const char* f : {"ipv4", "ipv6"}) {
      text += fmt::format(" address-family {} unicast\n  maximum-paths 8\n  maximum-paths ibgp 8\n", f);
      for (int n = 1; n <= o.nodes; ++n) text += fmt::format("  neighbor {} activate\n", neighbour(o, n));
      text += " exit-address-family\n";
    }
    ASSERT_TRUE(write_file_atomic(folder_ + "/bgpd.conf", text));
    ASSERT_TRUE(write_file_atomic(folder_ + "/zebra.conf", "log file " + folder_ + "/zebra.log\n"));
    ASSERT_TRUE(write_file_atomic(folder_ + "/vtysh.conf", ""));
    // Its daemons become this user, and write beside their configuration.
    const auto* user = ::getpwnam("frr");
    ASSERT_NE(user, nullptr) << "Debian's package frr makes it";
    ASSERT_EQ(::chown(folder_.c_str(), user->pw_uid, user->pw_gid), 0);
    for (const char* f : {"bgpd.conf", "zebra.conf", "vtysh.conf"}) ASSERT_EQ(::chown((folder_ + "/" + f).c_str(), user->pw_uid, user->pw_gid), 0);
  }
  void start() override {
    for (const std::string d : {"zebra", "bgpd"}) {
      run({"/usr/lib/frr/" + d, "-f", folder_ + "/" + d + ".conf", "-i", folder_ + "/" + d + ".pid", "-z", folder_ + "/zserv", "--vty_socket", folder_, "-A", "127.0.0.1", "-P", "0"});
      // bgpd asks zebra for the links when it starts.
      for (int i = 0; i < 200 && d == "zebra" && !std::filesystem::exists(folder_ + "/zserv"); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  std::string routes(Family f) override {
    auto out = show(fmt::format("show bgp {} unicast", f == Family::v4 ? "ipv4" : "ipv6"));
    // The attributes are told for one block at a time.
    for (const auto* p : {"198.51.100.7/32", "2001:db8:1::7/128"})
      if (block(p).family() == f) out += show(fmt::format("show bgp {} unicast {}", f == Family::v4 ? "ipv4" : "ipv6", p));
    return out;
  }
  std::string sessions() override { return show("show bgp neighbors"); }

 private:
  std::string show(const std::string& command) { return ask({"/usr/bin/vtysh", "--vty_socket", folder_, "--config_dir", folder_, "-c", command}); }
};

class BgpRouters : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    lan_.emplace(std::move(*NetNs::create()));
    auto lan = *RtSocket::open_in(lan_->fd());
    ASSERT_TRUE(lan.create_link({.name = "lan", .kind = netlink::BridgeKind{.mcast_snooping = false}, .up = true}));
    folder_ = fmt::format("/tmp/fairlead-bgp-{}-{}", ::getpid(), GetParam());
    ASSERT_TRUE(make_dirs(folder_));
    name_ = fmt::format("fl-bgp-{}", ::getpid());
    ASSERT_TRUE(netlink::create_named_netns(netlink::kNetNsFolder, name_));
    router_ns_.emplace(std::move(*NetNs::open(std::string(netlink::kNetNsFolder) + "/" + name_)));
    wire(254, router_ns_->fd());
    if (std::string_view(GetParam()) == "bird")
      router_ = std::make_unique<Bird>(folder_, std::string(netlink::kNetNsFolder) + "/" + name_);
    else
      router_ = std::make_unique<Frr>(folder_, std::string(netlink::kNetNsFolder) + "/" + name_);
  }
  void TearDown() override {
    nodes_.clear();
    if (HasFailure() && router_) GTEST_LOG_(INFO) << router_->sessions() << "\n" << router_->routes(Family::v4) << "\n" << router_->routes(Family::v6);
    router_.reset();
    router_ns_.reset();
    EXPECT_TRUE(netlink::delete_named_netns(netlink::kNetNsFolder, name_));
  }

  void wire(int number, int netns) {
    auto lan = *RtSocket::open_in(lan_->fd());
    auto rt = *RtSocket::open_in(netns);
    ASSERT_TRUE(lan.create_link({.name = fmt::format("port{}", number), .kind = netlink::VethKind{.peer_name = "eth0", .peer_netns_fd = netns}, .master = lan.link("lan")->index, .up = true}));
    ASSERT_TRUE(rt.set_up("eth0"));
    const auto index = rt.link("eth0")->index;
    ASSERT_TRUE(rt.add_address({.link = index, .ip = *InterfaceAddress::parse(fmt::format("192.0.2.{}/24", number))}));
    ASSERT_TRUE(rt.add_address({.link = index, .ip = *InterfaceAddress::parse(fmt::format("2001:db8::{}/64", number)), .no_dad = true}));
  }
  void start(const RouterOptions& o, Port listen_port = 0) {
    options_ = o;
    router_->configure(o);
    router_->start();
    for (int n = 1; n <= o.nodes; ++n) {
      namespaces_.push_back(*NetNs::create());
      wire(n, namespaces_.back().fd());
      nodes_.push_back(std::make_unique<Node>(n, namespaces_.back().fd(), listen_port));
      nodes_.back()->start();
    }
  }
  BgpPlan plan(int node, const std::vector<std::string>& blocks, const Attributes& a = {}) const {
    BgpPlan p;
    auto& peer = p.peers["tor"];
    auto& c = peer.config;
    c.my_asn = 64512;
    c.peer_asn = static_cast<std::uint32_t>(options_.router_asn);
    c.address = ip(options_.v6 ? "2001:db8::254" : "192.0.2.254");
    c.router_id = ip(fmt::format("192.0.2.{}", node)).v4_host_order();
    c.hold_time = seconds(options_.hold);
    c.connect_retry = seconds(1);
    c.graceful_restart = options_.graceful_restart;
    c.password = options_.password;
    c.dual_stack = true;
    for (const auto& b : blocks) peer.routes[block(b)] = a;
    return p;
  }
  Node& node(int number) { return *nodes_.at(static_cast<std::size_t>(number - 1)); }
  void announce(int number, const std::vector<std::string>& blocks, const Attributes& a = {}) { node(number).set(plan(number, blocks, a)); }

  static bool until(const std::function<bool()>& condition, seconds limit = seconds(60)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return true;
  }
  bool established(int number) {
    const auto s = node(number).status();
    return !s.empty() && s[0].state == State::established;
  }
  // The nodes that the router's kernel sends packets for the block to.
  std::set<std::string> next_hops(const std::string& b) {
    std::set<std::string> out;
    auto rt = *RtSocket::open_in(router_ns_->fd());
    const auto all = rt.routes({.family = block(b).family(), .table = RT_TABLE_MAIN});
    EXPECT_TRUE(all);
    for (const auto& r : *all)
      for (const auto& h : r.next_hops)
        if (r.destination == block(b) && h.gateway) out.insert(h.gateway->to_string());
    return out;
  }
  bool routed(const std::string& b, const std::set<std::string>& hops) {
    return until([&] { return next_hops(b) == hops; });
  }

  RouterOptions options_;
  std::optional<NetNs> lan_, router_ns_;
  std::string folder_, name_;
  std::unique_ptr<Router> router_;
  std::vector<NetNs> namespaces_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

TEST_P(BgpRouters, BothFamiliesWithAttributesOverThreeNodes) {
  start({.nodes = 3});
  Attributes a;
  a.communities = {64512u << 16 | 100};
  a.large_communities = {{64512, 1, 2}};
  for (int n = 1; n <= 3; ++n) announce(n, {"198.51.100.7/32", "2001:db8:1::7/128"}, a);
  // Equal-cost routes over all of them, in the router's kernel.
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1", "192.0.2.2", "192.0.2.3"}));
  EXPECT_TRUE(routed("2001:db8:1::7/128", {"2001:db8::1", "2001:db8::2", "2001:db8::3"}));
  for (const auto f : {Family::v4, Family::v6}) {
    const auto text = router_->routes(f);
    const bool bird = std::string_view(GetParam()) == "bird";
    EXPECT_THAT(text, HasSubstr(bird ? "(64512,100)" : "64512:100"));
    EXPECT_THAT(text, HasSubstr(bird ? "(64512, 1, 2)" : "64512:1:2"));
    EXPECT_THAT(text, HasSubstr("64512")) << "AS path";
  }
  // One stops announcing; the flows go to the others.
  announce(2, {});
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1", "192.0.2.3"}));
  // One ends in order, one without a word: both are gone for the router.
  node(1).stop(Farewell::shutdown);
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.3"}));
  node(3).vanish();
  EXPECT_TRUE(routed("198.51.100.7/32", {}));
  EXPECT_TRUE(routed("2001:db8:1::7/128", {}));
}

TEST_P(BgpRouters, OverIpv6WithMd5) {
  start({.nodes = 1, .v6 = true, .password = "a-secret-of-some-length"});
  announce(1, {"198.51.100.7/32", "2001:db8:1::7/128"});
  EXPECT_TRUE(routed("2001:db8:1::7/128", {"2001:db8::1"}));
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
}

TEST_P(BgpRouters, Md5AndAWrongPassword) {
  start({.nodes = 2, .password = "right"});
  announce(1, {"198.51.100.7/32"});
  options_.password = "wrong";
  announce(2, {"198.51.100.7/32"});
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
  EXPECT_TRUE(until([&] { return node(2).status()[0].last_error == "connect: no answer"; })) << "the kernel drops what is not signed, so nothing answers";
  EXPECT_FALSE(established(2));
  options_.password = "right";
  announce(2, {"198.51.100.7/32"});
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1", "192.0.2.2"}));
}

TEST_P(BgpRouters, InsideOneAsWithPreference) {
  start({.nodes = 2, .router_asn = 64512});
  Attributes high, low;
  high.local_pref = 300;
  low.local_pref = 200;
  announce(1, {"198.51.100.7/32"}, low);
  announce(2, {"198.51.100.7/32"}, high);
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.2"})) << "the higher preference alone";
  EXPECT_TRUE(until([&] { return established(1); }));
  announce(2, {});
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
  EXPECT_THAT(router_->routes(Family::v4), HasSubstr("200"));
}

// The speaker ends and comes back: the router keeps the routes meanwhile, also those that are withdrawn when it is back.
TEST_P(BgpRouters, GracefulRestartKeepsRoutes) {
  start({.nodes = 1, .graceful_restart = true});
  announce(1, {"198.51.100.7/32", "198.51.100.8/32"});
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
  EXPECT_TRUE(routed("198.51.100.8/32", {"192.0.2.1"}));
  for (const bool in_order : {true, false}) {
    SCOPED_TRACE(in_order);
    if (in_order)
      node(1).stop(Farewell::restart);
    else
      node(1).vanish();
    for (int i = 0; i < 100; ++i) {
      ASSERT_EQ(next_hops("198.51.100.7/32"), std::set<std::string>{"192.0.2.1"});
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    node(1).start();
    announce(1, {"198.51.100.7/32"});
    EXPECT_TRUE(until([&] { return established(1); }));
    EXPECT_TRUE(routed("198.51.100.8/32", {})) << "what is not announced any more goes with the end-of-rib";
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(next_hops("198.51.100.7/32"), std::set<std::string>{"192.0.2.1"});
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
}

TEST_P(BgpRouters, TheRouterResetsAndFlaps) {
  start({.nodes = 1});
  announce(1, {"198.51.100.7/32"});
  for (int i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    EXPECT_TRUE(until([&] { return established(1); }));
    EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
    router_->stop();
    EXPECT_TRUE(until([&] { return !established(1); }));
    router_->start();
  }
  EXPECT_TRUE(until([&] { return established(1); }));
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
  const auto told = node(1).told();
  EXPECT_GE(std::count_if(told.begin(), told.end(), [](const std::string& t) { return t.find("is down: ") != std::string::npos; }), 3);
  EXPECT_GE(std::count_if(told.begin(), told.end(), [](const std::string& t) { return t.find("is established") != std::string::npos; }), 4);
}

TEST_P(BgpRouters, ARouterThatHangs) {
  start({.nodes = 1, .hold = 3});
  announce(1, {"198.51.100.7/32"});
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
  router_->kill(SIGSTOP);
  EXPECT_TRUE(until([&] { return !established(1); })) << "after the hold time";
  router_->kill(SIGCONT);
  EXPECT_TRUE(until([&] { return established(1); }));
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
}

TEST_P(BgpRouters, TheRouterOpensTheConnection) {
  start({.nodes = 1, .password = "signed"}, 179);
  // A port where nobody listens: only the router can open the session.
  auto p = plan(1, {"198.51.100.7/32"});
  p.peers["tor"].config.port = 1;
  node(1).set(p);
  EXPECT_TRUE(routed("198.51.100.7/32", {"192.0.2.1"}));
}

TEST_P(BgpRouters, AThousandBlocks) {
  start({.nodes = 1});
  std::vector<std::string> all;
  for (int i = 0; i < 1000; ++i) all.push_back(fmt::format("10.{}.{}.{}/32", i / 250, i % 250, i % 7));
  announce(1, all);
  const auto known = [&] {
    auto rt = *RtSocket::open_in(router_ns_->fd());
    const auto routes = rt.routes({.family = Family::v4, .table = RT_TABLE_MAIN});
    EXPECT_TRUE(routes);
    return std::count_if(routes->begin(), routes->end(), [](const auto& r) { return r.destination.length() == 32 && r.destination.address().bytes()[0] == 10; });
  };
  EXPECT_TRUE(until([&] { return known() == 1000; }));
  announce(1, {});
  EXPECT_TRUE(until([&] { return known() == 0; }));
}

INSTANTIATE_TEST_SUITE_P(Routers, BgpRouters, testing::Values("bird", "frr"), [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace fairlead::lb::bgp
