// Garbage collection, the decisions: who owns whom, and what shall happen to an object whose owners are gone or going.
//
// OwnerGraph knows every object's uid, owners and dependents from the informers. It may be behind, never ahead: so an owner that
// it does not know is asked for at the API before anything is deleted, and every delete names the uid and the resourceVersion
// that the decision was made on. Cycles and owners that were never seen are fine.
// Pure. Source: ownerReferences, finalizers "foregroundDeletion" and "orphan", blockOwnerDeletion.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "controlplane/controllers/objects.h"

namespace fairlead::controllers {

inline constexpr const char* foreground_finalizer = "foregroundDeletion";
inline constexpr const char* orphan_finalizer = "orphan";

struct ObjectId {
  const kube::Kind* kind = nullptr;
  std::string ns;
  std::string name;
  std::string uid;
};

struct OwnedObject {
  ObjectId id;
  std::vector<metav1::OwnerReference> owners;
  bool deleting = false;             // has a deletion time
  bool deleting_dependents = false;  // and waits for its dependents (foreground)
  bool orphaning = false;            // and shall let its dependents go
};

class OwnerGraph {
 public:
  // An object as the informer has it now. Returns the uids whose situation may have changed.
  std::vector<std::string> observe(const kube::Kind& kind, const metav1::ObjectMeta& meta);
  std::vector<std::string> remove(const std::string& uid);

  const OwnedObject* find(const std::string& uid) const;
  std::vector<std::string> dependents(const std::string& owner_uid) const;
  // Dependents that hold up the owner's deletion (blockOwnerDeletion).
  std::vector<std::string> blocking_dependents(const std::string& owner_uid) const;
  std::size_t size() const { return objects_.size(); }

 private:
  std::unordered_map<std::string, OwnedObject> objects_;
  std::unordered_map<std::string, std::set<std::string>> dependents_;  // by owner uid, known or not
};

// What is known of one owner of an object.
enum class OwnerState {
  solid,    // exists, or may exist: keeps its dependents
  absent,   // the API says that there is no such object with this uid
  waiting,  // is being deleted in the foreground and waits for its dependents
};

struct GarbageDecision {
  enum class Action {
    keep,
    drop_references,     // owners in `references` are gone, another one keeps it
    delete_background,
    delete_foreground,
    delete_orphan,
  };
  Action action = Action::keep;
  std::vector<std::string> references;  // uids of owners
  bool unblock = false;                 // first make its own references non-blocking: it is part of a cycle
};

// `owners` in the order of meta.ownerReferences. has_dependents / dependents_deleting are about this object's own dependents.
GarbageDecision decide_garbage(const metav1::ObjectMeta& live, const std::vector<OwnerState>& owners, bool has_dependents,
                               bool dependents_deleting);

}  // namespace fairlead::controllers
