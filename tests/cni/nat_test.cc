// Host ports with packets: who reaches what through which address, before, during and after.
#include <gtest/gtest.h>

#include <filesystem>

#include "cni/gc.h"
#include "cni/nat/nat.h"
#include "nftables/kernel_netlink.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

class HostPortsTest : public testing::TestWithParam<const char*> {
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
    ASSERT_TRUE(rt_->add_address({.link = lan, .ip = *InterfaceAddress::parse("192.0.2.2/24")}));
    ASSERT_TRUE(rt_->add_address({.link = lan, .ip = *InterfaceAddress::parse("2001:db8::1/64"), .no_dad = true}));
    ASSERT_TRUE(c.add_address({.link = eth0, .ip = *InterfaceAddress::parse("192.0.2.9/24")}));
    ASSERT_TRUE(c.add_address({.link = eth0, .ip = *InterfaceAddress::parse("2001:db8::9/64"), .no_dad = true}));
    folder_ = fmt::format("/run/fairlead-hostports-{}", getpid());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  PluginCall call(const std::string& id, const NetNs* pod, const std::string& ports) const {
    return {.host_fd = host_->fd(), .id = id, .netns = pod ? path_of(*pod) : "",
            .conf = fmt::format(R"({{"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni","wiring":"{}","ipam":{{"ranges":[[{{"subnet":"10.244.1.0/24"}}],[{{"subnet":"fd00:1::/64"}}]],
                                    "dataDir":"{}"}}{}}})", GetParam(), folder_, ports.empty() ? "" : R"(,"runtimeConfig":{"portMappings":[)" + ports + "]}")};
  }
  Attachment add(const std::string& id, const NetNs& pod, const std::string& ports) {
    const Outcome o = call(id, &pod, ports).run("ADD");
    EXPECT_EQ(o.exit_code, 0) << o.out;
    return attachment_of(o.out);
  }
  // The port elements in the kernel, of both families.
  std::size_t elements() {
    std::size_t n = 0;
    EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] {
      auto kernel = nftables::open_kernel();
      for (const Family f : {Family::v4, Family::v6}) {
        const auto table = (*kernel)->list(f, kPodTable);
        ASSERT_TRUE(table.has_value());
        if (*table)
          for (const auto& [name, set] : (*table)->sets) n += set.elements.size();
      }
    }));
    return n;
  }
  static std::string map(int host, int container, const char* proto = "tcp", const char* ip = "") {
    return fmt::format(R"({{"HostPort":{},"ContainerPort":{},"Protocol":"{}","HostIP":"{}"}})", host, container, proto, ip);
  }
  std::optional<NetNs> host_, client_;
  std::optional<RtSocket> rt_;
  std::string folder_;
};

IpAddress ip(const char* s) { return *IpAddress::parse(s); }

// What such an attachment with the host port 8080 has in the kernel.
PodNat nat_of(const Attachment& a) {
  PodNat nat{.mappings = {{8080, 80, Protocol::tcp, {}}}, .masquerade = false, .pods = {}};
  for (const auto& i : a.ips) nat.pods.push_back({i.address.address, i.address.prefix(), i.address.prefix()});
  return nat;
}

