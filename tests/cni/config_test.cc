#include "cni/config.h"

#include <gtest/gtest.h>

namespace fairlead::cni {
namespace {

std::string conf(const std::string& more) {
  return R"({"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni")" + (more.empty() ? "" : "," + more) + "}";
}
const std::string kIpam = R"("ipam":{"ranges":[[{"subnet":"10.244.1.0/24"}]]})";

TEST(Config, TheSmallestOne) {
  const auto c = parse_config(conf(kIpam));
  ASSERT_TRUE(c) << c.error().msg;
  EXPECT_EQ(c->wiring, Wiring::routed);
  EXPECT_EQ(c->role, Role::network);
  EXPECT_TRUE(c->ipam.builtin);
  ASSERT_EQ(c->ipam.ranges.size(), 1u);
  const AddressRange& r = c->ipam.ranges[0].ranges[0];
  EXPECT_EQ(r.first.to_string(), "10.244.1.1");
  EXPECT_EQ(r.last.to_string(), "10.244.1.254");
  EXPECT_EQ(r.gateway.to_string(), "10.244.1.1");
}

TEST(Config, EveryErrorNamesTheField) {
  struct Row {
    std::string text;
    Code code;
    const char* says;
  };
  const std::string subnet = R"("subnet":"10.0.0.0/24")";
  const auto range = [](const std::string& r) { return conf(R"("ipam":{"ranges":[[{)" + r + "}]]}"); };
  for (const Row& r : {
           Row{"", Code::failed_to_decode, "not JSON"},
           Row{"[]", Code::failed_to_decode, "not a JSON object"},
           Row{R"({"name":"x")", Code::failed_to_decode, "not JSON"},
           Row{R"({"cniVersion":"0.2.0","name":"x","type":"fairlead-cni"})", Code::incompatible_version, "0.2.0"},
           Row{R"({"name":"x","type":"fairlead-cni"})", Code::incompatible_version, "supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"},
           Row{R"({"cniVersion":1,"name":"x"})", Code::invalid_config, "cniVersion: 1 is not a string"},
           Row{R"({"cniVersion":"1.0.0","type":"fairlead-cni"})", Code::invalid_config, "name: is missing"},
           Row{R"({"cniVersion":"1.0.0","name":"a/b","type":"fairlead-cni"})", Code::invalid_config, "name:"},
           Row{conf(""), Code::invalid_config, "ipam.ranges: is missing"},
           Row{conf(R"("ipam":[])"), Code::invalid_config, "ipam: [] is not an object"},
           Row{conf(R"("ipam":{"ranges":{}})"), Code::invalid_config, "ipam.ranges: {} is not a list"},
           Row{conf(R"("ipam":{"ranges":[[]]})"), Code::invalid_config, "ipam.ranges[0]: is an empty range set"},
           Row{range(R"("subnet":"10.0.0.1/24")"), Code::invalid_config, "ipam.ranges[0][0].subnet"},
           Row{range(R"("subnet":"10.0.0.0/31")"), Code::invalid_config, "too small"},
           Row{range(R"("subnet":"fd00::/127")"), Code::invalid_config, "too small"},
           Row{range(subnet + R"(,"rangeStart":"10.0.1.1")"), Code::invalid_config, "rangeStart"},
           Row{range(subnet + R"(,"rangeStart":"10.0.0.0")"), Code::invalid_config, "rangeStart"},
           Row{range(subnet + R"(,"rangeEnd":"10.0.0.255")"), Code::invalid_config, "rangeEnd"},
           Row{range(subnet + R"(,"rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8")"), Code::invalid_config, "before rangeStart"},
           Row{range(subnet + R"(,"gateway":"fd00::1")"), Code::invalid_config, "gateway"},
           Row{conf(R"("ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.0.128/25"}]]})"), Code::invalid_config, "overlaps"},
           Row{conf(R"("ipam":{"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]})"), Code::invalid_config, "another family"},
           Row{conf(kIpam + R"(,"wiring":"magic")"), Code::invalid_config, "wiring: \"magic\""},
           Row{conf(kIpam + R"(,"mtu":"1500")"), Code::invalid_config, "mtu: \"1500\" is not a whole number"},
           Row{conf(kIpam + R"(,"mtu":60)"), Code::invalid_config, "mtu: 60 is below"},
           Row{conf(kIpam + R"(,"mtu":70000)"), Code::invalid_config, "mtu: 70000 is outside"},
           Row{conf(kIpam + R"(,"bridge":"a/b")"), Code::invalid_config, "bridge:"},
           Row{conf(kIpam + R"(,"hairpinMode":true,"promiscMode":true)"), Code::invalid_config, "promiscMode"},
           Row{conf(kIpam + R"(,"vlan":4095)"), Code::invalid_config, "vlan"},
           Row{conf(kIpam + R"(,"vlanTrunk":[{"minID":9}])"), Code::invalid_config, "vlanTrunk[0]: minID and maxID"},
           Row{conf(kIpam + R"(,"vlanTrunk":[{"minID":9,"maxID":8}])"), Code::invalid_config, "9-8"},
           Row{conf(kIpam + R"(,"sysctl":{"kernel.panic":"1"})"), Code::invalid_config, "sysctl.kernel.panic: is not a network parameter"},
           Row{conf(kIpam + R"(,"sysctl":{"net/../kernel/panic":"1"})"), Code::invalid_config, "is not a kernel parameter"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"hostPort":0,"containerPort":80}]})"), Code::invalid_config, "portMappings[0].hostPort"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]})"), Code::invalid_config, "protocol"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":81}]})"), Code::invalid_config, "mapped twice"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"0.0.0.0"},{"hostPort":80,"containerPort":81}]})"), Code::invalid_config, "mapped twice"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":81,"hostIP":"::"}]})"), Code::invalid_config, "mapped twice"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"192.0.2.1"},{"hostPort":80,"containerPort":81,"hostIP":"192.0.2.1"}]})"), Code::invalid_config, "mapped twice"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"aliases":["a b"]})"), Code::invalid_config, "runtimeConfig.aliases: \"a b\" is not a host name"},
           Row{conf(kIpam + R"(,"ipMasqBackend":"iptables")"), Code::invalid_config, "ipMasqBackend: \"iptables\""},
           Row{conf(kIpam + R"(,"hostsDir":"run")"), Code::invalid_config, "hostsDir"},
           Row{conf(kIpam + R"(,"txQLen":-1)"), Code::invalid_config, "txQLen"},
           Row{conf(kIpam + R"(,"wiring":"bridge","bridge":"fourteen-chars","vlan":7)"), Code::invalid_config, "is too long"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"bandwidth":{"ingressRate":1000}})"), Code::invalid_config, "ingressBurst: is needed"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"mac":"01:00:00:00:00:01"})"), Code::invalid_config, "runtimeConfig.mac"},
           Row{conf(kIpam + R"(,"runtimeConfig":{"ips":["10.0.0"]})"), Code::invalid_config, "runtimeConfig.ips"},
           Row{conf(kIpam + R"(,"prevResult":{"ips":[{"address":"10.0.0.1/24","interface":3}]})"), Code::invalid_config, "prevResult.ips[0].interface: 3"},
       }) {
    const auto c = parse_config(r.text);
    ASSERT_FALSE(c) << r.text;
    EXPECT_EQ(c.error().code, r.code) << r.text << "\n" << c.error().msg;
    EXPECT_NE(c.error().msg.find(r.says), std::string::npos) << r.text << "\n" << c.error().msg;
  }
}

