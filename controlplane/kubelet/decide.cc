#include "controlplane/kubelet/decide.h"

#include <algorithm>

namespace fairlead::kubelet {
namespace {

using std::chrono::seconds;

const ContainerMemory& memory_of(const DecideInput& in, const std::string& name) {
  static const ContainerMemory kNone;
  const auto it = in.memory.containers.find(name);
  return it == in.memory.containers.end() ? kNone : it->second;
}

bool running(const ContainerRecord* r) { return r && r->phase == ContainerPhase::running; }
bool exited(const ContainerRecord* r) { return r && r->phase == ContainerPhase::exited; }

bool has_started(const DecideInput& in, const corev1::Container& c, const ContainerRecord* r) {
  if (!running(r)) return false;
  const ContainerMemory& m = memory_of(in, c.name());
  if (m.starting) return false;  // the postStart hook has not returned
  return !c.has_startupprobe() || (m.id == r->id && m.started);
}

// One pass over one pod.
class Decider {
 public:
  explicit Decider(const DecideInput& in) : in_(in), policy_(restart_policy(in.pod)), sandbox_(in.observed.newest_sandbox()) {}

  Decision decide() {
    switch (goal_of(in_)) {
      case Goal::run: run(); break;
      case Goal::complete: stop_all(); break;
      case Goal::terminate: terminate(); break;
    }
    return std::move(out_);
  }

 private:
  void run();
  void terminate();
  bool stop_all();
  void prepare_volumes();
  void create_sandbox();
  bool stop_sandboxes(bool keep_newest_ready);
  void start_init_containers();
  void start_container(const corev1::Container& c);
  bool tend_running(const corev1::Container& c, const ContainerRecord& r);
  bool stop_running_in(const std::string& sandbox_id, const char* reason);
  void stop(const ContainerRecord& r, seconds grace, std::string reason, bool hook);
  void collect_garbage();

  void wake(WallTime at) { out_.wake_at = out_.wake_at ? std::min(*out_.wake_at, at) : at; }
  Action& add(Action::Type type) { return out_.actions.emplace_back(Action{type}); }
  bool starting() const {
    return std::any_of(in_.memory.containers.begin(), in_.memory.containers.end(),
                       [](const auto& m) { return m.second.starting; });
  }
  seconds remaining_grace() const {
    if (!in_.memory.kill_by) return seconds(grace_of(in_.pod));
    return std::max(std::chrono::ceil<seconds>(*in_.memory.kill_by - in_.now), seconds(0));
  }

