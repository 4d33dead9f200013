#include "cni/gc.h"

#include "base/files.h"

namespace fairlead::cni {
namespace {

void detach_all(Kernel& kernel, LeaseStore* store, const std::set<Owner>& owners, BootTime now, Collected& out) {
  for (const Owner& owner : owners) {
    if (auto done = detach(kernel, store, owner, now))
      out.owners.push_back(owner);
    else
      out.failed.emplace_back(owner, done.error());
  }
}

}  // namespace

CniResult<AttachmentRecord> read_record(LeaseStore* store, const Owner& owner) {
  if (store == nullptr) return AttachmentRecord{};
  const auto work = [&](LeaseBook& b) { return lift(b.record(owner), Code::io_failure); };
  CNI_TRY(const auto text, store->read(work));
  if (!text) return AttachmentRecord{};
  return parse_record(*text);
}

CniResult<> detach(Kernel& kernel, LeaseStore* store, const Owner& owner, BootTime now) {
  Fd lock;
  if (store != nullptr) {
    CNI_TRY(lock, store->lock(owner));
  }
  CNI_TRY(const auto record, read_record(store, owner));
  CNI_CHECK(revert(kernel, detach_steps(owner, record)));
  if (store == nullptr) return {};
  const auto work = [&](LeaseBook& b) -> CniResult<> {
    CNI_CHECK(release(b, owner, now));
    return lift(b.set_record(owner, ""), Code::io_failure);
  };
  return store->write(work);
}

CniResult<Collected> collect_invalid(Kernel& kernel, LeaseStore* store, const std::string& network, const std::set<Owner>& valid, BootTime now) {
  std::set<Owner> doomed;
  CNI_TRY(const auto links, kernel.host_links());
  for (const auto& l : links) {
    const auto a = parse_alias(l.alias);
    if (a && a->network == network && !valid.contains(a->owner)) doomed.insert(a->owner);
  }
  if (store != nullptr) {
    CNI_TRY(const auto leases, store->all());
    for (const Lease& l : leases)
      if (!l.released && !valid.contains(l.owner)) doomed.insert(l.owner);
    const auto recorded = [](LeaseBook& b) { return lift(b.recorded(), Code::io_failure); };
    CNI_TRY(const auto owners, store->read(recorded));
    for (const Owner& o : owners)
      if (!valid.contains(o)) doomed.insert(o);
  }
  Collected c;
  detach_all(kernel, store, doomed, now, c);
  return c;
}

CniResult<Collected> collect_orphans(Kernel& kernel, LeaseStore& store, BootTime now) {
  CNI_TRY(const auto links, kernel.host_links());
  std::set<std::string> names;
  for (const auto& l : links) names.insert(l.name);
  CNI_TRY(const auto leases, store.all());
  std::set<Owner> orphans;
  // A lease without a namespace was imported: its pod hangs on another plugin's link.
  for (const Lease& l : leases)
    if (!l.released && !l.netns.empty() && now - l.since >= kOrphanAge && !names.contains(host_link_name(l.owner))) orphans.insert(l.owner);
  Collected c;
  detach_all(kernel, &store, orphans, now, c);
  return c;
}

CniResult<Collected> collect_without_netns(LeaseStore& store, BootTime now) {
  const auto gone = [](const Lease& l) { return !l.netns.empty() && !path_exists(l.netns); };
  const auto work = [&](LeaseBook& b) { return release_orphans(b, now, kOrphanAge, gone); };
  CNI_TRY(const auto leases, store.write(work));
  Collected c;
  for (const Lease& l : leases) c.owners.push_back(l.owner);
  return c;
}

}  // namespace fairlead::cni
