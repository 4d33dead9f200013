// The dataplane as the proxy uses it, on the fake kernel; what it sets on the host; what it hears of addresses.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

#include "ipvs/address_watch.h"
#include "ipvs/dataplane.h"
#include "ipvs/host.h"
#include "ipvs/kernel_fake.h"
#include "ipvs/text.h"
#include "netlink/address.h"
#include "netlink/link.h"
#include "tests/ipvs/expect.h"

namespace fairlead::ipvs {
namespace {

using namespace proxy::testing;

struct Node {
  Node() {
    kernel.state(Family::v4).node_addresses = {ip("192.168.7.1")};
    kernel.state(Family::v6).node_addresses = {ip("fd07::1")};
  }
  FakeKernel kernel;
};

TEST(Dataplane, AppliesVerifiesTracesAndRemoves) {
  Node n;
  const auto d = make_dataplane(n.kernel);
  const auto p = plan(world());
  const auto before = d->verify(p);
  ASSERT_TRUE(before);
  EXPECT_GT(before->size(), 100u) << "all of it is missing";
  EXPECT_FALSE(d->trace({ip("10.244.0.2"), ip("10.96.0.1"), Protocol::tcp, 80, "pod2", false, false})) << "no rules yet";
  ASSERT_TRUE(d->apply(p.full_delta()));
  const auto drift = d->verify(p);
  ASSERT_TRUE(drift);
  EXPECT_TRUE(drift->empty()) << drift->front();
  for (const auto& row : testing::packet_table()) {
    const auto got = d->trace(row.packet);
    ASSERT_TRUE(got) << row.name << ": " << got.error().message;
    EXPECT_TRUE(*got == row.expect) << row.name;
  }
  n.kernel.state(Family::v4).servers.begin()->second.server.scheduler = "lc";
  const auto one = d->verify(p);
  ASSERT_TRUE(one);
  ASSERT_EQ(one->size(), 1u);
  EXPECT_NE(one->front().find("ipvsadm -E"), std::string::npos) << one->front();
  ASSERT_TRUE(make_dataplane(n.kernel)->remove_all_owned());
  for (const Family f : {Family::v4, Family::v6}) {
    const auto& s = n.kernel.state(f);
    EXPECT_TRUE(s.servers.empty() && s.sets.empty() && s.bound.empty() && !s.link) << to_text(s);
  }
}

TEST(Dataplane, RealServersThatDrainAreNoDrift) {
  Node n;
  const auto d = make_dataplane(n.kernel);
  auto w = world();
  ASSERT_TRUE(d->apply(plan(w).full_delta()));
  n.kernel.open_connections({Protocol::tcp, {ip("10.96.0.1"), 80}}, {ip("10.244.0.2"), 8080}, 1);
  w.services["default/web"].endpoints = make_endpoints({{"10.244.0.3", "n1"}});
  const auto report = d->apply(plan(w).full_delta());
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->call_again);
  const auto drift = d->verify(plan(w));
  ASSERT_TRUE(drift);
  EXPECT_TRUE(drift->empty()) << drift->front();
}

TEST(Dataplane, AFamilyThatIsOffLosesWhatItHad) {
  Node n;
  auto w = world();
  ASSERT_TRUE(make_dataplane(n.kernel)->apply(plan(w).full_delta()));
  w.global.ipv6 = false;
  ASSERT_TRUE(make_dataplane(n.kernel)->apply(plan(w).full_delta()));
  EXPECT_TRUE(n.kernel.state(Family::v6).servers.empty());
  EXPECT_FALSE(n.kernel.state(Family::v4).servers.empty());
}

TEST(Dataplane, ListsAgainWhenAddressesChange) {
  Node n;
  const auto d = make_dataplane(n.kernel);
  int told = 0;
  d->on_foreign_change([&] { ++told; });
  auto w = world();
  w.global.node_ports = {true, false, {}};
  const auto p = plan(w);
  ASSERT_TRUE(d->apply(p.full_delta()));
  n.kernel.state(Family::v4).node_addresses.push_back(ip("192.168.9.9"));
  n.kernel.announce();
  EXPECT_EQ(told, 1);
  ASSERT_TRUE(d->apply({p.global, false, false, {}}));
  EXPECT_TRUE(n.kernel.state(Family::v4).servers.contains({Protocol::tcp, {ip("192.168.9.9"), 30005}}));
}

TEST(Dataplane, PrintsNodePortsWithoutKnowingTheNode) {
  Node n;
  auto w = world();
  const auto d = make_dataplane(n.kernel);
  EXPECT_NE(d->render_text(plan(w)).find("-A -t 192.168.7.1:30005 -s rr"), std::string::npos) << "its address is named";
  w.global.node_ports = {true, false, {}};
  EXPECT_NE(d->render_text(plan(w)).find("-A -t 0.0.0.0:30005 -s rr"), std::string::npos) << "all of its addresses";
}

TEST(Host, KernelParameters) {
  const auto reuse = [](const std::string& release) -> std::string {
    for (const auto& [key, value] : settings_for(release, false))
      if (key == "net/ipv4/vs/conn_reuse_mode") return value;
    return "unset";
  };
  EXPECT_EQ(reuse("4.0.9"), "unset");
  EXPECT_EQ(reuse("4.19.0-27-amd64"), "0");
  EXPECT_EQ(reuse("5.8.18"), "0");
  EXPECT_EQ(reuse("5.9.0"), "unset");
  EXPECT_EQ(reuse("6.1.0-18-amd64"), "unset");
  EXPECT_EQ(reuse("something"), "unset");
  EXPECT_EQ(settings_for("6.1.0", true).size(), settings_for("6.1.0", false).size() + 2);
}

TEST(AddressBook, TellsWhatIsNews) {
  AddressBook book("kube-ipvs0", 77);
  constexpr std::uint32_t kLan = 3, kDummy = 9;
  const auto message = [](std::uint16_t type, std::uint32_t link, std::string_view text, std::uint32_t port) {
    netlink::Address a;
    a.link = link;
    a.ip = {ip(text), ip(text).bits()};
    auto bytes = netlink::build_add_address(a);
    auto* h = reinterpret_cast<nlmsghdr*>(bytes.data());
    h->nlmsg_type = type;
    h->nlmsg_pid = port;
    return bytes;
  };
  const auto link = [](std::uint16_t type) {
    netlink::MessageBuilder m(type, 0);
    ifinfomsg i{};
    i.ifi_index = kDummy;
    m.header(i);
    m.put_string(IFLA_IFNAME, "kube-ipvs0");
    return std::move(m).finish();
  };
  struct Row {
    const char* what;
    netlink::Bytes bytes;
    bool news;
  };
  for (const auto& row : std::vector<Row>{
           {"our link", link(RTM_NEWLINK), false},
           {"an address of the node", message(RTM_NEWADDR, kLan, "192.168.7.1", 0), true},
           {"the same again", message(RTM_NEWADDR, kLan, "192.168.7.1", 0), false},
           {"a link-local one", message(RTM_NEWADDR, kLan, "fe80::1", 0), false},
           {"loopback", message(RTM_NEWADDR, 1, "127.0.0.1", 0), false},
           {"we bind", message(RTM_NEWADDR, kDummy, "10.96.0.1", 77), false},
           {"we let go", message(RTM_DELADDR, kDummy, "10.96.0.1", 77), false},
           {"somebody else does", message(RTM_DELADDR, kDummy, "10.96.0.1", 5), true},
           {"nobody says who", message(RTM_DELADDR, kDummy, "fd96::1", 0), false},
           {"an address goes", message(RTM_DELADDR, kLan, "192.168.7.1", 0), true},
           {"one that was not known goes", message(RTM_DELADDR, kLan, "192.168.7.2", 0), false},
           {"our link goes", link(RTM_DELLINK), true},
       }) {
    const auto all = netlink::split_messages(row.bytes);
    ASSERT_TRUE(all) << row.what;
    EXPECT_EQ(book.learn(all->front()), row.news) << row.what;
  }
}

}  // namespace
}  // namespace fairlead::ipvs