TEST_P(HostPortsTest, EveryoneReachesThePod) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  const Attachment at = add("a", a, map(8080, 80) + "," + map(8053, 53, "udp"));
  add("b", b, "");
  const IpAddress four = at.ips[0].address.address, six = at.ips[1].address.address;
  const bool bridge = std::string(GetParam()) == "bridge";
  // From outside the source stays.
  EXPECT_EQ(tcp_exchange(*client_, ip("192.0.2.1"), 8080, a, four, 80), "192.0.2.9");
  EXPECT_EQ(tcp_exchange(*client_, ip("192.0.2.2"), 8080, a, four, 80), "192.0.2.9") << "every address of the host";
  EXPECT_EQ(tcp_exchange(*client_, ip("2001:db8::1"), 8080, a, six, 80), "2001:db8::9");
  EXPECT_EQ(exchange(*client_, a, ip("192.0.2.1"), 8053, &four, 53), "192.0.2.9");
  // From the host itself, by its address and by localhost.
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(*host_, ip("192.0.2.1"), 8080, a, four, 80)));
  const std::string local = tcp_exchange(*host_, ip("127.0.0.1"), 8080, a, four, 80);
  EXPECT_TRUE(IpAddress::parse(local) && !IpAddress::parse(local)->is_loopback()) << local;
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(*host_, ip("2001:db8::1"), 8080, a, six, 80)));
  const std::string local6 = tcp_exchange(*host_, ip("::1"), 8080, a, six, 80);
  if (bridge) {
    EXPECT_EQ(local6, "connect: Connection refused") << "left alone, see nat/layout.h";
  } else {
    EXPECT_TRUE(IpAddress::parse(local6) && !IpAddress::parse(local6)->is_loopback()) << local6;
    EXPECT_EQ(exchange(*host_, a, ip("::1"), 8053, &six, 53), local6) << "UDP too";
  }
  {
    const UdpServer service(*host_, ip("::1"), 7777, "the host's own");
    EXPECT_EQ(UdpFlow(*host_, ip("::1"), 7777).ask(), "the host's own") << "what is no host port stays where it was";
  }
  // From another pod, and from the pod itself (hairpin).
  const std::string neighbour = tcp_exchange(b, ip("192.0.2.1"), 8080, a, four, 80);
  EXPECT_TRUE(IpAddress::parse(neighbour)) << neighbour;
  if (!bridge) { EXPECT_EQ(neighbour.substr(0, 9), "10.244.1.") << "routed pods keep their source"; }
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(a, ip("192.0.2.1"), 8080, a, four, 80)));
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(a, ip("2001:db8::1"), 8080, a, six, 80)));
  // Not mapped, not reached.
  EXPECT_EQ(tcp_exchange(*client_, ip("192.0.2.1"), 8081, a, four, 80), "connect: Connection refused");
  // The pod's own address works as before.
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(*host_, four, 80, a, four, 80)));
  EXPECT_EQ(elements(), bridge ? 6u : 8u) << "two ports and one hairpin entry per family, and the ports on ::1";
  EXPECT_EQ(call("a", nullptr, "").run("DEL").exit_code, 0) << "DEL without its mappings";
  EXPECT_EQ(elements(), 0u);
  EXPECT_EQ(tcp_exchange(*client_, ip("192.0.2.1"), 8080, b, ip("127.0.0.1"), 80), "connect: Connection refused");
  EXPECT_EQ(tcp_exchange(*host_, ip("::1"), 8080, b, ip("::1"), 80), "connect: Connection refused");
  const auto local_routes = rt_->routes({.family = Family::v6, .table = RT_TABLE_LOCAL});
  for (const auto& r : *local_routes)
    EXPECT_TRUE(r.destination.to_string() != "::1/128" || r.next_hops.at(0).link == rt_->link("lo")->index) << "the way to ::1 went with the link: " << r.to_string();
}

// The shape of the conformance test "HostPort validates that there is no conflict between pods with same hostPort but
// different hostIP and protocol".
TEST_P(HostPortsTest, OnePortByAddressAndProtocol) {
  const NetNs a = *NetNs::create(), b = *NetNs::create(), c = *NetNs::create();
  const IpAddress at = add("a", a, map(54323, 8080, "tcp", "127.0.0.1")).ips[0].address.address;
  const IpAddress bt = add("b", b, map(54323, 8080, "tcp", "192.0.2.1")).ips[0].address.address;
  const IpAddress ct = add("c", c, map(54323, 8081, "udp", "192.0.2.1")).ips[0].address.address;
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(*host_, ip("127.0.0.1"), 54323, a, at, 8080)));
  EXPECT_EQ(tcp_exchange(*client_, ip("192.0.2.1"), 54323, b, bt, 8080), "192.0.2.9");
  EXPECT_EQ(exchange(*client_, c, ip("192.0.2.1"), 54323, &ct, 8081), "192.0.2.9");
  EXPECT_EQ(tcp_exchange(*client_, ip("192.0.2.2"), 54323, b, bt, 8080), "connect: Connection refused") << "the other address is not mapped";
}

