// Against the kernel, in anonymous namespaces that die with the test.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

#include <filesystem>

#include "base/scope_guard.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"

namespace fairlead::netlink {
namespace {

#define ASSERT_OK(...)                                          \
  do {                                                          \
    const auto& r_ = (__VA_ARGS__);                             \
    ASSERT_TRUE(r_.has_value()) << (r_ ? "" : r_.error().message); \
  } while (0)

IpAddress ip(const char* s) { return *IpAddress::parse(s); }

class Kernel : public testing::Test {
 protected:
  void SetUp() override {
    auto a = NetNs::create();
    ASSERT_OK(a);
    auto b = NetNs::create();
    ASSERT_OK(b);
    a_.emplace(std::move(*a));
    b_.emplace(std::move(*b));
    rt_.emplace(std::move(*RtSocket::open_in(a_->fd())));
    peer_.emplace(std::move(*RtSocket::open_in(b_->fd())));
  }
  std::optional<NetNs> a_, b_;
  std::optional<RtSocket> rt_, peer_;
};

TEST_F(Kernel, VethPairIsBornInBothNamespaces) {
  const auto mac = *MacAddress::parse("02:00:00:00:00:07");
  ASSERT_OK(rt_->create_link({.name = "host0", .kind = VethKind{.peer_name = "eth0", .peer_netns_fd = b_->fd(), .peer_mac = mac, .peer_mtu = 1400},
                              .mtu = 1400, .up = true}));
  const auto host = rt_->link("host0");
  ASSERT_OK(host);
  const auto eth0 = peer_->link("eth0");
  ASSERT_OK(eth0);
  EXPECT_EQ(host->kind, "veth");
  EXPECT_TRUE(host->up());
  EXPECT_EQ(host->mtu, 1400u);
  EXPECT_EQ(host->peer_index, eth0->index);
  EXPECT_TRUE(host->peer_netns_id.has_value());
  EXPECT_EQ(eth0->mac, mac);
  EXPECT_FALSE(eth0->up());
  EXPECT_FALSE(rt_->link("eth0"));
  ASSERT_OK(rt_->change_link(host->index, {.alias = "pod default/web-0"}));
  EXPECT_EQ(rt_->link("host0")->alias, "pod default/web-0");
  const auto again = rt_->create_link({.name = "host0", .kind = VethKind{.peer_name = "eth1"}});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::already_exists);
  ASSERT_OK(rt_->delete_link(host->index));
  EXPECT_EQ(peer_->link("eth0").error().code, ErrorCode::not_found);
  ASSERT_OK(rt_->remove_link("host0"));
}

TEST_F(Kernel, BridgePortSettings) {
  ASSERT_OK(rt_->create_link({.name = "br0", .kind = BridgeKind{.mcast_snooping = false}, .up = true}));
  const auto br = rt_->link("br0");
  ASSERT_OK(rt_->create_link({.name = "p0", .kind = VethKind{.peer_name = "p1"}, .master = br->index, .up = true}));
  const auto port = rt_->link("p0");
  EXPECT_EQ(port->master, br->index);
  ASSERT_OK(rt_->set_bridge_port(port->index, {.hairpin = true, .isolated = true, .learning = false}));
  const auto seen = rt_->link("p0")->bridge_port;
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->hairpin, true);
  EXPECT_EQ(seen->isolated, true);
  EXPECT_EQ(seen->learning, false);
  const auto ports = rt_->links({.master = br->index});
  ASSERT_OK(ports);
  ASSERT_EQ(ports->size(), 1u);
  EXPECT_EQ(ports->at(0).name, "p0");
}

