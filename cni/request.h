// Request: the environment of one call of the plugin, checked. Which variable a verb needs is a table, from SPEC.md
// "Parameters". Pure: the environment comes in as a function.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "cni/error.h"
#include "netlink/link.h"

namespace fairlead::cni {

enum class Verb { add, del, check, gc, status, version };
std::string_view to_string(Verb v);

struct Request {
  Verb verb = Verb::version;
  std::string container_id;
  std::string netns;    // path; may be empty for DEL
  std::string ifname;
  std::map<std::string, std::string> args;  // CNI_ARGS
  std::string path;     // CNI_PATH
  // The well-known ones among CNI_ARGS.
  std::optional<IpAddress> requested_ip;
  std::optional<netlink::MacAddress> requested_mac;
};

using Environment = std::function<std::optional<std::string>(const std::string& name)>;
CniResult<Request> parse_request(const Environment& environment);

// Alphanumeric first, then also _ . - : container ids and network names.
bool is_identifier(std::string_view s);

}  // namespace fairlead::cni
