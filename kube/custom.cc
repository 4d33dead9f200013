#include "kube/custom.h"

#include <algorithm>

#include "kube/codec.h"
#include "kube/proto/apimachinery/runtime.pb.h"

namespace fairlead::kube {
namespace json = boost::json;
namespace {

// The Kind and the text that its views point to.
struct Owned {
  CustomKind names;
  Kind kind;
};

}  // namespace

std::shared_ptr<const Kind> make_custom_kind(CustomKind names) {
  auto owned = std::make_shared<Owned>();
  owned->names = std::move(names);
  const auto& n = owned->names;
  Kind& k = owned->kind;
  k.group = n.group;
  k.version = n.version;
  k.kind = n.kind;
  k.resource = n.resource;
  k.singular = n.singular;
  k.scope = n.scope;
  k.short_names.assign(n.short_names.begin(), n.short_names.end());
  k.categories.assign(n.categories.begin(), n.categories.end());
  k.verbs = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"};
  if (n.status) k.subresources.push_back({"status", {}, {}, {"get", "patch", "update"}});
  k.served = true;
  k.prototype = &CustomObject::default_instance();
  k.list_prototype = &CustomObjectList::default_instance();
  return {owned, &owned->kind};
}

const Kind& definition_kind() {
  static const auto* kind = new std::shared_ptr<const Kind>(
      make_custom_kind({"apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "customresourcedefinition",
                        Scope::cluster, {"crd", "crds"}, {"api-extensions"}, true}));
  return **kind;
}

std::shared_ptr<const Kind> defined_kind(const CustomObject& definition) {
  const auto spec = member(definition, "spec"), status = member(definition, "status");
  const auto text = [](const json::value& v, std::string_view pointer) {
    boost::system::error_code ec;
    const auto* found = v.find_pointer(pointer, ec);
    return found && found->is_string() ? std::string(found->get_string()) : std::string();
  };
  CustomKind k{text(spec, "/group"), "", text(status, "/acceptedNames/kind"), text(status, "/acceptedNames/plural"),
               text(status, "/acceptedNames/singular")};
  k.scope = text(spec, "/scope") == "Cluster" ? Scope::cluster : Scope::namespaced;
  boost::system::error_code ec;
  const auto* versions = spec.find_pointer("/versions", ec);
  if (!versions || !versions->is_array() || k.kind.empty() || k.resource.empty()) return nullptr;
  for (const auto& v : versions->get_array()) {
    const auto* o = v.if_object();
    const auto* storage = o ? o->if_contains("storage") : nullptr;
    if (storage && *storage == json::value(true)) k.version = text(v, "/name");
  }
  return k.version.empty() ? nullptr : make_custom_kind(std::move(k));
}

json::value member(const CustomObject& object, std::string_view name) {
  const auto it = object.members().find(std::string(name));
  if (it == object.members().end()) return nullptr;
  auto value = parse_json(it->second.raw());
  return value ? std::move(*value) : json::value(nullptr);
}

void set_member(CustomObject& object, std::string_view name, const json::value& value) {
  if (value.is_null())
    object.mutable_members()->erase(std::string(name));
  else
    (*object.mutable_members())[std::string(name)].set_raw(to_json(value));
}

json::value sorted(const json::value& value) {
  if (const auto* a = value.if_array()) {
    json::array out;
    out.reserve(a->size());
    for (const auto& item : *a) out.push_back(sorted(item));
    return out;
  }
  const auto* o = value.if_object();
  if (!o) return value;
  std::vector<const json::key_value_pair*> members;
  for (const auto& m : *o) members.push_back(&m);
  std::sort(members.begin(), members.end(), [](auto* a, auto* b) { return a->key() < b->key(); });
  json::object out;
  out.reserve(members.size());
  for (const auto* m : members) out.emplace(m->key(), sorted(m->value()));
  return out;
}

}  // namespace fairlead::kube
