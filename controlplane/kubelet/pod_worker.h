// PodWorker: one pod on this node, from the moment the API assigns it until nothing of it is left. It keeps what is known of
// the pod, asks decide() after every change, carries the actions out side by side, and publishes the status. It never blocks
// another pod: each action is a coroutine of its own, and none starts while another works on the same name.
//
// Threads: the agent's executor. Owner: the agent; actions under way keep the worker alive until they end.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/random.h"
#include "controlplane/kubelet/cgroups.h"
#include "controlplane/kubelet/decide.h"
#include "controlplane/kubelet/pod_api.h"
#include "controlplane/kubelet/pod_config.h"
#include "controlplane/kubelet/prober.h"
#include "controlplane/kubelet/runtime.h"
#include "controlplane/kubelet/settings.h"
#include "controlplane/kubelet/volumes.h"
#include "controlplane/kubelet/wakeup.h"

namespace fairlead::kubelet {

// What all workers of one agent share. Outlives them.
struct AgentContext {
  net::any_io_executor executor;
  const Clock& clock;
  const Settings& settings;
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<ObjectSource> objects;
  VolumeManager& volumes;
  Cgroups& cgroups;
  PodApi& api;
  // type is "Normal" or "Warning"; container may be empty.
  std::function<void(const corev1::Pod&, const std::string& container, const char* type, const char* reason,
                     const std::string& message)>
      event;
  // The next global look at the runtime should come soon.
  std::function<void()> expect_change;
};

class PodWorker : public std::enable_shared_from_this<PodWorker> {
 public:
  enum class Origin { api, orphan };
  PodWorker(AgentContext& context, std::shared_ptr<const corev1::Pod> pod, Origin origin);
  void start();

  void update(std::shared_ptr<const corev1::Pod> pod);  // a newer version of the same uid
  void gone();                                          // the API has removed it
  void reject(Waiting why);                             // the node cannot take it
  void runtime_changed();                               // look again
  void objects_changed();                               // a ConfigMap, Secret or Service it uses
  // Once in a while: rotates logs that have grown and renews what expires (tokens) in its volumes.
  Task<> tend();
  void stop();  // the agent ends; containers stay

  // Nothing of it is left on the node and the API has it no more.
  bool finished() const { return cleaned_ && (memory_.gone || deleted_); }
  const std::shared_ptr<const corev1::Pod>& pod() const { return pod_; }
  const PodObservation& observed() const { return observed_; }
  const corev1::PodStatus& status() const { return desired_; }
  const std::string& uid() const { return pod_->metadata().uid(); }

 private:
  // pod_worker.cc: the loop
  Task<> run();
  void step();
  std::optional<WallTime> age_failures();
  Task<bool> refresh();
  Task<Result<PodObservation>> look();
  Task<> add_termination_message(ContainerRecord* record);
  void remember_running();
  void sync_probes();
  void on_verdict(ProbeKind kind, const std::string& container, const std::string& id, bool verdict, const std::string& message);
  void publish(bool stopped);
  Task<> publish_loop();
  Task<> finalize();
  Task<> clean_runtime();
  DecideInput input() const;

  // pod_actions.cc: the actions
  void launch(const Action& action);
  Task<> prepare_volumes();
  Task<> refresh_volumes();
  Task<> create_sandbox(unsigned attempt);
  Task<> stop_sandbox(std::string id);
  Task<> remove_sandbox(std::string id);
  Task<> remove_container(std::string id);
  Task<> start_container(std::string name, unsigned attempt);
  Task<Result<>> try_start(const corev1::Container& container, unsigned attempt);
  Task<Result<ImageRecord>> ensure_image(const corev1::Container& container);
  Task<Result<Environment>> environment_of(const corev1::Container& container);
  Result<std::vector<MountPoint>> mounts_of(const corev1::Container& container, unsigned attempt, const Environment& environment);
  Task<> stop_container(Action action);
  void start_failed(const std::string& container, const Error& error);
  bool winding_down() const;
  PodFacts facts() const;
  ProbeTarget target_of(const corev1::Container& container, const std::string& id) const;
  const corev1::Container* find(const std::string& name) const;
  void event(const std::string& container, const char* type, const char* reason, const std::string& message) const;
  void action_ended();

  AgentContext& context_;
  std::shared_ptr<const corev1::Pod> pod_;
  PodMemory memory_;
  PodObservation observed_;
  VolumePaths volume_paths_;
  Prober prober_;
  Wakeup wakeup_;
  corev1::PodStatus desired_;    // as computed last
  corev1::PodStatus acked_;      // as the API has it
  bool loaded_ = false;          // the runtime was looked at
  bool look_ = true;             // look before the next decision
  std::uint64_t mutations_ = 0;  // finished changes of the runtime: a look that began before one is stale
  bool publishing_ = false;
  bool deleted_ = false;   // our DELETE went through
  bool api_lost_ = false;  // the API does not know this uid any more
  bool cleaned_ = false;
  bool stopping_ = false;
  bool refreshing_volumes_ = false;
  bool volumes_stale_ = false;
  SteadyTime volumes_written_{};
  std::map<std::string, int> stops_;           // stops under way, by container
  std::map<std::string, WallTime> failed_at_;  // image pulls: when the last one failed
};

}  // namespace fairlead::kubelet
