// Three nodes in namespaces on a LAN (and one behind a router), each with the agent's passes and a pod made by the plugin.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fmt/ranges.h>
#include <thread>

#include "base/files.h"
#include "cni/agent/agent.h"
#include "cni/agent/nft.h"
#include "cni/agent/offload.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::in_netns;
using netlink::NetNs;
using netlink::RtSocket;

struct TestNode {
  NodeFacts facts;
  NetNs ns;
  RtSocket rt;
  std::string folder;
  std::optional<NetNs> pod;
  std::optional<IpAddress> pod_ip;
};

class Lan : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fmt::format("/run/fairlead-lan-test-{}", getpid());
    lan_.emplace(std::move(*NetNs::create()));
    auto rt = *RtSocket::open_in(lan_->fd());
    ASSERT_TRUE(rt.create_link({.name = "lan", .kind = netlink::BridgeKind{.mcast_snooping = false}, .up = true}));
    ASSERT_TRUE(rt.add_address({.link = rt.link("lan")->index, .ip = *InterfaceAddress::parse("192.168.77.254/24")}));
    ASSERT_TRUE(in_netns(lan_->fd(), [] { return netlink::write_sysctl("net/ipv4/ip_forward", "1"); }));
    options_.cluster_cidrs = {*Prefix::parse("10.244.0.0/16")};
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  // A node on the LAN, or on a network of its own behind the router.
  TestNode& add_node(int n, bool behind_router = false) {
    auto ns = *NetNs::create();
    auto rt = *RtSocket::open_in(ns.fd());
    auto lan = *RtSocket::open_in(lan_->fd());
    const std::string name = fmt::format("n{}", n), port = fmt::format("port{}", n);
    const std::string address = behind_router ? fmt::format("172.16.{}.2", n) : fmt::format("192.168.77.{}", n);
    const std::string router = behind_router ? fmt::format("172.16.{}.1", n) : "192.168.77.254";
    netlink::LinkSpec spec{.name = port, .kind = netlink::VethKind{.peer_name = "eth0", .peer_netns_fd = ns.fd()}, .up = true};
    if (!behind_router) spec.master = lan.link("lan")->index;
    EXPECT_TRUE(lan.create_link(spec));
    if (behind_router) { EXPECT_TRUE(lan.add_address({.link = lan.link(port)->index, .ip = *InterfaceAddress::parse(router + "/24")})); }
    EXPECT_TRUE(rt.set_up("eth0"));
    EXPECT_TRUE(rt.add_address({.link = rt.link("eth0")->index, .ip = *InterfaceAddress::parse(address + "/24")}));
    EXPECT_TRUE(rt.add_route({.destination = *Prefix::parse("0.0.0.0/0"), .next_hops = {{.gateway = *IpAddress::parse(router)}}, .protocol = RTPROT_STATIC}));
    nodes_.push_back(std::make_unique<TestNode>(TestNode{.facts = {.name = name, .pod_cidrs = {*Prefix::parse(fmt::format("10.244.{}.0/24", n))}, .ips = {*IpAddress::parse(address)}},
                                                         .ns = std::move(ns), .rt = std::move(rt), .folder = root_ + "/" + name, .pod = {}, .pod_ip = {}}));
    return *nodes_.back();
  }

  PassReport pass(TestNode& n) {
    AgentOptions o = options_;
    o.node_name = n.facts.name;
    o.conf_dir = n.folder + "/cni";
    o.data_dir = n.folder + "/data";
    std::vector<NodeFacts> peers;
    for (const auto& other : nodes_)
      if (other->facts.name != n.facts.name) peers.push_back(other->facts);
    const auto r = in_netns(n.ns.fd(), [&] { return reconcile_network(o, n.facts, peers); });
    EXPECT_TRUE(r.has_value()) << (r ? "" : r.error().message);
    return r ? *r : PassReport{};
  }

  // Twice: the second pass must find nothing to do.
  void settle() {
    for (const auto& n : nodes_) {
      const auto first = pass(*n);
      EXPECT_TRUE(first.problems.empty()) << n->facts.name << ": " << fmt::format("{}", fmt::join(first.problems, "; "));
      EXPECT_EQ(pass(*n).changes, 0u) << n->facts.name;
    }
  }

  // A pod made by the plugin with the list that the agent wrote.
  void add_pod(TestNode& n) {
    const auto text = read_file(n.folder + "/cni/10-fairlead.conflist");
    ASSERT_TRUE(text.has_value()) << text.error().message;
    n.pod.emplace(std::move(*NetNs::create()));
    PluginCall call{.host_fd = n.ns.fd(), .id = "pod-" + n.facts.name, .netns = path_of(*n.pod), .conf = plugin_conf(*text)};
    const Outcome o = call.run("ADD");
    ASSERT_EQ(o.exit_code, 0) << o.out;
    n.pod_ip = attachment_of(o.out).ips.at(0).address.address;
  }

  void everyone_reaches_everyone() {
    for (const auto& a : nodes_)
      for (const auto& b : nodes_)
        if (a != b && a->pod && b->pod) { EXPECT_EQ(exchange(*a->pod, *b->pod, *b->pod_ip), a->pod_ip->to_string()) << a->facts.name << " -> " << b->facts.name; }
  }

  std::string root_;
  std::optional<NetNs> lan_;
  std::vector<std::unique_ptr<TestNode>> nodes_;
  AgentOptions options_;
};