TEST_F(Kernel, AddressesRoutesAndNeighbours) {
  ASSERT_OK(rt_->create_link({.name = "v0", .kind = VethKind{.peer_name = "v1", .peer_netns_fd = b_->fd()}, .up = true}));
  ASSERT_OK(peer_->set_up("v1"));
  const auto v0 = *rt_->link("v0");
  const Address a{.link = v0.index, .ip = *InterfaceAddress::parse("10.0.0.1/24")};
  ASSERT_OK(rt_->add_address(a));
  EXPECT_EQ(rt_->add_address(a).error().code, ErrorCode::already_exists);
  ASSERT_OK(rt_->ensure_address(a));
  const auto list = rt_->addresses(Family::v4, v0.index);
  ASSERT_OK(list);
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ(list->at(0).ip.to_string(), "10.0.0.1/24");
  ASSERT_OK(rt_->add_address({.link = v0.index, .ip = *InterfaceAddress::parse("fd00::1/64"), .no_dad = true}));

  const Route onlink{.destination = *Prefix::parse("10.2.0.0/16"), .next_hops = {{.gateway = ip("169.254.1.1"), .link = v0.index, .onlink = true}}};
  ASSERT_OK(rt_->add_route(onlink));
  Route via{.destination = *Prefix::parse("10.3.0.0/16"), .next_hops = {{.gateway = ip("10.0.0.2")}}, .mtu = 1300};
  ASSERT_OK(rt_->add_route(via));
  const Route foreign{.destination = *Prefix::parse("10.4.0.0/16"), .next_hops = {{.gateway = ip("10.0.0.2")}}, .protocol = RTPROT_STATIC};
  ASSERT_OK(rt_->add_route(foreign));
  const Route six{.destination = *Prefix::parse("fd01::/64"), .next_hops = {{.gateway = ip("fd00::2")}}};
  ASSERT_OK(rt_->add_route(six));
  auto mine = rt_->routes({.protocol = kRouteProtocol});
  ASSERT_OK(mine);
  EXPECT_EQ(mine->size(), 3u) << "the foreign one and the kernel's own are not listed";
  via.next_hops = {{.gateway = ip("10.0.0.3")}};
  ASSERT_OK(rt_->replace_route(via));
  EXPECT_EQ(rt_->route_to(ip("10.3.1.1"))->next_hops.at(0).gateway, ip("10.0.0.3"));
  ASSERT_OK(rt_->delete_route(via));
  EXPECT_EQ(rt_->delete_route(via).error().code, ErrorCode::not_found);
  ASSERT_OK(rt_->remove_route(via));
  ASSERT_OK(rt_->routes({.table = 4711}));
  EXPECT_TRUE(rt_->routes({.table = 4711})->empty());

  const Neighbour n{.link = v0.index, .ip = ip("10.0.0.9"), .mac = *MacAddress::parse("02:00:00:00:00:09")};
  ASSERT_OK(rt_->set_neighbour(n));
  const auto neighbours = rt_->neighbours(Family::v4, v0.index);
  ASSERT_OK(neighbours);
  EXPECT_EQ(std::count(neighbours->begin(), neighbours->end(), n), 1);
  ASSERT_OK(rt_->remove_neighbour(n));

  const Rule rule{.priority = 300, .from = *Prefix::parse("10.9.0.0/16"), .table = 4711};
  ASSERT_OK(rt_->add_rule(rule));
  const auto rules = rt_->rules(Family::v4);
  ASSERT_OK(rules);
  EXPECT_EQ(std::count(rules->begin(), rules->end(), rule), 1);
  ASSERT_OK(rt_->remove_rule(rule));
}

TEST_F(Kernel, VxlanWithForwardingEntry) {
  ASSERT_OK(rt_->create_link({.name = "vx0", .kind = VxlanKind{.vni = 7, .port = 8472, .local = ip("10.0.0.1")}, .up = true}));
  const auto vx = *rt_->link("vx0");
  ASSERT_TRUE(vx.vxlan);
  EXPECT_EQ(*vx.vxlan, (VxlanInfo{.vni = 7, .port = 8472, .local = ip("10.0.0.1")}));
  const FdbEntry e{.link = vx.index, .mac = *MacAddress::parse("02:00:00:00:00:09"), .remote = ip("10.0.0.2")};
  ASSERT_OK(rt_->set_fdb(e));
  auto fdb = rt_->fdb(vx.index);
  ASSERT_OK(fdb);
  ASSERT_EQ(fdb->size(), 1u);
  EXPECT_EQ(fdb->at(0).mac, e.mac);
  EXPECT_EQ(fdb->at(0).remote, e.remote);
  ASSERT_OK(rt_->remove_fdb(e));
  EXPECT_TRUE(rt_->fdb(vx.index)->empty());
}

