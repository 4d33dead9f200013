#include "controlplane/kubelet/pod_worker.h"

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "controlplane/kubelet/log_reader.h"
#include "controlplane/kubelet/status.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLookAgain{100};                     // after the runtime did not answer
constexpr milliseconds kImageBackoffShown{2'000};           // ErrImagePull stays visible that long before ImagePullBackOff
constexpr milliseconds kRetryFirst{100}, kRetryMax{5'000};  // of requests to the API

WallTime to_wall(const metav1::Time& t) { return WallTime(std::chrono::seconds(t.seconds())); }

}  // namespace

PodWorker::PodWorker(AgentContext& context, std::shared_ptr<const corev1::Pod> pod, Origin origin)
    : context_(context),
      pod_(std::move(pod)),
      prober_(context.executor, context.runtime, context.clock,
              {[this](ProbeKind kind, const std::string& container, const std::string& id, bool verdict,
                      const std::string& message) { on_verdict(kind, container, id, verdict, message); },
               [this](ProbeKind kind, const std::string& container, const std::string& message) {
                 event(container, "Warning", "Unhealthy", fmt::format("{} probe failed: {}", to_string(kind), message));
               }}),
      wakeup_(context.executor),
      desired_(pod_->status()),
      acked_(pod_->status()) {
  memory_.gone = origin == Origin::orphan;
  memory_.start_time = pod_->status().has_starttime() ? to_wall(pod_->status().starttime()) : context_.clock.wall();
}

void PodWorker::start() {
  net::co_spawn(context_.executor, run(), [self = shared_from_this()](std::exception_ptr) {});
}

void PodWorker::update(std::shared_ptr<const corev1::Pod> pod) {
  const bool new_generation = pod->metadata().resourceversion() != pod_->metadata().resourceversion();
  pod_ = std::move(pod);
  memory_.gone = false;
  if (new_generation) volumes_stale_ = true;  // labels and annotations may be in a volume
  wakeup_.notify();
}

void PodWorker::gone() {
  memory_.gone = true;
  api_lost_ = true;
  wakeup_.notify();
}

void PodWorker::reject(Waiting why) {
  memory_.rejected = std::move(why);
  wakeup_.notify();
}

void PodWorker::runtime_changed() {
  look_ = true;
  wakeup_.notify();
}

void PodWorker::objects_changed() {
  volumes_stale_ = true;
  // What failed for want of the object may work now.
  memory_.volumes_retry_at = {};
  for (auto& [name, m] : memory_.containers)
    if (m.failed && m.failed->reason == "CreateContainerConfigError") m.retry_at = {};
  wakeup_.notify();
}

Task<> PodWorker::tend() {
  auto self = shared_from_this();
  if (stopping_ || cleaned_) co_return;
  const Settings& settings = context_.settings;
  const std::string folder = pod_log_dir(settings, pod_->metadata().namespace_(), pod_->metadata().name(), uid());
  for (const ContainerRecord& r : std::vector<ContainerRecord>(observed_.containers)) {
    if (r.phase != ContainerPhase::running) continue;
    auto rotated = rotate_log(folder + "/" + container_log_path(r.name, r.attempt), settings.log_max_bytes,
                              settings.log_max_files, context_.clock.wall());
    if (!rotated) log::warn("log of {}/{}: {}", pod_->metadata().name(), r.name, rotated.error().message);
    if (!rotated || !*rotated) continue;
    auto reopened = co_await context_.runtime->reopen_log(r.id);
    if (!reopened) log::warn("log of {}/{}: {}", pod_->metadata().name(), r.name, reopened.error().message);
  }
  if (memory_.volumes == VolumeState::ready && context_.clock.steady() - volumes_written_ >= VolumeManager::kRefreshPeriod) {
    volumes_stale_ = true;
    wakeup_.notify();
  }
}

void PodWorker::stop() {
  stopping_ = true;
  prober_.sync({});
  wakeup_.notify();
}

DecideInput PodWorker::input() const {
  return DecideInput{*pod_, observed_, memory_, context_.clock.wall(), context_.settings.restart_backoff};
}

Task<> PodWorker::run() {
  auto self = shared_from_this();
  while (!stopping_ && !cleaned_) {
    if (look_) {
      look_ = false;
      const bool ok = co_await refresh();
      if (!ok && !stopping_) {
        look_ = true;
        co_await wakeup_.wait(kLookAgain);
        continue;
      }
    }
    if (stopping_) break;
    const auto age = age_failures();
    if (winding_down() && !memory_.kill_by) memory_.kill_by = context_.clock.wall() + std::chrono::seconds(grace_of(*pod_));
    if (memory_.kill_by && pod_->metadata().has_deletiontimestamp())  // a later request may shorten the grace
      memory_.kill_by = std::min(*memory_.kill_by, context_.clock.wall() + std::chrono::seconds(grace_of(*pod_)));
    const Decision decision = decide(input());
    for (const Action& action : decision.actions) launch(action);
    if (decision.finished) {
      co_await finalize();
      break;
    }
    // Everything of a rejected or ended pod that runs no more counts as stopped, too.
    publish(goal_of(input()) == Goal::terminate && decision.actions.empty() && stops_.empty() &&
            std::none_of(observed_.containers.begin(), observed_.containers.end(),
                         [](const ContainerRecord& r) { return r.phase == ContainerPhase::running; }));
    sync_probes();
    if (volumes_stale_ && !refreshing_volumes_ && memory_.volumes == VolumeState::ready && !winding_down()) {
      volumes_stale_ = false;
      refreshing_volumes_ = true;
      net::co_spawn(context_.executor, refresh_volumes(), [self](std::exception_ptr) {});
    }
    auto wake = decision.wake_at;
    if (age) wake = wake ? std::min(*wake, *age) : *age;
    if (look_) continue;
    if (wake)
      co_await wakeup_.wait(*wake - context_.clock.wall() + milliseconds(1));
    else
      co_await wakeup_.wait(std::nullopt);
  }
}

// A failed image pull is an error first and a back-off after a moment. Returns when the next one changes.
std::optional<WallTime> PodWorker::age_failures() {
  std::optional<WallTime> next;
  const WallTime now = context_.clock.wall();
  for (auto it = failed_at_.begin(); it != failed_at_.end();) {
    const WallTime due = it->second + kImageBackoffShown;
    ContainerMemory& m = memory_.containers[it->first];
    if (m.failed && m.failed->reason == "ErrImagePull" && due > now) {
      next = next ? std::min(*next, due) : due;
      ++it;
      continue;
    }
    if (const corev1::Container* c = find(it->first); c && m.failed && m.failed->reason == "ErrImagePull") {
      m.failed = Waiting{"ImagePullBackOff", fmt::format("Back-off pulling image \"{}\"", c->image())};
      event(it->first, "Normal", "BackOff", m.failed->message);
    }
    it = failed_at_.erase(it);
  }
  return next;
}

// ---- looking at the runtime

Task<bool> PodWorker::refresh() {
  auto self = shared_from_this();
  for (int attempt = 0; attempt < 10; ++attempt) {
    const std::uint64_t before = mutations_;
    auto seen = co_await look();
    if (!seen) {
      log::debug("pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), seen.error().message);
      co_return false;
    }
    if (mutations_ != before) continue;  // one of our own actions ended meanwhile: the lists may be older than it
    observed_ = std::move(*seen);
    loaded_ = true;
    remember_running();
    co_return true;
  }
  co_return false;
}

// Lists, and details of what is new or has changed its phase.
Task<Result<PodObservation>> PodWorker::look() {
  PodObservation out;
  FL_CO_TRY(out.sandboxes, co_await context_.runtime->list_sandboxes(uid()));
  FL_CO_TRY(out.containers, co_await context_.runtime->list_containers(uid()));
  for (SandboxRecord& s : out.sandboxes) {
    const auto known =
        std::find_if(observed_.sandboxes.begin(), observed_.sandboxes.end(), [&](const auto& k) { return k.id == s.id; });
    if (known != observed_.sandboxes.end() && (known->ready == s.ready || !known->ips.empty())) {
      s.ips = known->ips;
      continue;
    }
    auto status = co_await context_.runtime->sandbox_status(s.id);
    if (status) s.ips = status->ips;
    if (!status && status.error().code != ErrorCode::not_found) co_return fail(std::move(status).error());
  }
  std::vector<ContainerRecord> detailed;
  for (ContainerRecord& c : out.containers) {
    const auto known =
        std::find_if(observed_.containers.begin(), observed_.containers.end(), [&](const auto& k) { return k.id == c.id; });
    if (known != observed_.containers.end() && known->phase == c.phase) {
      detailed.push_back(*known);
      continue;
    }
    auto status = co_await context_.runtime->container_status(c.id);
    if (!status) {
      if (status.error().code == ErrorCode::not_found) continue;
      co_return fail(std::move(status).error());
    }
    status->sandbox_id = c.sandbox_id;
    if (status->name.empty()) status->name = c.name;
    if (status->phase == ContainerPhase::exited) co_await add_termination_message(&*status);
    detailed.push_back(std::move(*status));
  }
  out.containers = std::move(detailed);
  out.sort();
  co_return out;
}

// What the container said last: its termination message file, or the end of its log when it failed and asked for that.
Task<> PodWorker::add_termination_message(ContainerRecord* record) {
  const corev1::Container* c = find(record->name);
  auto text = read_file_end(termination_message_file(context_.settings, uid(), record->name, record->attempt), 4096);
  if (text && !text->empty()) {
    record->message = std::move(*text);
  } else if (c && c->terminationmessagepolicy() == "FallbackToLogsOnError" && record->exit_code != 0) {
    const std::string log = pod_log_dir(context_.settings, pod_->metadata().namespace_(), pod_->metadata().name(), uid()) + "/" +
                            container_log_path(record->name, record->attempt);
    if (auto tail = last_log_text(log, 80, 2048)) record->message = std::move(*tail);
  } else if (record->reason != "StartError" && record->reason != "ContainerCannotRun") {
    record->message.clear();
  }
  co_return;
}

// Ties what probes and hooks say to the container that runs now. One that ran before the agent did keeps the word that the
// API has of it, so that a restart of the agent takes no pod out of its services.
void PodWorker::remember_running() {
  for (const ContainerRecord& r : observed_.containers) {
    if (r.phase != ContainerPhase::running || observed_.newest(r.name) != &r) continue;
    ContainerMemory& m = memory_.containers[r.name];
    if (m.id == r.id) continue;
    m.id = r.id;
    m.ready.reset();
    m.started = false;
    m.unhealthy.reset();
    m.unhealthy_grace.reset();
    const auto adopt = [&](const auto& statuses) {
      for (const auto& s : statuses) {
        if (s.name() != r.name || s.containerid() != "containerd://" + r.id) continue;
        m.started = s.started();
        if (s.ready()) m.ready = true;
      }
    };
    adopt(acked_.containerstatuses());
    adopt(acked_.initcontainerstatuses());
  }
  // After a restart of the agent the back-off of a crashing container goes on where its count of restarts says.
  for (const ContainerRecord& r : observed_.containers) {
    ContainerMemory& m = memory_.containers[r.name];
    if (r.phase != ContainerPhase::exited || observed_.newest(r.name) != &r || r.attempt == 0 || m.restart.delay.count() > 0)
      continue;
    const BackoffLimits& limits = context_.settings.restart_backoff;
    m.restart.updated = r.started_at;
    m.restart.delay = limits.first;
    for (unsigned i = 1; i < r.attempt && m.restart.delay < limits.max; ++i)
      m.restart.delay = std::min(m.restart.delay * 2, limits.max);
  }
}

// ---- probes

void PodWorker::sync_probes() {
  std::vector<ProbeSpec> wanted;
  const auto add = [&](const corev1::Container& c, const corev1::Probe& probe, ProbeKind kind, const ContainerRecord& r) {
    wanted.push_back({kind, target_of(c, r.id), probe, r.started_at});
  };
  const auto look_at = [&](const corev1::Container& c) {
    const ContainerRecord* r = observed_.newest(c.name());
    if (!r || r->phase != ContainerPhase::running) return;
    const ContainerMemory& m = memory_.containers[c.name()];
    if (m.starting || m.id != r->id) return;
    const bool started = !c.has_startupprobe() || m.started;
    const bool ending = winding_down();
    if (!started && !ending) add(c, c.startupprobe(), ProbeKind::startup, *r);
    if (started && c.has_readinessprobe()) add(c, c.readinessprobe(), ProbeKind::readiness, *r);
    if (started && !ending && c.has_livenessprobe() && !m.unhealthy) add(c, c.livenessprobe(), ProbeKind::liveness, *r);
  };
  for (const auto& c : pod_->spec().containers()) look_at(c);
  for (const auto& c : pod_->spec().initcontainers())
    if (is_sidecar(c)) look_at(c);
  prober_.sync(std::move(wanted));
}

void PodWorker::on_verdict(ProbeKind kind, const std::string& container, const std::string& id, bool verdict,
                           const std::string&) {
  ContainerMemory& m = memory_.containers[container];
  const corev1::Container* c = find(container);
  if (m.id != id || !c) return;
  if (kind == ProbeKind::readiness) {
    m.ready = verdict;
  } else if (kind == ProbeKind::startup && verdict) {
    m.started = true;
  } else if (!verdict) {
    m.unhealthy = fmt::format("Container {} failed {} probe, will be restarted", container,
                              kind == ProbeKind::liveness ? "liveness" : "startup");
    const corev1::Probe& probe = kind == ProbeKind::liveness ? c->livenessprobe() : c->startupprobe();
    if (probe.has_terminationgraceperiodseconds()) m.unhealthy_grace = probe.terminationgraceperiodseconds();
  }
  wakeup_.notify();
}

// ---- telling the API

void PodWorker::publish(bool stopped) {
  const DecideInput state = input();
  desired_ = compute_status(StatusInput{state, desired_, context_.settings.node_ips, stopped});
  if (memory_.gone || publishing_ || api_lost_ || same_status(desired_, acked_)) return;
  publishing_ = true;
  net::co_spawn(context_.executor, publish_loop(), [self = shared_from_this()](std::exception_ptr) {});
}

Task<> PodWorker::publish_loop() {
  auto self = shared_from_this();
  milliseconds retry = kRetryFirst;
  while (!memory_.gone && !api_lost_ && !stopping_ && !same_status(desired_, acked_)) {
    const corev1::PodStatus to = desired_;
    auto r = co_await context_.api.patch_status(pod_, acked_, to);
    if (r) {
      acked_ = to;
      retry = kRetryFirst;
    } else if (r.error().code == ErrorCode::not_found || r.error().code == ErrorCode::conflict) {
      api_lost_ = true;
    } else {
      log::warn("status of pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), r.error().message);
      co_await sleep_for(retry);
      retry = std::min(retry * 2, kRetryMax);
    }
  }
  publishing_ = false;
  wakeup_.notify();
}

// Nothing runs any more: the last status, then the volumes, then the API object, then what is left in the runtime.
Task<> PodWorker::finalize() {
  auto self = shared_from_this();
  prober_.sync({});
  publish(true);
  while (publishing_ && !stopping_) co_await wakeup_.wait(std::chrono::seconds(1));
  milliseconds retry = kRetryFirst;
  while (!stopping_) {
    auto r = context_.volumes.teardown(uid());
    if (r) break;
    log::warn("volumes of pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), r.error().message);
    co_await wakeup_.wait(retry);
    retry = std::min(retry * 2, kRetryMax);
  }
  retry = kRetryFirst;
  while (!stopping_ && !memory_.gone && !api_lost_ && !deleted_) {
    auto r = co_await context_.api.remove(pod_);
    if (r) {
      deleted_ = true;
      break;
    }
    log::warn("remove pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), r.error().message);
    co_await wakeup_.wait(retry);
    retry = std::min(retry * 2, kRetryMax);
  }
  deleted_ = deleted_ || api_lost_ || memory_.gone;
  if (!stopping_) co_await clean_runtime();
  cleaned_ = !stopping_;
  context_.expect_change();
}

Task<> PodWorker::clean_runtime() {
  milliseconds retry = kRetryFirst;
  while (!stopping_) {
    bool clean = true;
    for (const SandboxRecord& s : std::vector<SandboxRecord>(observed_.sandboxes)) {
      auto r = co_await context_.runtime->remove_sandbox(s.id);
      if (r || r.error().code == ErrorCode::not_found) continue;
      log::warn("remove sandbox of pod {}/{}: {}", pod_->metadata().namespace_(), pod_->metadata().name(), r.error().message);
      clean = false;
    }
    Result<> removed;
    for (const std::string& path : pod_cgroups(context_.settings, uid()))
      if (auto r = context_.cgroups.remove(path); !r) removed = std::move(r);
    if (!removed) log::debug("{}", removed.error().message);
    // A request that was under way when the pod ended may have left something behind.
    auto again = co_await look();
    if (again) observed_ = std::move(*again);
    if (clean && removed && again && observed_.sandboxes.empty() && observed_.containers.empty()) break;
    co_await wakeup_.wait(retry);
    retry = std::min(retry * 2, kRetryMax);
  }
  std::error_code ec;
  std::filesystem::remove_all(pod_log_dir(context_.settings, pod_->metadata().namespace_(), pod_->metadata().name(), uid()), ec);
}

}  // namespace fairlead::kubelet
