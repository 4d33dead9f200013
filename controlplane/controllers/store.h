// Store<T>: what a controller reads. The informer's copy of a collection, plus this process's own writes at once: an object
// that a controller has just created, updated or deleted is seen so by its next reconcile, whether or not the watch has
// caught up. That replaces counting expectations: no pod is created twice because the first one has not been heard of.
//
// Newer wins by resourceVersion. An own write that the informer has not confirmed within 30 s (the object was created and
// deleted while the watch was away) is dropped. Indexes are kept with the objects and are never stale to each other.
// Deleting a pod is graceful: until the API says more, the stored copy carries a deletion time.
//
// Threads: the informer's executor. Handlers are called after store and indexes are current; they must not block.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "controlplane/controllers/objects.h"
#include "kube/informer.h"

namespace fairlead::controllers {

template <typename T>
class Store {
 public:
  using Ptr = std::shared_ptr<const T>;
  using Objects = std::map<kube::ObjectKey, Ptr>;
  using IndexFunction = std::function<std::vector<std::string>(const T&)>;
  static constexpr std::chrono::seconds confirm_within{30};

  Store(std::shared_ptr<kube::Informer<T>> informer, const Clock& clock) : informer_(std::move(informer)), clock_(clock) {
    informer_->on_change([this](const kube::Change<T>& c) { observe(c); });
  }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Before the informer starts. Returns the index's number.
  std::size_t add_index(IndexFunction f) {
    indexes_.push_back({std::move(f), {}});
    return indexes_.size() - 1;
  }
  void on_change(std::function<void(const kube::Change<T>&)> handler) { handlers_.push_back(std::move(handler)); }

  Ptr get(const kube::ObjectKey& key) const {
    const auto it = objects_.find(key);
    return it == objects_.end() ? nullptr : it->second;
  }
  const Objects& all() const { return objects_; }
  const Objects& indexed(std::size_t index, const std::string& value) const {
    static const Objects none;
    const auto it = indexes_[index].entries.find(value);
    return it == indexes_[index].entries.end() ? none : it->second;
  }

  // Drops own writes that the informer never confirmed: the informer is right. Also done on every change.
  void sweep() { expire(); }

  // The answer of the API to an own create, update or patch.
  void wrote(const T& object) {
    expire();
    const auto key = key_of(object);
    const Ptr current = get(key);
    if (current && current->metadata().uid() == object.metadata().uid() &&
        version_of(current->metadata()) >= version_of(object.metadata()))
      return;
    if (gone_.contains(object.metadata().uid())) return;
    if (!informer_->get(key)) unconfirmed_[key] = {object.metadata().uid(), clock_.steady() + confirm_within};
    replace(key, std::make_shared<const T>(object));
  }
  // The API has accepted an own delete. graceful: the object stays for a while, marked as being deleted.
  void deleted(const kube::ObjectKey& key, const std::string& uid, bool graceful) {
    expire();
    const Ptr current = get(key);
    if (!current || current->metadata().uid() != uid || gone_.contains(uid)) return;
    gone_[uid] = {graceful, clock_.steady() + confirm_within};
    if (!graceful) {
      replace(key, nullptr);
    } else if (!is_deleting(current->metadata())) {
      replace(key, mark_deleting(*current));
    }
  }

 private:
  struct Index {
    IndexFunction f;
    std::unordered_map<std::string, Objects> entries;
  };
  struct Unconfirmed {
    std::string uid;
    SteadyTime until;
  };
  struct Gone {
    bool graceful;
    SteadyTime until;
  };

  Ptr mark_deleting(const T& object) const {
    auto copy = std::make_shared<T>(object);
    *copy->mutable_metadata()->mutable_deletiontimestamp() = to_time(clock_.wall());
    return copy;
  }

  void observe(const kube::Change<T>& c) {
    expire();
    unconfirmed_.erase(c.key);
    const Ptr current = get(c.key);
    if (!c.after) {
      // Remembered for a while: the answer to an own write may still be on its way here.
      gone_[c.before->metadata().uid()] = {false, clock_.steady() + confirm_within};
      // An own write may already have put a successor of the same name here.
      if (current && current->metadata().uid() == c.before->metadata().uid()) replace(c.key, nullptr);
      return;
    }
    const auto& meta = c.after->metadata();
    if (current && current->metadata().uid() == meta.uid() && version_of(current->metadata()) >= version_of(meta) && version_of(meta) != 0)
      return;
    if (current && current->metadata().uid() != meta.uid() && version_of(current->metadata()) > version_of(meta)) return;
    const auto gone = gone_.find(meta.uid());
    if (gone == gone_.end() || is_deleting(meta)) {
      if (gone != gone_.end() && is_deleting(meta)) gone_.erase(gone);
      replace(c.key, c.after);
    } else if (gone->second.graceful) {
      replace(c.key, mark_deleting(*c.after));
    }
  }

  void replace(const kube::ObjectKey& key, Ptr after) {
    Ptr before = get(key);
    for (Index& index : indexes_) {
      if (before) {
        for (const auto& value : index.f(*before)) {
          const auto it = index.entries.find(value);
          if (it == index.entries.end()) continue;
          it->second.erase(key);
          if (it->second.empty()) index.entries.erase(it);
        }
      }
      if (after) {
        for (const auto& value : index.f(*after)) index.entries[value][key] = after;
      }
    }
    if (after) objects_[key] = after;
    else objects_.erase(key);
    const kube::Change<T> change{key, std::move(before), std::move(after)};
    if (!change.before && !change.after) return;
    for (const auto& h : handlers_) h(change);
  }

  void expire() {
    if (unconfirmed_.empty() && gone_.empty()) return;
    const SteadyTime now = clock_.steady();
    std::vector<kube::ObjectKey> ghosts;
    for (const auto& [key, u] : unconfirmed_) {
      if (u.until <= now) ghosts.push_back(key);
    }
    for (const auto& key : ghosts) {
      const std::string uid = unconfirmed_[key].uid;
      unconfirmed_.erase(key);
      const Ptr current = get(key);
      if (current && current->metadata().uid() == uid && !informer_->get(key)) replace(key, nullptr);
    }
    std::erase_if(gone_, [&](const auto& g) { return g.second.until <= now; });
  }

  std::shared_ptr<kube::Informer<T>> informer_;
  const Clock& clock_;
  Objects objects_;
  std::vector<Index> indexes_;
  std::vector<std::function<void(const kube::Change<T>&)>> handlers_;
  std::unordered_map<kube::ObjectKey, Unconfirmed> unconfirmed_;
  std::unordered_map<std::string, Gone> gone_;  // by uid
};

}  // namespace fairlead::controllers
