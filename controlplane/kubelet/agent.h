// Agent: all pods of this node. It is told which pods the API wants here, looks at the runtime once a second (sooner when
// something is expected to change), gives each pod a worker, and finds what belongs to no pod any more.
//
// Threads: its executor (one thread or a strand). Owner: run_kubelet() or a test. Where pods come from (watch, files) and how
// the API is reached is the caller's business.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/kubelet/pod_worker.h"

namespace fairlead::kubelet {

struct AgentOptions {
  net::any_io_executor executor;
  const Clock* clock = &SystemClock::get();
  Settings settings;
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<ObjectSource> objects;
  std::shared_ptr<PodApi> api;
  std::function<void(const corev1::Pod&, const std::string& container, const char* type, const char* reason,
                     const std::string& message)>
      event;
  std::string cgroup_mount = "/sys/fs/cgroup";
};

class Agent {
 public:
  explicit Agent(AgentOptions options);
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  void start();
  // Ends all workers and loops; containers go on running. The executor must keep running until this has returned.
  Task<> stop();

  void set_pod(std::shared_ptr<const corev1::Pod> pod);  // new or changed
  void forget_pod(const std::string& uid);               // removed from the API
  // All pods that the API has were given: what else runs in the runtime is an orphan from now on.
  void set_synced();
  void objects_changed(const std::string& pod_uid);

  const Settings& settings() const { return options_.settings; }
  Runtime& runtime() const { return *options_.runtime; }
  // The newest pod of that name; null if there is none.
  const PodWorker* find(const std::string& ns, const std::string& name) const;
  std::vector<std::shared_ptr<const corev1::Pod>> pods() const;  // with the status that was computed last
  std::size_t size() const { return workers_.size(); }
  std::size_t running_containers() const;
  // When the runtime answered the last look.
  SteadyTime last_look() const { return last_look_; }

 private:
  struct Seen;
  Task<> look_loop();
  Task<> tend_loop();
  Task<bool> look();
  void handle_seen(std::map<std::string, Seen> seen);
  void adopt_orphan(const std::string& uid, const Seen& seen);
  void sweep_folders();
  void expect_change(bool burst);
  std::optional<Waiting> admit(const corev1::Pod& pod) const;

  AgentOptions options_;
  VolumeManager volumes_;
  Cgroups cgroups_;
  AgentContext context_;
  std::map<std::string, std::shared_ptr<PodWorker>> workers_;  // by uid
  std::map<std::string, std::string> fingerprints_;            // of the last look, by uid
  Wakeup wakeup_, tend_wakeup_;
  std::size_t quick_looks_ = 0;  // left of a burst
  SteadyTime last_look_{};
  bool synced_ = false;
  bool swept_ = false;
  bool stopping_ = false;
  int loops_ = 0;
};

// Why this node does not take a pod, from the pods it already has. Pure.
std::optional<Waiting> admission_refusal(const corev1::Pod& pod, const std::vector<std::shared_ptr<const corev1::Pod>>& others,
                                         const Settings& settings);

}  // namespace fairlead::kubelet