  const DecideInput& in_;
  const RestartPolicy policy_;
  const SandboxRecord* const sandbox_;
  Decision out_;
};

void Decider::run() {
  collect_garbage();
  prepare_volumes();
  if (in_.memory.sandbox_changing) return;
  if (!stop_sandboxes(true)) return;
  if (!sandbox_ || !sandbox_->ready) return create_sandbox();
  if (in_.memory.volumes == VolumeState::ready) {
    start_init_containers();
    if (initialized(in_))
      for (const auto& c : in_.pod.spec().containers()) start_container(c);
  } else {
    // Volumes are prepared anew after the agent restarted: what runs is looked after meanwhile.
    for (const auto& c : in_.pod.spec().containers())
      if (const ContainerRecord* r = in_.observed.newest_in(c.name(), sandbox_->id); running(r)) tend_running(c, *r);
  }
}

void Decider::prepare_volumes() {
  const PodMemory& m = in_.memory;
  if (m.volumes == VolumeState::ready || m.volumes == VolumeState::preparing) return;
  if (m.volumes == VolumeState::failed && in_.now < m.volumes_retry_at) return wake(m.volumes_retry_at);
  add(Action::Type::prepare_volumes);
}

void Decider::create_sandbox() {
  if (in_.now < in_.memory.sandbox_retry_at) return wake(in_.memory.sandbox_retry_at);
  add(Action::Type::create_sandbox).attempt = sandbox_ ? sandbox_->attempt + 1 : 0;
}

// Stops every sandbox that is not the one in use, after what still runs in it. True when there is nothing left to wait for.
bool Decider::stop_sandboxes(bool keep_newest_ready) {
  bool clear = true;
  for (const SandboxRecord& s : in_.observed.sandboxes) {
    if (keep_newest_ready && &s == sandbox_ && s.ready) continue;
    if (stop_running_in(s.id, "the pod's sandbox has gone")) {
      clear = false;
    } else if (!in_.memory.stopped_sandboxes.contains(s.id)) {
      clear = false;
      if (!in_.memory.sandbox_changing && in_.now >= in_.memory.sandbox_retry_at) add(Action::Type::stop_sandbox).id = s.id;
      if (in_.now < in_.memory.sandbox_retry_at) wake(in_.memory.sandbox_retry_at);
    }
  }
  return clear;
}

// True while something runs in it.
bool Decider::stop_running_in(const std::string& sandbox_id, const char* reason) {
  bool any = false;
  for (const ContainerRecord& r : in_.observed.containers) {
    if (r.sandbox_id != sandbox_id || (!running(&r) && r.phase != ContainerPhase::unknown)) continue;
    any = true;
    stop(r, remaining_grace(), reason, false);
  }
  return any;
}

void Decider::stop(const ContainerRecord& r, seconds grace, std::string reason, bool hook) {
  const ContainerMemory& m = memory_of(in_, r.name);
  if (m.kill_by) {
    // A stop is under way. Only a clearly earlier end is worth another call.
    if (*m.kill_by <= in_.now + grace + seconds(1)) return;
    hook = false;
  }
  Action& a = add(Action::Type::stop_container);
  a.name = r.name;
  a.id = r.id;
  a.grace = grace;
  a.reason = std::move(reason);
  a.run_hook = hook && running(&r);
}

// Kills a running container that a probe or hook condemned. True if it does.
bool Decider::tend_running(const corev1::Container& c, const ContainerRecord& r) {
  const ContainerMemory& m = memory_of(in_, c.name());
  if (m.id != r.id || !m.unhealthy || m.kill_by) return false;
  stop(r, seconds(m.unhealthy_grace.value_or(grace_of(in_.pod))), *m.unhealthy, true);
  return true;
}

void Decider::start_container(const corev1::Container& c) {
  const ContainerMemory& m = memory_of(in_, c.name());
  const ContainerRecord* any = in_.observed.newest(c.name());
  const ContainerRecord* here = in_.observed.newest_in(c.name(), sandbox_->id);
  if (running(here)) {
    tend_running(c, *here);
    return;
  }
  if (m.starting || m.kill_by) return;
  if (here && here->phase == ContainerPhase::created) return;  // garbage collection removes it first
  if (here && here->phase == ContainerPhase::unknown) return stop(*here, seconds(0), "its state is unknown", false);
  if (running(any)) return;  // still in an older sandbox
  WallTime at = m.retry_at;
  if (exited(any)) {
    if (ended_for_good(any, is_sidecar(c) ? RestartPolicy::always : policy_)) return;
    at = std::max(at, restart_at(in_, *any));
  }
  if (in_.now < at) return wake(at);
  Action& a = add(Action::Type::start_container);
  a.name = c.name();
  a.attempt = any ? any->attempt + 1 : 0;
}

void Decider::start_init_containers() {
  const bool all_done = initialized(in_);
  for (const auto& c : in_.pod.spec().initcontainers()) {
    const ContainerRecord* here = in_.observed.newest_in(c.name(), sandbox_->id);
    if (is_sidecar(c)) {
      start_container(c);
      if (!all_done && !has_started(in_, c, here)) return;
      continue;
    }
    if (all_done || (exited(here) && here->exit_code == 0)) continue;
    // An init container of an earlier sandbox runs again: its work is gone with the sandbox.
    if (!here) {
      const ContainerMemory& m = memory_of(in_, c.name());
      if (m.starting || m.kill_by) return;
      if (in_.now < m.retry_at) return wake(m.retry_at);
      const ContainerRecord* before = in_.observed.newest(c.name());
      Action& a = add(Action::Type::start_container);
      a.name = c.name();
      a.attempt = before ? before->attempt + 1 : 0;
      return;
    }
    return start_container(c);
  }
}

// Everything down in order. True when nothing runs, starts or holds a network any more.
bool Decider::stop_all() {
  collect_garbage();
  bool main_running = false;
  std::vector<const ContainerRecord*> sidecars;  // running ones, in the order of the spec
  const auto& inits = in_.pod.spec().initcontainers();
  for (const ContainerRecord& r : in_.observed.containers) {
    if (!running(&r) && r.phase != ContainerPhase::unknown) continue;
    const auto init =
        std::find_if(inits.begin(), inits.end(), [&](const auto& c) { return c.name() == r.name && is_sidecar(c); });
    if (init == inits.end()) {
      main_running = true;
      stop(r, remaining_grace(), "the pod is being stopped", true);
    }
  }
  for (const auto& c : inits)
    for (const ContainerRecord& r : in_.observed.containers)
      if (r.name == c.name() && is_sidecar(c) && running(&r)) sidecars.push_back(&r);
  if (main_running) return false;
  if (!sidecars.empty()) {
    stop(*sidecars.back(), remaining_grace(), "the pod is being stopped", true);
    return false;
  }
  if (starting()) return false;
  return stop_sandboxes(false) && !in_.memory.sandbox_changing;
}

void Decider::terminate() {
  const bool stopped = stop_all();
  out_.finished =
      stopped && in_.memory.volumes != VolumeState::preparing && (in_.memory.gone || in_.pod.metadata().has_deletiontimestamp());
}

// Keeps, per name, the newest container and the one before it (for `logs --previous` and lastState); removes older ones,
// those that were created and never started, and sandboxes that hold nothing any more.
void Decider::collect_garbage() {
  std::map<std::string, int> kept;
  std::map<std::string, int> in_sandbox;
  for (const ContainerRecord& r : in_.observed.containers) {
    const bool abandoned = r.phase == ContainerPhase::created && !memory_of(in_, r.name).starting;
    if (abandoned || (exited(&r) && kept[r.name] >= 2)) {
      ++in_sandbox[r.sandbox_id];
      if (in_.memory.removing.contains(r.id)) continue;
      Action& a = add(Action::Type::remove_container);
      a.name = r.name;
      a.id = r.id;
    } else {
      ++kept[r.name];
      ++in_sandbox[r.sandbox_id];
    }
  }
  for (const SandboxRecord& s : in_.observed.sandboxes)
    if (&s != sandbox_ && in_sandbox[s.id] == 0 && in_.memory.stopped_sandboxes.contains(s.id) &&
        !in_.memory.removing.contains(s.id))
      add(Action::Type::remove_sandbox).id = s.id;
}

}  // namespace

RestartPolicy restart_policy(const corev1::Pod& pod) {
  const std::string& p = pod.spec().restartpolicy();
  return p == "Never" ? RestartPolicy::never : p == "OnFailure" ? RestartPolicy::on_failure : RestartPolicy::always;
}

bool is_sidecar(const corev1::Container& init_container) { return init_container.restartpolicy() == "Always"; }

std::int64_t grace_of(const corev1::Pod& pod) {
  if (pod.metadata().has_deletiontimestamp() && pod.metadata().has_deletiongraceperiodseconds())
    return std::max<std::int64_t>(0, pod.metadata().deletiongraceperiodseconds());
  return pod.spec().has_terminationgraceperiodseconds() ? std::max<std::int64_t>(0, pod.spec().terminationgraceperiodseconds())
                                                        : 30;
}

bool past_deadline(const corev1::Pod& pod, const PodMemory& memory, WallTime now) {
  return pod.spec().has_activedeadlineseconds() && memory.start_time != WallTime{} &&
         now - memory.start_time >= seconds(pod.spec().activedeadlineseconds());
}

bool ended_for_good(const ContainerRecord* record, RestartPolicy policy) {
  if (!exited(record)) return false;
  return policy == RestartPolicy::never || (policy == RestartPolicy::on_failure && record->exit_code == 0);
}

WallTime restart_at(const DecideInput& in, const ContainerRecord& record) {
  return memory_of(in, record.name).restart.wait_until(record.finished_at, in.now, in.limits);
}

bool initialized(const DecideInput& in) {
  const SandboxRecord* sandbox = in.observed.newest_sandbox();
  if (!sandbox) return false;
  for (const auto& c : in.pod.spec().containers())
    if (in.observed.newest_in(c.name(), sandbox->id)) return true;
  // A sidecar has had its turn when anything after it has begun, whatever became of it since.
  bool later_began = false;
  const auto& inits = in.pod.spec().initcontainers();
  for (auto c = inits.rbegin(); c != inits.rend(); ++c) {
    const ContainerRecord* r = in.observed.newest_in(c->name(), sandbox->id);
    const bool done = is_sidecar(*c) ? later_began || has_started(in, *c, r) : exited(r) && r->exit_code == 0;
    if (!done) return false;
    later_began = later_began || r != nullptr;
  }
  return true;
}

Goal goal_of(const DecideInput& in) {
  const std::string& phase = in.pod.status().phase();
  if (in.memory.gone || in.memory.rejected || in.pod.metadata().has_deletiontimestamp() || phase == "Succeeded" ||
      phase == "Failed" || past_deadline(in.pod, in.memory, in.now))
    return Goal::terminate;
  const RestartPolicy policy = restart_policy(in.pod);
  for (const auto& c : in.pod.spec().initcontainers()) {
    const ContainerRecord* r = in.observed.newest(c.name());
    if (!is_sidecar(c) && policy == RestartPolicy::never && exited(r) && r->exit_code != 0) return Goal::complete;
  }
  if (in.pod.spec().containers().empty()) return Goal::run;
  for (const auto& c : in.pod.spec().containers())
    if (!ended_for_good(in.observed.newest(c.name()), policy)) return Goal::run;
  return Goal::complete;
}

Decision decide(const DecideInput& in) {
  Decision out = Decider(in).decide();
  if (goal_of(in) == Goal::run && in.pod.spec().has_activedeadlineseconds() && in.memory.start_time != WallTime{}) {
    const WallTime deadline = in.memory.start_time + seconds(in.pod.spec().activedeadlineseconds());
    out.wake_at = out.wake_at ? std::min(*out.wake_at, deadline) : deadline;
  }
  return out;
}

std::string to_string(const Action& a) {
  switch (a.type) {
    case Action::Type::prepare_volumes: return "prepare volumes";
    case Action::Type::create_sandbox: return fmt::format("create sandbox {}", a.attempt);
    case Action::Type::stop_sandbox: return fmt::format("stop sandbox {}", a.id);
    case Action::Type::remove_sandbox: return fmt::format("remove sandbox {}", a.id);
    case Action::Type::start_container: return fmt::format("start {} {}", a.name, a.attempt);
    case Action::Type::stop_container:
      return fmt::format("stop {} {} {}s{}", a.name, a.id, a.grace.count(), a.run_hook ? " hook" : "");
    case Action::Type::remove_container: return fmt::format("remove {} {}", a.name, a.id);
  }
  return "?";
}

}  // namespace fairlead::kubelet
