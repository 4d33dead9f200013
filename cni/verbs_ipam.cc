// Addresses: the lease store as the verbs use it, and the role of an IPAM plugin under another plugin.
#include "cni/delegate.h"
#include "cni/ipam/host_local.h"
#include "cni/verbs.h"

namespace fairlead::cni {

CniResult<LeaseStore> open_store(const Services& s, const NetConf& c) {
  CNI_TRY(const auto scope, s.scope());
  const bool migrate = !c.ipam.host_local_dir.empty();
  if (migrate) {
    CNI_TRY(auto there, LeaseStore::open_existing(c.ipam.data_dir, c.name, scope));
    if (there) return std::move(*there);
  }
  CNI_TRY(auto store, LeaseStore::open(c.ipam.data_dir, c.name, scope));
  if (!migrate) return store;
  CNI_TRY(const auto old, read_host_local(c.ipam.host_local_dir, c.name, time_of_boot(), s.now()));
  // Two first ADDs at once: the second one finds a book that is not empty.
  const auto work = [&](LeaseBook& b) -> CniResult<std::size_t> {
    CNI_TRY(const auto all, lift(b.all(), Code::io_failure));
    return all.empty() ? import_leases(b, c.ipam.ranges, old) : CniResult<std::size_t>(0);
  };
  CNI_CHECK(store.write(work));
  return store;
}

CniResult<std::optional<LeaseStore>> existing_store(const Services& s, const NetConf& c) {
  CNI_TRY(const auto scope, s.scope());
  return LeaseStore::open_existing(c.ipam.data_dir, c.name, scope);
}

bool free_orphans(const Services& s, LeaseStore& store, const NetConf& c) {
  if (c.role == Role::ipam) {
    const auto freed = collect_without_netns(store, s.now());
    return freed && !freed->owners.empty();
  }
  auto kernel = s.open_kernel("");
  if (!kernel) return false;
  const auto freed = collect_orphans(**kernel, store, s.now());
  return freed && !freed->owners.empty();
}

AllocationRequest allocation_request(const Services& s, const LeaseStore& store, const Request& r, const NetConf& c) {
  AllocationRequest q{.owner = owner_of(r), .netns = r.netns, .wanted = c.requested_ips, .now = s.now(), .reuse_delay = std::chrono::seconds(c.ipam.reuse_delay_s),
                      .start_hint = std::hash<std::string>{}(store.path())};
  if (r.requested_ip) q.wanted.push_back(*r.requested_ip);
  return q;
}

CniResult<std::vector<AssignedIp>> lease_in(LeaseBook& b, const AllocationRequest& q, const NetConf& c) {
  CNI_TRY(const auto leases, allocate(b, c.ipam.ranges, q));
  std::vector<AssignedIp> out;
  for (const Allocation& a : leases) out.push_back({.address = {a.ip, a.range.subnet.length()}, .gateway = a.range.gateway, .interface = {}});
  return out;
}

CniResult<std::vector<AssignedIp>> leased(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(auto store, existing_store(s, c));
  std::vector<AssignedIp> out;
  if (!store) return out;
  const auto work = [&](LeaseBook& b) { return lift(b.held_by(owner_of(r)), Code::io_failure); };
  CNI_TRY(const auto held, store->read(work));
  for (const RangeSet& set : c.ipam.ranges)
    for (const IpAddress& ip : held)
      if (const AddressRange* range = set.find(ip)) out.push_back({.address = {ip, range->subnet.length()}, .gateway = range->gateway, .interface = {}});
  return out;
}

CniResult<> give_back(const Services& s, LeaseStore& store, const Owner& owner) {
  const auto work = [&](LeaseBook& b) -> CniResult<> {
    CNI_CHECK(release(b, owner, s.now()));
    return lift(b.set_record(owner, ""), Code::io_failure);
  };
  return store.write(work);
}

CniResult<> try_allocation(const Services& s, LeaseStore& store, const NetConf& c) {
  CniResult<> outcome;
  const auto work = [&](LeaseBook& b) -> CniResult<> {
    auto tried = allocate(b, c.ipam.ranges, {.owner = {"status", "status"}, .netns = "", .wanted = {}, .now = s.now(), .reuse_delay = BootTime{0}});
    if (!tried) outcome = cni_fail(tried.error());
    return cni_fail(Code::internal, "dropped on purpose");
  };
  (void)store.write(work);
  return outcome;
}

namespace {

CniResult<std::string> add_addresses(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(auto store, open_store(s, c));
  const AllocationRequest q = allocation_request(s, store, r, c);
  const auto work = [&](LeaseBook& b) { return lease_in(b, q, c); };
  Attachment a;
  CNI_TRY(a.ips, with_orphans_freed(s, store, c, Code::no_address, [&] { return store.write(work); }));
  a.routes = c.ipam.routes;
  if (c.ipam.dns) a.dns = *c.ipam.dns;
  return text_of(a, c.version);
}

CniResult<std::string> gc_addresses(const Services& s, const NetConf& c) {
  CNI_TRY(const auto valid, valid_owners(c));
  CNI_TRY(auto store, existing_store(s, c));
  if (!store) return std::string();
  const auto invalid = [&](const Lease& l) { return !valid.contains(l.owner); };
  const auto work = [&](LeaseBook& b) { return release_orphans(b, s.now(), BootTime{0}, invalid); };
  CNI_CHECK(store->write(work));
  return std::string();
}

CniResult<std::string> status_of_addresses(const Services& s, const NetConf& c) {
  auto store = open_store(s, c);
  if (!store) return cni_fail(Code::not_available, "{}", store.error().msg);
  if (auto free = try_allocation(s, *store, c); !free) return cni_fail(Code::not_available, "{}", free.error().msg);
  return std::string();
}

}  // namespace

CniResult<std::string> run_ipam(const Services& s, const Request& r, const NetConf& c) {
  switch (r.verb) {
    case Verb::add: return add_addresses(s, r, c);
    case Verb::del: {
      CNI_TRY(auto store, existing_store(s, c));
      if (store) CNI_CHECK(give_back(s, *store, owner_of(r)));
      return std::string();
    }
    case Verb::check: {
      CNI_TRY(const auto ips, leased(s, r, c));
      if (ips.empty()) return cni_fail(Code::check_failed, "container {} interface {} has no lease", r.container_id, r.ifname);
      return std::string();
    }
    case Verb::gc: return gc_addresses(s, c);
    case Verb::status: return status_of_addresses(s, c);
    case Verb::version: break;
  }
  return std::string();
}

}  // namespace fairlead::cni
