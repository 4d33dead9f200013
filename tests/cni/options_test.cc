// What a network can ask for beyond an attachment, each with packets or with what the kernel shows of it.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/files.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

IpAddress ip(const char* s) { return *IpAddress::parse(s); }

class Options : public testing::Test {
 protected:
  void SetUp() override {
    host_.emplace(std::move(*NetNs::create()));
    client_.emplace(std::move(*NetNs::create()));
    rt_.emplace(std::move(*RtSocket::open_in(host_->fd())));
    auto c = *RtSocket::open_in(client_->fd());
    ASSERT_TRUE(rt_->create_link({.name = "lan", .kind = netlink::VethKind{.peer_name = "eth0", .peer_netns_fd = client_->fd()}, .up = true}));
    ASSERT_TRUE(c.set_up("eth0"));
    const auto lan = rt_->link("lan")->index, eth0 = c.link("eth0")->index;
    ASSERT_TRUE(rt_->add_address({.link = lan, .ip = *InterfaceAddress::parse("192.0.2.1/24")}));
    ASSERT_TRUE(rt_->add_address({.link = lan, .ip = *InterfaceAddress::parse("2001:db8::1/64"), .no_dad = true}));
    ASSERT_TRUE(c.add_address({.link = eth0, .ip = *InterfaceAddress::parse("192.0.2.9/24")}));
    ASSERT_TRUE(c.add_address({.link = eth0, .ip = *InterfaceAddress::parse("2001:db8::9/64"), .no_dad = true}));
    folder_ = fmt::format("/run/fairlead-options-{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // `more` begins with the rest of the configuration; the network's name is its subnet's third number.
  PluginCall call(const std::string& id, const NetNs* pod, const std::string& more, int net = 1) const {
    return {.host_fd = host_->fd(), .id = id, .netns = pod ? path_of(*pod) : "",
            .conf = fmt::format(R"({{"cniVersion":"1.1.0","name":"net{0}","type":"fairlead-cni","hostsDir":"{1}/hosts",
                                    "ipam":{{"ranges":[[{{"subnet":"10.244.{0}.0/24"}}],[{{"subnet":"fd00:{0}::/64"}}]],"dataDir":"{1}"}}{2}}})", net, folder_, more.empty() ? "" : "," + more)};
  }
  Attachment add(const std::string& id, const NetNs& pod, const std::string& more, int net = 1) {
    const Outcome o = call(id, &pod, more, net).run("ADD");
    EXPECT_EQ(o.exit_code, 0) << o.out;
    return attachment_of(o.out);
  }
  Outcome check(const std::string& id, const NetNs& pod, const std::string& more, const std::string& result) const {
    return call(id, &pod, more + ",\"prevResult\":" + result).run("CHECK");
  }
  bool kernel_has_bridge_vlans() {
    const auto made = rt_->create_link({.name = "probe", .kind = netlink::BridgeKind{.vlan_filtering = true}});
    EXPECT_TRUE(made || made.error().code == ErrorCode::unimplemented) << made.error().message;
    if (made) { EXPECT_TRUE(rt_->remove_link("probe")); }
    EXPECT_TRUE(made || std::getenv("GUEST_RUN") == nullptr) << "the guest kernel was chosen because it has them";
    return made.has_value();
  }
  netlink::Link host_end(const std::string& id) { return *rt_->link(host_link_name({id, "eth0"})); }

  std::optional<NetNs> host_, client_;
  std::optional<RtSocket> rt_;
  std::string folder_;
};

const std::string kBridge = R"("wiring":"bridge")";

TEST_F(Options, MasqueradeHidesThePodsOutsideTheirNetwork) {
  for (const char* wiring : {R"("wiring":"routed")", R"("wiring":"bridge")"}) {
    const NetNs a = *NetNs::create(), b = *NetNs::create(), c = *NetNs::create();
    const std::string masq = std::string(wiring) + R"(,"ipMasq":true)";
    const Outcome o = call("a", &a, masq).run("ADD");
    ASSERT_EQ(o.exit_code, 0) << o.out;
    const Attachment at = attachment_of(o.out), bt = add("b", b, masq), ct = add("c", c, wiring);
    EXPECT_EQ(exchange(a, *client_, ip("192.0.2.9")), "192.0.2.1") << wiring;
    EXPECT_EQ(exchange(a, *client_, ip("2001:db8::9")), "2001:db8::1") << wiring;
    for (const std::size_t i : {0u, 1u}) {
      EXPECT_EQ(exchange(a, b, bt.ips[i].address.address), at.ips[i].address.address.to_string()) << wiring << ": inside the network the source stays";
      EXPECT_EQ(exchange(b, c, ct.ips[i].address.address), bt.ips[i].address.address.to_string()) << wiring;
    }
    EXPECT_EQ(exchange(c, *client_, ip("192.0.2.9")), "no answer") << wiring << ": not asked for, so the client sees an address it has no way back to";
    EXPECT_EQ(check("a", a, masq, o.out).exit_code, 0);
    EXPECT_EQ(call("b", &b, wiring).run("DEL").exit_code, 0) << "DEL knows by itself";
    EXPECT_EQ(exchange(a, *client_, ip("192.0.2.9")), "192.0.2.1") << wiring << ": the others keep theirs";
    EXPECT_EQ(call("a", &a, wiring).run("DEL").exit_code, 0);
    EXPECT_EQ(call("c", &c, wiring).run("DEL").exit_code, 0);
  }
}

TEST_F(Options, VlansAreLansOfTheirOwn) {
  if (!kernel_has_bridge_vlans()) GTEST_SKIP() << "CONFIG_BRIDGE_VLAN_FILTERING is not in this kernel";
  const NetNs a = *NetNs::create(), b = *NetNs::create(), c = *NetNs::create();
  const std::string seven = kBridge + R"(,"vlan":7)", eight = kBridge + R"(,"vlan":8)";
  const Attachment at = add("a", a, seven, 7), bt = add("b", b, seven, 7), ct = add("c", c, eight, 8);
  for (const std::size_t i : {0u, 1u}) {
    EXPECT_EQ(exchange(a, b, bt.ips[i].address.address), at.ips[i].address.address.to_string());
    EXPECT_TRUE(IpAddress::parse(exchange(*host_, a, at.ips[i].address.address))) << "by the gateway of VLAN 7";
    EXPECT_EQ(exchange(a, c, ct.ips[i].address.address), at.ips[i].address.address.to_string()) << "from VLAN to VLAN the host routes";
  }
  EXPECT_TRUE(*rt_->find_link("fairlead0.7"));
  EXPECT_TRUE(rt_->addresses({}, rt_->link("fairlead0")->index)->size() <= 1) << "the gateway addresses are not on the bridge itself";
  // A pod of VLAN 8 that gives itself an address of VLAN 7 finds nobody there.
  auto pod = *RtSocket::open_in(c.fd());
  ASSERT_TRUE(pod.add_address({.link = pod.link("eth0")->index, .ip = *InterfaceAddress::parse("10.244.7.250/24")}));
  EXPECT_EQ(exchange(c, b, bt.ips[0].address.address), "nothing arrived");
  for (const char* id : {"a", "b", "c"}) EXPECT_EQ(call(id, nullptr, seven, id[0] == 'c' ? 8 : 7).run("DEL").exit_code, 0);
}

// The VLAN tag of the next frame that arrives in the namespace with one; 0 when none comes.
int tag_of_next_frame(const NetNs& ns, const std::function<void()>& meanwhile) {
  int fd = -1;
  EXPECT_TRUE(netlink::run_in_netns(ns.fd(), [&] { fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)); }));
  const Fd raw(fd);
  const int on = 1;
  EXPECT_EQ(::setsockopt(raw.get(), SOL_PACKET, PACKET_AUXDATA, &on, sizeof on), 0);
  const timeval wait{.tv_sec = 2, .tv_usec = 0};
  ::setsockopt(raw.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  meanwhile();
  for (int i = 0; i < 100; ++i) {
    char data[2048];
    alignas(cmsghdr) char control[256];
    iovec v{data, sizeof data};
    msghdr m{};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    if (::recvmsg(raw.get(), &m, 0) < 0) return 0;
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c))
      if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) {
        tpacket_auxdata aux;
        std::memcpy(&aux, CMSG_DATA(c), sizeof aux);
        if (aux.tp_status & TP_STATUS_VLAN_VALID) return aux.tp_vlan_tci & 0xfff;
      }
  }
  return 0;
}

