// What the API shows of a pod: phase, conditions and container states as a table of situations.
#include "controlplane/kubelet/status.h"

#include <gtest/gtest.h>

#include "tests/controlplane/kubelet/pods.h"

namespace fairlead::kubelet {
namespace {

using namespace testing_pods;

struct Situation {
  corev1::Pod pod = testing_pods::pod();
  PodObservation seen;
  PodMemory memory = testing_pods::memory();
  corev1::PodStatus previous;
  double now = 11;
  bool stopped = false;
  corev1::PodStatus status() const {
    const DecideInput in{pod, seen, memory, at(now), BackoffLimits{}};
    return compute_status({in, previous, {"192.168.0.1"}, stopped});
  }
};

// "Running ready app:running" / "Pending app:waiting(ContainerCreating)" / "... app:terminated(Error 1)"
std::string summary(const corev1::PodStatus& s) {
  std::string out = s.phase();
  for (const auto& c : s.conditions())
    if (c.type() == "Ready" && c.status() == "True") out += " ready";
  const auto add = [&](const corev1::ContainerStatus& c) {
    out += " " + c.name() + ":";
    if (c.state().has_running()) out += "running";
    if (c.state().has_waiting()) out += "waiting(" + c.state().waiting().reason() + ")";
    if (c.state().has_terminated())
      out += "terminated(" + c.state().terminated().reason() + " " + std::to_string(c.state().terminated().exitcode()) + ")";
    if (c.laststate().has_terminated()) out += "<-" + std::to_string(c.laststate().terminated().exitcode());
    if (c.restartcount() > 0) out += "#" + std::to_string(c.restartcount());
  };
  for (const auto& c : s.initcontainerstatuses()) add(c);
  for (const auto& c : s.containerstatuses()) add(c);
  return out;
}

struct Row {
  const char* name;
  std::function<void(Situation&)> given;
  const char* expect;
};

const Row kRows[] = {
    {"just assigned", [](Situation& s) { add_main(s.pod, "app"); }, "Pending app:waiting(ContainerCreating)"},
    {"waiting for init containers",
     [](Situation& s) {
       add_init(s.pod, "i"), add_main(s.pod, "app");
       s.seen = observed({sandbox("s0")}, {running("i")});
     },
     "Pending i:running app:waiting(PodInitializing)"},
    {"running without a readiness probe is ready",
     [](Situation& s) { add_main(s.pod, "app"), s.seen = observed({sandbox("s0")}, {running("app")}); },
     "Running ready app:running"},
    {"running, the readiness probe has not spoken",
     [](Situation& s) {
       add_main(s.pod, "app")->mutable_readinessprobe();
       s.memory.containers["app"].id = "app-s0-0";
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Running app:running"},
    {"the readiness probe succeeded",
     [](Situation& s) {
       add_main(s.pod, "app")->mutable_readinessprobe();
       s.memory.containers["app"] = {.id = "app-s0-0", .ready = true};
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Running ready app:running"},
    {"its word about an older container counts for nothing",
     [](Situation& s) {
       add_main(s.pod, "app")->mutable_readinessprobe();
       s.memory.containers["app"] = {.id = "app-s0-0", .ready = true};
       s.seen = observed({sandbox("s0")}, {running("app", "s0", 1), exited("app", 1)});
     },
     "Running app:running<-1#1"},
    {"not started: not ready",
     [](Situation& s) {
       add_main(s.pod, "app")->mutable_startupprobe();
       s.memory.containers["app"].id = "app-s0-0";
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Running app:running"},
    {"the postStart hook runs",
     [](Situation& s) {
       add_main(s.pod, "app");
       s.memory.containers["app"] = {.starting = true, .post_start = true};
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Pending app:waiting(ContainerCreating)"},
    {"one of two is not ready",
     [](Situation& s) {
       add_main(s.pod, "app"), add_main(s.pod, "b")->mutable_readinessprobe();
       s.seen = observed({sandbox("s0")}, {running("app"), running("b")});
     },
     "Running app:running b:running"},
    {"a readiness gate is shut",
     [](Situation& s) {
       add_main(s.pod, "app"), s.pod.mutable_spec()->add_readinessgates()->set_conditiontype("x/lb");
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Running app:running"},
    {"and open",
     [](Situation& s) {
       add_main(s.pod, "app"), s.pod.mutable_spec()->add_readinessgates()->set_conditiontype("x/lb");
       auto* c = s.pod.mutable_status()->add_conditions();
       c->set_type("x/lb"), c->set_status("True");
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Running ready app:running"},
    {"the image cannot be pulled",
     [](Situation& s) {
       add_main(s.pod, "app");
       s.memory.containers["app"].failed = Waiting{"ErrImagePull", "no route"};
       s.seen = observed({sandbox("s0")});
     },
     "Pending app:waiting(ErrImagePull)"},
    {"crashed a moment ago", [](Situation& s) { add_main(s.pod, "app"), s.seen = observed({sandbox("s0")}, {exited("app", 3)}); },
     "Running app:terminated(Error 3)"},
    {"crashed, starting again",
     [](Situation& s) {
       add_main(s.pod, "app");
       s.memory.containers["app"].starting = true;
       s.seen = observed({sandbox("s0")}, {exited("app", 3)});
     },
     "Running app:waiting(ContainerCreating)<-3"},
    {"crash loop",
     [](Situation& s) {
       add_main(s.pod, "app");
       s.memory.containers["app"].restart = {std::chrono::seconds(40), at(5)};
       s.seen = observed({sandbox("s0")}, {exited("app", 3, "s0", 4)});
     },
     "Running app:waiting(CrashLoopBackOff)<-3#4"},
    {"Succeeded",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), add_main(s.pod, "app"), s.seen = observed({sandbox("s0")}, {exited("app", 0)});
     },
     "Succeeded app:terminated(Completed 0)"},
    {"Failed",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), add_main(s.pod, "app"), s.seen = observed({sandbox("s0")}, {exited("app", 2)});
     },
     "Failed app:terminated(Error 2)"},
    {"killed by the kernel",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), add_main(s.pod, "app");
       ContainerRecord r = exited("app", 137);
       r.reason = "OOMKilled";
       s.seen = observed({sandbox("s0")}, {r});
     },
     "Failed app:terminated(OOMKilled 137)"},
    {"an init container failed for good",
     [](Situation& s) {
       s.pod = testing_pods::pod("Never"), add_init(s.pod, "i"), add_main(s.pod, "app");
       s.seen = observed({sandbox("s0")}, {exited("i", 1)});
     },
     "Failed i:terminated(Error 1) app:waiting(PodInitializing)"},
    {"an init container is done",
     [](Situation& s) {
       add_init(s.pod, "i"), add_main(s.pod, "app");
       s.seen = observed({sandbox("s0")}, {exited("i", 0), running("app")});
     },
     "Running ready i:terminated(Completed 0) app:running"},
    {"a sidecar counts for readiness",
     [](Situation& s) {
       add_init(s.pod, "side", true)->mutable_readinessprobe(), add_main(s.pod, "app");
       s.seen = observed({sandbox("s0")}, {running("side"), running("app")});
     },
     "Running side:running app:running"},
    {"terminating: phase and readiness stay",
     [](Situation& s) {
       add_main(s.pod, "app"), s.pod.mutable_metadata()->mutable_deletiontimestamp();
       s.previous.set_phase("Running");
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Running ready app:running"},
    {"stopped by a deletion",
     [](Situation& s) {
       add_main(s.pod, "app"), s.pod.mutable_metadata()->mutable_deletiontimestamp(), s.stopped = true;
       s.previous.set_phase("Running");
       s.seen = observed({sandbox("s0", false)}, {exited("app", 143)});
     },
     "Failed app:terminated(Error 143)"},
    {"deleted before it ran",
     [](Situation& s) { add_main(s.pod, "app"), s.pod.mutable_metadata()->mutable_deletiontimestamp(), s.stopped = true; },
     "Failed app:terminated(ContainerStatusUnknown 137)"},
    {"rejected",
     [](Situation& s) {
       add_main(s.pod, "app"), s.memory.rejected = Waiting{"OutOfpods", "full"};
     },
     "Failed app:waiting(ContainerCreating)"},
    {"a phase that has ended never comes back",
     [](Situation& s) {
       add_main(s.pod, "app"), s.previous.set_phase("Failed"), s.pod.mutable_status()->set_phase("Failed");
       s.seen = observed({sandbox("s0")}, {running("app")});
     },
     "Failed app:running"},
    {"the runtime has lost the container of a running pod",
     [](Situation& s) { add_main(s.pod, "app"), s.previous.set_phase("Running"), s.seen = observed({sandbox("s0")}); },
     "Pending app:waiting(ContainerCreating)"},
};

TEST(Status, Table) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    Situation s;
    row.given(s);
    EXPECT_EQ(summary(s.status()), row.expect);
  }
}

TEST(Status, AddressesGenerationAndQos) {
  Situation s;
  add_main(s.pod, "app");
  s.seen = observed({sandbox("s0")}, {running("app")});
  const auto status = s.status();
  EXPECT_EQ(status.hostip(), "192.168.0.1");
  EXPECT_EQ(status.podip(), "10.0.0.7");
  EXPECT_EQ(status.podips_size(), 1);
  EXPECT_EQ(status.observedgeneration(), 3);
  EXPECT_EQ(status.qosclass(), "BestEffort");
  EXPECT_EQ(status.containerstatuses(0).containerid(), "containerd://app-s0-0");
  EXPECT_EQ(status.starttime().seconds(), std::chrono::duration_cast<std::chrono::seconds>(at(0).time_since_epoch()).count());
  s.pod.mutable_spec()->set_hostnetwork(true);
  EXPECT_EQ(s.status().podip(), "192.168.0.1");
}

TEST(Status, TimesOfConditionsMoveOnlyWhenTheyChange) {
  Situation s;
  add_main(s.pod, "app")->mutable_readinessprobe();
  s.memory.containers["app"] = {.id = "app-s0-0", .ready = true};
  s.seen = observed({sandbox("s0")}, {running("app")});
  const auto first = s.status();
  s.previous = first;
  s.now = 500;
  EXPECT_TRUE(same_status(first, s.status()));  // nothing to tell the API
  s.memory.containers["app"].ready = false;
  const auto second = s.status();
  for (int i = 0; i < second.conditions_size(); ++i) {
    const auto& a = first.conditions(i);
    const auto& b = second.conditions(i);
    ASSERT_EQ(a.type(), b.type());
    EXPECT_EQ(a.lasttransitiontime().seconds() == b.lasttransitiontime().seconds(), a.status() == b.status()) << a.type();
  }
}

TEST(Status, QosClass) {
  struct Row {
    const char *cpu_request, *cpu_limit, *memory_request, *memory_limit, *expect;
  };
  for (const Row& row :
       {Row{"", "", "", "", "BestEffort"}, Row{"100m", "", "", "", "Burstable"}, Row{"1", "1", "1Gi", "1Gi", "Guaranteed"},
        Row{"", "1", "", "1Gi", "Guaranteed"}, Row{"500m", "1", "1Gi", "1Gi", "Burstable"}, Row{"1", "1", "", "", "Burstable"},
        Row{"1", "1000m", "1024Mi", "1Gi", "Guaranteed"}}) {
    corev1::Pod p = testing_pods::pod();
    auto* r = add_main(p, "app")->mutable_resources();
    if (*row.cpu_request) (*r->mutable_requests())["cpu"].set_string(row.cpu_request);
    if (*row.cpu_limit) (*r->mutable_limits())["cpu"].set_string(row.cpu_limit);
    if (*row.memory_request) (*r->mutable_requests())["memory"].set_string(row.memory_request);
    if (*row.memory_limit) (*r->mutable_limits())["memory"].set_string(row.memory_limit);
    EXPECT_EQ(qos_class(p), row.expect);
    if (std::string(row.expect) == "Guaranteed") {  // one container without limits is enough to lose it
      add_main(p, "b");
      EXPECT_EQ(qos_class(p), "Burstable");
    }
  }
}

}  // namespace
}  // namespace fairlead::kubelet
