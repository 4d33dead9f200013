#include "controlplane/controllers/garbage_controller.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/log.h"
#include "kube/codec.h"
#include "kube/object.h"

namespace fairlead::controllers {
namespace {

constexpr int workers = 20;
// An owner that lives but that the informer has not shown yet: look again, its deletion may never be seen otherwise.
constexpr std::chrono::milliseconds look_again{30'000};

// A merge patch of metadata on the object as it was read.
std::string meta_patch(const metav1::ObjectMeta& live, std::string_view field, boost::json::array value) {
  boost::json::object meta{{"uid", live.uid()}, {"resourceVersion", live.resourceversion()}};
  meta[field] = std::move(value);
  return boost::json::serialize(boost::json::object{{"metadata", std::move(meta)}});
}

boost::json::array owners_json(const std::vector<metav1::OwnerReference>& owners) {
  boost::json::array out;
  for (const auto& r : owners) out.push_back(kube::to_json_value(r));
  return out;
}

}  // namespace

std::vector<const kube::Kind*> collectable_kinds() {
  std::vector<const kube::Kind*> out;
  for (const kube::Kind& k : kube::kinds()) {
    if (k.served && k.kind != "Event" && k.has_verb("list") && k.has_verb("watch") && k.has_verb("delete")) out.push_back(&k);
  }
  return out;
}

GarbageController::GarbageController(const Context& context) : QueueController(context, "garbage-collector-controller", workers) {
  for (const kube::Kind* kind : collectable_kinds()) {
    ctx_.stores.informers.get(*kind)->on_change([this, kind](const kube::InformerCore::RawChange& c) {
      if (c.before && (!c.after || kube::meta_of(*c.before).uid() != kube::meta_of(*c.after).uid()))
        enqueue(graph_.remove(kube::meta_of(*c.before).uid()));
      if (c.after) enqueue(graph_.observe(*kind, kube::meta_of(*c.after)));
    });
  }
}

void GarbageController::enqueue(const std::vector<std::string>& uids) {
  for (const auto& uid : uids) queue_.add(uid);
}

Task<Result<kube::Next>> GarbageController::reconcile(std::string uid) {
  const OwnedObject* known = graph_.find(uid);
  if (!known) co_return kube::Next{};
  const OwnedObject item = *known;
  if (item.deleting && !item.deleting_dependents && !item.orphaning) co_return kube::Next{};
  // The cheap answer: nothing asked of it, and every owner is there.
  if (!item.deleting) {
    const bool all_live = std::all_of(item.owners.begin(), item.owners.end(), [&](const metav1::OwnerReference& r) {
      const OwnedObject* owner = graph_.find(r.uid());
      return owner && !owner->deleting_dependents;
    });
    if (all_live) co_return kube::Next{};
  }
  auto next = co_await collect(item);
  co_return next;
}

Task<Result<kube::Next>> GarbageController::collect(OwnedObject item) {
  FL_CO_TRY(std::optional<metav1::ObjectMeta> live, co_await live_meta(item.id));
  if (!live) co_return kube::Next{};  // the informer will tell, and its dependents will follow
  if (is_deleting(*live)) {
    if (has(live->finalizers(), orphan_finalizer)) {
      FL_CO_CHECK(co_await orphan_dependents(item, *live));
      co_return kube::Next{};
    }
    if (!has(live->finalizers(), foreground_finalizer)) co_return kube::Next{};
    auto next = co_await finish_foreground(item, *live);
    co_return next;
  }
  std::vector<OwnerState> owners;
  bool unseen = false;
  for (const auto& reference : live->ownerreferences()) {
    FL_CO_TRY(const OwnerState state, co_await owner_state(item.id, reference));
    owners.push_back(state);
    unseen |= state == OwnerState::solid && !graph_.find(reference.uid());
  }
  const auto dependents = graph_.dependents(item.id.uid);
  const bool deleting = std::any_of(dependents.begin(), dependents.end(), [&](const std::string& uid) {
    const OwnedObject* d = graph_.find(uid);
    return d && d->deleting_dependents;
  });
  FL_CO_CHECK(co_await carry_out(item.id, *live, decide_garbage(*live, owners, !dependents.empty(), deleting)));
  co_return kube::Next{unseen ? look_again : std::chrono::milliseconds(0)};
}

Task<Result<std::optional<metav1::ObjectMeta>>> GarbageController::live_meta(ObjectId id) {
  std::unique_ptr<kube::Message> out(id.kind->prototype->New());
  auto r = co_await ctx_.client->get_into(*id.kind, id.ns, id.name, *out);
  if (!r) {
    if (r.error().code == ErrorCode::not_found) co_return std::optional<metav1::ObjectMeta>();
    co_return fail(std::move(r).error());
  }
  const metav1::ObjectMeta& meta = kube::meta_of(*out);
  if (!id.uid.empty() && meta.uid() != id.uid) co_return std::optional<metav1::ObjectMeta>();
  co_return std::optional<metav1::ObjectMeta>(meta);
}

Task<Result<OwnerState>> GarbageController::owner_state(ObjectId dependent, metav1::OwnerReference reference) {
  if (const OwnedObject* owner = graph_.find(reference.uid())) {
    // The graph knows it. A namespaced owner only owns within its namespace.
    if (!owner->id.ns.empty() && owner->id.ns != dependent.ns) {
      log::warn("{} {}/{} names an owner in another namespace: {} {}/{}", dependent.kind->kind, dependent.ns, dependent.name, reference.kind(),
                owner->id.ns, reference.name());
      if (dependent.ns.empty()) co_return OwnerState::solid;  // cannot be resolved: never deleted
    } else {
      co_return owner->deleting_dependents ? OwnerState::waiting : OwnerState::solid;
    }
  }
  const kube::Kind* kind = kube::find_kind(reference.apiversion(), reference.kind());
  if (!kind) co_return OwnerState::solid;  // a kind that we cannot ask for
  if (kind->namespaced() && dependent.ns.empty()) co_return OwnerState::solid;
  ObjectId id{kind, kind->namespaced() ? dependent.ns : std::string(), reference.name(), reference.uid()};
  FL_CO_TRY(std::optional<metav1::ObjectMeta> live, co_await live_meta(id));
  if (!live) co_return OwnerState::absent;
  co_return is_deleting(*live) && has(live->finalizers(), foreground_finalizer) ? OwnerState::waiting : OwnerState::solid;
}

Task<Result<kube::Next>> GarbageController::finish_foreground(OwnedObject item, metav1::ObjectMeta live) {
  const auto blocking = graph_.blocking_dependents(item.id.uid);
  if (blocking.empty()) {
    FL_CO_CHECK(co_await remove_finalizer(item.id, live, foreground_finalizer));
    co_return kube::Next{};
  }
  for (const auto& uid : blocking) {
    const OwnedObject* d = graph_.find(uid);
    if (d && !d->deleting) queue_.add(uid);
  }
  co_return kube::Next{};  // the removal of each brings us back
}

Task<Result<>> GarbageController::orphan_dependents(OwnedObject item, metav1::ObjectMeta live) {
  for (const auto& uid : graph_.dependents(item.id.uid)) {
    const OwnedObject* d = graph_.find(uid);
    if (!d) continue;
    const ObjectId id = d->id;
    FL_CO_CHECK(co_await patch_meta(id, release_patch(item.id.uid, uid)));
  }
  auto r = co_await remove_finalizer(item.id, live, orphan_finalizer);
  co_return r;
}

Task<Result<>> GarbageController::patch_meta(ObjectId id, std::string body) {
  std::unique_ptr<kube::Message> out(id.kind->prototype->New());
  auto r = co_await ctx_.client->patch_into(*id.kind, id.ns, id.name, "", kube::PatchType::strategic, std::move(body), *out);
  if (!r && r.error().code == ErrorCode::not_found) co_return Result<>{};
  co_return r;
}

Task<Result<>> GarbageController::remove_finalizer(ObjectId id, metav1::ObjectMeta live, std::string finalizer) {
  boost::json::array left;
  for (const auto& f : live.finalizers()) {
    if (f != finalizer) left.emplace_back(f);
  }
  std::unique_ptr<kube::Message> out(id.kind->prototype->New());
  auto r = co_await ctx_.client->patch_into(*id.kind, id.ns, id.name, "", kube::PatchType::merge,
                                            meta_patch(live, "finalizers", std::move(left)), *out);
  if (!r && r.error().code == ErrorCode::not_found) co_return Result<>{};
  co_return r;
}

Task<Result<>> GarbageController::carry_out(ObjectId id, metav1::ObjectMeta live, GarbageDecision decision) {
  using Action = GarbageDecision::Action;
  if (decision.action == Action::keep) co_return Result<>{};
  std::unique_ptr<kube::Message> out(id.kind->prototype->New());
  if (decision.action == Action::drop_references || decision.unblock) {
    std::vector<metav1::OwnerReference> owners;
    for (const auto& r : live.ownerreferences()) {
      if (decision.unblock) owners.emplace_back(r).set_blockownerdeletion(false);
      else if (!has(decision.references, r.uid())) owners.push_back(r);
    }
    auto r = co_await ctx_.client->patch_into(*id.kind, id.ns, id.name, "", kube::PatchType::merge,
                                              meta_patch(live, "ownerReferences", owners_json(owners)), *out);
    if (!r && r.error().code == ErrorCode::not_found) co_return Result<>{};
    if (!r || !decision.unblock) co_return r;
    live = kube::meta_of(*out);
  }
  kube::DeleteOptions options;
  options.uid = live.uid();
  options.resource_version = live.resourceversion();
  options.propagation_policy = decision.action == Action::delete_foreground ? "Foreground"
                               : decision.action == Action::delete_orphan   ? "Orphan"
                                                                            : "Background";
  auto r = co_await ctx_.client->delete_object(*id.kind, id.ns, id.name, options);
  if (!r && r.error().code == ErrorCode::not_found) co_return Result<>{};
  if (r) log::debug("garbage: deleted {} {}/{}, its owners are gone", id.kind->kind, id.ns, id.name);
  co_return r;
}

}  // namespace fairlead::controllers