TEST_F(Options, AKernelWithoutVlansIsNamed) {
  if (kernel_has_bridge_vlans()) GTEST_SKIP() << "this kernel has them";
  const NetNs a = *NetNs::create();
  const Outcome o = call("a", &a, kBridge + R"(,"vlan":7)").run("ADD");
  EXPECT_NE(o.out.find("\"code\":105"), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("CONFIG_BRIDGE_VLAN_FILTERING"), std::string::npos) << o.out;
  EXPECT_EQ(rt_->links()->size(), 2u) << "lo and lan";
}

TEST_F(Options, ATrunkCarriesItsVlansTagged) {
  if (!kernel_has_bridge_vlans()) GTEST_SKIP() << "CONFIG_BRIDGE_VLAN_FILTERING is not in this kernel";
  const NetNs a = *NetNs::create(), trunk = *NetNs::create();
  add("a", a, kBridge + R"(,"vlan":7)", 7);
  const std::string ids = kBridge + R"(,"vlanTrunk":[{"minID":5,"maxID":7},{"id":9}])";
  const Outcome o = call("trunk", &trunk, ids, 9).run("ADD");
  ASSERT_EQ(o.exit_code, 0) << o.out;
  // A broadcast of VLAN 7: a pod that asks for an address nobody has.
  const auto ask = [&] { (void)UdpFlow(a, ip("10.244.7.199"), 9).ask(); };
  EXPECT_EQ(tag_of_next_frame(trunk, ask), 7);
}

