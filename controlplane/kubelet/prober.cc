#include "controlplane/kubelet/prober.h"

#include <set>

#include "controlplane/kubelet/wakeup.h"

namespace fairlead::kubelet {

using std::chrono::milliseconds;

struct Prober::Shared {
  net::any_io_executor executor;
  std::shared_ptr<Runtime> runtime;
  const Clock& clock;
  Callbacks callbacks;
};

struct Prober::Running {
  Running(net::any_io_executor executor, ProbeSpec s) : spec(std::move(s)), wakeup(std::move(executor)) {}
  ProbeSpec spec;
  Wakeup wakeup;
  bool stopped = false;
};

ProbeTiming timing_of(const corev1::Probe& probe, ProbeKind kind) {
  const auto seconds_or = [](bool has, int value, int fallback) {
    return std::chrono::seconds(has && value > 0 ? value : fallback);
  };
  ProbeTiming t;
  t.initial_delay = std::chrono::seconds(std::max(0, probe.initialdelayseconds()));
  t.period = seconds_or(probe.has_periodseconds(), probe.periodseconds(), 10);
  t.timeout = seconds_or(probe.has_timeoutseconds(), probe.timeoutseconds(), 1);
  t.success_threshold = kind == ProbeKind::readiness ? std::max(1, probe.successthreshold()) : 1;
  t.failure_threshold = probe.failurethreshold() > 0 ? probe.failurethreshold() : 3;
  t.eager = probe.handler().has_httpget() || probe.handler().has_tcpsocket();
  return t;
}

Prober::Prober(net::any_io_executor executor, std::shared_ptr<Runtime> runtime, const Clock& clock, Callbacks callbacks)
    : shared_(std::make_shared<Shared>(Shared{std::move(executor), std::move(runtime), clock, std::move(callbacks)})) {}

Prober::~Prober() { sync({}); }

void Prober::sync(std::vector<ProbeSpec> wanted) {
  std::set<std::string> keys;
  for (ProbeSpec& spec : wanted) {
    const std::string key = spec.target.container_id + "/" + std::string(to_string(spec.kind));
    keys.insert(key);
    if (running_.contains(key)) continue;
    auto running = std::make_shared<Running>(shared_->executor, std::move(spec));
    running_[key] = running;
    net::co_spawn(shared_->executor, loop(shared_, std::move(running)), net::detached);
  }
  std::erase_if(running_, [&](const auto& entry) {
    if (keys.contains(entry.first)) return false;
    entry.second->stopped = true;
    entry.second->wakeup.notify();
    return true;
  });
}

Task<> Prober::loop(std::shared_ptr<Shared> shared, std::shared_ptr<Running> running) {
  const ProbeSpec& spec = running->spec;
  const ProbeTiming timing = timing_of(spec.probe, spec.kind);
  ProbeState state(spec.kind, timing);
  // After a restart of the agent the container is older than its initial delay: the first attempt is now.
  const auto age = std::chrono::duration_cast<milliseconds>(shared->clock.wall() - spec.container_started);
  milliseconds delay = std::clamp(state.first_delay() - age, milliseconds(0), state.first_delay());
  if (delay.count() > 0) co_await running->wakeup.wait(delay);
  const auto first = std::chrono::steady_clock::now();
  while (!running->stopped) {
    const auto start = std::chrono::steady_clock::now();
    const ProbeResult result = co_await run_probe(shared->runtime, spec.target, spec.probe.handler(), timing.timeout);
    if (running->stopped) co_return;
    const auto verdict = state.on_result(result.success, std::chrono::duration_cast<milliseconds>(start - first));
    if (!result.success && state.last_counted())
      shared->callbacks.failure(spec.kind, spec.target.container.name(), result.message);
    if (verdict)
      shared->callbacks.verdict(spec.kind, spec.target.container.name(), spec.target.container_id, *verdict, result.message);
    if (running->stopped || (verdict && *verdict && spec.kind == ProbeKind::startup)) co_return;
    const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start);
    co_await running->wakeup.wait(std::max(state.next_delay() - took, milliseconds(1)));
  }
}

}  // namespace fairlead::kubelet
