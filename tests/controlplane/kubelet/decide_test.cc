// What the agent does next, as a table of situations, and random histories that hold the invariants of decide.h.
#include "controlplane/kubelet/decide.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/random.h"
#include "tests/controlplane/kubelet/pods.h"

namespace fairlead::kubelet {
namespace {

using namespace testing_pods;
using std::chrono::seconds;

struct Situation {
  corev1::Pod pod = testing_pods::pod();
  PodObservation seen;
  PodMemory memory = testing_pods::memory();
  double now = 11;
};

struct Row {
  const char* name;
  std::function<void(Situation&)> given;
  const char* expect;
  std::optional<double> wake = std::nullopt;
};

void with_main(Situation& s) { add_main(s.pod, "app"); }
void deleting(Situation& s, std::int64_t grace = 30) {
  s.pod.mutable_metadata()->mutable_deletiontimestamp()->set_seconds(1);
  s.pod.mutable_metadata()->set_deletiongraceperiodseconds(grace);
  s.memory.kill_by = at(s.now + static_cast<double>(grace));
}

const Row kRows[] = {
    // ---- start
    {"a new pod: volumes and sandbox side by side",
     [](Situation& s) {
       with_main(s);
       s.memory.volumes = VolumeState::none;
     },
     "prepare volumes; create sandbox 0"},
    {"volumes failed: they wait for their time, the sandbox does not",
     [](Situation& s) {
       with_main(s);
       s.memory.volumes = VolumeState::failed;
       s.memory.volumes_retry_at = at(12);
     },
     "create sandbox 0", 12},
    {"a sandbox is on its way: wait", [](Situation& s) { with_main(s), s.memory.sandbox_changing = true; }, ""},
    {"the last sandbox failed: wait", [](Situation& s) { with_main(s), s.memory.sandbox_retry_at = at(15); }, "", 15},
    {"sandbox ready, volumes not: no container yet",
     [](Situation& s) {
       with_main(s);
       s.memory.volumes = VolumeState::preparing;
       s.seen = observed({sandbox("s0")});
     },
     ""},
    {"all main containers start together",
     [](Situation& s) {
       with_main(s), add_main(s.pod, "b");
       s.seen = observed({sandbox("s0")});
     },
     "start app 0; start b 0"},
    {"a start under way is not repeated",
     [](Situation& s) {
       with_main(s), add_main(s.pod, "b");
       s.memory.containers["app"].starting = true;
       s.seen = observed({sandbox("s0")});
     },
     "start b 0"},
    {"a failed start waits for its time",
     [](Situation& s) {
       with_main(s);
       s.memory.containers["app"].retry_at = at(20);
       s.seen = observed({sandbox("s0")});
     },
     "", 20},
    {"what was created by an agent that died is removed, then made anew",
     [](Situation& s) {
       with_main(s);
       ContainerRecord r = running("app");
       r.phase = ContainerPhase::created;
       s.seen = observed({sandbox("s0")}, {r});
     },
     "remove app app-s0-0"},
    {"all runs: nothing to do", [](Situation& s) { with_main(s), s.seen = observed({sandbox("s0")}, {running("app")}); }, ""},
    // ---- init containers and sidecars
    {"the first init container alone",
     [](Situation& s) {
       add_init(s.pod, "i1"), add_init(s.pod, "i2"), with_main(s);
       s.seen = observed({sandbox("s0")});
     },
     "start i1 0"},
    {"one runs: wait",
     [](Situation& s) {
       add_init(s.pod, "i1"), add_init(s.pod, "i2"), with_main(s);
       s.seen = observed({sandbox("s0")}, {running("i1")});
     },
     ""},
    {"one done: the next",
     [](Situation& s) {
       add_init(s.pod, "i1"), add_init(s.pod, "i2"), with_main(s);
       s.seen = observed({sandbox("s0")}, {exited("i1", 0)});
     },
     "start i2 0"},
    {"all done: the main containers",
     [](Situation& s) {
       add_init(s.pod, "i1"), add_init(s.pod, "i2"), with_main(s);
       s.seen = observed({sandbox("s0")}, {exited("i1", 0), exited("i2", 0)});
     },
     "start app 0"},
    {"an init container failed: again, at once the first time",
     [](Situation& s) {
       add_init(s.pod, "i1"), with_main(s);
       s.seen = observed({sandbox("s0")}, {exited("i1", 1)});
     },
     "start i1 1"},
    {"an init container failed for good: the pod ends",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), add_init(s.pod, "i1"), with_main(s);
       s.seen = observed({sandbox("s0")}, {exited("i1", 1)});
     },
     "stop sandbox s0"},
    {"a sidecar starts and must have started before the next",
     [](Situation& s) {
       add_init(s.pod, "side", true), add_init(s.pod, "i1"), with_main(s);
       s.seen = observed({sandbox("s0")});
     },
     "start side 0"},
    {"its start is under way",
     [](Situation& s) {
       add_init(s.pod, "side", true), with_main(s);
       s.memory.containers["side"].starting = true;
       s.seen = observed({sandbox("s0")}, {running("side")});
     },
     ""},
    {"it runs: on to the next",
     [](Situation& s) {
       add_init(s.pod, "side", true), add_init(s.pod, "i1"), with_main(s);
       s.seen = observed({sandbox("s0")}, {running("side")});
     },
     "start i1 0"},
    {"its startup probe has not succeeded",
     [](Situation& s) {
       add_init(s.pod, "side", true)->mutable_startupprobe();
       with_main(s);
       s.memory.containers["side"].id = "side-s0-0";
       s.seen = observed({sandbox("s0")}, {running("side")});
     },
     ""},
    {"its startup probe has succeeded",
     [](Situation& s) {
       add_init(s.pod, "side", true)->mutable_startupprobe();
       with_main(s);
       s.memory.containers["side"].id = "side-s0-0";
       s.memory.containers["side"].started = true;
       s.seen = observed({sandbox("s0")}, {running("side")});
     },
     "start app 0"},
    {"a sidecar that ended restarts while the main container runs, whatever the pod's policy",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), add_init(s.pod, "side", true), with_main(s);
       s.seen = observed({sandbox("s0")}, {exited("side", 0), running("app")});
     },
     "start side 1"},
    {"init containers are not repeated when the main one restarts",
     [](Situation& s) {
       add_init(s.pod, "i1"), with_main(s);
       s.seen = observed({sandbox("s0")}, {exited("app", 1)});  // the init container's record was collected
     },
     "start app 1"},
    // ---- restarts
    {"a crash: at once the first time",
     [](Situation& s) { with_main(s), s.seen = observed({sandbox("s0")}, {exited("app", 1)}); }, "start app 1"},
    {"a second crash soon after: wait",
     [](Situation& s) {
       with_main(s);
       s.memory.containers["app"].restart = {seconds(10), at(5)};
       s.seen = observed({sandbox("s0")}, {exited("app", 1, "s0", 1, 10)});
     },
     "", 20},
    {"the wait is over",
     [](Situation& s) {
       with_main(s);
       s.now = 20;
       s.memory.containers["app"].restart = {seconds(10), at(5)};
       s.seen = observed({sandbox("s0")}, {exited("app", 1, "s0", 1, 10)});
     },
     "start app 2"},
    {"ten quiet minutes forget the wait",
     [](Situation& s) {
       with_main(s);
       s.now = 1000;
       s.memory.containers["app"].restart = {seconds(300), at(5)};
       s.seen = observed({sandbox("s0")}, {exited("app", 1, "s0", 7, 999)});
     },
     "start app 8"},
    {"OnFailure restarts a failure",
     [](Situation& s) {
       s.pod = testing_pods::pod("OnFailure"), with_main(s), s.seen = observed({sandbox("s0")}, {exited("app", 2)});
     },
     "start app 1"},
    {"OnFailure: success ends the pod",
     [](Situation& s) {
       s.pod = testing_pods::pod("OnFailure"), with_main(s), s.seen = observed({sandbox("s0")}, {exited("app", 0)});
     },
     "stop sandbox s0"},
    {"Never: one of two ended, the other goes on",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), with_main(s), add_main(s.pod, "b");
       s.seen = observed({sandbox("s0")}, {exited("app", 1), running("b")});
     },
     ""},
    {"a finished pod stops its sidecars before its sandbox",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), add_init(s.pod, "side", true), with_main(s);
       s.seen = observed({sandbox("s0")}, {running("side"), exited("app", 0)});
     },
     "stop side side-s0-0 30s hook"},
    {"a finished pod is left alone",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), with_main(s);
       s.memory.stopped_sandboxes = {"s0"};
       s.seen = observed({sandbox("s0", false)}, {exited("app", 0)});
     },
     ""},
    {"phase Succeeded in the API: never started again, even if the runtime knows nothing of it",
     [](Situation& s) { with_main(s), s.pod.mutable_status()->set_phase("Succeeded"); }, ""},
    // ---- probes
    {"liveness failed: kill with the pod's grace and the hook",
     [](Situation& s) {
       with_main(s), s.pod.mutable_spec()->set_terminationgraceperiodseconds(7);
       s.memory.containers["app"].id = "app-s0-0";
       s.memory.containers["app"].unhealthy = "liveness";
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "stop app app-s0-0 7s hook"},
    {"the probe's own grace wins",
     [](Situation& s) {
       with_main(s);
       s.memory.containers["app"] = {.id = "app-s0-0", .unhealthy = "liveness", .unhealthy_grace = 1};
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "stop app app-s0-0 1s hook"},
    {"the word about an older container counts for nothing",
     [](Situation& s) {
       with_main(s);
       s.memory.containers["app"] = {.id = "app-s0-0", .unhealthy = "liveness"};
       s.seen = observed({sandbox("s0")}, {running("app", "s0", 1), exited("app", 137)});
     },
     ""},
    {"killed by liveness: starts again",
     [](Situation& s) {
       with_main(s);
       s.memory.containers["app"] = {.id = "app-s0-0", .unhealthy = "liveness"};
       s.seen = observed({sandbox("s0")}, {exited("app", 137)});
     },
     "start app 1"},
    {"a stop under way is neither repeated nor overtaken by a start",
     [](Situation& s) {
       with_main(s);
       s.memory.containers["app"] = {.kill_by = at(20), .id = "app-s0-0", .unhealthy = "liveness"};
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     ""},
    // ---- sandboxes
    {"the sandbox died: what runs in it is stopped first",
     [](Situation& s) { with_main(s), s.seen = observed({sandbox("s0", false)}, {running("app")}); }, "stop app app-s0-0 30s"},
    {"then its network goes", [](Situation& s) { with_main(s), s.seen = observed({sandbox("s0", false)}, {exited("app", 137)}); },
     "stop sandbox s0"},
    {"then a new one comes",
     [](Situation& s) {
       with_main(s);
       s.memory.stopped_sandboxes = {"s0"};
       s.seen = observed({sandbox("s0", false)}, {exited("app", 137)});
     },
     "create sandbox 1"},
    {"in it all starts anew, init containers too",
     [](Situation& s) {
       add_init(s.pod, "i1"), with_main(s);
       s.memory.stopped_sandboxes = {"s0"};
       s.seen = observed({sandbox("s0", false), sandbox("s1", true, 1)}, {exited("i1", 0), exited("app", 137)});
     },
     "start i1 1"},
    {"of two ready sandboxes the older one goes",
     [](Situation& s) {
       with_main(s), s.seen = observed({sandbox("s0"), sandbox("s1", true, 1)}, {running("app", "s1")});
     },
     "stop sandbox s0"},
    {"an emptied sandbox is removed",
     [](Situation& s) {
       with_main(s);
       s.memory.stopped_sandboxes = {"s0"};
       s.seen = observed({sandbox("s0", false), sandbox("s1", true, 1)}, {running("app", "s1", 1)});
     },
     "remove sandbox s0"},
    {"dead containers but the last are removed",
     [](Situation& s) {
       with_main(s);
       s.seen = observed({sandbox("s0")}, {exited("app", 1, "s0", 0), exited("app", 1, "s0", 1), running("app", "s0", 2)});
     },
     "remove app app-s0-0"},
    // ---- termination
    {"deleted before anything ran", [](Situation& s) { with_main(s), deleting(s); }, "finished"},
    {"deleted: main containers together, with hook and grace",
     [](Situation& s) {
       with_main(s), add_main(s.pod, "b"), deleting(s, 9);
       s.seen = observed({sandbox("s0")}, {running("app"), running("b")});
     },
     "stop app app-s0-0 9s hook; stop b b-s0-0 9s hook"},
    {"the grace that is left",
     [](Situation& s) {
       with_main(s), deleting(s, 9);
       s.now += 4.5;
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "stop app app-s0-0 5s hook"},
    {"stopping: wait",
     [](Situation& s) {
       with_main(s), deleting(s, 9);
       s.memory.containers["app"].kill_by = at(20);
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     ""},
    {"a second deletion with less grace hurries the stop, without a second hook",
     [](Situation& s) {
       with_main(s), deleting(s, 0);
       s.memory.containers["app"].kill_by = at(40);
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "stop app app-s0-0 0s"},
    {"sidecars wait for the main containers",
     [](Situation& s) {
       add_init(s.pod, "s1", true), add_init(s.pod, "s2", true), with_main(s), deleting(s);
       s.memory.containers["app"].kill_by = at(40);
       s.seen = observed({sandbox("s0")}, {running("s1"), running("s2"), running("app")});
     },
     ""},
    {"sidecars go in reverse order, one by one",
     [](Situation& s) {
       add_init(s.pod, "s1", true), add_init(s.pod, "s2", true), with_main(s), deleting(s);
       s.seen = observed({sandbox("s0")}, {running("s1"), running("s2"), exited("app", 0)});
     },
     "stop s2 s2-s0-0 30s hook"},
    {"a start under way is waited for",
     [](Situation& s) {
       with_main(s), deleting(s);
       s.memory.containers["app"].starting = true;
       s.seen = observed({sandbox("s0")});
     },
     ""},
    {"then the sandbox", [](Situation& s) { with_main(s), deleting(s), s.seen = observed({sandbox("s0")}, {exited("app", 0)}); },
     "stop sandbox s0"},
    {"then it is finished",
     [](Situation& s) {
       with_main(s), deleting(s);
       s.memory.stopped_sandboxes = {"s0"};
       s.seen = observed({sandbox("s0", false)}, {exited("app", 0)});
     },
     "finished"},
    {"removed from the API by force: stopped all the same",
     [](Situation& s) {
       with_main(s), s.memory.gone = true;
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "stop app app-s0-0 30s hook"},
    {"past its deadline: stopped, not finished",
     [](Situation& s) {
       with_main(s), s.pod.mutable_spec()->set_activedeadlineseconds(10);
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "stop app app-s0-0 30s hook"},
    {"before its deadline: wake up then",
     [](Situation& s) {
       with_main(s), s.pod.mutable_spec()->set_activedeadlineseconds(12);
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "", 12},
    {"rejected: nothing starts",
     [](Situation& s) {
       with_main(s), s.memory.rejected = Waiting{"OutOfpods", ""};
     },
     ""},
};

TEST(Decide, Table) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    Situation s;
    row.given(s);
    const Decision d = decide({s.pod, s.seen, s.memory, at(s.now), BackoffLimits{}});
    EXPECT_EQ(text(d), row.expect);
    EXPECT_EQ(d.wake_at.has_value(), row.wake.has_value());
    if (d.wake_at && row.wake) {
      EXPECT_EQ(*d.wake_at, at(*row.wake));
    }
  }
}

TEST(CrashBackoff, DoublesToTheLimitAndForgets) {
  const BackoffLimits limits;
  CrashBackoff b;
  double now = 0;
  EXPECT_EQ(b.wait_until(at(now), at(now), limits), at(now));  // the first restart is immediate
  for (const int expected : {10, 20, 40, 80, 160, 300, 300}) {
    b.next(at(now), limits);
    EXPECT_EQ(b.wait_until(at(now), at(now), limits), at(now + expected));
    now += expected;
  }
  EXPECT_EQ(b.wait_until(at(now + 601), at(now + 601), limits), at(now + 601));
}

// ---- random histories

// A runtime and a worker in miniature: actions end at random moments, containers end when they like, the pod is deleted some
// time. Checks each decision against the invariants and that termination comes to an end.
class Simulation {
 public:
  explicit Simulation(std::uint64_t seed) : random_(seed) {
    const char* policies[] = {"Always", "OnFailure", "Never"};
    pod_ = testing_pods::pod(policies[random_.below(3)]);
    for (std::uint64_t n = random_.below(3); n > 0; --n) add_init(pod_, "i" + std::to_string(n), random_.below(2) == 0);
    for (std::uint64_t n = 1 + random_.below(2); n > 0; --n) add_main(pod_, "m" + std::to_string(n));
    memory_.start_time = at(0);
  }

  void run() {
    const int delete_at = static_cast<int>(random_.below(120));
    int step = 0;
    for (; step < 2000; ++step) {
      if (step == delete_at) begin_deletion();
      const Decision d =
          decide({pod_, seen_, memory_, at(now_), BackoffLimits{std::chrono::seconds(2), std::chrono::seconds(8)}});
      check(d);
      if (testing::Test::HasFatalFailure()) return;
      for (const Action& a : d.actions) begin(a);
      if (d.finished) break;
      world_moves(step);
      now_ += 0.5;
    }
    EXPECT_LT(step, 2000) << "termination has not ended";
    for (const ContainerRecord& r : seen_.containers) EXPECT_NE(r.phase, ContainerPhase::running) << r.id;
    for (const SandboxRecord& s : seen_.sandboxes) EXPECT_TRUE(memory_.stopped_sandboxes.contains(s.id)) << s.id;
  }

 private:
  void begin_deletion() {
    deleted_ = true;
    pod_.mutable_metadata()->mutable_deletiontimestamp()->set_seconds(1);
    pod_.mutable_metadata()->set_deletiongraceperiodseconds(5);
    memory_.kill_by = at(now_ + 5);
  }

  void check(const Decision& d) {
    std::set<std::string> names;
    for (const Action& a : d.actions) {
      SCOPED_TRACE(to_string(a));
      if (a.type == Action::Type::start_container) {
        ASSERT_TRUE(names.insert(a.name).second);
        ASSERT_FALSE(deleted_);
        ASSERT_FALSE(memory_.containers[a.name].starting);
        ASSERT_FALSE(memory_.containers[a.name].kill_by.has_value());
        const ContainerRecord* newest = seen_.newest(a.name);
        ASSERT_TRUE(!newest || newest->phase == ContainerPhase::exited);
        ASSERT_EQ(a.attempt, newest ? newest->attempt + 1 : 0);
        ASSERT_TRUE(seen_.newest_sandbox() && seen_.newest_sandbox()->ready);
        check_order(a.name);
      } else if (a.type == Action::Type::stop_container) {
        const ContainerRecord* r = nullptr;
        for (const ContainerRecord& c : seen_.containers)
          if (c.id == a.id) r = &c;
        ASSERT_TRUE(r && r->phase == ContainerPhase::running);
        const ContainerMemory& m = memory_.containers[a.name];
        const bool condemned = m.id == a.id && m.unhealthy;
        const bool lost = !seen_.newest_sandbox()->ready || r->sandbox_id != seen_.newest_sandbox()->id;
        ASSERT_TRUE(deleted_ || condemned || lost || goal_of({pod_, seen_, memory_, at(now_), {}}) != Goal::run)
            << "killed without a cause";
      } else if (a.type == Action::Type::create_sandbox) {
        ASSERT_FALSE(deleted_);
        for (const SandboxRecord& s : seen_.sandboxes) ASSERT_FALSE(s.ready);
      } else if (a.type == Action::Type::remove_container) {
        for (const ContainerRecord& c : seen_.containers)
          if (c.id == a.id) {
            ASSERT_NE(c.phase, ContainerPhase::running);
          }
      }
    }
    if (d.finished) {
      ASSERT_TRUE(deleted_);
    }
  }

  // What comes before a container in the spec has had its turn in this sandbox.
  void check_order(const std::string& name) {
    const std::string sandbox = seen_.newest_sandbox()->id;
    for (const auto& c : pod_.spec().containers())
      if (seen_.newest_in(c.name(), sandbox)) return;
    for (const auto& c : pod_.spec().initcontainers()) {
      if (c.name() == name) return;
      const ContainerRecord* r = seen_.newest_in(c.name(), sandbox);
      ASSERT_TRUE(r) << c.name() << " was left out";
      if (!is_sidecar(c)) {
        ASSERT_TRUE(r->phase == ContainerPhase::exited && r->exit_code == 0) << c.name() << " is not done";
      }
    }
  }

  void begin(const Action& a) {
    under_way_.push_back(a);
    switch (a.type) {
      case Action::Type::prepare_volumes: memory_.volumes = VolumeState::preparing; break;
      case Action::Type::create_sandbox:
      case Action::Type::stop_sandbox: memory_.sandbox_changing = true; break;
      case Action::Type::remove_sandbox:
      case Action::Type::remove_container: memory_.removing.insert(a.id); break;
      case Action::Type::start_container: memory_.containers[a.name].starting = true; break;
      case Action::Type::stop_container: memory_.containers[a.name].kill_by = at(now_) + a.grace; break;
    }
  }

  void end(const Action& a) {
    const bool fails = random_.below(6) == 0;
    switch (a.type) {
      case Action::Type::prepare_volumes:
        memory_.volumes = fails ? VolumeState::failed : VolumeState::ready;
        memory_.volumes_retry_at = at(now_ + 1);
        break;
      case Action::Type::create_sandbox:
        memory_.sandbox_changing = false;
        if (fails)
          memory_.sandbox_retry_at = at(now_ + 1);
        else
          seen_.sandboxes.push_back(sandbox("s" + std::to_string(a.attempt), true, a.attempt));
        break;
      case Action::Type::stop_sandbox:
        memory_.sandbox_changing = false;
        if (fails) break;
        memory_.stopped_sandboxes.insert(a.id);
        for (SandboxRecord& s : seen_.sandboxes)
          if (s.id == a.id) s.ready = false;
        break;
      case Action::Type::remove_sandbox:
        memory_.removing.erase(a.id);
        std::erase_if(seen_.sandboxes, [&](const auto& s) { return s.id == a.id; });
        break;
      case Action::Type::remove_container:
        memory_.removing.erase(a.id);
        std::erase_if(seen_.containers, [&](const auto& c) { return c.id == a.id; });
        break;
      case Action::Type::start_container: {
        ContainerMemory& m = memory_.containers[a.name];
        m.starting = false;
        if (fails || !seen_.newest_sandbox() || !seen_.newest_sandbox()->ready) {
          m.retry_at = at(now_ + 1);
          break;
        }
        if (a.attempt > 0) m.restart.next(at(now_), {std::chrono::seconds(2), std::chrono::seconds(8)});
        seen_.containers.push_back(running(a.name, seen_.newest_sandbox()->id, a.attempt));
        break;
      }
      case Action::Type::stop_container:
        memory_.containers[a.name].kill_by.reset();
        for (ContainerRecord& c : seen_.containers)
          if (c.id == a.id && c.phase == ContainerPhase::running) ended(c, 143);
        break;
    }
    seen_.sort();
  }

  void ended(ContainerRecord& c, int code) {
    c.phase = ContainerPhase::exited;
    c.exit_code = code;
    c.finished_at = at(now_);
  }

  void world_moves(int) {
    for (std::size_t i = 0; i < under_way_.size();) {
      if (random_.below(3) != 0) {
        ++i;
        continue;
      }
      const Action a = under_way_[i];
      under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(i));
      end(a);
    }
    for (ContainerRecord& c : seen_.containers)
      if (c.phase == ContainerPhase::running && random_.below(12) == 0) ended(c, random_.below(2) == 0 ? 0 : 1);
    for (SandboxRecord& s : seen_.sandboxes)
      if (s.ready && random_.below(60) == 0) s.ready = false;
    for (const ContainerRecord& c : seen_.containers)
      if (c.phase == ContainerPhase::running && random_.below(40) == 0) {
        memory_.containers[c.name].id = c.id;
        memory_.containers[c.name].unhealthy = "liveness";
      }
  }

  SeededRandom random_;
  corev1::Pod pod_;
  PodObservation seen_;
  PodMemory memory_;
  std::vector<Action> under_way_;
  double now_ = 0;
  bool deleted_ = false;
};

TEST(Decide, RandomHistoriesKeepTheInvariants) {
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(seed);
    Simulation(seed).run();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace fairlead::kubelet
