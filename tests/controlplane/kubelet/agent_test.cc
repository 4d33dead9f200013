// The agent over the simulated runtime: many pods, failures of every kind, restarts of the agent in the middle of things.
#include "controlplane/kubelet/agent.h"

#include <gmock/gmock.h>
#include <stdlib.h>

#include <filesystem>

#include "base/log.h"
#include "tests/controlplane/kubelet/fakes.h"
#include "tests/controlplane/kubelet/pods.h"
#include "tests/controlplane/kubelet/runtime_simulated.h"

namespace fairlead::kubelet {
namespace {

using namespace std::chrono_literals;
using testing_fakes::AgentHarness;

class SimulatedAgent : public testing::Test {
 protected:
  SimulatedAgent() {
    char name[] = "/tmp/fairlead-agent-XXXXXX";
    folder_ = ::mkdtemp(name);
    log::set_level(log::Level::error);
  }
  ~SimulatedAgent() override {
    node_.reset();
    io_.restart();
    io_.poll();
    std::filesystem::remove_all(folder_);
  }
  void boot(const SimulationOptions& options = fast()) {
    if (!runtime_) runtime_ = make_simulated_runtime(io_.get_executor(), options);
    Settings s;
    s.node_name = "n1";
    s.node_ips = {"192.168.0.1"};
    s.root_dir = folder_ + "/kubelet";
    s.logs_dir = folder_ + "/logs";
    s.max_pods = 10'000;
    s.restart_backoff = {20ms, 100ms};
    s.start_backoff = {20ms, 100ms};
    node_ = std::make_unique<AgentHarness>(io_, s, runtime_);
    node_->agent->start();
    node_->agent->set_synced();
  }
  static SimulationOptions fast() {
    SimulationOptions o;
    o.sandbox_time = 4ms;
    o.container_time = 2ms;
    o.stop_time = 2ms;
    return o;
  }
  std::shared_ptr<corev1::Pod> make(const std::string& name, std::vector<std::string> args = {}) {
    auto pod = std::make_shared<corev1::Pod>(testing_pods::pod());
    pod->mutable_metadata()->set_name(name);
    pod->mutable_metadata()->set_uid("uid-" + name);
    auto* c = testing_pods::add_main(*pod, "app");
    for (auto& a : args) c->add_args(std::move(a));
    return pod;
  }
  static std::shared_ptr<corev1::Pod> deleted(const corev1::Pod& pod) {
    auto out = std::make_shared<corev1::Pod>(pod);
    out->mutable_metadata()->mutable_deletiontimestamp()->set_seconds(1);
    out->mutable_metadata()->set_deletiongraceperiodseconds(1);
    return out;
  }
  bool phase(const corev1::Pod& pod, const char* expect) const {
    const auto* s = node_->api->last(pod.metadata().uid());
    return s && s->phase() == expect;
  }
  template <typename Condition>
  bool wait(Condition c, std::chrono::milliseconds limit = 20s) {
    return node_->run_until(std::move(c), limit);
  }