// What the reference plugins would do and this one does not is refused, never ignored.
TEST(Config, WhatIsNotSupportedIsRefused) {
  struct Row {
    const char* more;
    const char* field;
  };
  for (const Row& r : {
           Row{R"("runtimeConfig":{"infinibandGUID":"c2:11:22:33:44:55:66:77"})", "runtimeConfig.infinibandGUID"},
           Row{R"("runtimeConfig":{"deviceID":"0000:03:00.1"})", "runtimeConfig.deviceID"},
           Row{R"("macspoofchk":true)", "macspoofchk"},
           Row{R"("forceAddress":true)", "forceAddress"},
           Row{R"("enabledad":true)", "enabledad"},
           Row{R"("disableContainerInterface":true)", "disableContainerInterface"},
           Row{R"("vlan":7)", "vlan"},
           Row{R"("vlanTrunk":[{"id":7}])", "vlanTrunk"},
           Row{R"("promiscMode":true)", "promiscMode"},
           Row{R"("portIsolation":true)", "portIsolation"},
           Row{R"("bridge":"br0")", "bridge"},
       }) {
    const auto c = parse_config(conf(kIpam + "," + r.more));
    ASSERT_TRUE(c) << c.error().msg;
    ASSERT_TRUE(c->unsupported) << r.more;
    EXPECT_EQ(c->unsupported->code, Code::unsupported_field) << r.more;
    EXPECT_NE(c->unsupported->msg.find(std::string("unsupported field: ") + r.field + ": "), std::string::npos) << c->unsupported->msg;
  }
  // Off, empty or zero asks for nothing.
  const auto off = parse_config(conf(kIpam + R"(,"ipMasq":false,"vlan":0,"txQLen":0,"hairpinMode":true,"runtimeConfig":{"portMappings":[],"aliases":[]})"));
  ASSERT_TRUE(off) << off.error().msg;
  EXPECT_FALSE(off->unsupported);
}

