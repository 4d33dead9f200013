// Runtime: the container runtime as the node agent sees it. One implementation speaks CRI v1 over gRPC to containerd or
// CRI-O (runtime_cri.h), one simulates pods for scale tests (runtime_simulated.h). Records are plain values; the rich
// configurations are the CRI messages themselves.
//
// Threads: all calls on the agent's executor; each is a coroutine that resumes there. Every call has a deadline of its own.
// Errors: not_found when the id is unknown (idempotent calls treat it as done), timeout, unavailable when the runtime does
// not answer, the runtime's own text otherwise.
// Source: CRI v1 (proto/cri.proto).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/clock.h"

namespace runtime::v1 {
class PodSandboxConfig;
class ContainerConfig;
}  // namespace runtime::v1

namespace fairlead::kubelet {

namespace cri = ::runtime::v1;

// Labels and annotations by which a restarted agent recognises what is running; the names are upstream's, so that tools and
// a stock kubelet read them too.
inline constexpr const char* kLabelPodName = "io.kubernetes.pod.name";
inline constexpr const char* kLabelPodNamespace = "io.kubernetes.pod.namespace";
inline constexpr const char* kLabelPodUid = "io.kubernetes.pod.uid";
inline constexpr const char* kLabelContainerName = "io.kubernetes.container.name";
inline constexpr const char* kAnnotationRestartCount = "io.kubernetes.container.restartCount";
inline constexpr const char* kAnnotationMessagePath = "io.kubernetes.container.terminationMessagePath";
inline constexpr const char* kAnnotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy";
inline constexpr const char* kAnnotationGracePeriod = "io.kubernetes.pod.terminationGracePeriod";

enum class ContainerPhase { created, running, exited, unknown };

// One container of the runtime. Lists fill what lists carry; container_status() fills all.
struct ContainerRecord {
  std::string id;
  std::string sandbox_id;
  std::string name;      // in the pod
  unsigned attempt = 0;  // the restart count
  ContainerPhase phase = ContainerPhase::unknown;
  std::string image;      // as the pod asked for it
  std::string image_ref;  // digest or id
  WallTime created_at{};
  WallTime started_at{};   // epoch: never
  WallTime finished_at{};  // epoch: not yet
  int exit_code = 0;
  std::string reason;   // of the exit: Completed, Error, OOMKilled, StartError
  std::string message;  // of the exit; the agent replaces it by the termination message
  std::string log_path;
  std::string pod_uid, pod_name, pod_namespace;  // labels
  std::int64_t grace_period = -1;                // annotation; -1: none
  bool operator==(const ContainerRecord&) const = default;
};

struct SandboxRecord {
  std::string id;
  unsigned attempt = 0;
  bool ready = false;
  WallTime created_at{};
  std::vector<std::string> ips;  // only from sandbox_status(); empty for pods in the node's network
  std::string pod_uid, pod_name, pod_namespace;
  bool operator==(const SandboxRecord&) const = default;
};

struct RuntimeVersion {
  std::string name;     // "containerd"
  std::string version;  // "1.6.20"
};

struct RuntimeConditions {
  bool runtime_ready = false;
  bool network_ready = false;
  std::string runtime_message;
  std::string network_message;
  bool operator==(const RuntimeConditions&) const = default;
};

struct ExecResult {
  int exit_code = 0;
  std::string stdout_text;
  std::string stderr_text;
};

struct ImageRecord {
  std::string id;
  std::vector<std::string> names;  // tags, then digests
  std::uint64_t size = 0;
  std::string user;  // numeric uid or user name the image runs as; empty: unknown
};

enum class StreamKind { exec, attach, port_forward };

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual Task<Result<RuntimeVersion>> version() = 0;
  virtual Task<Result<RuntimeConditions>> conditions() = 0;
  virtual Task<Result<>> set_pod_cidr(std::string pod_cidr) = 0;

  // The id of the new sandbox. The runtime has set up its network when this returns.
  virtual Task<Result<std::string>> run_sandbox(std::shared_ptr<const cri::PodSandboxConfig> config) = 0;
  virtual Task<Result<>> stop_sandbox(std::string id) = 0;    // kills what runs in it, tears the network down
  virtual Task<Result<>> remove_sandbox(std::string id) = 0;  // with its containers
  virtual Task<Result<SandboxRecord>> sandbox_status(std::string id) = 0;
  // All, or those of one pod.
  virtual Task<Result<std::vector<SandboxRecord>>> list_sandboxes(std::string pod_uid) = 0;

  virtual Task<Result<std::string>> create_container(std::string sandbox_id, std::shared_ptr<const cri::ContainerConfig> config,
                                                     std::shared_ptr<const cri::PodSandboxConfig> sandbox_config) = 0;
  virtual Task<Result<>> start_container(std::string id) = 0;
  // Stop signal, then SIGKILL after `grace`; returns when the container has ended.
  virtual Task<Result<>> stop_container(std::string id, std::chrono::seconds grace) = 0;
  virtual Task<Result<>> remove_container(std::string id) = 0;
  virtual Task<Result<ContainerRecord>> container_status(std::string id) = 0;
  virtual Task<Result<std::vector<ContainerRecord>>> list_containers(std::string pod_uid) = 0;
  virtual Task<Result<>> reopen_log(std::string id) = 0;
  virtual Task<Result<ExecResult>> exec(std::string id, std::vector<std::string> command, std::chrono::seconds timeout) = 0;

  // The image if it is on the node; an empty id if not.
  virtual Task<Result<ImageRecord>> image_status(std::string reference) = 0;
  virtual Task<Result<std::string>> pull_image(std::string reference) = 0;
  virtual Task<Result<std::vector<ImageRecord>>> list_images() = 0;

  // Called on the executor soon after something may have changed in the runtime (a task started or ended). A hint only:
  // absence of calls means nothing, and what changed is found by listing. Runtimes without such a source never
  // call it. An empty function ends it.
  virtual void on_activity(std::function<void()> hint) = 0;
};

}  // namespace fairlead::kubelet
