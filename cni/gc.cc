#include "cni/gc.h"

#include "base/files.h"

namespace fairlead::cni {
namespace {

CniResult<std::set<std::string>> host_link_names(Kernel& kernel) {
  CNI_TRY(const auto links, kernel.host_links());
  std::set<std::string> names;
  for (const auto& l : links) names.insert(l.name);
  return names;
}

CniResult<Collected> release_where(LeaseStore& store, BootTime now, BootTime min_age, const std::function<bool(const Lease&)>& gone) {
  const auto work = [&](LeaseBook& b) { return release_orphans(b, now, min_age, gone); };
  Collected c;
  CNI_TRY(c.leases, store.write(work));
  return c;
}

}  // namespace

CniResult<Collected> collect_invalid(Kernel& kernel, LeaseStore* store, const std::string& network, const std::set<Owner>& valid, BootTime now) {
  Collected c;
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
  }
  CniResult<> outcome;
  std::set<Owner> detached;
  for (const Owner& owner : doomed) {
    auto done = revert(kernel, detach_steps(owner));
    if (done) {
      detached.insert(owner);
      c.links.push_back(host_link_name(owner));
    } else if (outcome) {
      outcome = done;
    }
  }
  // An address whose link could not be taken away stays leased: it is in use.
  if (store != nullptr && !detached.empty()) {
    CNI_TRY(auto released, release_where(*store, now, BootTime{0}, [&](const Lease& l) { return detached.contains(l.owner); }));
    c.leases = std::move(released.leases);
  }
  if (!outcome) return cni_fail(outcome.error());
  return c;
}

CniResult<Collected> collect_orphans(Kernel& kernel, LeaseStore& store, BootTime now) {
  CNI_TRY(const auto names, host_link_names(kernel));
  return release_where(store, now, kOrphanAge, [&](const Lease& l) { return !names.contains(host_link_name(l.owner)); });
}

CniResult<Collected> collect_without_netns(LeaseStore& store, BootTime now) {
  return release_where(store, now, kOrphanAge, [](const Lease& l) { return !l.netns.empty() && !path_exists(l.netns); });
}

}  // namespace fairlead::cni