// containerd sends Go's field names; exact names win over others.
TEST(Config, KeysAreFoundWithoutRegardToCase) {
  const auto c = parse_config(conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"udp","HostIP":"127.0.0.1"}],
    "bandwidth":{"IngressRate":8000,"IngressBurst":16000,"EgressRate":0,"EgressBurst":0},"dns":{"Servers":["10.0.0.10"],"Searches":["a.b"],"Options":["ndots:5"]},
    "IPRanges":[[{"Subnet":"10.9.0.0/24"}]]})"));
  ASSERT_TRUE(c) << c.error().msg;
  ASSERT_EQ(c->runtime.port_mappings.size(), 1u);
  EXPECT_EQ(c->runtime.port_mappings[0], (PortMapping{8080, 80, Protocol::udp, *IpAddress::parse("127.0.0.1")}));
  EXPECT_EQ(c->runtime.ingress, (RateLimit{1000, 2000}));
  EXPECT_EQ(c->runtime.egress, RateLimit{});
  EXPECT_EQ(c->runtime.dns->nameservers, std::vector<std::string>{"10.0.0.10"});
  EXPECT_EQ(c->ipam.ranges.size(), 2u);
  EXPECT_EQ(c->ipam.ranges[0].ranges[0].subnet.to_string(), "10.9.0.0/24") << "the runtime's ranges come first";
  EXPECT_EQ(parse_config(conf(kIpam + R"(,"MTU":1400,"mtu":1300)"))->mtu, 1300u);
}

TEST(Config, OnePortOnSeveralAddresses) {
  for (const char* pair : {R"("hostIP":"192.0.2.1"},{)", R"("hostIP":"192.0.2.1"},{"hostIP":"192.0.2.2",)", R"("hostIP":"0.0.0.0"},{"hostIP":"::",)", R"("protocol":"udp"},{)"}) {
    const auto c = parse_config(conf(kIpam + R"(,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,)" + pair + R"("hostPort":80,"containerPort":80}]})"));
    EXPECT_TRUE(c) << pair << ": " << c.error().msg;
  }
}

// containerd's burst for pod annotations is 2^32-1 bits.
TEST(Config, AnyBurstIsATenthOfASecond) {
  for (const char* any : {"4294967295", "18446744073709551615"}) {
    const auto c = parse_config(conf(kIpam + R"(,"runtimeConfig":{"bandwidth":{"ingressRate":80000000,"ingressBurst":)" + any + R"(,"egressRate":8000,"egressBurst":)" + any + "}}"));
    ASSERT_TRUE(c) << c.error().msg;
    EXPECT_EQ(c->runtime.ingress, (RateLimit{10'000'000, 1'000'000}));
    EXPECT_EQ(c->runtime.egress, (RateLimit{1000, 128 * 1024})) << "but never less than the largest packets need";
  }
}

TEST(Config, TheRoleComesFromTheTypes) {
  EXPECT_EQ(parse_config(conf(kIpam))->role, Role::network);
  EXPECT_EQ(parse_config(R"({"cniVersion":"1.0.0","name":"n","type":"bridge","ipam":{"type":"fairlead-cni","ranges":[[{"subnet":"10.0.0.0/24"}]]}})")->role, Role::ipam);
  EXPECT_EQ(parse_config(R"({"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"})")->role, Role::loopback);
  const auto delegated = parse_config(conf(R"("ipam":{"type":"host-local","subnet":"10.0.0.0/24"})"));
  ASSERT_TRUE(delegated);
  EXPECT_FALSE(delegated->ipam.builtin);
  EXPECT_EQ(delegated->ipam.type, "host-local");
}

TEST(Config, VersionForErrorsIsTheOneAskedForWhenWeHaveIt) {
  EXPECT_EQ(version_for_error(R"({"cniVersion":"0.4.0"})"), "0.4.0");
  EXPECT_EQ(version_for_error(R"({"cniVersion":"9.9.9"})"), "1.1.0");
  EXPECT_EQ(version_for_error("garbage"), "1.1.0");
}

}  // namespace
}  // namespace fairlead::cni
