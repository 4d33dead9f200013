// The whole agent: an apiserver in memory, the kernel of a namespace of its own.
#include "cni/agent/agent.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "base/event.h"
#include "base/files.h"
#include "base/scope_guard.h"
#include "cni/agent/node_facts.h"
#include "kube/kinds.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "tests/base/asio_test_util.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::cni {
namespace {

using fairlead::test::Loop;
using fairlead::test::value;
using kube::test::FakeApiserver;
using netlink::NetNs;
using netlink::RtSocket;

class TestDaemon final : public Daemon {
 public:
  explicit TestDaemon(Loop& loop) : loop_(loop), stop_(loop.executor()) {}
  net::any_io_executor executor() const override { return loop_.executor(); }
  net::io_context& context() override { return loop_.context(); }
  void ready(const std::string&) override {}
  Task<> stop_requested() override { return stop_.wait(); }
  bool stopping() const override { return stop_.happened(); }
  void request_stop() override { stop_.set(); }

 private:
  Loop& loop_;
  Event stop_;
};

corev1::Node node(const std::string& name, const std::string& cidr, const std::string& ip) {
  corev1::Node n;
  n.mutable_metadata()->set_name(name);
  if (!cidr.empty()) {
    n.mutable_spec()->set_podcidr(cidr);
    n.mutable_spec()->add_podcidrs(cidr);
  }
  auto* a = n.mutable_status()->add_addresses();
  a->set_type("InternalIP");
  a->set_address(ip);
  return n;
}

TEST(NodeFactsOf, ReadsWhatIsThereAndSaysWhatIsWrong) {
  const auto good = node_facts(node("a", "10.244.1.0/24", "192.168.0.1"));
  EXPECT_EQ(good.facts, (NodeFacts{.name = "a", .pod_cidrs = {*Prefix::parse("10.244.1.0/24")}, .ips = {*IpAddress::parse("192.168.0.1")}}));
  EXPECT_EQ(good.problem, "");
  corev1::Node old = node("a", "", "192.168.0.1");
  old.mutable_spec()->set_podcidr("10.244.1.0/24");
  EXPECT_EQ(node_facts(old).facts.pod_cidrs.size(), 1u) << "only the older field is set";
  EXPECT_THAT(node_facts(node("a", "10.244.1.7/24", "192.168.0.1")).problem, testing::HasSubstr("podCIDRs"));
  EXPECT_THAT(node_facts(node("a", "", "x")).problem, testing::HasSubstr("status.addresses"));
}

struct World {
  World() : ns(*NetNs::create()), folder(fmt::format("/run/fairlead-agent-test-{}", getpid())) {}
  ~World() { std::filesystem::remove_all(folder); }
  NetNs ns;
  std::string folder;
};

Task<> until(std::function<bool()> good, const char* what) {
  for (int i = 0; i < 300 && !good(); ++i) co_await sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(good()) << what;
}

void story(World& w) {
  auto rt = *RtSocket::open();
  EXPECT_TRUE(rt.create_link({.name = "eth0", .kind = netlink::VethKind{.peer_name = "eth0p"}, .up = true}));
  EXPECT_TRUE(rt.set_up("eth0p"));
  EXPECT_TRUE(rt.add_address({.link = rt.link("eth0")->index, .ip = *InterfaceAddress::parse("192.168.0.1/24")}));
  Loop loop;
  FakeApiserver api(loop.executor());
  kube::RestConfig config;
  config.server = api.url();
  const auto client = value(kube::make_client(loop.executor(), config, "test"));
  TestDaemon daemon(loop);
  AgentOptions o{.node_name = "a", .conf_dir = w.folder + "/cni", .cluster_cidrs = {*Prefix::parse("10.244.0.0/16")}, .data_dir = w.folder + "/data"};
  o.settle = std::chrono::milliseconds(5);
  const std::string list = o.conf_dir + "/" + o.conf_name;
  const auto routes = [&] {
    std::string out;
    const auto all = rt.routes({.family = Family::v4, .protocol = netlink::kNodeRouteProtocol});
    for (const auto& r : *all)
      if (r.type == RTN_UNICAST) out += (out.empty() ? "" : " ") + r.destination.to_string() + ">" + r.next_hops[0].gateway->to_string();
    return out;
  };
  bool ended = false;
  net::co_spawn(loop.executor(), run_agent(daemon, client, o), [&](std::exception_ptr e, Result<> r) {
    ended = true;
    EXPECT_FALSE(e);
    EXPECT_TRUE(r.has_value());
  });
  loop.run([&]() -> Task<> {
    api.put(node("b", "10.244.2.0/24", "192.168.0.2"));
    co_await sleep_for(std::chrono::milliseconds(100));
    EXPECT_FALSE(path_exists(list)) << "the own node is not there yet";
    api.put(node("a", "", "192.168.0.1"));
    co_await sleep_for(std::chrono::milliseconds(100));
    EXPECT_FALSE(path_exists(list)) << "no pod CIDR yet";
    api.put(node("a", "10.244.1.0/24", "192.168.0.1"));
    co_await until([&] { return path_exists(list) && routes() == "10.244.2.0/24>192.168.0.2"; }, "conflist and route appear");
    const auto text = value(read_file(list));
    EXPECT_THAT(text, testing::HasSubstr("10.244.1.0/24"));
    api.put(node("b", "10.244.2.0/24", "192.168.0.22"));
    co_await until([&] { return routes() == "10.244.2.0/24>192.168.0.22"; }, "a node moves");
    // Events that were lost: the watch starts again from a list.
    api.drop_watches();
    api.compact();
    api.put(node("c", "10.244.3.0/24", "192.168.0.3"));
    co_await until([&] { return routes() == "10.244.2.0/24>192.168.0.22 10.244.3.0/24>192.168.0.3"; }, "a node joins while the watch is down");
    api.remove(kube::kind_of<corev1::Node>(), "b");
    co_await until([&] { return routes() == "10.244.3.0/24>192.168.0.3"; }, "a node goes");
    // Our own node object vanishes: pods keep their network.
    api.remove(kube::kind_of<corev1::Node>(), "a");
    co_await sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(routes(), "10.244.3.0/24>192.168.0.3");
    EXPECT_TRUE(path_exists(list));
    daemon.request_stop();
    co_await until([&] { return ended; }, "the agent stops");
  });
  EXPECT_EQ(routes(), "10.244.3.0/24>192.168.0.3") << "everything stays when the agent stops";
}

TEST(Agent, FollowsTheNodes) {
  World w;
  ASSERT_TRUE(netlink::run_in_netns(w.ns.fd(), [&] { story(w); }));
}

// A stop is heard while the apiserver is away.
TEST(Agent, StopsWithoutAnApiserver) {
  World w;
  ASSERT_TRUE(netlink::run_in_netns(w.ns.fd(), [] {
    Loop loop;
    kube::RestConfig config;
    config.server = "http://127.0.0.1:1";
    const auto client = value(kube::make_client(loop.executor(), config, "test"));
    TestDaemon daemon(loop);
    bool ended = false;
    net::co_spawn(loop.executor(), run_agent(daemon, client, {.node_name = "a"}), [&](std::exception_ptr, Result<>) { ended = true; });
    loop.run([&]() -> Task<> {
      co_await sleep_for(std::chrono::milliseconds(50));
      daemon.request_stop();
      co_await until([&] { return ended; }, "the agent stops");
    });
  }));
}

}  // namespace
}  // namespace fairlead::cni
