// Entry: one stored object at one revision, as caches and lists hold it: its protobuf bytes (with resourceVersion set, ready
// to be embedded in a protobuf answer) and what selectors need, taken out once. Decoded objects are made on demand; ten
// thousand pods cost their bytes, not ten thousand object trees. Immutable; shared between threads.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/apiserver/resource.h"
#include "controlplane/etcd/kv.h"
#include "kube/selector.h"

namespace fairlead::apiserver {

struct Entry {
  std::string key;
  etcd::Revision revision = 0;
  std::string ns;
  std::string name;
  std::string raw;
  std::vector<std::pair<std::string, std::string>> labels;  // sorted by key
  std::vector<std::string> fields;                          // parallel to Strategy::selectable_fields()

  const std::string* label(const std::string& key) const;
};
using EntryPtr = std::shared_ptr<const Entry>;

// From a value of the store (with its envelope).
Result<EntryPtr> make_entry(const Resource& resource, std::string key, etcd::Revision revision, std::string_view value);
// From an object of the stored type; sets its resourceVersion.
EntryPtr make_entry(const Resource& resource, std::string key, etcd::Revision revision, Message& stored);
// The object in the type that `resource` serves.
std::unique_ptr<Message> decode_entry(const Resource& resource, const Entry& entry);
// The same object as if it had been written at another revision (a deletion is reported with its own revision).
EntryPtr at_revision(const Resource& resource, const Entry& entry, etcd::Revision revision);

// Which entries of a collection a request is about.
class Selection {
 public:
  // Fails on a field the kind does not offer: `field label not supported: x`.
  static Result<Selection> make(const Resource& resource, std::string_view ns, std::string_view name, kube::LabelSelector labels,
                                const kube::FieldSelector& fields);
  bool matches(const Entry& e) const;
  bool everything() const { return labels_.empty() && fields_.empty(); }  // within the prefix
  const std::string& prefix() const { return prefix_; }                   // keys start with it
  // The value that the index field must have, when the selector fixes it.
  const std::optional<std::string>& index_value() const { return index_value_; }

 private:
  struct Field {
    int index;  // -2 metadata.name, -1 metadata.namespace, else into Entry::fields
    bool equals;
    std::string value;
  };
  std::string prefix_;
  kube::LabelSelector labels_;
  std::vector<Field> fields_;
  std::optional<std::string> index_value_;
};

// The value by which watchers of this resource are indexed.
const std::string& index_value_of(const Resource& resource, const Entry& entry);

}  // namespace fairlead::apiserver
