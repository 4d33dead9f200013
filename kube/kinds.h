// The table of kinds: group, version, kind, resource name, scope, short names, categories, subresources and the protobuf
// message that holds them. The apiserver serves what is in it, the client finds paths in it, discovery and OpenAPI are
// derived from it. Adding a kind is one row here, its .proto, and a strategy in the apiserver. Immutable after start.
#pragma once

#include <google/protobuf/message.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fairlead::kube {

enum class Scope { namespaced, cluster };

struct Subresource {
  std::string_view name;           // "status", "scale", "binding", "log"
  std::string_view kind;           // kind of its body; empty: the parent's
  std::string_view group_version;  // of that kind, when not the parent's: "autoscaling/v1"
  std::vector<std::string_view> verbs;
  const google::protobuf::Message* prototype = nullptr;  // of its body; null: the parent's
  bool served = true;
};

struct Kind {
  std::string_view group;     // "" for core
  std::string_view version;   // "v1"
  std::string_view kind;      // "Deployment"
  std::string_view resource;  // "deployments"
  std::string_view singular;  // "deployment"
  Scope scope = Scope::namespaced;
  std::vector<std::string_view> short_names;
  std::vector<std::string_view> categories;
  std::vector<std::string_view> verbs;
  std::vector<Subresource> subresources;
  bool served = false;  // by Fairlead's apiserver; a client may use the others against a stock cluster
  const google::protobuf::Message* prototype = nullptr;       // of one object
  const google::protobuf::Message* list_prototype = nullptr;  // of the list kind; null for reviews, which can only be created

  std::string api_version() const { return group.empty() ? std::string(version) : fmt::format("{}/{}", group, version); }
  std::string group_resource() const { return group.empty() ? std::string(resource) : fmt::format("{}.{}", resource, group); }
  std::string list_kind() const { return fmt::format("{}List", kind); }
  bool namespaced() const { return scope == Scope::namespaced; }
  bool has_verb(std::string_view verb) const;
  const Subresource* find_subresource(std::string_view name) const;
};

std::span<const Kind> kinds();
const Kind* find_kind(std::string_view api_version, std::string_view kind);
const Kind* find_resource(std::string_view group, std::string_view version, std::string_view resource);
const Kind& kind_of(const google::protobuf::Descriptor& type);       // Requires: a registered message type
const Kind* find_kind_of(const google::protobuf::Descriptor& type);  // null when it is not the type of a registered kind

// apiVersion and kind of every message that is an object of its own on the wire: the registered kinds and their lists, and
// Status, Scale, Binding, Eviction, DeleteOptions and the like. Null for parts of objects (PodSpec).
struct TypeName {
  std::string api_version;
  std::string kind;
};
const TypeName* type_name_of(const google::protobuf::Descriptor& type);
// An empty object of that name, or null. Kinds, lists and the others alike: ("v1", "PodList"), ("v1", "Status").
const google::protobuf::Message* find_prototype(std::string_view api_version, std::string_view kind);

template <typename T>
const Kind& kind_of() {
  return kind_of(*T::descriptor());
}

// "/api/v1/namespaces/ns/pods/name/status"; empty name: the collection; empty ns: all namespaces or cluster scope.
std::string resource_path(const Kind& kind, std::string_view ns, std::string_view name = {}, std::string_view subresource = {});

}  // namespace fairlead::kube
