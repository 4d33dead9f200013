#include "cni/plugin.h"

#include <set>
#include <boost/json/serialize.hpp>

#include "base/scope_guard.h"
#include "cni/check.h"
#include "cni/gc.h"
#include "netlink/netns.h"

namespace fairlead::cni {
namespace {

namespace json = boost::json;

std::string text_of(const Attachment& a, Version v) { return json::serialize(to_json(a, v)) + "\n"; }

Owner owner_of(const Request& r) { return {r.container_id, r.ifname}; }

// The namespace of the container must be another one than the host's: wiring the host to itself would cut it off.
CniResult<> check_netns(const Request& r) {
  const auto pod = netlink::NetNs::open(r.netns);
  if (!pod) return cni_fail(pod.error().code == ErrorCode::not_found ? Code::unknown_container : Code::io_failure, "CNI_NETNS: {}", pod.error().message);
  const auto host = netlink::NetNs::current();
  if (host && pod->id() == host->id()) return cni_fail(Code::invalid_environment, "CNI_NETNS: {} is the host's own namespace", r.netns);
  return {};
}

CniResult<LeaseStore> open_store(const Services& s, const NetConf& c) {
  CNI_TRY(const auto scope, s.scope());
  return LeaseStore::open(c.ipam.data_dir, c.name, scope);
}

// Whether anything was released.
bool free_orphans(const Services& s, LeaseStore& store, const NetConf& c) {
  if (c.role == Role::ipam) {
    const auto freed = collect_without_netns(store, s.now());
    return freed && !freed->leases.empty();
  }
  auto kernel = s.open_kernel("");
  if (!kernel) return false;
  const auto freed = collect_orphans(**kernel, store, s.now());
  return freed && !freed->leases.empty();
}

CniResult<std::vector<AssignedIp>> lease_addresses(const Services& s, LeaseStore& store, const Request& r, const NetConf& c) {
  AllocationRequest q{.owner = owner_of(r), .netns = r.netns, .wanted = c.requested_ips, .now = s.now(), .reuse_delay = std::chrono::seconds(c.ipam.reuse_delay_s),
                      .start_hint = std::hash<std::string>{}(store.path())};
  if (r.requested_ip) q.wanted.push_back(*r.requested_ip);
  const auto work = [&](LeaseBook& b) { return allocate(b, c.ipam.ranges, q); };
  auto leased = store.write(work);
  if (!leased && leased.error().code == Code::no_address && free_orphans(s, store, c)) leased = store.write(work);
  CNI_TRY(const auto leases, std::move(leased));
  std::vector<AssignedIp> out;
  for (const Allocation& a : leases) out.push_back({.address = {a.ip, a.range.subnet.length()}, .gateway = a.range.gateway, .interface = {}});
  return out;
}

CniResult<> release_addresses(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(const auto scope, s.scope());
  CNI_TRY(auto store, LeaseStore::open_existing(c.ipam.data_dir, c.name, scope));
  if (!store) return {};
  const auto work = [&](LeaseBook& b) { return release(b, owner_of(r), s.now()); };
  CNI_CHECK(store->write(work));
  return {};
}

CniResult<std::string> add_network(const Services& s, const Request& r, const NetConf& c) {
  CNI_CHECK(check_netns(r));
  CNI_TRY(auto kernel, s.open_kernel(r.netns));
  CNI_TRY(auto store, open_store(s, c));
  CNI_TRY(const auto ips, lease_addresses(s, store, r, c));
  auto give_back = on_exit([&] { (void)release_addresses(s, r, c); });
  CNI_TRY(const auto plan, attach_plan(c, r, ips, c.ipam.routes));
  CNI_CHECK(execute(*kernel, plan.steps));
  give_back.dismiss();
  return text_of(plan.attachment, c.version);
}

// The link goes before the addresses: once an address is free, nothing may answer for it any more.
CniResult<std::string> del_network(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(auto kernel, s.open_kernel(""));
  CNI_CHECK(revert(*kernel, detach_steps(owner_of(r))));
  CNI_CHECK(release_addresses(s, r, c));
  return std::string();
}

CniResult<std::vector<AssignedIp>> leased(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(const auto scope, s.scope());
  CNI_TRY(auto store, LeaseStore::open_existing(c.ipam.data_dir, c.name, scope));
  std::vector<AssignedIp> out;
  if (!store) return out;
  CNI_TRY(const auto all, store->all());
  for (const RangeSet& set : c.ipam.ranges)
    for (const Lease& l : all)
      if (const AddressRange* range = set.find(l.ip); range && !l.released && l.owner == owner_of(r))
        out.push_back({.address = {l.ip, range->subnet.length()}, .gateway = range->gateway, .interface = {}});
  return out;
}

CniResult<std::string> check_network(const Services& s, const Request& r, const NetConf& c) {
  if (!c.prev_result) return cni_fail(Code::invalid_config, "prevResult: is missing, CHECK needs it");
  CNI_CHECK(check_netns(r));
  CNI_TRY(const auto ips, leased(s, r, c));
  if (ips.size() < c.ipam.ranges.size())
    return cni_fail(Code::check_failed, "container {} interface {} has {} leases, the network gives {}", r.container_id, r.ifname, ips.size(), c.ipam.ranges.size());
  NetConf fresh = c;
  fresh.prev_result.reset();
  CNI_TRY(const auto plan, attach_plan(fresh, r, ips, c.ipam.routes));
  CNI_TRY(auto kernel, s.open_kernel(r.netns));
  CNI_TRY(const auto observed, kernel->observe(host_link_name(owner_of(r)), r.ifname));
  const auto wrong = differences(plan, *c.prev_result, r, observed);
  if (wrong.empty()) return std::string();
  std::string all;
  for (const auto& w : wrong) all += (all.empty() ? "" : "; ") + w;
  return cni_fail(Code::check_failed, "{}", all);
}

CniResult<std::set<Owner>> valid_owners(const NetConf& c) {
  // An empty list means that nothing is valid; no list at all is a mistake that must not cost every pod its network.
  if (!c.has_valid_attachments) return cni_fail(Code::invalid_config, "invalid configuration: cni.dev/valid-attachments: is missing, GC needs it");
  std::set<Owner> out;
  for (const auto& v : c.valid_attachments) out.insert({v.container_id, v.ifname});
  return out;
}

CniResult<std::string> gc(const Services& s, const NetConf& c) {
  CNI_TRY(const auto valid, valid_owners(c));
  CNI_TRY(const auto scope, s.scope());
  CNI_TRY(auto store, LeaseStore::open_existing(c.ipam.data_dir, c.name, scope));
  if (c.role == Role::ipam) {
    if (!store) return std::string();
    const auto work = [&](LeaseBook& b) { return release_orphans(b, s.now(), BootTime{0}, [&](const Lease& l) { return !valid.contains(l.owner); }); };
    CNI_CHECK(store->write(work));
    return std::string();
  }
  CNI_TRY(auto kernel, s.open_kernel(""));
  CNI_CHECK(collect_invalid(*kernel, store ? &*store : nullptr, c.name, valid, s.now()));
  return std::string();
}

// Could an ADD be served now? The store must open and every range set must have an address.
CniResult<std::string> status(const Services& s, const NetConf& c) {
  const auto unavailable = [](const CniError& e) { return cni_fail(Code::not_available, "{}", e.msg); };
  auto kernel = s.open_kernel("");
  if (!kernel) return unavailable(kernel.error());
  auto store = open_store(s, c);
  if (!store) return unavailable(store.error());
  // A trial allocation that is dropped.
  CniResult<> outcome;
  const auto work = [&](LeaseBook& b) -> CniResult<> {
    auto tried = allocate(b, c.ipam.ranges, {.owner = {"status", "status"}, .netns = "", .wanted = {}, .now = s.now(), .reuse_delay = BootTime{0}});
    if (!tried) outcome = cni_fail(tried.error());
    return cni_fail(Code::internal, "dropped on purpose");
  };
  (void)store->write(work);
  if (!outcome) return unavailable(outcome.error());
  return std::string();
}

CniResult<std::string> run_network(const Services& s, const Request& r, const NetConf& c) {
  switch (r.verb) {
    case Verb::add: return add_network(s, r, c);
    case Verb::del: return del_network(s, r, c);
    case Verb::check: return check_network(s, r, c);
    case Verb::gc: return gc(s, c);
    case Verb::status: return status(s, c);
    case Verb::version: break;
  }
  return std::string();
}

CniResult<std::string> run_ipam(const Services& s, const Request& r, const NetConf& c) {
  if (r.verb == Verb::gc) return gc(s, c);
  if (r.verb == Verb::status) return status(s, c);
  if (r.verb == Verb::del) {
    CNI_CHECK(release_addresses(s, r, c));
    return std::string();
  }
  if (r.verb == Verb::check) {
    CNI_TRY(const auto ips, leased(s, r, c));
    if (ips.empty()) return cni_fail(Code::check_failed, "container {} interface {} has no lease", r.container_id, r.ifname);
    return std::string();
  }
  if (r.verb != Verb::add) return std::string();
  CNI_TRY(auto store, open_store(s, c));
  Attachment a;
  CNI_TRY(a.ips, lease_addresses(s, store, r, c));
  a.routes = c.ipam.routes;
  if (c.ipam.dns) a.dns = *c.ipam.dns;
  return text_of(a, c.version);
}

CniResult<std::string> run_loopback(const Services& s, const Request& r, const NetConf& c) {
  if (r.verb == Verb::del || r.verb == Verb::gc || r.verb == Verb::status) return std::string();
  CNI_CHECK(check_netns(r));
  CNI_TRY(auto kernel, s.open_kernel(r.netns));
  if (r.verb == Verb::check) return std::string();
  CNI_CHECK(kernel->set_loopback(true));
  if (c.prev_result) return text_of(*c.prev_result, c.version);
  Attachment a;
  a.interfaces.push_back({.name = "lo", .mac = "00:00:00:00:00:00", .sandbox = r.netns});
  a.ips.push_back({.address = *InterfaceAddress::parse("127.0.0.1/8"), .gateway = {}, .interface = 0});
  a.ips.push_back({.address = *InterfaceAddress::parse("::1/128"), .gateway = {}, .interface = 0});
  return text_of(a, c.version);
}

std::string version_text(std::string_view stdin_text) {
  json::object o;
  const std::string asked = version_for_error(stdin_text);
  o["cniVersion"] = asked;
  json::array all;
  for (const auto v : supported_versions()) all.push_back(json::string_view(v.data(), v.size()));
  o["supportedVersions"] = std::move(all);
  return json::serialize(o) + "\n";
}

}  // namespace

Services real_services() {
  return {.open_kernel = open_kernel, .now = boot_time_now, .scope = current_scope};
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

Outcome run_plugin(const Services& s, const Environment& environment, std::string_view stdin_text) {
  const auto failed = [&](const CniError& e) { return Outcome{json::serialize(to_json(e, version_for_error(stdin_text))) + "\n", 1}; };
  const auto request = parse_request(environment);
  if (!request) return failed(request.error());
  if (request->verb == Verb::version) return {version_text(stdin_text), 0};
  const auto conf = parse_config(stdin_text);
  if (!conf) return failed(conf.error());
  auto out = run_verb(s, *request, *conf);
  if (!out) return failed(out.error());
  return {std::move(*out), 0};
}

}  // namespace fairlead::cni
