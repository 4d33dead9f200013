#include "controlplane/controllers/garbage.h"

namespace fairlead::controllers {

std::vector<std::string> OwnerGraph::observe(const kube::Kind& kind, const metav1::ObjectMeta& meta) {
  std::vector<std::string> touched;
  const auto [it, fresh] = objects_.try_emplace(meta.uid());
  OwnedObject& o = it->second;
  const OwnedObject before = o;
  o.id = {&kind, meta.namespace_(), meta.name(), meta.uid()};
  o.owners.assign(meta.ownerreferences().begin(), meta.ownerreferences().end());
  o.deleting = is_deleting(meta);
  o.deleting_dependents = o.deleting && has(meta.finalizers(), foreground_finalizer);
  o.orphaning = o.deleting && has(meta.finalizers(), orphan_finalizer);

  for (const auto& r : before.owners) {
    const auto set = dependents_.find(r.uid());
    if (set == dependents_.end()) continue;
    set->second.erase(meta.uid());
    if (set->second.empty()) dependents_.erase(set);
  }
  bool owner_in_doubt = false;
  for (const auto& r : o.owners) {
    dependents_[r.uid()].insert(meta.uid());
    const OwnedObject* owner = find(r.uid());
    owner_in_doubt |= !owner || owner->deleting_dependents;
  }
  // An owner that waits for this object wants to know when it stopped being owned or blocking.
  for (const auto& r : before.owners) {
    const OwnedObject* owner = find(r.uid());
    if (owner && owner->deleting_dependents) touched.push_back(r.uid());
  }
  if (owner_in_doubt || o.deleting_dependents || o.orphaning) touched.push_back(meta.uid());
  if (o.deleting_dependents && !before.deleting_dependents) {
    for (auto& d : dependents(meta.uid())) touched.push_back(std::move(d));
  }
  return touched;
}

std::vector<std::string> OwnerGraph::remove(const std::string& uid) {
  const auto it = objects_.find(uid);
  if (it == objects_.end()) return {};
  const OwnedObject gone = std::move(it->second);
  objects_.erase(it);
  std::vector<std::string> touched = dependents(uid);
  for (const auto& r : gone.owners) {
    const auto set = dependents_.find(r.uid());
    if (set == dependents_.end()) continue;
    set->second.erase(uid);
    if (set->second.empty()) dependents_.erase(set);
    const OwnedObject* owner = find(r.uid());
    if (owner && owner->deleting_dependents) touched.push_back(r.uid());
  }
  return touched;
}

const OwnedObject* OwnerGraph::find(const std::string& uid) const {
  const auto it = objects_.find(uid);
  return it == objects_.end() ? nullptr : &it->second;
}

std::vector<std::string> OwnerGraph::dependents(const std::string& owner_uid) const {
  const auto it = dependents_.find(owner_uid);
  if (it == dependents_.end()) return {};
  return {it->second.begin(), it->second.end()};
}

std::vector<std::string> OwnerGraph::blocking_dependents(const std::string& owner_uid) const {
  std::vector<std::string> out;
  for (const auto& uid : dependents(owner_uid)) {
    const OwnedObject* d = find(uid);
    if (!d) continue;
    const bool blocks = std::any_of(d->owners.begin(), d->owners.end(), [&](const metav1::OwnerReference& r) {
      return r.uid() == owner_uid && r.blockownerdeletion();
    });
    if (blocks) out.push_back(uid);
  }
  return out;
}

GarbageDecision decide_garbage(const metav1::ObjectMeta& live, const std::vector<OwnerState>& owners, bool has_dependents,
                               bool dependents_deleting) {
  using Action = GarbageDecision::Action;
  GarbageDecision out;
  bool solid = false, waiting = false;
  for (std::size_t i = 0; i < owners.size(); ++i) {
    solid |= owners[i] == OwnerState::solid;
    waiting |= owners[i] == OwnerState::waiting;
    if (owners[i] != OwnerState::solid) out.references.push_back(live.ownerreferences(static_cast<int>(i)).uid());
  }
  if (out.references.empty()) return out;  // no owners at all, or all of them live
  if (solid) {
    out.action = Action::drop_references;
    return out;
  }
  out.references.clear();
  if (waiting && has_dependents) {
    out.unblock = dependents_deleting;
    out.action = Action::delete_foreground;
  } else if (has(live.finalizers(), orphan_finalizer)) {
    out.action = Action::delete_orphan;
  } else if (has(live.finalizers(), foreground_finalizer)) {
    out.action = Action::delete_foreground;
  } else {
    out.action = Action::delete_background;
  }
  return out;
}

}  // namespace fairlead::controllers
