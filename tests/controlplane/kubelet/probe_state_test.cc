#include "controlplane/kubelet/probe_state.h"

#include <gtest/gtest.h>

#include <string>

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;

// Feeds "+" and "-" one after another, each after the delay that the state asked for; writes R or N where a verdict came.
std::string play(ProbeKind kind, ProbeTiming timing, const std::string& results) {
  ProbeState state(kind, timing);
  milliseconds elapsed(0);
  std::string out;
  for (const char r : results) {
    const auto verdict = state.on_result(r == '+', elapsed);
    out += !verdict ? '.' : *verdict ? 'R' : 'N';
    elapsed += state.next_delay();
  }
  return out;
}

TEST(ProbeState, Thresholds) {
  struct Row {
    const char* name;
    ProbeKind kind;
    int success, failure;
    bool eager;
    const char *results, *verdicts;
  };
  const Row rows[] = {
      {"ready at the first success", ProbeKind::readiness, 1, 3, false, "+", "R"},
      {"two successes in a row", ProbeKind::readiness, 2, 3, false, "+-++", "...R"},
      {"three failures in a row", ProbeKind::readiness, 1, 3, false, "+--+---", "R.....N"},
      {"and back again", ProbeKind::readiness, 1, 1, false, "+-+-", "RNRN"},
      {"the verdict is told once", ProbeKind::liveness, 1, 3, false, "+++-+---", "R......N"},
      {"liveness failing from the start", ProbeKind::liveness, 1, 3, true, "---", "..N"},
      {"early failures of an eager startup probe do not count", ProbeKind::startup, 1, 2, true, "-----+", ".....R"},
      {"an eager readiness probe that never succeeds says so in its own time", ProbeKind::readiness, 1, 1, true, "-", "N"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ProbeTiming t;
    t.period = milliseconds(10'000);
    t.success_threshold = row.success;
    t.failure_threshold = row.failure;
    t.eager = row.eager;
    EXPECT_EQ(play(row.kind, t, row.results), row.verdicts);
  }
}

TEST(ProbeState, EagerReadinessAsksSoonAndSlowsDown) {
  ProbeTiming t;
  t.period = milliseconds(1'000);
  ProbeState state(ProbeKind::readiness, t);
  std::vector<int> delays;
  milliseconds elapsed(0);
  for (int i = 0; i < 7; ++i) {
    state.on_result(false, elapsed);
    delays.push_back(static_cast<int>(state.next_delay().count()));
    elapsed += state.next_delay();
  }
  EXPECT_EQ(delays, (std::vector<int>{50, 100, 200, 400, 250, 1000, 1000}));  // never past the regular moment
  state.on_result(true, elapsed);
  EXPECT_EQ(state.next_delay(), t.period);
  state.on_result(false, elapsed + t.period);
  EXPECT_EQ(state.next_delay(), t.period);  // one failure of a ready container: no hurry
}

TEST(ProbeState, AStartupProbeFailsInItsTime) {
  // failureThreshold x period is the time an application has, however often it was asked meanwhile.
  ProbeTiming t;
  t.period = milliseconds(1'000);
  t.failure_threshold = 3;
  ProbeState state(ProbeKind::startup, t);
  milliseconds elapsed(0);
  for (;;) {
    const auto verdict = state.on_result(false, elapsed);
    if (verdict) {
      EXPECT_FALSE(*verdict);
      break;
    }
    elapsed += state.next_delay();
    ASSERT_LT(elapsed, milliseconds(10'000));
  }
  EXPECT_EQ(elapsed, milliseconds(2'000));
}

}  // namespace
}  // namespace fairlead::kubelet
