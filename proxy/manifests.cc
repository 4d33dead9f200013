#include "proxy/manifests.h"

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "kube/codec.h"
#include "kube/kinds.h"
#include "kube/object.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::proxy {
namespace {

namespace fs = std::filesystem;

void note(ClusterState& out, std::string_view kind, const std::string& key, Problems&& problems) {
  for (auto& p : problems) out.problems.push_back(fmt::format("{} {}: {}", kind, key, p));
}

void take(const kube::Message& object, const std::string& node, const Config& config, ClusterState& out) {
  Problems problems;
  if (const auto* service = dynamic_cast<const corev1::Service*>(&object)) {
    const auto key = kube::key_of(service->metadata());
    out.state.set_service(key, read_service(*service, {config.gate("AllowServiceExternalIPs", true)}, problems));
    note(out, "Service", key, std::move(problems));
  } else if (const auto* slice = dynamic_cast<const discoveryv1::EndpointSlice*>(&object)) {
    const auto key = kube::key_of(slice->metadata());
    std::optional<std::pair<ServiceKey, Slice>> value;
    if (auto read = read_slice(*slice, problems)) value.emplace(std::move(read->service), std::move(read->slice));
    out.state.set_slice(key, std::move(value));
    note(out, "EndpointSlice", key, std::move(problems));
  } else if (const auto* n = dynamic_cast<const corev1::Node*>(&object)) {
    if (!node.empty() ? n->metadata().name() != node : !out.facts.node.name.empty()) return;
    out.facts.node = read_node(*n);
    out.facts.pod_cidrs = read_pod_cidrs(*n);
  } else if (const auto* cidr = dynamic_cast<const networkingv1::ServiceCIDR*>(&object)) {
    if (cidr->metadata().has_deletiontimestamp()) return;
    for (const auto& p : read_service_cidr(*cidr)) out.facts.service_cidrs.push_back(p);
  }
}

Result<> take_json(const boost::json::value& v, const std::string& name, const std::string& node, const Config& config, ClusterState& out) {
  if (v.is_null()) return {};
  if (!v.is_object()) return fail(ErrorCode::invalid_argument, "{}: a document is not an object", name);
  const auto* kind = v.as_object().if_contains("kind");
  if (const auto* items = v.as_object().if_contains("items"); items && items->is_array() && kind && kind->is_string() &&
                                                              std::string_view(kind->as_string()).ends_with("List")) {
    for (const auto& one : items->as_array()) FL_CHECK(take_json(one, name, node, config, out));
    return {};
  }
  static constexpr std::array<std::string_view, 4> kinds{"Service", "EndpointSlice", "Node", "ServiceCIDR"};
  if (!kind || !kind->is_string() || std::find(kinds.begin(), kinds.end(), std::string_view(kind->as_string())) == kinds.end()) return {};
  auto object = v;
  // Objects without a namespace are in "default", as kubectl has it.
  auto& metadata = object.as_object()["metadata"];
  if (metadata.is_object() && (kind->as_string() == "Service" || kind->as_string() == "EndpointSlice") && !metadata.as_object().contains("namespace"))
    metadata.as_object()["namespace"] = "default";
  FL_TRY_CTX(const auto decoded, kube::decode_object(object), "{}", name);
  take(*decoded.object, node, config, out);
  return {};
}

}  // namespace

Plan ClusterState::plan(const Config& config) {
  Planner planner(make_global_plan(config, facts), facts.node);
  planner.update(state.take(true));
  for (const auto& [key, why] : planner.complaints()) problems.push_back(fmt::format("Service {}: {}", key, why));
  return planner.current();
}

Result<> read_manifest(std::string_view text, const std::string& name, const std::string& node, const Config& config, ClusterState& out) {
  FL_TRY_CTX(const auto documents, kube::parse_yaml(text), "{}", name);
  for (const auto& d : documents) FL_CHECK(take_json(d, name, node, config, out));
  return {};
}

Result<> read_manifests(const std::vector<std::string>& paths, const std::string& node, const Config& config, ClusterState& out) {
  std::vector<std::string> files;
  for (const auto& path : paths) {
    std::error_code ec;
    if (!fs::is_directory(path, ec)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path, ec)) {
      const auto extension = entry.path().extension();
      if (entry.is_regular_file(ec) && (extension == ".yaml" || extension == ".yml" || extension == ".json")) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  for (const auto& f : files) {
    FL_TRY(const auto text, read_file(f));
    FL_CHECK(read_manifest(text, f, node, config, out));
  }
  if (out.facts.node.name.empty()) out.facts.node.name = node;
  return {};
}

Task<Result<>> read_cluster(std::shared_ptr<kube::Client> client, std::string node, const Config& config, ClusterState& out) {
  FL_CO_TRY(auto found, co_await client->get<corev1::Node>("", node));
  take(found, node, config, out);
  kube::ListOptions services, slices;
  services.label_selector = "!" + std::string(kServiceProxyNameLabel);
  slices.label_selector = "!" + std::string(kHeadlessLabel);
  FL_CO_TRY(auto all, co_await client->list<corev1::Service>("", services));
  for (const auto& s : all) take(s, node, config, out);
  all.clear();
  FL_CO_TRY(auto endpoints, co_await client->list<discoveryv1::EndpointSlice>("", slices));
  for (const auto& s : endpoints) take(s, node, config, out);
  auto cidrs = co_await client->list<networkingv1::ServiceCIDR>("", {});
  if (cidrs)
    for (const auto& c : *cidrs) take(c, node, config, out);
  else if (cidrs.error().code != ErrorCode::not_found) co_return fail(std::move(cidrs).error());
  co_return Result<>{};
}

}  // namespace fairlead::proxy
