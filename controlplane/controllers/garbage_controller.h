// Garbage collector, the reconciler: keeps the owner graph from one informer per kind, checks in doubt at the API, deletes with
// preconditions. Decisions: garbage.h. Keys of its queue are uids.
#pragma once

#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/garbage.h"

namespace fairlead::controllers {

// Kinds that can be owned and collected: stored, listable, deletable. Events are left to their lifetime.
std::vector<const kube::Kind*> collectable_kinds();

class GarbageController final : public QueueController {
 public:
  explicit GarbageController(const Context& context);

 private:
  Task<Result<kube::Next>> reconcile(std::string uid) override;
  Task<Result<kube::Next>> collect(OwnedObject item);
  Task<Result<std::optional<metav1::ObjectMeta>>> live_meta(ObjectId id);  // nullopt: gone, or another object
  Task<Result<OwnerState>> owner_state(ObjectId dependent, metav1::OwnerReference reference);
  Task<Result<kube::Next>> finish_foreground(OwnedObject item, metav1::ObjectMeta live);
  Task<Result<>> orphan_dependents(OwnedObject item, metav1::ObjectMeta live);
  Task<Result<>> remove_finalizer(ObjectId id, metav1::ObjectMeta live, std::string finalizer);
  Task<Result<>> carry_out(ObjectId id, metav1::ObjectMeta live, GarbageDecision decision);
  Task<Result<>> patch_meta(ObjectId id, std::string body);
  void enqueue(const std::vector<std::string>& uids);

  OwnerGraph graph_;
};

}  // namespace fairlead::controllers
