// EndpointSlice and Endpoints, the reconcilers. Decisions: endpointslice.h, endpoints.h.
//
// A pod's change is on its way to the slice as soon as the handler returns: no batching delay. While a write is under way,
// further changes of the same Service wait and go together in the next one.
#pragma once

#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/endpoints.h"
#include "controlplane/controllers/endpointslice.h"
#include "kube/selector.h"

namespace fairlead::controllers {

using ServicePtr = std::shared_ptr<const corev1::Service>;

// Calls f(key) for each Service whose endpoints may be touched by a change of a pod: those that select it now or did before.
// A change that shows in no endpoint (an annotation, a restart count) calls nothing.
void services_of_pod_change(const ServiceStore& services, const kube::Change<corev1::Pod>& change,
                            const std::function<void(const kube::ObjectKey&)>& f);
// Pods that a Service selects; none for a Service without a selector.
std::vector<std::shared_ptr<const corev1::Pod>> selected_pods(const PodStore& pods, const corev1::Service& service);

class EndpointSliceController final : public QueueController {
 public:
  explicit EndpointSliceController(const Context& context);

 private:
  Task<Result<kube::Next>> reconcile(std::string key) override;
  Task<Result<>> apply(ServicePtr service, EndpointSliceDecision decision);
  Task<Result<>> create(discoveryv1::EndpointSlice slice);
  Task<Result<>> update(discoveryv1::EndpointSlice slice);
  Task<Result<>> remove(SlicePtr slice);
  void on_node(const kube::Change<corev1::Node>& change);
  void on_slice(const kube::Change<discoveryv1::EndpointSlice>& change);

  ServiceStore& services_;
  PodStore& pods_;
  Store<corev1::Node>& nodes_;
  SliceStore& slices_;
  TriggerTimes trigger_times_;
};

class EndpointsController final : public QueueController {
 public:
  explicit EndpointsController(const Context& context);

 private:
  Task<Result<kube::Next>> reconcile(std::string key) override;

  ServiceStore& services_;
  PodStore& pods_;
  Store<corev1::Endpoints>& endpoints_;
  TriggerTimes trigger_times_;
};

}  // namespace fairlead::controllers
