// The actions of a pod's worker: each is one coroutine, started by launch(), which marks in the memory what is under way;
// action_ended() makes the worker look at the runtime and decide anew.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/fd.h"
#include "base/files.h"
#include "base/log.h"
#include "controlplane/kubelet/environment.h"
#include "controlplane/kubelet/pod_config.h"
#include "controlplane/kubelet/pod_worker.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr BackoffLimits kSandboxBackoff{milliseconds(250), milliseconds(30'000)};
constexpr BackoffLimits kVolumeBackoff{milliseconds(500), milliseconds(60'000)};
constexpr BackoffLimits kConfigBackoff{milliseconds(1'000), milliseconds(30'000)};
constexpr seconds kMinimumGrace{2};       // for the stop signal, after a preStop hook has used up the rest
constexpr milliseconds kErrorPause{500};  // before a failed stop or removal counts as ended, so that it is not repeated at once
constexpr seconds kPostStartLimit{600};

// Errors of a start carry the reason for status.state.waiting in front: "CreateContainerError: ...".
struct StartFailure {
  std::string reason;
  std::string message;
};

Failure start_failure(const char* reason, const Error& e) {
  return fail(Error{e.code, fmt::format("{}\n{}", reason, e.message), e.sys_errno});
}

StartFailure split_failure(const Error& e) {
  const auto eol = e.message.find('\n');
  if (eol == std::string::npos) return {"CreateContainerError", e.message};
  return {e.message.substr(0, eol), e.message.substr(eol + 1)};
}

std::string pull_policy(const corev1::Container& c) {
  if (!c.imagepullpolicy().empty()) return c.imagepullpolicy();
  const auto slash = c.image().rfind('/');
  const auto colon = c.image().rfind(':');
  const bool tagged = colon != std::string::npos && (slash == std::string::npos || colon > slash);
  if (c.image().find('@') != std::string::npos) return "IfNotPresent";
  return !tagged || c.image().substr(colon + 1) == "latest" ? "Always" : "IfNotPresent";
}

bool valid_image_name(const std::string& image) {
  if (image.empty() || image.size() > 1024) return false;
  return std::all_of(image.begin(), image.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' || c == '/' || c == ':' || c == '@';
  });
}

// Files that a pod needs only as long as it runs: written in place, without waiting for the disk.
Result<> write_pod_file(const std::string& path, std::string_view content, unsigned mode) {
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return fail_errno(errno, "create {}", path);
  if (::fchmod(fd.get(), mode) != 0) return fail_errno(errno, "chmod {}", path);
  if (::write(fd.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) return fail_errno(errno, "write {}", path);
  return {};
}

// The path of subPath inside a volume. It must not lead out of it, whatever links a container has put there.
Result<std::string> sub_path(const std::string& volume, const std::string& sub) {
  namespace fs = std::filesystem;
  if (sub[0] == '/') return fail(ErrorCode::invalid_argument, "subPath \"{}\" is absolute", sub);
  for (const auto& part : fs::path(sub))
    if (part == "..") return fail(ErrorCode::invalid_argument, "subPath \"{}\" contains \"..\"", sub);
  std::error_code ec;
  const fs::path base = fs::canonical(volume, ec);
  if (ec) return fail_errno(ec.value(), "resolve {}", volume);
  const fs::path full = fs::weakly_canonical(base / sub, ec);
  if (ec) return fail_errno(ec.value(), "resolve subPath {}", sub);
  const auto relative = full.lexically_relative(base);
  if (relative.empty() || *relative.begin() == "..")
    return fail(ErrorCode::permission_denied, "subPath \"{}\" leads out of its volume", sub);
  if (!fs::exists(full, ec)) FL_CHECK(make_dirs(full.string(), 0777));
  return full.string();
}

}  // namespace

bool PodWorker::winding_down() const { return goal_of(input()) != Goal::run; }

PodFacts PodWorker::facts() const {
  PodFacts f{
      context_.settings.node_name, {}, context_.settings.node_ips, context_.settings.cpu_milli, context_.settings.memory_bytes};
  if (pod_->spec().hostnetwork())
    f.pod_ips = context_.settings.node_ips;
  else if (const SandboxRecord* s = observed_.newest_sandbox())
    f.pod_ips = s->ips;
  return f;
}

ProbeTarget PodWorker::target_of(const corev1::Container& container, const std::string& id) const {
  const PodFacts f = facts();
  return {id, f.pod_ips.empty() ? std::string() : f.pod_ips.front(), container};
}

const corev1::Container* PodWorker::find(const std::string& name) const {
  for (const auto& c : pod_->spec().containers())
    if (c.name() == name) return &c;
  for (const auto& c : pod_->spec().initcontainers())
    if (c.name() == name) return &c;
  return nullptr;
}

void PodWorker::event(const std::string& container, const char* type, const char* reason, const std::string& message) const {
  if (!memory_.gone) context_.event(*pod_, container, type, reason, message);
}

void PodWorker::action_ended() {
  ++mutations_;
  look_ = true;
  context_.expect_change();
  wakeup_.notify();
}

void PodWorker::launch(const Action& action) {
  log::debug("pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), to_string(action));
  const WallTime now = context_.clock.wall();
  const auto spawn = [&](Task<> task) {
    net::co_spawn(context_.executor, std::move(task), [self = shared_from_this()](std::exception_ptr) {});
  };
  switch (action.type) {
    case Action::Type::prepare_volumes: memory_.volumes = VolumeState::preparing; return spawn(prepare_volumes());
    case Action::Type::create_sandbox: memory_.sandbox_changing = true; return spawn(create_sandbox(action.attempt));
    case Action::Type::stop_sandbox: memory_.sandbox_changing = true; return spawn(stop_sandbox(action.id));
    case Action::Type::remove_sandbox: memory_.removing.insert(action.id); return spawn(remove_sandbox(action.id));
    case Action::Type::remove_container: memory_.removing.insert(action.id); return spawn(remove_container(action.id));
    case Action::Type::start_container: {
      ContainerMemory& m = memory_.containers[action.name];
      m.starting = true;
      const ContainerRecord* before = observed_.newest(action.name);
      if (before && before->phase == ContainerPhase::exited) m.restart.next(now, context_.settings.restart_backoff);
      return spawn(start_container(action.name, action.attempt));
    }
    case Action::Type::stop_container:
      memory_.containers[action.name].kill_by = now + action.grace;
      ++stops_[action.name];
      return spawn(stop_container(action));
  }
}

// ---- volumes

Task<> PodWorker::prepare_volumes() {
  auto self = shared_from_this();
  auto r = co_await context_.volumes.prepare(pod_, facts());
  if (r) {
    volume_paths_ = std::move(*r);
    memory_.volumes = VolumeState::ready;
    memory_.volumes_error.clear();
    volumes_written_ = context_.clock.steady();
  } else {
    const WallTime now = context_.clock.wall();
    memory_.volumes = VolumeState::failed;
    memory_.volumes_error = r.error().message;
    memory_.volumes_backoff.next(now, kVolumeBackoff);
    memory_.volumes_retry_at = now + memory_.volumes_backoff.delay;
    event({}, "Warning", "FailedMount", r.error().message);
  }
  wakeup_.notify();
}

// Of a running pod: an object changed, or a token is due.
Task<> PodWorker::refresh_volumes() {
  auto self = shared_from_this();
  auto r = co_await context_.volumes.prepare(pod_, facts());
  if (!r)
    log::warn("refresh volumes of pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), r.error().message);
  volumes_written_ = context_.clock.steady();
  refreshing_volumes_ = false;
  if (volumes_stale_) wakeup_.notify();
}

// ---- sandboxes

Task<> PodWorker::create_sandbox(unsigned attempt) {
  auto self = shared_from_this();
  const auto config = make_sandbox_config(*pod_, attempt, context_.settings);
  Result<std::string> made = fail(ErrorCode::cancelled, "the pod is going away");
  CgroupLimits limits = pod_limits(*pod_);
  Result<> ready = context_.cgroups.create(pod_cgroup(context_.settings, *pod_), limits);
  if (ready) ready = make_dirs(pod_log_dir(context_.settings, pod_->metadata().namespace_(), pod_->metadata().name(), uid()));
  if (!ready)
    made = fail(ready.error());
  else if (!winding_down())
    made = co_await context_.runtime->run_sandbox(config);
  if (!made && !winding_down()) {
    const WallTime now = context_.clock.wall();
    memory_.sandbox_error = fmt::format("Failed to create pod sandbox: {}", made.error().message);
    memory_.sandbox.next(now, kSandboxBackoff);
    memory_.sandbox_retry_at = now + memory_.sandbox.delay;
    event({}, "Warning", "FailedCreatePodSandBox", memory_.sandbox_error);
  } else if (made) {
    memory_.sandbox_error.clear();
    memory_.sandbox = {};
  }
  memory_.sandbox_changing = false;
  action_ended();
}

Task<> PodWorker::stop_sandbox(std::string id) {
  auto self = shared_from_this();
  auto r = co_await context_.runtime->stop_sandbox(id);
  if (r || r.error().code == ErrorCode::not_found) {
    memory_.stopped_sandboxes.insert(id);
    memory_.sandbox_retry_at = {};
    memory_.sandbox = {};
  } else {
    const WallTime now = context_.clock.wall();
    memory_.sandbox.next(now, kSandboxBackoff);
    memory_.sandbox_retry_at = now + memory_.sandbox.delay;
    log::warn("stop sandbox of pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), r.error().message);
    event({}, "Warning", "FailedKillPod", r.error().message);
  }
  memory_.sandbox_changing = false;
  action_ended();
}

Task<> PodWorker::remove_sandbox(std::string id) {
  auto self = shared_from_this();
  auto r = co_await context_.runtime->remove_sandbox(id);
  if (!r && r.error().code != ErrorCode::not_found) co_await sleep_for(kErrorPause);
  memory_.removing.erase(id);
  action_ended();
}

Task<> PodWorker::remove_container(std::string id) {
  auto self = shared_from_this();
  auto r = co_await context_.runtime->remove_container(id);
  if (!r && r.error().code != ErrorCode::not_found) co_await sleep_for(kErrorPause);
  memory_.removing.erase(id);
  action_ended();
}

// ---- containers

Task<> PodWorker::start_container(std::string name, unsigned attempt) {
  auto self = shared_from_this();
  const auto pod = pod_;  // keeps the container's spec alive
  const corev1::Container* container = find(name);
  if (container) {
    auto r = co_await try_start(*container, attempt);
    if (!r && r.error().code != ErrorCode::cancelled) start_failed(name, r.error());
  }
  memory_.containers[name].starting = false;
  memory_.containers[name].post_start = false;
  action_ended();
}

void PodWorker::start_failed(const std::string& name, const Error& error) {
  const StartFailure why = split_failure(error);
  const WallTime now = context_.clock.wall();
  ContainerMemory& m = memory_.containers[name];
  m.failed = Waiting{why.reason, why.message};
  const bool image = why.reason == "ErrImagePull" || why.reason == "InvalidImageName" || why.reason == "ErrImageNeverPull";
  const BackoffLimits& limits = image ? context_.settings.start_backoff : kConfigBackoff;
  m.start.next(now, limits);
  m.retry_at = now + m.start.delay;
  if (why.reason == "ErrImagePull") failed_at_[name] = now;
  event(name, "Warning", "Failed", fmt::format("Error: {}", image ? why.reason : why.message));
}

Task<Result<>> PodWorker::try_start(const corev1::Container& container, unsigned attempt) {
  auto self = shared_from_this();
  const auto cancelled = [] { return fail(ErrorCode::cancelled, "the pod is going away"); };
  ContainerMemory& m = memory_.containers[container.name()];
  auto image = co_await ensure_image(container);
  if (!image) co_return fail(std::move(image).error());
  auto environment = co_await environment_of(container);
  if (!environment) co_return start_failure("CreateContainerConfigError", environment.error());
  const SandboxRecord* sandbox = observed_.newest_sandbox();
  if (winding_down() || !sandbox || !sandbox->ready) co_return cancelled();
  const std::string sandbox_id = sandbox->id;
  const unsigned sandbox_attempt = sandbox->attempt;
  auto mounts = mounts_of(container, attempt, *environment);
  if (!mounts) co_return start_failure("CreateContainerConfigError", mounts.error());
  ContainerPlan plan{*pod_, container, attempt, image->id, image->user, std::move(*environment), std::move(*mounts)};
  auto config = make_container_config(plan, context_.settings);
  if (!config) co_return start_failure("CreateContainerConfigError", config.error());
  auto id = co_await context_.runtime->create_container(sandbox_id, *config,
                                                        make_sandbox_config(*pod_, sandbox_attempt, context_.settings));
  ++mutations_;
  if (!id) co_return start_failure("CreateContainerError", id.error());
  event(container.name(), "Normal", "Created", fmt::format("Created container: {}", container.name()));
  if (winding_down()) co_return cancelled();
  auto started = co_await context_.runtime->start_container(*id);
  ++mutations_;
  if (!started) co_return start_failure("RunContainerError", started.error());
  event(container.name(), "Normal", "Started", fmt::format("Started container {}", container.name()));
  m.failed.reset();
  m.start = {};
  m.retry_at = {};
  if (container.lifecycle().has_poststart()) {
    m.post_start = true;
    runtime_changed();
    const ProbeResult hook =
        co_await run_hook(context_.runtime, target_of(container, *id), container.lifecycle().poststart(), kPostStartLimit);
    m.post_start = false;
    if (!hook.success) {
      event(container.name(), "Warning", "FailedPostStartHook", hook.message);
      m.id = *id;
      m.unhealthy =
          fmt::format("FailedPostStartHook: container {} is killed because its postStart hook failed", container.name());
    }
  }
  co_return Result<>{};
}

Task<Result<ImageRecord>> PodWorker::ensure_image(const corev1::Container& container) {
  const std::string& image = container.image();
  if (!valid_image_name(image))
    co_return start_failure("InvalidImageName",
                            Error{ErrorCode::invalid_argument, fmt::format("image name \"{}\" is not valid", image)});
  const std::string policy = pull_policy(container);
  auto present = co_await context_.runtime->image_status(image);
  if (!present) co_return start_failure("ErrImagePull", present.error());
  if (!present->id.empty() && policy != "Always") {
    event(container.name(), "Normal", "Pulled", fmt::format("Container image \"{}\" already present on machine", image));
    co_return std::move(*present);
  }
  if (policy == "Never")
    co_return start_failure(
        "ErrImageNeverPull",
        Error{ErrorCode::not_found, fmt::format("Container image \"{}\" is not present with pull policy of Never", image)});
  event(container.name(), "Normal", "Pulling", fmt::format("Pulling image \"{}\"", image));
  const WallTime begin = context_.clock.wall();
  auto pulled = co_await context_.runtime->pull_image(image);
  if (!pulled) {
    event(container.name(), "Warning", "Failed", fmt::format("Failed to pull image \"{}\": {}", image, pulled.error().message));
    co_return start_failure("ErrImagePull", pulled.error());
  }
  auto now_present = co_await context_.runtime->image_status(image);
  if (!now_present) co_return start_failure("ErrImagePull", now_present.error());
  if (now_present->id.empty()) now_present->id = *pulled;
  const auto took = std::chrono::duration_cast<milliseconds>(context_.clock.wall() - begin);
  event(container.name(), "Normal", "Pulled", fmt::format("Successfully pulled image \"{}\" in {}ms", image, took.count()));
  co_return std::move(*now_present);
}

Task<Result<Environment>> PodWorker::environment_of(const corev1::Container& container) {
  const EnvironmentNeeds needs = environment_needs(container);
  const std::string& ns = pod_->metadata().namespace_();
  EnvironmentObjects objects;
  for (const std::string& name : needs.config_maps) {
    auto r = co_await context_.objects->config_map(uid(), ns, name);
    if (r)
      objects.config_maps[name] = std::move(*r);
    else if (r.error().code != ErrorCode::not_found)
      co_return fail(std::move(r).error());
  }
  for (const std::string& name : needs.secrets) {
    auto r = co_await context_.objects->secret(uid(), ns, name);
    if (r)
      objects.secrets[name] = std::move(*r);
    else if (r.error().code != ErrorCode::not_found)
      co_return fail(std::move(r).error());
  }
  objects.services = co_await context_.objects->services(ns);
  co_return make_environment(*pod_, container, objects, facts());
}

Result<std::vector<MountPoint>> PodWorker::mounts_of(const corev1::Container& container, unsigned attempt,
                                                     const Environment& environment) {
  std::vector<MountPoint> out;
  bool own_hosts = false;
  for (const auto& m : container.volumemounts()) {
    const auto volume = volume_paths_.find(m.name());
    if (volume == volume_paths_.end())
      return fail(ErrorCode::invalid_argument, "volumeMount \"{}\" names no volume of the pod", m.name());
    std::string path = volume->second;
    std::string sub = m.subpath();
    if (!m.subpathexpr().empty())
      sub = expand(m.subpathexpr(), [&](const std::string& name) -> const std::string* {
        for (const auto& [k, v] : environment)
          if (k == name) return &v;
        return nullptr;
      });
    if (!sub.empty()) {
      FL_TRY(path, sub_path(path, sub));
    }
    own_hosts = own_hosts || m.mountpath() == "/etc/hosts";
    out.push_back({m.mountpath(), path, m.readonly(), m.mountpropagation()});
  }
  if (!own_hosts && !pod_->spec().hostnetwork()) {
    const std::string hosts = hosts_file(context_.settings, uid());
    FL_CHECK(make_dirs(pod_dir(context_.settings, uid())));
    FL_CHECK(write_pod_file(hosts, hosts_content(*pod_, facts().pod_ips, context_.settings), 0644));
    out.push_back({"/etc/hosts", hosts, false, {}});
  }
  const std::string message = termination_message_file(context_.settings, uid(), container.name(), attempt);
  FL_CHECK(make_dirs(std::filesystem::path(message).parent_path().string()));
  FL_CHECK(write_pod_file(message, "", 0666));  // any user in the container may write it
  const std::string& at = container.terminationmessagepath();
  out.push_back({at.empty() ? "/dev/termination-log" : at, message, false, {}});
  return out;
}

Task<> PodWorker::stop_container(Action action) {
  auto self = shared_from_this();
  const WallTime deadline = context_.clock.wall() + action.grace;
  const corev1::Container* container = find(action.name);
  const bool restart = memory_.containers[action.name].unhealthy.has_value() && !winding_down();
  event(action.name, "Normal", "Killing", restart ? action.reason : fmt::format("Stopping container {}", action.name));
  seconds grace = action.grace;
  if (action.run_hook && container && container->lifecycle().has_prestop() && action.grace.count() > 0) {
    const auto pod = pod_;
    const ProbeResult hook =
        co_await run_hook(context_.runtime, target_of(*container, action.id), container->lifecycle().prestop(), action.grace);
    if (!hook.success) event(action.name, "Warning", "FailedPreStopHook", hook.message);
    grace = std::max(std::chrono::ceil<seconds>(deadline - context_.clock.wall()), kMinimumGrace);
  }
  auto r = co_await context_.runtime->stop_container(action.id, grace);
  if (!r && r.error().code != ErrorCode::not_found) {
    log::warn("stop container {} of pod {}/{}: {}", action.name, pod_->metadata().namespace_(), pod_->metadata().name(),
              r.error().message);
    co_await sleep_for(kErrorPause);
  }
  if (--stops_[action.name] <= 0) {
    stops_.erase(action.name);
    memory_.containers[action.name].kill_by.reset();
  }
  action_ended();
}

}  // namespace fairlead::kubelet
