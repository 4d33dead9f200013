// Resource: one collection that the apiserver serves: its kind, its place in the store, its strategy, how it is printed,
// and its watch cache. The set is built once at start (resources.cc) and is immutable afterwards.
//
// Those of CustomResourceDefinitions come and go while the server runs: whoever uses one holds it by shared_ptr.
//
// Two resources may share one place in the store (core and events.k8s.io Events): the second one converts between its own
// type and the stored one.
#pragma once

#include <boost/json/value.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/apiserver/object.h"
#include "controlplane/apiserver/registry/strategy.h"
#include "controlplane/etcd/kv.h"
#include "kube/kinds.h"

namespace fairlead::apiserver {

class WatchCache;
class TablePrinter;
struct ClusterFacts;

// A key in the store that stands for something only one object may have (an address, a port).
struct Claim {
  std::string key;
  std::string value;
};

// The claims that a write makes and gives up, in the same transaction as its object. Destroying it without commit() takes
// back what memory holds for it.
class Reservation {
 public:
  virtual ~Reservation() = default;
  virtual const std::vector<Claim>& taken() const = 0;        // must be absent
  virtual const std::vector<std::string>& freed() const = 0;  // deleted where owns() says so
  virtual bool owns(const etcd::KeyValue& claim) const = 0;
  virtual void refused(const std::string& key) = 0;           // of taken(): somebody else has it
  virtual void commit(etcd::Revision revision) = 0;           // the write has been done
};

// What earlier tries of one write met.
struct Contention {
  std::set<std::string> refused;  // claims that others have
  bool exhausted = false;         // memory knows of nothing that is free; the store may
};

// Called for each write of a resource that needs reservations. May fill in the object. Thread safe; does not block.
// `contention` must outlive the reservation.
class WriteHook {
 public:
  virtual ~WriteHook() = default;
  virtual std::unique_ptr<Reservation> create(Message& object, Contention& contention, field::ErrorList& errors) = 0;
  virtual std::unique_ptr<Reservation> update(Message& now, const Message& before, Contention& contention, field::ErrorList& errors) = 0;
  virtual std::unique_ptr<Reservation> remove(const Message& object) = 0;
};

struct Resource {
  const kube::Kind* kind = nullptr;
  const kube::Kind* storage_kind = nullptr;  // whose type is in the store
  std::string prefix;                        // "/registry/pods/"
  std::unique_ptr<Strategy> strategy;
  const TablePrinter* printer = nullptr;
  std::shared_ptr<WatchCache> cache;
  WriteHook* hook = nullptr;
  std::chrono::seconds ttl{0};  // of every object; 0: for ever
  // Between the stored type and this one; unset when they are the same.
  std::function<void(const Message& stored, Message& served)> from_storage;
  std::function<void(const Message& served, Message& stored)> to_storage;

  bool json_only = false;  // on the wire and in the store
  bool no_create = false;  // its definition is being deleted
  std::function<void(boost::json::object& stored)> upgrade;  // from JSON that an older version wrote; unset: none did
  std::shared_ptr<const void> parts;  // what the members above point to, where it does not live for ever

  std::string key(std::string_view ns, std::string_view name) const {
    std::string k = prefix;
    if (kind->namespaced()) (k += ns) += '/';
    return k += name;
  }
  std::string namespace_prefix(std::string_view ns) const {
    return kind->namespaced() && !ns.empty() ? prefix + std::string(ns) + "/" : prefix;
  }
  std::unique_ptr<Message> make() const { return std::unique_ptr<Message>(kind->prototype->New()); }
};

class Resources {
 public:
  explicit Resources(const ClusterFacts& facts);
  // Of the built-in ones, which live as long as this.
  const Resource* find(std::string_view group, std::string_view version, std::string_view resource) const;
  const Resource* find_kind(std::string_view api_version, std::string_view kind) const;
  std::vector<std::unique_ptr<Resource>>& all() { return all_; }
  const std::vector<std::unique_ptr<Resource>>& all() const { return all_; }

  // Built-in or custom. Thread safe, like the two below.
  std::shared_ptr<const Resource> find_served(std::string_view group, std::string_view version, std::string_view resource) const;
  using Custom = std::vector<std::shared_ptr<const Resource>>;
  std::shared_ptr<const Custom> custom() const;
  void set_custom(Custom all);

 private:
  std::vector<std::unique_ptr<Resource>> all_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Custom> custom_ = std::make_shared<const Custom>();
};

}  // namespace fairlead::apiserver
