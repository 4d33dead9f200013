#include "cni/request.h"

#include <gtest/gtest.h>

namespace fairlead::cni {
namespace {

using Vars = std::map<std::string, std::string>;

CniResult<Request> parse(const Vars& vars) {
  return parse_request([&](const std::string& name) -> std::optional<std::string> {
    const auto it = vars.find(name);
    return it == vars.end() ? std::nullopt : std::optional<std::string>(it->second);
  });
}

const Vars kFull = {{"CNI_CONTAINERID", "c1"}, {"CNI_NETNS", "/run/netns/x"}, {"CNI_IFNAME", "eth0"}, {"CNI_PATH", "/opt/cni/bin"}};

// For every verb: with everything set it parses; without one variable it parses exactly when the specification does not ask for it.
TEST(Request, EachVerbNeedsWhatTheSpecificationSays) {
  struct Row {
    const char* verb;
    std::string needs;
  };
  for (const Row& r : {Row{"ADD", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_PATH"}, Row{"DEL", "CNI_CONTAINERID CNI_IFNAME CNI_PATH"},
                       Row{"CHECK", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_PATH"}, Row{"GC", "CNI_PATH"}, Row{"STATUS", "CNI_PATH"}, Row{"VERSION", ""}}) {
    Vars all = kFull;
    all["CNI_COMMAND"] = r.verb;
    ASSERT_TRUE(parse(all)) << r.verb;
    EXPECT_EQ(to_string(parse(all)->verb), r.verb);
    for (const auto& [name, value] : kFull) {
      Vars without = all;
      without.erase(name);
      const auto got = parse(without);
      const bool needed = r.needs.find(name) != std::string::npos;
      EXPECT_EQ(got.has_value(), !needed) << r.verb << " without " << name;
      if (got) continue;
      EXPECT_EQ(got.error().code, Code::invalid_environment);
      EXPECT_NE(got.error().msg.find(name), std::string::npos) << got.error().msg;
    }
  }
}

TEST(Request, RefusesWhatIsWrong) {
  struct Row {
    const char* name;
    const char* value;
    const char* says;
  };
  for (const Row& r : {Row{"CNI_COMMAND", "add", "is not ADD"}, Row{"CNI_COMMAND", "", "is not set"}, Row{"CNI_CONTAINERID", "../x", "identifier"},
                       Row{"CNI_CONTAINERID", "-x", "identifier"}, Row{"CNI_IFNAME", "a/b", "interface name"}, Row{"CNI_IFNAME", "1234567890123456", "interface name"},
                       Row{"CNI_ARGS", "IP", "KEY=VALUE"}, Row{"CNI_ARGS", "IP=10.0.0", "IP address"}, Row{"CNI_ARGS", "MAC=1", "MAC address"},
                       Row{"CNI_ARGS", "FOO=1", "unknown argument"}, Row{"CNI_ARGS", "IgnoreUnknown=0;FOO=1", "unknown argument"},
                       Row{"CNI_ARGS", "IgnoreUnknown=x", "boolean"}}) {
    Vars v = kFull;
    v["CNI_COMMAND"] = "ADD";
    v[r.name] = r.value;
    const auto got = parse(v);
    ASSERT_FALSE(got) << r.name << "=" << r.value;
    EXPECT_EQ(got.error().code, Code::invalid_environment);
    EXPECT_NE(got.error().msg.find(r.says), std::string::npos) << got.error().msg;
  }
}

TEST(Request, ReadsArgs) {
  Vars v = kFull;
  v["CNI_COMMAND"] = "ADD";
  v["CNI_ARGS"] = "IgnoreUnknown=true;K8S_POD_NAME=web=0;IP=10.1.2.3/24;MAC=02:00:00:00:00:01;X=;";
  const auto got = parse(v);
  ASSERT_TRUE(got) << got.error().msg;
  EXPECT_EQ(got->requested_ip, *IpAddress::parse("10.1.2.3"));
  EXPECT_EQ(got->requested_mac->to_string(), "02:00:00:00:00:01");
  EXPECT_EQ(got->args.at("K8S_POD_NAME"), "web=0");
}

}  // namespace
}  // namespace fairlead::cni