TEST_P(HostPortsTest, ATakenPortIsRefusedAndNothingIsLeft) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  add("a", a, map(8080, 80));
  const auto before = elements();
  const Outcome o = call("b", &b, map(9090, 90) + "," + map(8080, 80)).run("ADD");
  EXPECT_EQ(o.exit_code, 1);
  EXPECT_NE(o.out.find("\"code\":106"), std::string::npos) << o.out;
  EXPECT_EQ(elements(), before);
  EXPECT_FALSE(*rt_->find_link(host_link_name({"b", "eth0"})));
  EXPECT_EQ(call("b", &b, map(8080, 80)).run("DEL").exit_code, 0) << "the DEL that follows a failed ADD";
  EXPECT_EQ(elements(), before) << "and it leaves the port to its owner";
  EXPECT_EQ(call("a", &a, "").run("DEL").exit_code, 0);
  EXPECT_EQ(call("b", &b, map(9090, 90) + "," + map(8080, 80)).run("ADD").exit_code, 0);
  EXPECT_EQ(call("b", &b, "").run("DEL").exit_code, 0);
}

// A DEL that was killed after the ports went and before its record did, repeated when somebody else has the port.
TEST_P(HostPortsTest, ALateDelTakesNothingFromTheNewOwner) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  const Attachment at = add("a", a, map(8080, 80));
  EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] { EXPECT_TRUE(Nat::open()->remove(nat_of(at))); }));
  EXPECT_EQ(elements(), 0u);
  const IpAddress bt = add("b", b, map(8080, 80)).ips[0].address.address;
  EXPECT_EQ(call("a", &a, map(8080, 80)).run("DEL").exit_code, 0);
  EXPECT_EQ(tcp_exchange(*client_, ip("192.0.2.1"), 8080, b, bt, 80), "192.0.2.9");
}

// A client that keeps sending from one port must reach the new pod, not the translation of the old one.
TEST_P(HostPortsTest, UdpClientsFollowThePort) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  UdpFlow flow(*client_, ip("192.0.2.1"), 8053);
  EXPECT_EQ(flow.ask(), "nothing") << "this leaves an entry without translation";
  const IpAddress at = add("a", a, map(8053, 53, "udp")).ips[0].address.address;
  {
    const UdpServer server(a, at, 53, "first");
    EXPECT_EQ(flow.ask(), "first");
  }
  EXPECT_EQ(call("a", &a, "").run("DEL").exit_code, 0);
  const IpAddress bt = add("b", b, map(8053, 53, "udp")).ips[0].address.address;
  const UdpServer server(b, bt, 53, "second");
  EXPECT_EQ(flow.ask(), "second");
}

// A packet for 127.0.0.1 from the wire must not reach the host's own services, although host ports need route_localnet.
TEST_P(HostPortsTest, LocalhostIsNotReachableFromPods) {
  const NetNs a = *NetNs::create();
  add("a", a, map(8080, 80));
  auto pod = *RtSocket::open_in(a.fd());
  // The pod sends packets for 127.0.0.1 out over eth0, as a malicious one would.
  ASSERT_TRUE(netlink::in_netns(a.fd(), [] { return netlink::write_sysctl("net/ipv4/conf/all/route_localnet", "1"); }));
  const auto lo = pod.link("lo")->index;
  const auto on_lo = pod.addresses(Family::v4, lo);
  ASSERT_TRUE(on_lo);
  for (const auto& addr : *on_lo) ASSERT_TRUE(pod.remove_address(addr));
  const auto eth0 = pod.link("eth0")->index;
  ASSERT_TRUE(pod.add_route({.destination = *Prefix::parse("127.0.0.0/8"),
                             .next_hops = {{.gateway = std::string(GetParam()) == "bridge" ? ip("10.244.1.1") : ip("169.254.1.1"), .link = eth0, .onlink = true}}}));
  const UdpServer service(*host_, ip("127.0.0.1"), 7777, "the host's own");
  EXPECT_EQ(UdpFlow(*host_, ip("127.0.0.1"), 7777).ask(), "the host's own");
  EXPECT_EQ(UdpFlow(a, ip("127.0.0.1"), 7777).ask(), "nothing");
}