TEST_F(Options, IsolatedPortsReachOnlyTheHost) {
  const NetNs a = *NetNs::create(), b = *NetNs::create(), c = *NetNs::create();
  const std::string isolated = kBridge + R"(,"portIsolation":true)";
  const Attachment at = add("a", a, isolated), bt = add("b", b, isolated), ct = add("c", c, kBridge);
  EXPECT_EQ(exchange(a, b, bt.ips[0].address.address), "nothing arrived");
  EXPECT_EQ(exchange(a, c, ct.ips[0].address.address), at.ips[0].address.address.to_string()) << "one of the two is enough to talk";
  EXPECT_TRUE(IpAddress::parse(exchange(*host_, a, at.ips[0].address.address)));
}

TEST_F(Options, FramesWithAForeignAddressAreDropped) {
  const NetNs a = *NetNs::create(), b = *NetNs::create(), c = *NetNs::create();
  const std::string checked = kBridge + R"(,"macspoofchk":true)";
  const Attachment at = add("a", a, checked), bt = add("b", b, checked);
  const std::string from_a = at.ips[0].address.address.to_string();
  EXPECT_EQ(exchange(a, b, bt.ips[0].address.address), from_a);
  EXPECT_EQ(exchange(a, b, bt.ips[1].address.address), at.ips[1].address.address.to_string());
  auto pod = *RtSocket::open_in(a.fd());
  const auto eth0 = *pod.link("eth0");
  ASSERT_TRUE(pod.change_link(eth0.index, {.mac = netlink::MacAddress::parse("02:00:00:00:66:66").value()}));
  EXPECT_EQ(exchange(a, b, bt.ips[0].address.address), "nothing arrived");
  ASSERT_TRUE(pod.change_link(eth0.index, {.mac = *eth0.mac}));
  EXPECT_EQ(exchange(a, b, bt.ips[0].address.address), from_a) << "with its own it may talk again";
  if (!kernel_has_bridge_vlans()) return;
  const Attachment ct = add("c", c, checked + R"(,"vlan":7,"bridge":"br7")", 7);
  EXPECT_TRUE(IpAddress::parse(exchange(*host_, c, ct.ips[0].address.address)));
}

TEST_F(Options, SettingsOfLinks) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  add("a", a, kBridge + R"(,"mtu":1400,"hairpinMode":true,"promisc":true,"allmulti":true,"txQLen":333,"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"})");
  const auto pod = *RtSocket::open_in(a.fd())->link("eth0");
  EXPECT_EQ(pod.mtu, 1400u);
  EXPECT_EQ(pod.tx_queue_len, 333u);
  EXPECT_TRUE(pod.flags & IFF_PROMISC);
  EXPECT_TRUE(pod.flags & IFF_ALLMULTI);
  EXPECT_EQ(host_end("a").mtu, 1400u);
  EXPECT_EQ(host_end("a").bridge_port->hairpin, true);
  EXPECT_EQ(netlink::in_netns(a.fd(), [] { return netlink::read_sysctl("net/ipv4/conf/eth0/arp_filter"); }), "1");
  add("b", b, R"("wiring":"bridge","bridge":"brp","promiscMode":true)", 2);
  EXPECT_TRUE(rt_->link("brp")->flags & IFF_PROMISC);
  EXPECT_NE(host_end("b").bridge_port->hairpin, true);
}

TEST_F(Options, AliasesAreToldInAHostsFile) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  const std::string names = R"("runtimeConfig":{"aliases":["db","db.example"]})";
  const Outcome o = call("a", &a, names).run("ADD");
  ASSERT_EQ(o.exit_code, 0) << o.out;
  const Attachment at = attachment_of(o.out);
  const std::string file = folder_ + "/hosts/net1/a-eth0";
  EXPECT_EQ(*read_file(file), fmt::format("{} db db.example\n{} db db.example\n", at.ips[0].address.address.to_string(), at.ips[1].address.address.to_string()));
  EXPECT_EQ(check("a", a, names, o.out).exit_code, 0) << check("a", a, names, o.out).out;
  std::filesystem::remove(file);
  EXPECT_NE(check("a", a, names, o.out).out.find("hosts file"), std::string::npos);
  EXPECT_EQ(call("a", &a, "").run("DEL").exit_code, 0) << "without the file";
  add("b", b, names);
  EXPECT_EQ(call("", nullptr, R"("cni.dev/valid-attachments":[])").run("GC").exit_code, 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/hosts/net1"));
}