TEST_F(Lan, PodsOfThreeNodesReachEachOther) {
  for (int n : {1, 2, 3}) add_node(n);
  settle();
  for (const auto& n : nodes_) add_pod(*n);
  everyone_reaches_everyone();
  EXPECT_FALSE(*nodes_[0]->rt.find_link(kVtepName)) << "no tunnel where the LAN does it";
  // Out of the cluster: the source is the node's address.
  EXPECT_EQ(exchange(*nodes_[0]->pod, *lan_, *IpAddress::parse("192.168.77.254")), "192.168.77.1");
  // An address that no pod has is refused, not sent round.
  EXPECT_NE(exchange(*nodes_[0]->pod, *nodes_[1]->pod, *IpAddress::parse("10.244.2.250")), "10.244.1.2");
}

TEST_F(Lan, NodesComeMoveAndGo) {
  for (int n : {1, 2}) add_node(n);
  settle();
  for (const auto& n : nodes_) add_pod(*n);
  add_node(3);
  settle();
  add_pod(*nodes_[2]);
  everyone_reaches_everyone();
  // Renumbered: the new CIDR is routed, the old one is not, the others are untouched.
  nodes_[2]->facts.pod_cidrs = {*Prefix::parse("10.244.30.0/24")};
  settle();
  const auto routes = nodes_[0]->rt.routes({.family = Family::v4, .protocol = netlink::kNodeRouteProtocol});
  std::vector<std::string> to;
  for (const auto& r : *routes) to.push_back(r.destination.to_string());
  std::sort(to.begin(), to.end());
  EXPECT_EQ(to, (std::vector<std::string>{"10.244.1.0/24", "10.244.2.0/24", "10.244.30.0/24"}));
  EXPECT_EQ(exchange(*nodes_[0]->pod, *nodes_[1]->pod, *nodes_[1]->pod_ip), nodes_[0]->pod_ip->to_string());
  // Gone.
  nodes_.pop_back();
  settle();
  EXPECT_EQ(nodes_[0]->rt.routes({.family = Family::v4, .protocol = netlink::kNodeRouteProtocol})->size(), 2u);
}

