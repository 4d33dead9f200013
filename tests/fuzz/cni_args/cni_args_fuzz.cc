// The environment of a call: lines NAME=VALUE, missing ones stand for nothing. What is accepted keeps its promises.
#include <map>

#include "cni/request.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(std::string_view bytes) {
  using namespace fairlead::cni;
  std::map<std::string, std::string> variables{{"CNI_COMMAND", "ADD"}, {"CNI_CONTAINERID", "c"}, {"CNI_NETNS", "/n"}, {"CNI_IFNAME", "eth0"}, {"CNI_PATH", "/p"}};
  while (!bytes.empty()) {
    const auto end = bytes.find('\n');
    const std::string_view line = bytes.substr(0, end);
    bytes = end == std::string_view::npos ? "" : bytes.substr(end + 1);
    const auto eq = line.find('=');
    if (eq != std::string_view::npos) variables[std::string(line.substr(0, eq))] = std::string(line.substr(eq + 1));
  }
  const auto r = parse_request([&](const std::string& name) -> std::optional<std::string> {
    const auto it = variables.find(name);
    return it == variables.end() ? std::nullopt : std::optional(it->second);
  });
  if (!r) {
    FUZZ_CHECK(r.error().code == Code::invalid_environment && !r.error().msg.empty(), "a refusal is about the environment and says why");
    return;
  }
  if (r->verb == Verb::gc || r->verb == Verb::status || r->verb == Verb::version) return;
  FUZZ_CHECK(is_identifier(r->container_id), "a container id can be part of a path");
  FUZZ_CHECK(fairlead::netlink::check_link_name(r->ifname).has_value(), "an interface has a name that the kernel takes");
  FUZZ_CHECK(!r->requested_mac || !r->requested_mac->is_multicast(), "a MAC address is one of an interface");
}