TEST_F(Options, DnsComesFromTheNearestSource) {
  std::ofstream(folder_ + "/resolv.conf") << "nameserver 10.0.0.3\nsearch c.example\noptions ndots:3\n";
  const std::string file = fmt::format(R"("ipam":{{"ranges":[[{{"subnet":"10.244.1.0/24"}}]],"dataDir":"{0}","resolvConf":"{0}/resolv.conf"}})", folder_);
  struct Row {
    const char* more;
    std::vector<std::string> servers;
  };
  int n = 0;
  for (const Row& r : {Row{"", {"10.0.0.3"}}, Row{R"(,"dns":{"nameservers":["10.0.0.2"]})", {"10.0.0.2"}},
                       Row{R"(,"dns":{"nameservers":["10.0.0.2"]},"runtimeConfig":{"dns":{"Servers":["10.0.0.1"],"Searches":["a.example"]}})", {"10.0.0.1"}}}) {
    const NetNs pod = *NetNs::create();
    PluginCall c = call(fmt::format("p{}", ++n), &pod, "");
    c.conf = fmt::format(R"({{"cniVersion":"1.1.0","name":"net1","type":"fairlead-cni",{}{}}})", file, r.more);
    const Outcome o = c.run("ADD");
    ASSERT_EQ(o.exit_code, 0) << o.out;
    EXPECT_EQ(attachment_of(o.out).dns.nameservers, r.servers);
    if (n == 1) { EXPECT_EQ(attachment_of(o.out).dns.options, std::vector<std::string>{"ndots:3"}); }
  }
  const NetNs pod = *NetNs::create();
  std::filesystem::remove(folder_ + "/resolv.conf");
  PluginCall c = call("late", &pod, "");
  c.conf = fmt::format(R"({{"cniVersion":"1.1.0","name":"net1","type":"fairlead-cni",{}}})", file);
  const Outcome o = c.run("ADD");
  EXPECT_NE(o.out.find("\"code\":5,"), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("resolv.conf"), std::string::npos) << o.out;
}

// runtimeConfig before args before the configuration before CNI_ARGS.
TEST_F(Options, AddressesThatAreAskedFor) {
  struct Row {
    const char* more;
    const char* args;
    const char *address, *mac;
  };
  int n = 0;
  for (const Row& r : {Row{"", "IP=10.244.1.40;MAC=02:00:00:00:00:40", "10.244.1.40", "02:00:00:00:00:40"},
                       Row{"", "IP=10.244.1.41/24;IgnoreUnknown=1;X=y", "10.244.1.41", nullptr},
                       Row{R"("args":{"cni":{"ips":["10.244.1.42"],"mac":"02:00:00:00:00:42"}})", "MAC=02:00:00:00:00:99", "10.244.1.42", "02:00:00:00:00:42"},
                       Row{R"("runtimeConfig":{"ips":["10.244.1.43/24"],"mac":"02:00:00:00:00:43"},"args":{"cni":{"ips":["10.244.1.99"],"mac":"02:00:00:00:00:99"}})", "", "10.244.1.43", "02:00:00:00:00:43"},
                       Row{R"("runtimeConfig":{"ips":["fd00:1::44"]})", "", "fd00:1::44", nullptr}}) {
    const NetNs pod = *NetNs::create();
    PluginCall c = call(fmt::format("p{}", ++n), &pod, r.more);
    c.args = r.args;
    const Outcome o = c.run("ADD");
    ASSERT_EQ(o.exit_code, 0) << o.out;
    const Attachment got = attachment_of(o.out);
    EXPECT_TRUE(std::any_of(got.ips.begin(), got.ips.end(), [&](const AssignedIp& i) { return i.address.address.to_string() == r.address; })) << o.out;
    if (r.mac) { EXPECT_EQ(RtSocket::open_in(pod.fd())->link("eth0")->mac->to_string(), r.mac); }
  }
  const NetNs pod = *NetNs::create();
  for (const auto& [args, says] : std::map<std::string, std::string>{{"X=y", "unknown argument"}, {"IP=10.1", "IP"}, {"MAC=01:00:00:00:00:01", "MAC"}, {"IP=10.9.9.9", "10.9.9.9"}, {"novalue", "KEY=VALUE"}}) {
    PluginCall c = call("bad", &pod, "");
    c.args = args;
    const Outcome o = c.run("ADD");
    EXPECT_EQ(o.exit_code, 1) << args;
    EXPECT_NE(o.out.find(says), std::string::npos) << o.out;
  }
}

}  // namespace
}  // namespace fairlead::cni
