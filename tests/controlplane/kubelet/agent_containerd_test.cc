// The node agent over a real containerd: pods start, answer, are probed, restart, survive a restart of the agent, and leave
// nothing behind.
#include <gmock/gmock.h>

#include <cstdio>

#include "base/files.h"
#include "base/log.h"
#include "controlplane/kubelet/runtime_cri.h"
#include "tests/controlplane/kubelet/containerd_node.h"
#include "tests/controlplane/kubelet/fakes.h"

namespace fairlead::kubelet {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing_fakes::AgentHarness;
using testing_node::Containerd;

Settings node_settings() {
  Settings s;
  s.node_name = "n1";
  s.node_ips = {"10.99.0.1"};
  s.root_dir = testing_node::node_dir() + "/kubelet";
  s.logs_dir = testing_node::node_dir() + "/logs";
  s.cgroup_root = testing_node::node_cgroup();
  s.restart_backoff = {200ms, 5s};
  s.start_backoff = {200ms, 5s};
  return s;
}

std::shared_ptr<corev1::Pod> make_pod(const std::string& name, std::vector<std::string> args) {
  auto pod = std::make_shared<corev1::Pod>();
  pod->mutable_metadata()->set_name(name);
  pod->mutable_metadata()->set_namespace_("default");
  pod->mutable_metadata()->set_uid("uid-" + name);
  pod->mutable_metadata()->set_generation(1);
  pod->mutable_spec()->set_terminationgraceperiodseconds(3);
  auto* c = pod->mutable_spec()->add_containers();
  c->set_name("app");
  c->set_image("fairlead.local/demo:1");
  for (auto& a : args) c->add_args(std::move(a));
  return pod;
}

void add_field_env(corev1::Container* c, const std::string& name, const std::string& path) {
  auto* e = c->add_env();
  e->set_name(name);
  e->mutable_valuefrom()->mutable_fieldref()->set_fieldpath(path);
}

std::shared_ptr<corev1::Pod> deleted(const corev1::Pod& pod, std::int64_t grace) {
  auto out = std::make_shared<corev1::Pod>(pod);
  out->mutable_metadata()->mutable_deletiontimestamp()->set_seconds(std::time(nullptr) + grace);
  out->mutable_metadata()->set_deletiongraceperiodseconds(grace);
  out->mutable_metadata()->set_resourceversion("2");
  return out;
}

double ms_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - t).count();
}

bool condition(const corev1::PodStatus* s, const std::string& type) {
  if (s)
    for (const auto& c : s->conditions())
      if (c.type() == type) return c.status() == "True";
  return false;
}

class AgentTest : public testing::Test {
 protected:
  void SetUp() override {
    auto started = Containerd::start(true);
    ASSERT_TRUE(started) << started.error().message;
    containerd_ = std::move(*started);
    boot();
  }
  void TearDown() override {
    node_.reset();
    io_.restart();
    io_.poll();
    containerd_.reset();
  }
  void boot() {
    auto runtime = make_cri_runtime(io_.get_executor(), containerd_->endpoint());
    ASSERT_TRUE(runtime);
    node_ = std::make_unique<AgentHarness>(io_, node_settings(), *runtime);
    node_->agent->start();
  }
  const corev1::PodStatus* status(const corev1::Pod& pod) const { return node_->api->last(pod.metadata().uid()); }
  bool ready(const corev1::Pod& pod) const { return condition(status(pod), "Ready"); }
  std::string log_of(const corev1::Pod& pod, int attempt = 0) const {
    return read_file(pod_log_dir(node_->agent->settings(), "default", pod.metadata().name(), pod.metadata().uid()) + "/app/" +
                     std::to_string(attempt) + ".log")
        .value_or("");
  }
  // Deletes and waits until the API object and all else has gone.
  void remove(const std::shared_ptr<corev1::Pod>& pod, std::int64_t grace = 1) {
    const auto begin = std::chrono::steady_clock::now();
    node_->agent->set_pod(deleted(*pod, grace));
    EXPECT_TRUE(node_->run_until([&] { return node_->api->removed(pod->metadata().uid()); }));
    std::printf("    %s: gone from the API after %.0f ms\n", pod->metadata().name().c_str(), ms_since(begin));
    EXPECT_TRUE(node_->run_until([&] { return node_->agent->size() == 0; }));
  }
  std::string explain() const {
    std::string out;
    for (const auto& e : node_->events) out += e.reason + " " + e.container + ": " + e.message + "\n";
    for (const auto& h : node_->api->history) out += h.status.ShortDebugString() + "\n";
    return out + read_file(containerd_->dir() + "/log").value_or("").substr(0, 20000);
  }

