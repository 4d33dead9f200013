#include "cni/result.h"

#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>

namespace fairlead::cni {
namespace {

Attachment sample() {
  Attachment a;
  a.interfaces = {{.name = "flx", .mac = "02:00:00:00:00:01", .mtu = 1400}, {.name = "eth0", .mac = "02:00:00:00:00:02", .mtu = 1400, .sandbox = "/run/netns/p"}};
  a.ips = {{.address = *InterfaceAddress::parse("10.0.0.5/32"), .gateway = *IpAddress::parse("169.254.1.1"), .interface = 1},
           {.address = *InterfaceAddress::parse("fd00::5/128"), .gateway = {}, .interface = 1}};
  a.routes = {{.destination = *Prefix::parse("0.0.0.0/0"), .gateway = {}, .mtu = 1300, .advmss = {}, .priority = 5, .table = {}, .scope = {}}};
  a.dns = {.nameservers = {"10.0.0.10"}, .domain = "x", .search = {"y"}, .options = {"ndots:5"}};
  return a;
}

TEST(Attachment, EachVersionHasItsShape) {
  const std::string dns = R"("dns":{"nameservers":["10.0.0.10"],"domain":"x","search":["y"],"options":["ndots:5"]}})";
  const auto old = [&](const std::string& v) {
    return R"({"cniVersion":")" + v + R"(","interfaces":[{"name":"flx","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/p"}],)"
           R"("ips":[{"version":"4","interface":1,"address":"10.0.0.5/32","gateway":"169.254.1.1"},{"version":"6","interface":1,"address":"fd00::5/128"}],)"
           R"("routes":[{"dst":"0.0.0.0/0"}],)" + dns;
  };
  const std::map<std::string, std::string> expected = {
      {"0.3.0", old("0.3.0")},
      {"0.3.1", old("0.3.1")},
      {"0.4.0", old("0.4.0")},
      {"1.0.0", R"({"cniVersion":"1.0.0","interfaces":[{"name":"flx","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/p"}],)"
                R"("ips":[{"interface":1,"address":"10.0.0.5/32","gateway":"169.254.1.1"},{"interface":1,"address":"fd00::5/128"}],"routes":[{"dst":"0.0.0.0/0"}],)" + dns},
      {"1.1.0", R"({"cniVersion":"1.1.0","interfaces":[{"name":"flx","mac":"02:00:00:00:00:01","mtu":1400},{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/p","mtu":1400}],)"
                R"("ips":[{"interface":1,"address":"10.0.0.5/32","gateway":"169.254.1.1"},{"interface":1,"address":"fd00::5/128"}],"routes":[{"dst":"0.0.0.0/0","mtu":1300,"priority":5}],)" + dns},
  };
  for (const auto v : supported_versions()) {
    const std::string name(v);
    ASSERT_TRUE(expected.contains(name)) << "a row for each version";
    EXPECT_EQ(boost::json::serialize(to_json(sample(), *find_version(v))), expected.at(name));
  }
}

TEST(Attachment, ReadsBackWhatItWrote) {
  for (const auto v : supported_versions()) {
    const boost::json::value doc = to_json(sample(), *find_version(v));
    const auto back = parse_attachment(Field(&doc, "prevResult"));
    ASSERT_TRUE(back) << back.error().msg;
    Attachment want = sample();
    if (!has_link_and_route_details(*find_version(v))) {
      for (auto& i : want.interfaces) i.mtu = 0;
      want.routes[0].mtu.reset();
      want.routes[0].priority.reset();
    }
    EXPECT_EQ(*back, want) << v;
  }
}

TEST(CniErrorJson, HasTheFields) {
  EXPECT_EQ(boost::json::serialize(to_json(CniError{Code::invalid_config, "m", "d"}, "0.4.0")), R"({"cniVersion":"0.4.0","code":7,"msg":"m","details":"d"})");
}

}  // namespace
}  // namespace fairlead::cni
