// Small questions and answers about API objects that every controller needs: times, keys, owners, conditions, and what state
// a pod is in. Pure functions.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "kube/api.h"
#include "kube/informer.h"
#include "kube/kinds.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::controllers {

// ---- time
metav1::Time to_time(WallTime t);
WallTime from_time(const metav1::Time& t);
WallTime from_time(const metav1::MicroTime& t);

// ---- identity
template <typename T>
kube::ObjectKey key_of(const T& object) {
  const auto& m = object.metadata();
  return m.namespace_().empty() ? m.name() : m.namespace_() + "/" + m.name();
}
// "ns/name" or "name" taken apart.
std::pair<std::string, std::string> split_key(std::string_view key);
bool is_deleting(const metav1::ObjectMeta& meta);

// ---- owners
const metav1::OwnerReference* controller_of(const metav1::ObjectMeta& meta);
std::string controller_uid(const metav1::ObjectMeta& meta);  // "" when there is none
metav1::OwnerReference controller_reference(const kube::Kind& kind, const metav1::ObjectMeta& owner);
template <typename T>
metav1::OwnerReference controller_reference(const T& owner) {
  return controller_reference(kube::kind_of<T>(), owner.metadata());
}
template <typename List, typename V>
bool has(const List& list, const V& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// ---- annotations and labels
std::string annotation(const metav1::ObjectMeta& meta, std::string_view name);  // "" when absent
template <typename Map>
bool equal_maps(const Map& a, const Map& b) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.begin(), a.end(), [&](const auto& kv) {
    const auto it = b.find(kv.first);
    return it != b.end() && it->second == kv.second;
  });
}

// ---- conditions (of any kind: a list of messages with type() and status())
template <typename List>
auto* find_condition(List& list, std::string_view type) {
  for (auto& c : list) {
    if (c.type() == type) return &c;
  }
  return decltype(&*list.begin()){nullptr};
}
template <typename List>
void remove_condition(List& list, std::string_view type) {
  for (int i = list.size() - 1; i >= 0; --i) {
    if (list.Get(i).type() == type) list.DeleteSubrange(i, 1);
  }
}

// ---- pods
bool is_pod_ready(const corev1::Pod& pod);
bool is_pod_terminal(const corev1::Pod& pod);  // phase Succeeded or Failed
bool is_pod_active(const corev1::Pod& pod);    // neither terminal nor being deleted
// Ready, and has been for min_ready_seconds.
bool is_pod_available(const corev1::Pod& pod, std::int32_t min_ready_seconds, WallTime now);
// When a ready pod becomes available; nullopt for others and for those that are.
std::optional<WallTime> available_at(const corev1::Pod& pod, std::int32_t min_ready_seconds, WallTime now);
std::string pod_ip_of(const corev1::Pod& pod, bool v6);  // "" when it has none of that family

// ---- nodes
std::string_view node_condition(const corev1::Node& node, std::string_view type);  // status, "" when absent

// Bytes that are equal for equal messages (maps in key order).
std::string deterministic_bytes(const google::protobuf::Message& m);
// Equal as the API sees them: an empty string, list or map is the same as none.
bool semantically_equal(const google::protobuf::Message& a, const google::protobuf::Message& b);
// resourceVersions as numbers; larger is newer. 0 when absent or not a number.
std::uint64_t version_of(const metav1::ObjectMeta& meta);

}  // namespace fairlead::controllers
