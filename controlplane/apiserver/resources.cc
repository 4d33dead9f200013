#include <map>

#include "controlplane/apiserver/custom/strategies.h"
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
  auto definitions = std::make_unique<Resource>();
  definitions->kind = definitions->storage_kind = &kube::definition_kind();
  definitions->prefix = fmt::format("{}/apiextensions.k8s.io/customresourcedefinitions/", facts.storage_prefix);
  definitions->strategy = custom::definition_strategy();
  definitions->printer = &custom::definition_printer();
  definitions->json_only = true;
  definitions->upgrade = custom::upgrade_definition;
  all_.push_back(std::move(definitions));
}

std::shared_ptr<const Resource> Resources::find_served(std::string_view group, std::string_view version,
                                                       std::string_view resource) const {
  if (const auto* r = find(group, version, resource)) return {std::shared_ptr<const void>(), r};
  for (const auto& r : *custom())
    if (r->kind->resource == resource && r->kind->group == group && r->kind->version == version) return r;
  return nullptr;
}

std::shared_ptr<const Resources::Custom> Resources::custom() const {
  std::lock_guard lock(mutex_);
  return custom_;
}

void Resources::set_custom(Custom all) {
  auto next = std::make_shared<const Custom>(std::move(all));
  std::lock_guard lock(mutex_);
  custom_ = std::move(next);
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
