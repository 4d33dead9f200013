#include "cni/plugin.h"

#include <boost/json/serialize.hpp>
#include <exception>

#include "base/files.h"
#include "cni/delegate.h"
#include "cni/ipam/resolv_conf.h"
#include "cni/verbs.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::cni {
namespace {

namespace json = boost::json;

std::string version_text(std::string_view stdin_text) {
  json::object o;
  o["cniVersion"] = version_for_error(stdin_text);
  json::array all;
  for (const auto v : supported_versions()) all.push_back(json::string_view(v.data(), v.size()));
  o["supportedVersions"] = std::move(all);
  return json::serialize(o) + "\n";
}

// Only a veth: whatever else has that name was not made for this network.
CniResult<> remove_in_pod(const std::string& netns, const std::string& ifname) {
  const auto ns = netlink::NetNs::open(netns);
  if (!ns) return {};
  CNI_TRY(auto rt, lift(netlink::RtSocket::open_in(ns->fd()), Code::kernel));
  CNI_TRY(const auto link, lift(rt.find_link(ifname), Code::kernel));
  if (!link || link->kind != "veth") return {};
  return lift(rt.remove_link(ifname), Code::kernel);
}

CniResult<> read_resolv_conf(NetConf& c) {
  if (c.ipam.resolv_conf.empty()) return {};
  CNI_TRY(const auto text, lift(read_file(c.ipam.resolv_conf, 64 * 1024), Code::io_failure));
  c.ipam.dns = parse_resolv_conf(text);
  return {};
}

}  // namespace

std::string text_of(const Attachment& a, Version v) { return json::serialize(to_json(a, v)) + "\n"; }

CniResult<> check_netns(const Request& r) {
  const auto pod = netlink::NetNs::open(r.netns);
  if (!pod) return cni_fail(pod.error().code == ErrorCode::not_found ? Code::unknown_container : Code::io_failure, "CNI_NETNS: {}", pod.error().message);
  const auto host = netlink::NetNs::current();
  if (host && pod->id() == host->id()) return cni_fail(Code::invalid_environment, "CNI_NETNS: {} is the host's own namespace", r.netns);
  return {};
}

CniResult<std::set<Owner>> valid_owners(const NetConf& c) {
  // An empty list means that nothing is valid; no list at all is a mistake that must not cost every pod its network.
  if (!c.has_valid_attachments) return cni_fail(Code::invalid_config, "invalid configuration: cni.dev/valid-attachments: is missing, GC needs it");
  std::set<Owner> out;
  for (const auto& v : c.valid_attachments) out.insert({v.container_id, v.ifname});
  return out;
}

CniResult<std::string> run_loopback(const Services& s, const Request& r, const NetConf& c) {
  if (r.verb == Verb::del || r.verb == Verb::gc || r.verb == Verb::status) return std::string();
  CNI_CHECK(check_netns(r));
  CNI_TRY(auto kernel, s.open_kernel(r.netns));
  if (r.verb == Verb::check) {
    CNI_TRY(const bool up, kernel->loopback_up());
    if (!up) return cni_fail(Code::check_failed, "the container's lo is down");
    return std::string();
  }
  CNI_CHECK(kernel->set_loopback(true));
  if (c.prev_result) return text_of(*c.prev_result, c.version);
  Attachment a;
  a.interfaces.push_back({.name = "lo", .mac = "00:00:00:00:00:00", .sandbox = r.netns});
  a.ips.push_back({.address = *InterfaceAddress::parse("127.0.0.1/8"), .gateway = {}, .interface = 0});
  a.ips.push_back({.address = *InterfaceAddress::parse("::1/128"), .gateway = {}, .interface = 0});
  return text_of(a, c.version);
}

Services real_services() {
  return {.open_kernel = open_kernel, .now = boot_time_now, .scope = current_scope,
          .delegate = run_delegate, .remove_in_pod = remove_in_pod};
}

CniResult<std::string> run_verb(const Services& s, const Request& r, const NetConf& c) {
  if (r.verb == Verb::check && !has_check(c.version))
    return cni_fail(Code::incompatible_version, "CHECK needs cniVersion 0.4.0 or later, the configuration says {}", to_string(c.version));
  if ((r.verb == Verb::gc || r.verb == Verb::status) && !has_gc_and_status(c.version))
    return cni_fail(Code::incompatible_version, "{} needs cniVersion 1.1.0 or later, the configuration says {}", to_string(r.verb), to_string(c.version));
  if (c.unsupported && (r.verb == Verb::add || r.verb == Verb::check || r.verb == Verb::status)) return cni_fail(*c.unsupported);
  switch (c.role) {
    case Role::network: return run_network(s, r, c);
    case Role::ipam: return run_ipam(s, r, c);
    case Role::loopback: return run_loopback(s, r, c);
  }
  return std::string();
}

Outcome run_plugin(const Services& s, const Environment& environment, std::string_view stdin_text) try {
  const auto failed = [&](const CniError& e) { return Outcome{json::serialize(to_json(e, version_for_error(stdin_text))) + "\n", 1}; };
  const auto request = parse_request(environment);
  if (!request) return failed(request.error());
  if (request->verb == Verb::version) return {version_text(stdin_text), 0};
  auto conf = parse_config(stdin_text);
  if (!conf) return failed(conf.error());
  if (request->verb == Verb::add)
    if (auto read = read_resolv_conf(*conf); !read) return failed(read.error());
  if (request->verb == Verb::add) {
    const auto scope = s.scope();
    if (!scope) return failed(scope.error());
    conf->node_id = fmt::format("{}-{}", scope->boot_id, scope->netns_inode);
  }
  auto out = run_verb(s, *request, *conf);
  if (!out) return failed(out.error());
  return {std::move(*out), 0};
} catch (const std::exception& e) {
  // None of ours throws; no memory or no thread is left, and the runtime still gets an answer it can read.
  return {json::serialize(to_json({Code::internal, e.what(), ""}, version_for_error(stdin_text))) + "\n", 1};
}

}  // namespace fairlead::cni
