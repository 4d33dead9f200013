#include "cni/plan.h"

#include <gtest/gtest.h>

#include <set>

namespace fairlead::cni {
namespace {

Request request() { return {.verb = Verb::add, .container_id = "c1", .netns = "/run/netns/p", .ifname = "eth0"}; }

NetConf conf(const std::string& more) {
  auto c = parse_config(R"({"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni","ipam":{"ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00::/64"}]]})" + more + "}");
  EXPECT_TRUE(c.has_value()) << (c ? "" : c.error().msg);
  return *c;
}

AssignedIp v4() { return {.address = *InterfaceAddress::parse("10.244.1.5/24"), .gateway = *IpAddress::parse("10.244.1.1"), .interface = {}}; }
AssignedIp v6() { return {.address = *InterfaceAddress::parse("fd00::5/64"), .gateway = *IpAddress::parse("fd00::1"), .interface = {}}; }

TEST(Plan, RoutedDualStack) {
  const auto plan = attach_plan(conf(R"(,"mtu":1400)"), request(), {v4(), v6()}, {});
  ASSERT_TRUE(plan);
  const std::string name = host_link_name({"c1", "eth0"});
  EXPECT_EQ(plan->to_string(),
            "forwarding ipv4 ipv6\n"
            "host gateway 169.254.1.1 on lo\n"
            "veth " + name + " " + derived_mac({"c1", "eth0"}, "host").to_string() + " -> pod eth0 " + derived_mac({"c1", "eth0"}, "pod").to_string() + " mtu 1400\n"
            "name host link " + name + " \"fairlead-cni pods eth0 c1\"\n"
            "pod link eth0 10.244.1.5/32 fd00::5/128, 169.254.1.1/32, 0.0.0.0/0 via 169.254.1.1, ::/0 via fe80::1\n"
            "open host link " + name + " fe80::1\n"
            "host routes over " + name + " 10.244.1.5 fd00::5\n"
            "await carrier " + name + "\n");
  EXPECT_EQ(plan->attachment.ips[0].address.to_string(), "10.244.1.5/32");
  EXPECT_EQ(plan->attachment.ips[1].interface, 1u);
}

TEST(Plan, BridgeWithEverything) {
  const auto plan = attach_plan(conf(R"(,"wiring":"bridge","bridge":"br9","hairpinMode":true,"portIsolation":true,"vlan":7,"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"})"),
                                request(), {v4()}, {{.destination = *Prefix::parse("10.0.0.0/8"), .gateway = *IpAddress::parse("10.244.1.9"), .mtu = {}, .advmss = {}, .priority = {}, .table = {}, .scope = {}}});
  ASSERT_TRUE(plan);
  const std::string text = plan->to_string();
  for (const char* part : {"bridge br9 vlan-filtering\n", "vlan gateway br9.7 on br9 vlan 7 10.244.1.1/24\n", "await carrier fl", " br9.7\n", " on br9\n", "bridge port fl", " hairpin isolated vlan 7\n", "1 pod sysctls\n", " without ipv6\n", "open host link fl",
                           "pod link eth0 10.244.1.5/24, 10.0.0.0/8 via 10.244.1.9, 0.0.0.0/0 via 10.244.1.1\n"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text;
  EXPECT_EQ(plan->attachment.ips[0].interface, 2u);
}

TEST(Plan, HostPortsOpenTheLocalhostsOfTheirFamilies) {
  const auto localhost = [](const std::vector<AssignedIp>& ips, const std::string& more) {
    const auto plan = attach_plan(conf(more), request(), ips, {});
    EXPECT_TRUE(plan);
    for (const Step& s : plan->steps)
      if (const auto* open = std::get_if<OpenHostLink>(&s)) return open->localhost;
    return LocalhostPorts{};
  };
  const std::string ports = R"(,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80}]})";
  EXPECT_EQ(localhost({v4(), v6()}, ports), (LocalhostPorts{true, true}));
  EXPECT_EQ(localhost({v4()}, ports), (LocalhostPorts{true, false}));
  EXPECT_EQ(localhost({v6()}, ports), (LocalhostPorts{false, true}));
  EXPECT_EQ(localhost({v4(), v6()}, ""), LocalhostPorts{});
}

TEST(Plan, ChainedBehindAnotherPlugin) {
  NetConf c = conf("");
  c.prev_result = Attachment{.interfaces = {{.name = "x"}}, .ips = {}, .routes = {}, .dns = {}};
  const auto plan = attach_plan(c, request(), {v4()}, {});
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->attachment.interfaces.size(), 3u);
  EXPECT_EQ(plan->attachment.interfaces[0].name, "x");
  EXPECT_EQ(plan->attachment.ips[0].interface, 2u);
}

TEST(Plan, NamesFitAndDiffer) {
  std::set<std::string> names;
  for (int i = 0; i < 10000; ++i) names.insert(host_link_name({"container-" + std::to_string(i), "eth0"}));
  names.insert(host_link_name({"container-0", "eth1"}));
  EXPECT_EQ(names.size(), 10001u);
  for (const auto& n : names) ASSERT_TRUE(netlink::check_link_name(n)) << n;
  EXPECT_FALSE(derived_mac({"a", "b"}, "pod").is_multicast());
  EXPECT_NE(derived_mac({"a", "b"}, "pod"), derived_mac({"a", "b"}, "host"));
  // Fixed for all time: an upgrade must find the links that the old version made.
  EXPECT_EQ(host_link_name({"c1", "eth0"}), "flf7b8f6bdeb512");
}

TEST(Plan, AliasesAreReadBack) {
  const auto a = parse_alias(host_link_alias("pods", {"c1", "eth0"}));
  ASSERT_TRUE(a);
  EXPECT_EQ(a->network, "pods");
  EXPECT_EQ(a->owner, (Owner{"c1", "eth0"}));
  for (const char* other : {"", "calico x y z", "fairlead-cni pods eth0", "fairlead-cni pods eth0 c1 x"}) EXPECT_FALSE(parse_alias(other)) << other;
}

}  // namespace
}  // namespace fairlead::cni
