#include "cni/request.h"

#include <array>
#include <cctype>

#include "cni/json.h"

namespace fairlead::cni {
namespace {

struct Row {
  Verb verb;
  const char* name;
  bool container_id, netns, ifname, path;  // needed
};
constexpr std::array<Row, 6> kVerbs = {{
    {Verb::add, "ADD", true, true, true, true},
    {Verb::del, "DEL", true, false, true, true},
    {Verb::check, "CHECK", true, true, true, true},
    {Verb::gc, "GC", false, false, false, true},
    {Verb::status, "STATUS", false, false, false, true},
    {Verb::version, "VERSION", false, false, false, false},
}};

constexpr std::size_t kMaxArgs = 256;

CniResult<std::map<std::string, std::string>> parse_args(std::string_view text) {
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    const auto end = text.find(';');
    const std::string_view pair = text.substr(0, end);
    text = end == std::string_view::npos ? "" : text.substr(end + 1);
    if (pair.empty()) continue;
    const auto eq = pair.find('=');
    if (eq == std::string_view::npos || eq == 0)
      return cni_fail(Code::invalid_environment, "CNI_ARGS: \"{}\" is not KEY=VALUE", pair);
    if (out.size() >= kMaxArgs) return cni_fail(Code::invalid_environment, "CNI_ARGS: more than {} arguments", kMaxArgs);
    out[std::string(pair.substr(0, eq))] = std::string(pair.substr(eq + 1));
  }
  return out;
}

// Go's strconv.ParseBool, which the reference implementation uses here.
bool is_true(const std::string& s) { return s == "1" || s == "t" || s == "T" || s == "TRUE" || s == "true" || s == "True"; }
bool is_false(const std::string& s) { return s == "0" || s == "f" || s == "F" || s == "FALSE" || s == "false" || s == "False"; }

CniResult<> read_args(Request& r) {
  bool ignore_unknown = false;
  for (const auto& [key, value] : r.args) {
    if (key == "IgnoreUnknown") {
      if (!is_true(value) && !is_false(value))
        return cni_fail(Code::invalid_environment, "CNI_ARGS: IgnoreUnknown: \"{}\" is not a boolean", value);
      ignore_unknown = is_true(value);
    } else if (key == "IP") {
      // Both "10.0.0.5" and "10.0.0.5/24" are in use.
      auto ip = IpAddress::parse(value.substr(0, value.find('/')));
      if (!ip) return cni_fail(Code::invalid_environment, "CNI_ARGS: IP: {}", ip.error().message);
      r.requested_ip = *ip;
    } else if (key == "MAC") {
      auto mac = netlink::MacAddress::parse(value);
      if (!mac) return cni_fail(Code::invalid_environment, "CNI_ARGS: MAC: {}", mac.error().message);
      if (mac->is_multicast() || mac->is_zero()) return cni_fail(Code::invalid_environment, "CNI_ARGS: MAC: \"{}\" is not an address of one interface", value);
      r.requested_mac = *mac;
    }
  }
  for (const auto& [key, value] : r.args)
    if (!ignore_unknown && key != "IgnoreUnknown" && key != "IP" && key != "MAC" && !key.starts_with("K8S_"))
      return cni_fail(Code::invalid_environment, "CNI_ARGS: unknown argument \"{}\" (IgnoreUnknown=1 allows it)", key);
  return {};
}

}  // namespace

std::string_view to_string(Verb v) {
  for (const Row& r : kVerbs)
    if (r.verb == v) return r.name;
  return "?";
}

bool is_identifier(std::string_view s) {
  if (s.empty() || !std::isalnum(static_cast<unsigned char>(s[0]))) return false;
  for (const char c : s)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '.' && c != '-') return false;
  return true;
}

CniResult<Request> parse_request(const Environment& environment) {
  const auto value = [&](const char* name) { return environment(name).value_or(""); };
  const std::string command = value("CNI_COMMAND");
  if (command.empty()) return cni_fail(Code::invalid_environment, "CNI_COMMAND is not set (this program is called by a container runtime)");
  const Row* row = nullptr;
  for (const Row& r : kVerbs)
    if (command == r.name) row = &r;
  if (row == nullptr)
    return cni_fail(Code::invalid_environment, "CNI_COMMAND: \"{}\" is not ADD, DEL, CHECK, GC, STATUS or VERSION", command);

  Request r;
  r.verb = row->verb;
  r.container_id = value("CNI_CONTAINERID");
  r.netns = value("CNI_NETNS");
  r.ifname = value("CNI_IFNAME");
  r.path = value("CNI_PATH");
  std::string missing;
  const auto need = [&](bool needed, const std::string& v, const char* name) {
    if (needed && v.empty()) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  need(row->container_id, r.container_id, "CNI_CONTAINERID");
  need(row->netns, r.netns, "CNI_NETNS");
  need(row->ifname, r.ifname, "CNI_IFNAME");
  need(row->path, r.path, "CNI_PATH");
  if (!missing.empty()) return cni_fail(Code::invalid_environment, "{} needs {}, which is not set", command, missing);

  if (row->container_id && (!is_identifier(r.container_id) || r.container_id.size() > 255))
    return cni_fail(Code::invalid_environment, "CNI_CONTAINERID: \"{}\" is not an identifier of letters, digits, '_', '.' and '-'", r.container_id);
  if (row->ifname)
    if (auto good = netlink::check_link_name(r.ifname); !good)
      return cni_fail(Code::invalid_environment, "CNI_IFNAME: {}", good.error().message);
  if (row->ifname) {
    CNI_TRY(r.args, parse_args(value("CNI_ARGS")));
    CNI_CHECK(read_args(r));
  }
  return r;
}

}  // namespace fairlead::cni
