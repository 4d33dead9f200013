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
};

struct Kind {
  std::string_view group;      // "" for core
  std::string_view version;    // "v1"
  std::string_view kind;       // "Deployment"
  std::string_view resource;   // "deployments"
  std::string_view singular;   // "deployment"
  Scope scope = Scope::namespaced;
  std::vector<std::string_view> short_names;
  std::vector<std::string_view> categories;
  std::vector<std::string_view> verbs;
  std::vector<Subresource> subresources;
  const google::protobuf::Message* prototype = nullptr;       // of one object
  const google::protobuf::Message* list_prototype = nullptr;  // of the list kind

  std::string api_version() const { return group.empty() ? std::string(version) : fmt::format("{}/{}", group, version); }
  std::string group_resource() const { return group.empty() ? std::string(resource) : fmt::format("{}.{}", resource, group); }
  bool namespaced() const { return scope == Scope::namespaced; }
};

std::span<const Kind> kinds();
const Kind* find_kind(std::string_view api_version, std::string_view kind);
const Kind* find_resource(std::string_view group, std::string_view version, std::string_view resource);
const Kind& kind_of(const google::protobuf::Descriptor& type);  // Requires: a registered message type

template <typename T>
const Kind& kind_of() {
  return kind_of(*T::descriptor());
}

// "/api/v1/namespaces/ns/pods/name/status"; empty name: the collection; empty ns: all namespaces or cluster scope.
std::string resource_path(const Kind& kind, std::string_view ns, std::string_view name = {}, std::string_view subresource = {});

}  // namespace fairlead::kube
