#include "controlplane/kubelet/status.h"

#include <google/protobuf/util/message_differencer.h>

#include <set>

#include "kube/quantity.h"

namespace fairlead::kubelet {
namespace {

bool running(const ContainerRecord* r) { return r && r->phase == ContainerPhase::running; }
bool exited(const ContainerRecord* r) { return r && r->phase == ContainerPhase::exited; }

void set_time(metav1::Time* out, WallTime t) {
  const auto s = std::chrono::duration_cast<std::chrono::seconds>(t.time_since_epoch());
  out->set_seconds(s.count());  // the API's Time has whole seconds
}

std::string container_id(const ContainerRecord& r) { return "containerd://" + r.id; }

class StatusBuilder {
 public:
  explicit StatusBuilder(const StatusInput& in)
      : in_(in),
        pod_(in.state.pod),
        observed_(in.state.observed),
        memory_(in.state.memory),
        goal_(goal_of(in.state)),
        policy_(restart_policy(pod_)),
        initialized_(initialized(in.state)) {}
  corev1::PodStatus build();

 private:
  const ContainerMemory* memory_of(const std::string& name) const {
    const auto it = memory_.containers.find(name);
    return it == memory_.containers.end() ? nullptr : &it->second;
  }
  void add_container(corev1::ContainerStatus* out, const corev1::Container& c, bool init, bool sidecar) const;
  void add_state(corev1::ContainerStatus* out, const corev1::Container& c, bool init, bool sidecar) const;
  void set_terminated(corev1::ContainerStateTerminated* out, const ContainerRecord& r) const;
  void set_waiting(corev1::ContainerStatus* out, const corev1::Container& c, const ContainerRecord* last, bool init) const;
  bool is_ready(const corev1::Container& c, const ContainerRecord* r) const;
  bool has_started(const corev1::Container& c, const ContainerRecord* r) const;
  std::string phase() const;
  void add_conditions();
  void add_condition(const char* type, bool status, std::string reason = {}, std::string message = {});
  void add_addresses();