// The same by IPv6: the kernel itself drops ::1 from the wire, also where answers to [::1] may come in.
TEST_P(HostPortsTest, LocalhostOfIpv6IsNotReachableFromPods) {
  const NetNs a = *NetNs::create();
  const Attachment at = add("a", a, map(8080, 80) + "," + map(8053, 53, "udp"));
  auto pod = *RtSocket::open_in(a.fd());
  const auto eth0 = pod.link("eth0")->index, lo = pod.link("lo")->index;
  const auto on_lo = pod.addresses(Family::v6, lo);
  for (const auto& addr : *on_lo) ASSERT_TRUE(pod.remove_address(addr));
  ASSERT_TRUE(pod.add_route({.destination = *Prefix::parse("::1/128"), .next_hops = {{.gateway = std::string(GetParam()) == "bridge" ? ip("fd00:1::1") : ip("fe80::1"), .link = eth0, .onlink = true}}}));
  ASSERT_EQ(pod.route_to(ip("::1"))->next_hops.at(0).link, eth0) << "it does go out";
  const UdpServer service(*host_, ip("::1"), 7777, "the host's own");
  EXPECT_EQ(UdpFlow(*host_, ip("::1"), 7777).ask(), "the host's own");
  EXPECT_EQ(UdpFlow(a, ip("::1"), 7777).ask(), "nothing");
  const UdpServer mapped(a, at.ips[1].address.address, 53, "the pod");
  EXPECT_EQ(UdpFlow(a, ip("::1"), 8053).ask(), "nothing") << "nor are its own ports by the host's localhost";
}

TEST_P(HostPortsTest, OneLocalhostForManyPods) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  if (std::string(GetParam()) == "bridge") {
    const Outcome o = call("a", &a, map(8080, 80, "tcp", "::1")).run("ADD");
    EXPECT_NE(o.out.find("\"code\":2,"), std::string::npos) << o.out;
    EXPECT_NE(o.out.find("portMappings[0].hostIP: ::1"), std::string::npos) << o.out;
    EXPECT_EQ(elements(), 0u);
    EXPECT_FALSE(*rt_->find_link(host_link_name({"a", "eth0"})));
    return;
  }
  const IpAddress at = add("a", a, map(8080, 80, "tcp", "::1")).ips[1].address.address, bt = add("b", b, map(8081, 80)).ips[1].address.address;
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(*host_, ip("::1"), 8080, a, at, 80))) << "bound to it alone";
  EXPECT_EQ(tcp_exchange(*client_, ip("2001:db8::1"), 8080, a, at, 80), "connect: Connection refused");
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(*host_, ip("::1"), 8081, b, bt, 80)));
  EXPECT_EQ(call("a", &a, "").run("DEL").exit_code, 0);
  EXPECT_TRUE(IpAddress::parse(tcp_exchange(*host_, ip("::1"), 8081, b, bt, 80))) << "the other one keeps its way";
}

TEST_P(HostPortsTest, CheckAndGcKnowThem) {
  const NetNs a = *NetNs::create();
  const std::string ports = map(8080, 80);
  const Outcome added = call("a", &a, ports).run("ADD");
  ASSERT_EQ(added.exit_code, 0) << added.out;
  PluginCall check = call("a", &a, ports);
  check.conf.pop_back();
  check.conf += ",\"prevResult\":" + added.out + "}";
  EXPECT_EQ(check.run("CHECK").exit_code, 0) << check.run("CHECK").out;
  EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] { EXPECT_TRUE(Nat::open()->remove(nat_of(attachment_of(added.out)))); }));
  EXPECT_NE(check.run("CHECK").out.find("host port or the masquerading is missing"), std::string::npos);
  EXPECT_EQ(call("a", &a, "").run("DEL").exit_code, 0);
  add("a", a, ports);
  PluginCall gc = call("", nullptr, "");
  gc.conf.pop_back();
  gc.conf += R"(,"cni.dev/valid-attachments":[]})";
  EXPECT_EQ(gc.run("GC").exit_code, 0);
  EXPECT_EQ(elements(), 0u);
}

// Port mappings of a pod that vanished without DEL do not block the port for ever.
TEST_P(HostPortsTest, APortOfADeadPodIsTakenOver) {
  BootTime now{0};
  {
    const NetNs gone = *NetNs::create();
    add("gone", gone, map(8080, 80));
  }
  for (int i = 0; i < 200 && *rt_->find_link(host_link_name({"gone", "eth0"})); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const NetNs a = *NetNs::create();
  PluginCall c = call("a", &a, map(8080, 80));
  now = boot_time_now();
  c.services.now = [&] { return now; };
  EXPECT_NE(c.run("ADD").out.find("\"code\":106"), std::string::npos) << "young: its ADD could be in flight";
  now += kOrphanAge;
  const Outcome o = c.run("ADD");
  EXPECT_EQ(o.exit_code, 0) << o.out;
}

INSTANTIATE_TEST_SUITE_P(Wirings, HostPortsTest, testing::Values("routed", "bridge"), [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace fairlead::cni