// Question and answer between two pods without a pause. An answer that is late (a busy machine) is none that is lost.
class Flow {
 public:
  Flow(const NetNs& client, const NetNs& server, const IpAddress& ip) : server_(server, ip, 9100, "pod"), asker_(client, ip, 9100, 20'000) {
    thread_ = std::thread([this] {
      while (!stop_) ++(asker_.ask() == "pod" ? answered_ : lost_);
    });
  }
  ~Flow() {
    stop_ = true;
    thread_.join();
  }
  int lost() const { return lost_; }
  // Several more questions, answered or lost.
  void go_on() {
    const int before = answered_ + lost_;
    while (answered_ + lost_ < before + 10) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  UdpServer server_;
  UdpFlow asker_;
  std::atomic<int> answered_{0}, lost_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_F(Lan, TheFlowsOfOtherNodesGoOn) {
  for (const Backend backend : {Backend::host_gw, Backend::vxlan}) {
    SCOPED_TRACE(backend == Backend::vxlan ? "vxlan" : "host-gw");
    options_.network.backend = backend;
    nodes_.clear();
    // Others than in the round before: namespaces go in the background.
    const int first = backend == Backend::vxlan ? 11 : 1;
    for (int n : {first, first + 1}) add_node(n);
    settle();
    for (const auto& n : nodes_) add_pod(*n);
    Flow there(*nodes_[0]->pod, *nodes_[1]->pod, *nodes_[1]->pod_ip), back(*nodes_[1]->pod, *nodes_[0]->pod, *nodes_[0]->pod_ip);
    const auto undisturbed = [&](const char* what) {
      there.go_on();
      back.go_on();
      EXPECT_EQ(there.lost() + back.lost(), 0) << what;
    };
    undisturbed("at rest");
    add_node(first + 2);
    settle();
    undisturbed("a node has come");
    nodes_[2]->facts.pod_cidrs = {*Prefix::parse(fmt::format("10.244.{}.0/24", first + 100))};
    settle();
    undisturbed("its pods have other addresses");
    const auto eth0 = nodes_[2]->rt.link("eth0")->index;
    ASSERT_TRUE(nodes_[2]->rt.add_address({.link = eth0, .ip = *InterfaceAddress::parse(fmt::format("192.168.77.{}/24", first + 100))}));
    nodes_[2]->facts.ips = {*IpAddress::parse(fmt::format("192.168.77.{}", first + 100))};
    settle();
    undisturbed("it has another address");
    // Every pass is one of an agent that has just started: nothing is remembered between them (agent.h).
    for (const auto& n : nodes_) EXPECT_EQ(pass(*n).changes, 0u);
    undisturbed("agents were started again");
    nodes_.pop_back();
    settle();
    undisturbed("it has gone");
  }
}

TEST_F(Lan, RoutesOfOthersAreNotTouched) {
  for (int n : {1, 2}) add_node(n);
  auto& rt = nodes_[0]->rt;
  const netlink::Route foreign{.destination = *Prefix::parse("10.244.2.0/24"), .next_hops = {{.gateway = *IpAddress::parse("192.168.77.254")}}, .protocol = RTPROT_STATIC};
  ASSERT_TRUE(rt.add_route(foreign));
  const auto report = pass(*nodes_[0]);
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_NE(report.problems[0].find("not Fairlead's"), std::string::npos) << report.problems[0];
  EXPECT_EQ(rt.route_to(*IpAddress::parse("10.244.2.9"))->next_hops.at(0).gateway->to_string(), "192.168.77.254");
  ASSERT_TRUE(rt.delete_route(foreign));
  EXPECT_TRUE(pass(*nodes_[0]).problems.empty());
  EXPECT_EQ(rt.route_to(*IpAddress::parse("10.244.2.9"))->next_hops.at(0).gateway->to_string(), "192.168.77.2");
}

TEST_F(Lan, TheTunnelReachesNodesBehindARouter) {
  add_node(1);
  add_node(2);
  add_node(3, true);
  settle();
  for (const auto& n : nodes_) add_pod(*n);
  everyone_reaches_everyone();
  ASSERT_TRUE(*nodes_[0]->rt.find_link(kVtepName));
  EXPECT_EQ(nodes_[0]->rt.link(kVtepName)->mtu, 1450u);
  EXPECT_EQ(nodes_[0]->rt.route_to(*nodes_[1]->pod_ip)->next_hops.at(0).gateway->to_string(), "192.168.77.2") << "the near one stays direct";
  // Somebody takes the tunnel away; the next pass brings it back.
  ASSERT_TRUE(nodes_[0]->rt.remove_link(kVtepName));
  settle();
  everyone_reaches_everyone();
  // Pods are told the smaller MTU, and with checksums computed in software packets still arrive.
  EXPECT_EQ(RtSocket::open_in(nodes_[0]->pod->fd())->link("eth0")->mtu, 1450u);
  ASSERT_TRUE(in_netns(nodes_[0]->ns.fd(), [] { return disable_checksum_offload(kVtepName); }));
  EXPECT_EQ(exchange(*nodes_[0]->pod, *nodes_[2]->pod, *nodes_[2]->pod_ip), nodes_[0]->pod_ip->to_string());
  // No node behind a router any more: no tunnel.
  nodes_.pop_back();
  settle();
  EXPECT_FALSE(*nodes_[0]->rt.find_link(kVtepName));
}

TEST_F(Lan, TunnelForAll) {
  options_.network.backend = Backend::vxlan;
  for (int n : {1, 2, 3}) add_node(n);
  settle();
  for (const auto& n : nodes_) add_pod(*n);
  everyone_reaches_everyone();
  options_.network.backend = Backend::host_gw;
  settle();
  everyone_reaches_everyone();
  EXPECT_FALSE(*nodes_[0]->rt.find_link(kVtepName));
}

TEST_F(Lan, CleanupLeavesNothing) {
  options_.network.backend = Backend::vxlan;
  for (int n : {1, 2}) add_node(n);
  settle();
  AgentOptions o = options_;
  o.conf_dir = nodes_[0]->folder + "/cni";
  ASSERT_TRUE(in_netns(nodes_[0]->ns.fd(), [&] { return cleanup(o); }));
  ASSERT_TRUE(in_netns(nodes_[0]->ns.fd(), [&] { return cleanup(o); }));
  EXPECT_TRUE(nodes_[0]->rt.routes({.protocol = netlink::kNodeRouteProtocol})->empty());
  EXPECT_FALSE(*nodes_[0]->rt.find_link(kVtepName));
  EXPECT_FALSE(path_exists(o.conf_dir + "/" + o.conf_name));
  EXPECT_EQ(in_netns(nodes_[0]->ns.fd(), [] { return run_nft_output("list tables"); }), "");
}

TEST_F(Lan, ProbeFindsThisKernelComplete) {
  options_.wiring = "bridge";
  const auto missing = missing_kernel_features(options_);
  ASSERT_TRUE(missing);
  EXPECT_TRUE(missing->needed.empty()) << fmt::format("{}", fmt::join(missing->needed, "; "));
  EXPECT_TRUE(missing->optional.empty()) << fmt::format("{}", fmt::join(missing->optional, "; "));
}

// The guest kernel (tests/ipvs/uml) has links and queues, and no nftables for IP.
TEST_F(Lan, ProbeNamesWhatIsMissing) {
  if (std::getenv("GUEST_RUN") == nullptr) GTEST_SKIP() << "for the guest kernel";
  options_.wiring = "bridge";
  options_.masquerade = true;
  const auto missing = missing_kernel_features(options_);
  ASSERT_TRUE(missing);
  const auto names = [](const std::vector<std::string>& list, const char* what) {
    return std::count_if(list.begin(), list.end(), [&](const std::string& s) { return s.find(what) != std::string::npos; });
  };
  EXPECT_EQ(names(missing->needed, "CONFIG_NFT_NAT"), 1) << fmt::format("{}", fmt::join(missing->needed, "; "));
  EXPECT_EQ(names(missing->needed, "CONFIG_VETH") + names(missing->needed, "CONFIG_BRIDGE"), 0);
  EXPECT_EQ(names(missing->optional, "CONFIG_NF_TABLES_IPV4"), 1) << fmt::format("{}", fmt::join(missing->optional, "; "));
}

}  // namespace
}  // namespace fairlead::cni
