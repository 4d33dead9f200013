#include <map>

#include "controlplane/apiserver/events_conversion.h"
#include "controlplane/apiserver/registry/strategies.h"
#include "controlplane/apiserver/resource.h"
#include "controlplane/apiserver/tables/table.h"

namespace fairlead::apiserver {
namespace {

// Where upstream keeps a resource when it is not <prefix>/<resource>/ (default_storage_factory_builder.go).
std::string place_of(const kube::Kind& k, const std::string& prefix) {
  static const std::map<std::string, std::string, std::less<>> special = {
      {"nodes", "minions"},
      {"services", "services/specs"},
      {"endpoints", "services/endpoints"},
      {"replicationcontrollers", "controllers"},
      {"ingresses.networking.k8s.io", "ingress"}};
  const auto it = special.find(k.group_resource());
  return fmt::format("{}/{}/", prefix, it == special.end() ? std::string(k.resource) : it->second);
}

}  // namespace

Resources::Resources(const ClusterFacts& facts) {
  for (const auto& k : kube::kinds()) {
    if (!k.served || !k.list_prototype) continue;
    auto r = std::make_unique<Resource>();
    r->kind = &k;
    r->storage_kind = &k;
    r->prefix = place_of(k, facts.storage_prefix);
    r->strategy = make_strategy(k, facts);
    r->printer = &table_printer(k.group, k.kind);
    if (k.group == "events.k8s.io") {
      r->storage_kind = kube::find_kind("v1", "Event");
      r->from_storage = events_v1_from_core;
      r->to_storage = core_from_events_v1;
    }
    all_.push_back(std::move(r));
  }
}

const Resource* Resources::find(std::string_view group, std::string_view version, std::string_view resource) const {
  for (const auto& r : all_)
    if (r->kind->resource == resource && r->kind->group == group && r->kind->version == version) return r.get();
  return nullptr;
}

const Resource* Resources::find_kind(std::string_view api_version, std::string_view kind) const {
  for (const auto& r : all_)
    if (r->kind->kind == kind && r->kind->api_version() == api_version) return r.get();
  return nullptr;
}

}  // namespace fairlead::apiserver
