// Helpers for objects of any kind: their ObjectMeta, their key, single fields by path, and a stable hash.
// Pure and thread safe.
//
//   meta_of(object).name()      mutable_meta(object).set_resourceversion("7")
//   key_of(pod)                 "default/web-0", or "n1" for cluster-scoped objects
//   field_text(pod, "spec.nodeName")
#pragma once

#include <google/protobuf/message.h>

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "kube/api.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::kube {

using Message = google::protobuf::Message;

// Requires: a type with a `metadata` field of type ObjectMeta.
const metav1::ObjectMeta& meta_of(const Message& object);
metav1::ObjectMeta& mutable_meta(Message& object);
bool has_meta(const google::protobuf::Descriptor& type);

std::string key_of(const metav1::ObjectMeta& meta);
std::string key_of(const Message& object);
std::string key_of(std::string_view ns, std::string_view name);
struct SplitKey {
  std::string_view ns;  // empty for cluster-scoped objects
  std::string_view name;
};
SplitKey split_key(std::string_view key);

// The text of one scalar field by its JSON path (members by dots, list items by [0]), for field selectors. "" when it is
// unset; nullopt when the type has no such scalar field. Quantities, times and IntOrString are scalars here.
std::optional<std::string> field_text(const Message& object, std::string_view path);

// A hash that depends on the content alone (not on the order of map entries, nor on the build), written with the characters
// of generated names: "6b7c4f8d9". For pod-template-hash; `collision` makes another one of the same content.
std::string stable_hash(const Message& object, std::optional<std::int32_t> collision = {});
// A number in the characters bcdfghjklmnpqrstvwxz2456789, which spell no words.
std::string safe_name_of(std::uint64_t number);
inline constexpr std::string_view kSafeNameCharacters = "bcdfghjklmnpqrstvwxz2456789";

// The merge patch (RFC 7396) that turns `before` into `after`; an empty object when they are equal.
boost::json::value create_merge_patch(const boost::json::value& before, const boost::json::value& after);
boost::json::value create_merge_patch(const Message& before, const Message& after);

}  // namespace fairlead::kube