TEST_F(Kernel, RateLimitAndRedirect) {
  ASSERT_OK(rt_->create_link({.name = "v0", .kind = VethKind{.peer_name = "v1"}, .up = true}));
  ASSERT_OK(rt_->create_link({.name = "ifb9", .kind = IfbKind{}, .up = true}));
  const auto v0 = rt_->link("v0")->index, ifb = rt_->link("ifb9")->index;
  const Tbf tbf{.rate = 1'000'000, .burst = 100'000};
  ASSERT_OK(rt_->add_tbf(ifb, tbf));
  ASSERT_OK(rt_->add_redirect(v0, ifb));
  const auto seen = rt_->qdiscs(ifb);
  ASSERT_OK(seen);
  const auto found = std::find_if(seen->begin(), seen->end(), [](const Qdisc& q) { return q.tbf.has_value(); });
  ASSERT_NE(found, seen->end());
  EXPECT_EQ(found->tbf->rate, tbf.rate);
  EXPECT_NEAR(static_cast<double>(found->tbf->burst), static_cast<double>(tbf.burst), 10);
  const auto on_v0 = rt_->qdiscs(v0);
  EXPECT_TRUE(std::any_of(on_v0->begin(), on_v0->end(), [](const Qdisc& q) { return q.kind == "ingress"; }));
}

TEST_F(Kernel, ManyRequestsInOneGo) {
  std::vector<Bytes> requests;
  for (int i = 0; i < 300; ++i) requests.push_back(build_create_link({.name = fmt::format("br{}", i), .kind = BridgeKind{}}));
  requests[17] = build_create_link({.name = "br3", .kind = BridgeKind{}});
  const auto results = rt_->socket().request_all(std::move(requests), "create bridges");
  for (std::size_t i = 0; i < results.size(); ++i) EXPECT_EQ(results[i].has_value(), i != 17) << i;
  EXPECT_EQ(results[17].error().code, ErrorCode::already_exists);
  const auto links = rt_->links({.kind = "bridge"});
  ASSERT_OK(links);
  EXPECT_EQ(links->size(), 299u);
}

TEST_F(Kernel, ErrorsCarryTheKernelsWords) {
  const auto r = rt_->add_route({.destination = *Prefix::parse("10.0.0.0/8"), .next_hops = {{.gateway = ip("192.0.2.1")}}});
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("Nexthop has invalid gateway"), std::string::npos) << r.error().message;
}

TEST_F(Kernel, CallerNeverChangesNamespace) {
  const auto before = NetNs::current()->id();
  const auto inside = in_netns(a_->fd(), [] { return NetNs::current(); });
  ASSERT_OK(inside);
  EXPECT_EQ(inside->id(), a_->id());
  EXPECT_EQ(NetNs::current()->id(), before);
  // Sysctls follow the calling thread.
  ASSERT_OK(in_netns(a_->fd(), [] { return write_sysctl("net/ipv4/ip_forward", "1"); }));
  EXPECT_EQ(in_netns(a_->fd(), [] { return read_sysctl("net/ipv4/ip_forward"); }), "1");
  EXPECT_EQ(in_netns(b_->fd(), [] { return read_sysctl("net/ipv4/ip_forward"); }), "0");
}

TEST_F(Kernel, LoopbackIsUp) { EXPECT_TRUE(rt_->link("lo")->up()); }

TEST(NamedNetNs, LivesAndGoes) {
  const std::string folder = fmt::format("/run/fairlead-test-{}/netns", getpid());
  const auto clean = on_exit([&] { std::filesystem::remove_all(std::filesystem::path(folder).parent_path()); });
  const auto ns = create_named_netns(folder, "blue");
  ASSERT_OK(ns);
  EXPECT_EQ(create_named_netns(folder, "blue").error().code, ErrorCode::already_exists);
  EXPECT_EQ(NetNs::open(folder + "/blue")->id(), ns->id());
  EXPECT_EQ(list_named_netns(folder), std::vector<std::string>{"blue"});
  ASSERT_OK(delete_named_netns(folder, "blue"));
  ASSERT_OK(delete_named_netns(folder, "blue"));
  EXPECT_EQ(NetNs::open(folder + "/blue").error().code, ErrorCode::not_found);
  EXPECT_EQ(NetNs::open("/proc/self/ns/pid").error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(NetNs::open("/etc/passwd").error().code, ErrorCode::invalid_argument);
  EXPECT_FALSE(create_named_netns(folder, "../x"));
}

}  // namespace
}  // namespace fairlead::netlink