  const StatusInput& in_;
  const corev1::Pod& pod_;
  const PodObservation& observed_;
  const PodMemory& memory_;
  const Goal goal_;
  const RestartPolicy policy_;
  const bool initialized_;
  corev1::PodStatus out_;
};

corev1::PodStatus StatusBuilder::build() {
  out_.set_observedgeneration(pod_.metadata().generation());
  for (const auto& c : pod_.spec().initcontainers()) add_container(out_.add_initcontainerstatuses(), c, true, is_sidecar(c));
  for (const auto& c : pod_.spec().containers()) add_container(out_.add_containerstatuses(), c, false, false);
  out_.set_phase(phase());
  if (memory_.rejected) {
    out_.set_reason(memory_.rejected->reason);
    out_.set_message(memory_.rejected->message);
  } else if (goal_ == Goal::terminate && past_deadline(pod_, memory_, in_.state.now) && in_.previous.phase() != "Succeeded") {
    out_.set_reason("DeadlineExceeded");
    out_.set_message("the pod was active for longer than its deadline");
  } else {
    if (in_.previous.has_reason()) out_.set_reason(in_.previous.reason());
    if (in_.previous.has_message()) out_.set_message(in_.previous.message());
  }
  add_addresses();
  add_conditions();
  out_.set_qosclass(qos_class(pod_));
  return std::move(out_);
}

bool StatusBuilder::has_started(const corev1::Container& c, const ContainerRecord* r) const {
  const ContainerMemory* m = memory_of(c.name());
  if (!running(r) || (m && m->starting)) return false;
  return !c.has_startupprobe() || (m && m->id == r->id && m->started);
}

bool StatusBuilder::is_ready(const corev1::Container& c, const ContainerRecord* r) const {
  if (!has_started(c, r)) return false;
  if (!c.has_readinessprobe()) return true;
  const ContainerMemory* m = memory_of(c.name());
  return m && m->id == r->id && m->ready.value_or(false);
}

void StatusBuilder::add_container(corev1::ContainerStatus* out, const corev1::Container& c, bool init, bool sidecar) const {
  const ContainerRecord* r = observed_.newest(c.name());
  out->set_name(c.name());
  out->set_image(c.image());
  out->set_imageid(r ? r->image_ref : "");
  out->set_restartcount(r ? static_cast<std::int32_t>(r->attempt) : 0);
  if (r && r->phase != ContainerPhase::created) out->set_containerid(container_id(*r));
  add_state(out, c, init, sidecar);
  const bool done = init && !sidecar && exited(r) && r->exit_code == 0;
  out->set_ready(init && !sidecar ? done : is_ready(c, r));
  out->set_started(has_started(c, r));
}

void StatusBuilder::add_state(corev1::ContainerStatus* out, const corev1::Container& c, bool init, bool sidecar) const {
  const ContainerRecord* r = observed_.newest(c.name());
  const ContainerRecord* before = observed_.previous(c.name());
  const ContainerMemory* m = memory_of(c.name());
  if (running(r) && !(m && m->post_start)) {
    set_time(out->mutable_state()->mutable_running()->mutable_startedat(), r->started_at);
    if (exited(before)) set_terminated(out->mutable_laststate()->mutable_terminated(), *before);
    return;
  }
  if (running(r)) {  // its postStart hook has not returned
    set_waiting(out, c, nullptr, init);
    if (exited(before)) set_terminated(out->mutable_laststate()->mutable_terminated(), *before);
    return;
  }
  if (!exited(r) && goal_ == Goal::terminate && in_.stopped) {
    // It never ran and never will.
    auto* t = out->mutable_state()->mutable_terminated();
    t->set_exitcode(137);
    t->set_reason("ContainerStatusUnknown");
    t->set_message("the pod was stopped before this container ran");
    return;
  }
  if (!exited(r)) return set_waiting(out, c, nullptr, init);
  const bool done = init && !sidecar && r->exit_code == 0;
  const bool for_good = done || goal_ != Goal::run || ended_for_good(r, sidecar ? RestartPolicy::always : policy_);
  if (for_good) {
    set_terminated(out->mutable_state()->mutable_terminated(), *r);
    if (exited(before)) set_terminated(out->mutable_laststate()->mutable_terminated(), *before);
    return;
  }
  const bool waits = restart_at(in_.state, *r) > in_.state.now || (m && (m->failed || m->starting));
  if (!waits) {  // ended a moment ago; the next look decides
    set_terminated(out->mutable_state()->mutable_terminated(), *r);
    if (exited(before)) set_terminated(out->mutable_laststate()->mutable_terminated(), *before);
    return;
  }
  set_waiting(out, c, r, init);
  set_terminated(out->mutable_laststate()->mutable_terminated(), *r);
}

void StatusBuilder::set_terminated(corev1::ContainerStateTerminated* out, const ContainerRecord& r) const {
  out->set_exitcode(r.exit_code);
  out->set_reason(!r.reason.empty() ? r.reason : r.exit_code == 0 ? "Completed" : "Error");
  if (!r.message.empty()) out->set_message(r.message);
  if (r.started_at != WallTime{}) set_time(out->mutable_startedat(), r.started_at);
  if (r.finished_at != WallTime{}) set_time(out->mutable_finishedat(), r.finished_at);
  out->set_containerid(container_id(r));
}

void StatusBuilder::set_waiting(corev1::ContainerStatus* out, const corev1::Container& c, const ContainerRecord* last,
                                bool init) const {
  auto* w = out->mutable_state()->mutable_waiting();
  const ContainerMemory* m = memory_of(c.name());
  const bool has_inits = pod_.spec().initcontainers_size() > 0;
  if (m && m->failed) {
    w->set_reason(m->failed->reason);
    if (!m->failed->message.empty()) w->set_message(m->failed->message);
  } else if (last && restart_at(in_.state, *last) > in_.state.now) {
    const auto delay = memory_.containers.at(c.name()).restart.delay;
    w->set_reason("CrashLoopBackOff");
    w->set_message(fmt::format("back-off {}s restarting failed container={} pod={}_{}({})", delay.count() / 1000, c.name(),
                               pod_.metadata().name(), pod_.metadata().namespace_(), pod_.metadata().uid()));
  } else {
    w->set_reason(has_inits && (init || !initialized_) ? "PodInitializing" : "ContainerCreating");
    if (!memory_.sandbox_error.empty()) w->set_message(memory_.sandbox_error);
    if (!memory_.volumes_error.empty()) w->set_message(memory_.volumes_error);
  }
}

// By the states that were just written.
std::string StatusBuilder::phase() const {
  const std::string& before = in_.previous.phase();
  if (before == "Succeeded" || before == "Failed") return before;
  if (memory_.rejected) return "Failed";
  int waiting = 0, running_count = 0, stopped = 0, succeeded = 0;
  bool init_failed = false, init_pending = false;
  for (const auto& c : pod_.spec().initcontainers()) {
    if (is_sidecar(c)) continue;
    const ContainerRecord* r = observed_.newest(c.name());
    if (exited(r) && r->exit_code != 0 && policy_ == RestartPolicy::never) init_failed = true;
  }
  init_pending = pod_.spec().initcontainers_size() > 0 && !initialized_;
  for (const auto& s : out_.containerstatuses()) {
    if (s.state().has_running()) {
      ++running_count;
    } else if (s.state().has_terminated() || s.laststate().has_terminated()) {
      const auto& t = s.state().has_terminated() ? s.state().terminated() : s.laststate().terminated();
      ++stopped;
      if (t.exitcode() == 0) ++succeeded;
    } else {
      ++waiting;
    }
  }
  const bool all_succeeded = stopped == succeeded && stopped > 0 && waiting == 0;
  if (past_deadline(pod_, memory_, in_.state.now)) return in_.stopped || running_count == 0 ? "Failed" : before;
  if (goal_ == Goal::terminate) {
    if (in_.stopped) return all_succeeded && !init_pending ? "Succeeded" : "Failed";
    return before.empty() ? "Pending" : before;
  }
  if (init_failed) return "Failed";
  if (goal_ == Goal::complete) return all_succeeded ? "Succeeded" : "Failed";
  if (init_pending || waiting > 0) return "Pending";
  return running_count > 0 || stopped > 0 ? "Running" : "Pending";
}

void StatusBuilder::add_addresses() {
  if (memory_.start_time != WallTime{})
    set_time(out_.mutable_starttime(), memory_.start_time);
  else if (in_.previous.has_starttime())
    *out_.mutable_starttime() = in_.previous.starttime();
  if (!in_.host_ips.empty()) out_.set_hostip(in_.host_ips.front());
  for (const std::string& ip : in_.host_ips) out_.add_hostips()->set_ip(ip);
  const SandboxRecord* sandbox = observed_.newest_sandbox();
  std::vector<std::string> ips;
  if (pod_.spec().hostnetwork()) {
    if (sandbox) ips = in_.host_ips;
  } else if (sandbox && (sandbox->ready || goal_ != Goal::run)) {
    ips = sandbox->ips;
  }
  const bool over = out_.phase() == "Succeeded" || out_.phase() == "Failed";
  if (ips.empty() && (over || goal_ != Goal::run))  // the address stays visible after the end
    for (const auto& ip : in_.previous.podips()) ips.push_back(ip.ip());
  if (!ips.empty()) out_.set_podip(ips.front());
  for (const std::string& ip : ips) out_.add_podips()->set_ip(ip);
}

void StatusBuilder::add_condition(const char* type, bool status, std::string reason, std::string message) {
  auto* c = out_.add_conditions();
  c->set_type(type);
  c->set_status(status ? "True" : "False");
  if (!reason.empty()) c->set_reason(std::move(reason));
  if (!message.empty()) c->set_message(std::move(message));
  c->set_observedgeneration(pod_.metadata().generation());
  for (const auto& old : in_.previous.conditions())
    if (old.type() == type && old.status() == c->status() && old.has_lasttransitiontime()) {
      *c->mutable_lasttransitiontime() = old.lasttransitiontime();
      return;
    }
  set_time(c->mutable_lasttransitiontime(), in_.state.now);
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += (out.empty() ? "" : " ") + n;
  return out;
}

void StatusBuilder::add_conditions() {
  const SandboxRecord* sandbox = observed_.newest_sandbox();
  const bool succeeded = out_.phase() == "Succeeded", failed = out_.phase() == "Failed";
  add_condition("PodReadyToStartContainers", sandbox && sandbox->ready && !memory_.stopped_sandboxes.contains(sandbox->id));
  std::vector<std::string> incomplete, unready;
  for (const auto& s : out_.initcontainerstatuses())
    if (!s.ready() && !s.started()) incomplete.push_back(s.name());
  bool all_done = succeeded || initialized_ || pod_.spec().initcontainers_size() == 0;
  if (all_done)
    add_condition("Initialized", true, succeeded ? "PodCompleted" : "");
  else
    add_condition("Initialized", false, "ContainersNotInitialized",
                  "containers with incomplete status: [" + joined(incomplete) + "]");
  for (int i = 0; i < pod_.spec().initcontainers_size(); ++i)
    if (is_sidecar(pod_.spec().initcontainers(i)) && !out_.initcontainerstatuses(i).ready())
      unready.push_back(out_.initcontainerstatuses(i).name());
  for (const auto& s : out_.containerstatuses())
    if (!s.ready()) unready.push_back(s.name());
  const bool containers_ready = unready.empty() && !succeeded && !failed;
  const std::string reason = succeeded ? "PodCompleted" : failed ? "PodFailed" : "ContainersNotReady";
  const std::string message = succeeded || failed ? "" : "containers with unready status: [" + joined(unready) + "]";
  bool ready = containers_ready;
  std::string ready_reason = reason, ready_message = message;
  if (containers_ready)
    for (const auto& gate : pod_.spec().readinessgates()) {
      bool open = false;
      for (const auto& c : pod_.status().conditions()) open = open || (c.type() == gate.conditiontype() && c.status() == "True");
      if (open) continue;
      ready = false;
      ready_reason = "ReadinessGatesNotReady";
      ready_message = "the condition of readiness gate \"" + gate.conditiontype() + "\" is not \"True\"";
    }
  add_condition("Ready", ready, ready ? "" : ready_reason, ready ? "" : ready_message);
  add_condition("ContainersReady", containers_ready, containers_ready ? "" : reason, containers_ready ? "" : message);
  add_condition("PodScheduled", true);
}

}  // namespace

corev1::PodStatus compute_status(const StatusInput& in) { return StatusBuilder(in).build(); }

std::string qos_class(const corev1::Pod& pod) {
  bool any = false, guaranteed = true;
  const auto look = [&](const corev1::Container& c) {
    std::set<std::string> limited;
    const auto amount = [](const auto& q) {
      const auto parsed = kube::Quantity::parse(q.string());
      return parsed ? parsed->milli() : 0;
    };
    for (const char* resource : {"cpu", "memory"}) {
      const auto limit = c.resources().limits().find(resource);
      const auto request = c.resources().requests().find(resource);
      const std::int64_t l = limit == c.resources().limits().end() ? 0 : amount(limit->second);
      const std::int64_t r = request == c.resources().requests().end() ? l : amount(request->second);
      any = any || l > 0 || r > 0;
      if (l == 0 || l != r) guaranteed = false;
    }
  };
  for (const auto& c : pod.spec().containers()) look(c);
  for (const auto& c : pod.spec().initcontainers()) look(c);
  return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

bool same_status(const corev1::PodStatus& a, const corev1::PodStatus& b) {
  return google::protobuf::util::MessageDifferencer::Equals(a, b);
}

}  // namespace fairlead::kubelet