  std::string folder_;
  net::io_context io_;
  std::shared_ptr<SimulatedRuntime> runtime_;
  std::unique_ptr<AgentHarness> node_;
};

TEST_F(SimulatedAgent, HundredsOfPodsStartAndGoAndLeaveNothing) {
  boot();
  std::vector<std::shared_ptr<corev1::Pod>> pods;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 300; ++i) {
    pods.push_back(make("p" + std::to_string(i)));
    node_->agent->set_pod(pods.back());
  }
  ASSERT_TRUE(wait([&] { return std::all_of(pods.begin(), pods.end(), [&](const auto& p) { return phase(*p, "Running"); }); }));
  std::printf("    300 pods running after %.0f ms\n", std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  EXPECT_EQ(runtime_->starts(), 300u);
  for (const auto& p : pods) node_->agent->set_pod(deleted(*p));
  ASSERT_TRUE(wait([&] { return node_->agent->size() == 0; }));
  EXPECT_EQ(node_->api->removals.size(), 300u);
  EXPECT_EQ(runtime_->sandboxes(), 0u);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/kubelet/pods/uid-p0"));
}

TEST_F(SimulatedAgent, EveryFifthCallFailsAndAllGetsDone) {
  SeededRandom random(11);
  SimulationOptions o = fast();
  o.failures_per_thousand = 200;
  o.random = &random;
  boot(o);
  std::vector<std::shared_ptr<corev1::Pod>> pods;
  for (int i = 0; i < 12; ++i) {
    pods.push_back(make("p" + std::to_string(i)));
    if (i % 2) testing_pods::add_init(*pods.back(), "init")->add_args("exit"), pods.back()->mutable_spec()->mutable_initcontainers(0)->add_args("0");
    if (i % 3 == 0) testing_pods::add_init(*pods.back(), "side", true);
    node_->agent->set_pod(pods.back());
  }
  EXPECT_TRUE(wait([&] { return std::all_of(pods.begin(), pods.end(), [&](const auto& p) { return phase(*p, "Running"); }); }, 60s));
  for (const auto& p : pods) node_->agent->set_pod(deleted(*p));
  EXPECT_TRUE(wait([&] { return node_->agent->size() == 0; }, 60s));
  EXPECT_EQ(runtime_->sandboxes(), 0u);
}

TEST_F(SimulatedAgent, AnAgentThatRestartsAnywhereNeverStartsTwice) {
  for (int stop_after = 0; stop_after <= 16; stop_after += 2) {
    SCOPED_TRACE(stop_after);
    runtime_.reset();
    boot();
    auto pod = make("p");
    node_->agent->set_pod(pod);
    wait([] { return false; }, std::chrono::milliseconds(stop_after));
    node_->stop();
    boot();
    node_->agent->set_pod(pod);
    ASSERT_TRUE(wait([&] { return phase(*pod, "Running"); }));
    EXPECT_EQ(runtime_->starts(), 1u);
    EXPECT_EQ(node_->api->last("uid-p")->containerstatuses(0).restartcount(), 0);
    node_->agent->set_pod(deleted(*pod));
    ASSERT_TRUE(wait([&] { return node_->agent->size() == 0; }));
    EXPECT_EQ(runtime_->sandboxes(), 0u);
    node_.reset();
  }
}

TEST_F(SimulatedAgent, TheRuntimeGoesAwayAndComesBack) {
  boot();
  auto pod = make("p");
  node_->agent->set_pod(pod);
  ASSERT_TRUE(wait([&] { return phase(*pod, "Running"); }));
  runtime_->set_available(false);
  wait([] { return false; }, 300ms);
  auto late = make("late");
  node_->agent->set_pod(late);
  wait([] { return false; }, 100ms);
  runtime_->set_available(true);
  ASSERT_TRUE(wait([&] { return phase(*late, "Running"); }));
  EXPECT_EQ(runtime_->starts(), 2u);  // what ran was left alone
  for (const auto& entry : node_->api->history)
    if (entry.uid == "uid-p" && entry.status.phase() != "Pending") {
      EXPECT_EQ(entry.status.phase(), "Running");
    }
}

TEST_F(SimulatedAgent, AJobEndsAndADeploymentPodIsReplacedByAnotherOfItsName) {
  boot();
  auto job = make("job", {"exit", "0", "--after", "10ms"});
  job->mutable_spec()->set_restartpolicy("OnFailure");
  node_->agent->set_pod(job);
  ASSERT_TRUE(wait([&] { return phase(*job, "Succeeded"); }));
  EXPECT_EQ(runtime_->starts(), 1u);
  // A pod of the same name and another uid, while the old one is still going.
  auto old = make("web");
  node_->agent->set_pod(old);
  ASSERT_TRUE(wait([&] { return phase(*old, "Running"); }));
  node_->agent->forget_pod("uid-web");  // removed by force
  auto next = make("web");
  next->mutable_metadata()->set_uid("uid-web-2");
  next->mutable_metadata()->mutable_creationtimestamp()->set_seconds(5);
  node_->agent->set_pod(next);
  ASSERT_TRUE(wait([&] { return phase(*next, "Running"); }));
  ASSERT_TRUE(wait([&] { return runtime_->running_containers() == 1; }));
  EXPECT_EQ(node_->agent->find("default", "web")->uid(), "uid-web-2");
  EXPECT_FALSE(node_->api->removed("uid-web"));  // the API had it no more
}

TEST_F(SimulatedAgent, ASandboxThatBreaksComesBackWithAllItsContainers) {
  boot();
  auto pod = make("p");
  node_->agent->set_pod(pod);
  ASSERT_TRUE(wait([&] { return phase(*pod, "Running"); }));
  const std::string id = node_->agent->find("default", "p")->observed().newest_sandbox()->id;
  runtime_->break_sandbox(id);
  ASSERT_TRUE(wait([&] {
    const auto* s = node_->api->last("uid-p");
    return s->containerstatuses(0).restartcount() == 1 && s->containerstatuses(0).ready();
  }));
  EXPECT_NE(node_->agent->find("default", "p")->observed().newest_sandbox()->id, id);
}

TEST_F(SimulatedAgent, RejectedPodsFailAndCanBeDeleted) {
  boot();
  auto first = make("first"), second = make("second");
  for (const auto& p : {first, second}) p->mutable_spec()->mutable_containers(0)->add_ports()->set_hostport(80);
  node_->agent->set_pod(first);
  node_->agent->set_pod(second);
  ASSERT_TRUE(wait([&] { return phase(*second, "Failed"); }));
  EXPECT_EQ(node_->api->last("uid-second")->reason(), "NodePorts");
  ASSERT_TRUE(wait([&] { return phase(*first, "Running"); }));
  node_->agent->set_pod(deleted(*second));
  ASSERT_TRUE(wait([&] { return node_->api->removed("uid-second"); }));
  EXPECT_EQ(runtime_->starts(), 1u);
}

TEST_F(SimulatedAgent, PastItsDeadlineAPodFails) {
  boot();
  auto pod = make("slow");
  pod->mutable_spec()->set_activedeadlineseconds(1);
  node_->agent->set_pod(pod);
  ASSERT_TRUE(wait([&] { return phase(*pod, "Running"); }));
  ASSERT_TRUE(wait([&] { return phase(*pod, "Failed"); }, 5s));
  EXPECT_EQ(node_->api->last("uid-slow")->reason(), "DeadlineExceeded");
  EXPECT_EQ(runtime_->running_containers(), 0u);
}

}  // namespace
}  // namespace fairlead::kubelet