  net::io_context io_;
  std::unique_ptr<Containerd> containerd_;
  std::unique_ptr<AgentHarness> node_;
};

TEST_F(AgentTest, APodLivesItsWholeLife) {
  auto pod = make_pod("web", {"serve", "--drain", "100ms", "--controls"});
  auto* c = pod->mutable_spec()->mutable_containers(0);
  add_field_env(c, "POD_NAME", "metadata.name");
  add_field_env(c, "POD_IP", "status.podIP");
  c->mutable_readinessprobe()->mutable_handler()->mutable_httpget()->set_path("/readyz");
  c->mutable_readinessprobe()->mutable_handler()->mutable_httpget()->mutable_port()->set_intval(8080);
  c->mutable_readinessprobe()->set_periodseconds(1);
  c->mutable_readinessprobe()->set_failurethreshold(1);
  const auto begin = std::chrono::steady_clock::now();
  node_->agent->set_synced();
  node_->agent->set_pod(pod);
  ASSERT_TRUE(node_->run_until([&] { return ready(*pod); }, 20s)) << explain();
  std::printf("    web: ready after %.0f ms\n", ms_since(begin));
  EXPECT_EQ(status(*pod)->phase(), "Running");
  EXPECT_EQ(status(*pod)->podip(), "10.99.0.10");
  EXPECT_EQ(status(*pod)->hostip(), "10.99.0.1");
  EXPECT_EQ(status(*pod)->qosclass(), "BestEffort");
  EXPECT_TRUE(status(*pod)->containerstatuses(0).state().has_running());
  EXPECT_THAT(log_of(*pod), HasSubstr("serving as pod=web"));
  for (const char* reason : {"Pulled", "Created", "Started"}) EXPECT_TRUE(node_->has_event(reason)) << reason;

  // A new agent takes over without touching the container.
  const std::string id = status(*pod)->containerstatuses(0).containerid();
  auto known = std::make_shared<corev1::Pod>(*pod);
  *known->mutable_status() = *status(*pod);
  node_->stop();
  boot();
  node_->agent->set_pod(known);
  node_->agent->set_synced();
  ASSERT_TRUE(node_->run_until([&] { return node_->agent->running_containers() == 1; }));
  node_->run_until([] { return false; }, 1500ms);
  for (const auto& entry : node_->api->history) {
    EXPECT_TRUE(condition(&entry.status, "Ready"));
    EXPECT_EQ(entry.status.containerstatuses(0).containerid(), id);
  }
  EXPECT_FALSE(node_->has_event("Started"));
  EXPECT_FALSE(node_->has_event("Killing"));

  remove(pod);
  EXPECT_EQ(status(*pod)->phase(), "Succeeded");
  EXPECT_EQ(status(*pod)->containerstatuses(0).state().terminated().exitcode(), 0);
  EXPECT_EQ(testing_node::leftovers(*containerd_), "");
  EXPECT_FALSE(path_exists(pod_dir(node_->agent->settings(), pod->metadata().uid())));
}

}  // namespace
}  // namespace fairlead::kubelet

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (std::getenv("FAIRLEAD_DEBUG")) fairlead::log::set_level(fairlead::log::Level::debug);
  return fairlead::kubelet::testing_node::run_in_node(argc, argv, [] { return RUN_ALL_TESTS(); });
}
