#include "controlplane/kubelet/pod_api.h"

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "kube/client.h"
#include "kube/codec.h"

namespace fairlead::kubelet {
namespace {

namespace json = boost::json;

// The fields of status that a node agent owns; others stay as they are.
constexpr std::string_view kOwned[] = {"phase",
                                       "reason",
                                       "message",
                                       "hostIP",
                                       "hostIPs",
                                       "podIP",
                                       "podIPs",
                                       "startTime",
                                       "qosClass",
                                       "containerStatuses",
                                       "initContainerStatuses",
                                       "observedGeneration"};

class ClientPodApi final : public PodApi {
 public:
  explicit ClientPodApi(std::shared_ptr<kube::Client> client) : client_(std::move(client)) {}

  Task<Result<>> patch_status(std::shared_ptr<const corev1::Pod> pod, corev1::PodStatus from, corev1::PodStatus to) override {
    std::string body = status_patch(pod->metadata().uid(), from, to);
    if (body.empty()) co_return Result<>{};
    auto r = co_await client_->patch<corev1::Pod>(pod->metadata().namespace_(), pod->metadata().name(),
                                                  kube::PatchType::strategic, std::move(body), "status");
    if (!r) co_return fail(std::move(r).error());
    co_return Result<>{};
  }

  Task<Result<>> remove(std::shared_ptr<const corev1::Pod> pod) override {
    kube::DeleteOptions options;
    options.grace_period_seconds = 0;
    options.uid = pod->metadata().uid();
    auto r = co_await client_->delete_object(kube::kind_of<corev1::Pod>(), pod->metadata().namespace_(), pod->metadata().name(),
                                             options);
    if (!r && r.error().code != ErrorCode::not_found && r.error().code != ErrorCode::conflict)
      co_return fail(std::move(r).error());
    co_return Result<>{};
  }

 private:
  std::shared_ptr<kube::Client> client_;
};

// Conditions merge by type and field by field: a field that a condition has lost must be set to null.
json::array conditions_patch(const json::value* before, const json::value& after) {
  json::array out;
  for (const json::value& item : after.as_array()) {
    json::object next = item.as_object();
    if (before)
      for (const json::value& old : before->as_array()) {
        if (old.at("type") != item.at("type")) continue;
        for (const auto& [key, value] : old.as_object())
          if (!item.as_object().contains(key)) next[key] = nullptr;
      }
    out.push_back(std::move(next));
  }
  return out;
}

}  // namespace

std::unique_ptr<PodApi> make_pod_api(std::shared_ptr<kube::Client> client) {
  return std::make_unique<ClientPodApi>(std::move(client));
}

std::string status_patch(const std::string& uid, const corev1::PodStatus& from, const corev1::PodStatus& to) {
  const json::value before = kube::to_json_value(from), after = kube::to_json_value(to);
  json::object changes;
  for (const auto& [key, value] : after.as_object()) {
    const json::value* old = before.as_object().if_contains(key);
    if (old && *old == value) continue;
    if (key == "podIPs" || key == "hostIPs") {
      // These lists merge by address; an old address must not stay.
      json::array list{json::object{{"$patch", "replace"}}};
      for (const auto& item : value.as_array()) list.push_back(item);
      changes[key] = std::move(list);
    } else if (key == "conditions") {
      changes[key] = conditions_patch(old, value);
    } else {
      changes[key] = value;
    }
  }
  for (const std::string_view key : kOwned)
    if (before.as_object().contains(key) && !after.as_object().contains(key)) changes[key] = nullptr;
  if (changes.empty()) return {};
  return json::serialize(json::object{{"metadata", json::object{{"uid", uid}}}, {"status", std::move(changes)}});
}

}  // namespace fairlead::kubelet
