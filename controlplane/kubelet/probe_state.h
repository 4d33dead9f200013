// ProbeState: when to probe next and what a row of results means. Pure; the prober does the waiting and asking.
//
// Thresholds count consecutive results. A readiness probe that has not succeeded yet is asked more often than its period
// says (50 ms doubling up to the period): an application is in the load balancer a moment after it can serve. The same holds
// for startup probes; their early failures do not count against the failure threshold, which keeps its meaning in time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fairlead::kubelet {

enum class ProbeKind { readiness, liveness, startup };
std::string_view to_string(ProbeKind kind);

struct ProbeTiming {
  std::chrono::milliseconds initial_delay{0};
  std::chrono::milliseconds period{10'000};
  std::chrono::milliseconds timeout{1'000};
  int success_threshold = 1;
  int failure_threshold = 3;
  bool eager = true;  // asking costs little (http, tcp): early attempts are made
};

class ProbeState {
 public:
  ProbeState(ProbeKind kind, ProbeTiming timing) : kind_(kind), timing_(timing) {}

  // The time from the container's start to the first attempt.
  std::chrono::milliseconds first_delay() const { return timing_.initial_delay; }

  // Takes the result of one attempt, `elapsed` after the first one was due. Returns the new verdict if the result decides
  // one: true (ready, alive, started) or false (not ready, dead, not started in time).
  std::optional<bool> on_result(bool success, std::chrono::milliseconds elapsed);
  // From that attempt's start to the next one's.
  std::chrono::milliseconds next_delay() const { return next_; }
  // False for an early failure, which nobody needs to hear of.
  bool last_counted() const { return counted_; }

 private:
  ProbeKind kind_;
  ProbeTiming timing_;
  int row_ = 0;  // equal results in a row that count
  std::optional<bool> last_;
  bool counted_ = true;
  std::optional<bool> verdict_;
  std::chrono::milliseconds early_{kFirstEarly};
  std::chrono::milliseconds next_{0};
  std::chrono::milliseconds next_counted_{0};  // elapsed time at which a failure counts again

  static constexpr std::chrono::milliseconds kFirstEarly{50};
};

}  // namespace fairlead::kubelet
