#include "controlplane/controllers/endpointslice_controller.h"

#include "base/log.h"

namespace fairlead::controllers {
namespace {

constexpr int workers = 8;

// What of a pod shows in an endpoint.
bool endpoint_changed(const corev1::Pod& a, const corev1::Pod& b) {
  const auto ips = [](const corev1::Pod& p) {
    std::vector<std::string> out{p.status().podip()};
    for (const auto& ip : p.status().podips()) out.push_back(ip.ip());
    return out;
  };
  return is_pod_ready(a) != is_pod_ready(b) || is_deleting(a.metadata()) != is_deleting(b.metadata()) || is_pod_terminal(a) != is_pod_terminal(b) ||
         a.spec().nodename() != b.spec().nodename() || a.spec().hostname() != b.spec().hostname() || a.metadata().uid() != b.metadata().uid() ||
         ips(a) != ips(b);
}

bool selects(const corev1::Service& s, const corev1::Pod& pod) {
  if (s.spec().selector().empty() || s.spec().type() == "ExternalName") return false;
  const auto& labels = pod.metadata().labels();
  return std::all_of(s.spec().selector().begin(), s.spec().selector().end(), [&](const auto& kv) {
    const auto it = labels.find(kv.first);
    return it != labels.end() && it->second == kv.second;
  });
}

}  // namespace

void services_of_pod_change(const ServiceStore& services, const kube::Change<corev1::Pod>& c,
                            const std::function<void(const kube::ObjectKey&)>& f) {
  const corev1::Pod& any = c.after ? *c.after : *c.before;
  const bool both = c.before && c.after;
  const bool relabelled = both && !equal_maps(c.before->metadata().labels(), c.after->metadata().labels());
  if (both && !relabelled && !endpoint_changed(*c.before, *c.after)) return;
  for (const auto& [key, service] : services.indexed(services.by_namespace, any.metadata().namespace_())) {
    if ((c.after && selects(*service, *c.after)) || (c.before && (!both || relabelled) && selects(*service, *c.before))) f(key);
  }
}

std::vector<std::shared_ptr<const corev1::Pod>> selected_pods(const PodStore& pods, const corev1::Service& service) {
  std::vector<std::shared_ptr<const corev1::Pod>> out;
  for (const auto& [key, pod] : pods.indexed(pods.by_namespace, service.metadata().namespace_())) {
    if (selects(service, *pod)) out.push_back(pod);
  }
  return out;
}

EndpointSliceController::EndpointSliceController(const Context& context)
    : QueueController(context, "endpoint-slice-controller", workers),
      services_(ctx_.stores.services()),
      pods_(ctx_.stores.pods()),
      nodes_(ctx_.stores.nodes()),
      slices_(ctx_.stores.slices()) {
  services_.on_change([this](const kube::Change<corev1::Service>& c) { queue_.add(c.key); });
  pods_.on_change([this](const kube::Change<corev1::Pod>& c) {
    services_of_pod_change(services_, c, [this](const kube::ObjectKey& key) { queue_.add(key); });
  });
  nodes_.on_change([this](const kube::Change<corev1::Node>& c) { on_node(c); });
  slices_.on_change([this](const kube::Change<discoveryv1::EndpointSlice>& c) { on_slice(c); });
}

void EndpointSliceController::on_node(const kube::Change<corev1::Node>& c) {
  const auto zone = [](const corev1::Node& n) {
    const auto it = n.metadata().labels().find("topology.kubernetes.io/zone");
    return it == n.metadata().labels().end() ? std::string() : it->second;
  };
  if (c.before && c.after && zone(*c.before) == zone(*c.after)) return;
  for (const auto& [pod_key, pod] : pods_.indexed(pods_.by_node, c.key)) {
    services_of_pod_change(services_, {pod_key, nullptr, pod}, [this](const kube::ObjectKey& key) { queue_.add(key); });
  }
}

// Somebody else touched or deleted a slice of ours: look again. Own writes come by here too and find nothing to do.
void EndpointSliceController::on_slice(const kube::Change<discoveryv1::EndpointSlice>& c) {
  const auto& slice = c.after ? *c.after : *c.before;
  const auto label = slice.metadata().labels().find(service_name_label);
  if (label != slice.metadata().labels().end()) queue_.add(slice.metadata().namespace_() + "/" + label->second);
}

Task<Result<kube::Next>> EndpointSliceController::reconcile(std::string key) {
  const ServicePtr service = services_.get(key);
  if (!service || is_deleting(service->metadata())) {
    trigger_times_.forget(key);
    if (service) co_return kube::Next{};
    for (const auto& [slice_key, slice] : SliceStore::Objects(slices_.indexed(slices_.by_service, key))) {
      FL_CO_CHECK(co_await remove(slice));
    }
    co_return kube::Next{};
  }
  if (service->spec().selector().empty() || service->spec().type() == "ExternalName") co_return kube::Next{};

  EndpointSliceInput in{service, selected_pods(pods_, *service), {}, {}, {}};
  for (const auto& pod : in.pods) {
    if (auto node = nodes_.get(pod->spec().nodename())) in.nodes.emplace(pod->spec().nodename(), std::move(node));
  }
  for (const auto& [slice_key, slice] : slices_.indexed(slices_.by_service, key)) in.slices.push_back(slice);
  in.trigger_time = trigger_times_.observe(*service, in.pods);
  FL_CO_CHECK(co_await apply(service, decide_endpointslices(in)));
  co_return kube::Next{};
}

Task<Result<>> EndpointSliceController::apply(ServicePtr service, EndpointSliceDecision decision) {
  Result<> outcome;
  for (auto& s : decision.create) {
    auto r = co_await create(std::move(s));
    if (!r && outcome) outcome = std::move(r);
  }
  for (auto& s : decision.update) {
    auto r = co_await update(std::move(s));
    if (!r && outcome) outcome = std::move(r);
  }
  // Deleting last: an endpoint that moves between slices is in both for a moment rather than in none.
  for (const auto& s : decision.remove) {
    if (!outcome) break;
    auto r = co_await remove(s);
    if (!r && outcome) outcome = std::move(r);
  }
  if (!outcome && outcome.error().code != ErrorCode::conflict) {
    events_.warning(kube::reference_to(*service), "FailedToUpdateEndpointSlices",
                    fmt::format("Error updating Endpoint Slices for Service {}/{}: {}", service->metadata().namespace_(),
                                service->metadata().name(), outcome.error().message));
  }
  co_return outcome;
}

Task<Result<>> EndpointSliceController::create(discoveryv1::EndpointSlice slice) {
  auto r = co_await ctx_.client->create<discoveryv1::EndpointSlice>(std::move(slice));
  if (r) slices_.wrote(*r);
  else if (!namespace_is_terminating(r.error())) co_return fail(std::move(r).error());
  co_return Result<>{};
}

Task<Result<>> EndpointSliceController::update(discoveryv1::EndpointSlice slice) {
  auto r = co_await ctx_.client->update<discoveryv1::EndpointSlice>(std::move(slice));
  if (!r) co_return fail(std::move(r).error());
  slices_.wrote(*r);
  co_return Result<>{};
}

Task<Result<>> EndpointSliceController::remove(SlicePtr slice) {
  kube::DeleteOptions options;
  options.uid = slice->metadata().uid();
  auto r = co_await ctx_.client->delete_object(kube::kind_of<discoveryv1::EndpointSlice>(), slice->metadata().namespace_(),
                                               slice->metadata().name(), std::move(options));
  if (!r && !is_gone(r.error())) co_return r;
  slices_.deleted(key_of(*slice), slice->metadata().uid(), false);
  co_return Result<>{};
}

EndpointsController::EndpointsController(const Context& context)
    : QueueController(context, "endpoint-controller", workers),
      services_(ctx_.stores.services()),
      pods_(ctx_.stores.pods()),
      endpoints_(ctx_.stores.endpoints()) {
  services_.on_change([this](const kube::Change<corev1::Service>& c) { queue_.add(c.key); });
  pods_.on_change([this](const kube::Change<corev1::Pod>& c) {
    services_of_pod_change(services_, c, [this](const kube::ObjectKey& key) { queue_.add(key); });
  });
  endpoints_.on_change([this](const kube::Change<corev1::Endpoints>& c) { queue_.add(c.key); });
}

Task<Result<kube::Next>> EndpointsController::reconcile(std::string key) {
  const ServicePtr service = services_.get(key);
  const auto stored = endpoints_.get(key);
  if (!service) {
    trigger_times_.forget(key);
    // Written by hand and without a Service: not ours to delete.
    if (!stored || !stored->metadata().labels().contains("endpoints.kubernetes.io/managed-by")) co_return kube::Next{};
    const auto [ns, name] = split_key(key);
    kube::DeleteOptions options;
    options.uid = stored->metadata().uid();
    auto r = co_await ctx_.client->delete_object(kube::kind_of<corev1::Endpoints>(), ns, name, std::move(options));
    if (!r && !is_gone(r.error())) co_return fail(std::move(r).error());
    endpoints_.deleted(key, stored->metadata().uid(), false);
    co_return kube::Next{};
  }
  if (is_deleting(service->metadata()) || service->spec().selector().empty() || service->spec().type() == "ExternalName")
    co_return kube::Next{};

  EndpointsInput in{service, selected_pods(pods_, *service), stored, {}};
  in.trigger_time = trigger_times_.observe(*service, in.pods);
  EndpointsDecision decision = decide_endpoints(in);
  if (decision.create) {
    auto r = co_await ctx_.client->create<corev1::Endpoints>(std::move(*decision.create));
    if (!r && !namespace_is_terminating(r.error())) co_return fail(std::move(r).error());
    if (r) endpoints_.wrote(*r);
  } else if (decision.update) {
    auto r = co_await ctx_.client->update<corev1::Endpoints>(std::move(*decision.update));
    if (!r) co_return fail(std::move(r).error());
    endpoints_.wrote(*r);
  }
  co_return kube::Next{};
}

}  // namespace fairlead::controllers
