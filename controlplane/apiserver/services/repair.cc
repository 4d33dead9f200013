#include "controlplane/apiserver/services/repair.h"

#include <algorithm>
#include <map>

#include "base/log.h"

namespace fairlead::apiserver::services {
namespace {

constexpr std::size_t kPage = 1'000;
constexpr auto kInterval = std::chrono::minutes(3);
// kube-apiserver writes the address first and its Service after it.
constexpr auto kPatience = std::chrono::minutes(1);

const Resource& services_of(const Core& core) { return *core.resources.find("", "v1", "services"); }

// Everything under a prefix at `revision` (0: now, and tells which that was).
Task<Result<std::vector<etcd::KeyValue>>> read_all(etcd::Kv& kv, std::string prefix, etcd::Revision& revision) {
  std::vector<etcd::KeyValue> out;
  etcd::RangeRequest request;
  request.key = prefix;
  request.range_end = etcd::prefix_end(prefix);
  request.limit = kPage;
  while (true) {
    request.revision = revision;
    auto page = co_await kv.range(request);
    if (!page) co_return fail(std::move(page).error().with("read {}", prefix));
    if (revision == 0) revision = page->revision;
    std::move(page->kvs.begin(), page->kvs.end(), std::back_inserter(out));
    if (!page->more || page->kvs.empty()) co_return out;
    request.key = out.back().key + '\0';
  }
}

Task<Result<ClaimView>> read_view(Core& core, const ClaimKeys& keys) {
  const auto& resource = services_of(core);
  ClaimView view;
  etcd::Revision revision = 0;
  FL_CO_TRY(auto services, co_await read_all(*core.kv, resource.prefix, revision));
  for (auto& kv : services) {
    auto entry = make_entry(resource, kv.key, kv.mod_revision, kv.value);
    if (!entry) {
      log::error("claims of a service are not looked at: {}", entry.error().message);
      continue;
    }
    const auto object = decode_entry(resource, **entry);
    const auto& spec = static_cast<const corev1::Service&>(*object).spec();
    view.services.push_back({{(*entry)->ns, (*entry)->name}, kv.key, kv.create_revision, kv.mod_revision, addresses_of(spec), ports_of(spec)});
  }
  for (const auto* prefix : {&keys.addresses(), &keys.ports()}) {
    FL_CO_TRY(auto claims, co_await read_all(*core.kv, *prefix, revision));
    for (auto& kv : claims) view.claims.push_back({kv.key, kv.mod_revision, keys.owner(kv), keys.made_at(kv)});
  }
  co_return view;
}

etcd::TxnRequest transaction(const RepairPlan::Step& s) {
  etcd::TxnRequest txn;
  const auto unchanged = [&](const std::string& key, etcd::Revision modified) {
    etcd::Compare c;
    c.key = key;
    c.target = etcd::Compare::Target::mod;
    c.number = modified;
    txn.compare.push_back(std::move(c));
  };
  unchanged(s.claim.key, s.claim_modified);
  unchanged(s.service_key, s.service_modified);
  if (s.claim.value.empty()) {
    etcd::DeleteRangeRequest del;
    del.key = s.claim.key;
    txn.success.emplace_back(std::move(del));
  } else {
    etcd::PutRequest put;
    put.key = s.claim.key;
    put.value = s.claim.value;
    txn.success.emplace_back(std::move(put));
  }
  return txn;
}

}  // namespace

RepairPlan plan_repair(const ClaimView& view, const ClaimKeys& keys, const Resource& resource, WallTime now, Random& random) {
  RepairPlan plan;
  std::map<std::string, const ClaimView::Held*> held;
  for (const auto& c : view.claims) held[c.key] = &c;
  std::vector<const ClaimView::Service*> oldest_first;
  for (const auto& s : view.services) oldest_first.push_back(&s);
  std::sort(oldest_first.begin(), oldest_first.end(), [](const auto* a, const auto* b) { return a->created < b->created; });

  std::map<std::string, const ClaimView::Service*> wanted;  // claim -> who should have it
  const auto want = [&](const ClaimView::Service& s, const Claim& claim) {
    const auto [it, first] = wanted.emplace(claim.key, &s);
    const auto there = held.find(claim.key);
    const bool others = there != held.end() && !there->second->owner;
    if (!first || others) {
      plan.complaints.push_back(fmt::format("service {} and {} both have {}", s.owner.text(), first ? "another object" : it->second->owner.text(), claim.key));
      return;
    }
    if (there != held.end() && *there->second->owner == s.owner) return;
    // A claim in the name of another Service is replaced at once: the one that has the address is this.
    plan.steps.push_back({claim, there == held.end() ? 0 : there->second->modified, s.key, s.modified});
  };
  for (const auto* s : oldest_first) {
    for (const auto& ip : s->addresses) want(*s, keys.claim(ip, s->owner, now, random));
    for (const auto p : s->ports) want(*s, keys.claim(p, s->owner));
  }
  std::map<std::string, etcd::Revision> modified;
  for (const auto& s : view.services) modified[s.key] = s.modified;
  for (const auto& c : view.claims) {
    if (!c.owner || wanted.count(c.key) || now - c.made_at < kPatience) continue;
    const auto service = resource.key(c.owner->ns, c.owner->name);
    const auto it = modified.find(service);
    plan.steps.push_back({{c.key, ""}, c.modified, service, it == modified.end() ? 0 : it->second});
  }
  return plan;
}

Task<Result<>> repair_claims(Core& core) {
  const ClaimKeys keys(core.options.storage_prefix);
  FL_CO_TRY(const auto view, co_await read_view(core, keys));
  const auto plan = plan_repair(view, keys, services_of(core), core.clock.wall(), core.random);
  for (const auto& c : plan.complaints) log::warn("claims: {}", c);
  std::size_t made = 0, removed = 0;
  for (const auto& step : plan.steps) {
    auto done = co_await core.kv->txn(transaction(step));
    if (!done) co_return fail(std::move(done).error().with("claim {}", step.claim.key));
    if (!done->succeeded) continue;  // somebody has written it meanwhile, and claimed with it
    ++(step.claim.value.empty() ? removed : made);
  }
  if (made + removed > 0) log::info("claims of services: {} made, {} removed", made, removed);
  co_return Result<>{};
}

Task<> keep_claims_repaired(Core& core) {
  while (true) {
    auto slept = co_await sleep_for(kInterval);
    if (!slept) co_return;
    auto done = co_await repair_claims(core);
    if (!done) log::warn("repair of claims: {}", done.error().message);
  }
}

}  // namespace fairlead::apiserver::services
