// The node agent over a real containerd: pods start, answer, are probed, restart, survive a restart of the agent, and leave
// nothing behind.
#include <gmock/gmock.h>

#include <cstdio>

#include "base/files.h"
#include "base/log.h"
#include "controlplane/kubelet/log_file.h"
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

void probe_http(corev1::Probe* p, const std::string& path, int port = 8080) {
  p->mutable_handler()->mutable_httpget()->set_path(path);
  p->mutable_handler()->mutable_httpget()->mutable_port()->set_intval(port);
  p->set_periodseconds(1);
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
  static void SetUpTestSuite() {
    auto started = Containerd::start(true);
    ASSERT_TRUE(started) << started.error().message;
    containerd_ = std::move(*started);
  }
  static void TearDownTestSuite() { containerd_.reset(); }
  void SetUp() override {
    ASSERT_TRUE(containerd_);
    boot();
    node_->agent->set_synced();
  }
  void TearDown() override {
    if (HasFailure()) std::printf("%s\n", explain().c_str());
    if (node_) {
      for (const auto& pod : pods_)
        if (!node_->api->removed(pod->metadata().uid())) remove(pod);
      EXPECT_EQ(testing_node::leftovers(*containerd_), "");
    }
    node_.reset();
    io_.restart();
    io_.poll();
  }
  void boot() {
    auto runtime = make_cri_runtime(io_.get_executor(), containerd_->endpoint());
    ASSERT_TRUE(runtime);
    runtime_ = *runtime;
    node_ = std::make_unique<AgentHarness>(io_, node_settings(), runtime_);
    node_->agent->start();
  }
  void run(const std::shared_ptr<corev1::Pod>& pod) {
    pods_.push_back(pod);
    node_->agent->set_pod(pod);
  }
  template <typename Condition>
  bool wait(Condition condition, std::chrono::milliseconds limit = 20s) {
    return node_->run_until(std::move(condition), limit);
  }
  const corev1::PodStatus* status(const corev1::Pod& pod) const { return node_->api->last(pod.metadata().uid()); }
  bool ready(const corev1::Pod& pod) const { return condition(status(pod), "Ready"); }
  const corev1::ContainerStatus& container(const corev1::Pod& pod, int i = 0) const {
    static const corev1::ContainerStatus kNone;
    return status(pod) && status(pod)->containerstatuses_size() > i ? status(pod)->containerstatuses(i) : kNone;
  }
  std::string log_of(const corev1::Pod& pod, int attempt = 0, const std::string& name = "app") const {
    return last_log_text(pod_log_dir(node_->agent->settings(), "default", pod.metadata().name(), pod.metadata().uid()) + "/" +
                             name + "/" + std::to_string(attempt) + ".log",
                         1000, 1 << 20)
        .value_or("");
  }
  // Deletes and waits until the API object and all else has gone.
  void remove(const std::shared_ptr<corev1::Pod>& pod, std::int64_t grace = 1) {
    const auto begin = std::chrono::steady_clock::now();
    node_->agent->set_pod(deleted(*pod, grace));
    EXPECT_TRUE(wait([&] { return node_->api->removed(pod->metadata().uid()); }));
    std::printf("    %s: gone from the API after %.0f ms\n", pod->metadata().name().c_str(), ms_since(begin));
    EXPECT_TRUE(wait([&] { return !node_->agent->find("default", pod->metadata().name()); }));
    std::printf("    %s: nothing left after %.0f ms\n", pod->metadata().name().c_str(), ms_since(begin));
  }
  std::string explain() const {
    std::string out;
    for (const auto& e : node_->events) out += e.pod + ": " + e.reason + " " + e.container + ": " + e.message + "\n";
    for (const auto& h : node_->api->history) out += h.status.ShortDebugString() + "\n";
    const std::string log = read_file(containerd_->dir() + "/log").value_or("");
    return out + log.substr(log.size() > 8000 ? log.size() - 8000 : 0);
  }

  static inline std::unique_ptr<Containerd> containerd_;
  net::io_context io_;
  std::shared_ptr<Runtime> runtime_;
  std::unique_ptr<AgentHarness> node_;
  std::vector<std::shared_ptr<corev1::Pod>> pods_;
};

TEST_F(AgentTest, APodLivesItsWholeLife) {
  auto pod = make_pod("web", {"serve", "--drain", "100ms", "--controls"});
  auto* c = pod->mutable_spec()->mutable_containers(0);
  add_field_env(c, "POD_NAME", "metadata.name");
  add_field_env(c, "POD_IP", "status.podIP");
  probe_http(c->mutable_readinessprobe(), "/readyz");
  c->mutable_readinessprobe()->set_failurethreshold(1);
  const auto begin = std::chrono::steady_clock::now();
  run(pod);
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  std::printf("    web: ready after %.0f ms\n", ms_since(begin));
  EXPECT_EQ(status(*pod)->phase(), "Running");
  EXPECT_THAT(status(*pod)->podip(), HasSubstr("10.99.0."));
  EXPECT_EQ(status(*pod)->hostip(), "10.99.0.1");
  EXPECT_EQ(status(*pod)->qosclass(), "BestEffort");
  EXPECT_TRUE(container(*pod).state().has_running());
  EXPECT_THAT(log_of(*pod), HasSubstr("serving as pod=web"));
  for (const char* reason : {"Pulled", "Created", "Started"}) EXPECT_TRUE(node_->has_event(reason)) << reason;

  // A new agent takes over without touching the container, and at no moment says that it is not ready.
  const std::string id = container(*pod).containerid();
  auto known = std::make_shared<corev1::Pod>(*pod);
  *known->mutable_status() = *status(*pod);
  node_->stop();
  boot();
  node_->agent->set_pod(known);
  node_->agent->set_synced();
  ASSERT_TRUE(wait([&] { return node_->agent->running_containers() == 1; }));
  wait([] { return false; }, 1500ms);
  for (const auto& entry : node_->api->history) {
    EXPECT_TRUE(condition(&entry.status, "Ready"));
    EXPECT_EQ(entry.status.containerstatuses(0).containerid(), id);
  }
  EXPECT_FALSE(node_->has_event("Started"));
  EXPECT_FALSE(node_->has_event("Killing"));

  remove(pod);
  EXPECT_EQ(status(*pod)->phase(), "Succeeded");
  EXPECT_EQ(container(*pod).state().terminated().exitcode(), 0);
  EXPECT_FALSE(path_exists(pod_dir(node_->agent->settings(), pod->metadata().uid())));
  EXPECT_FALSE(path_exists(pod_log_dir(node_->agent->settings(), "default", "web", pod->metadata().uid())));
}

TEST_F(AgentTest, ReadinessFollowsTheApplicationWithinItsPeriod) {
  auto pod = make_pod("flappy", {"serve", "--drain", "0", "--controls"});
  auto* probe = pod->mutable_spec()->mutable_containers(0)->mutable_readinessprobe();
  probe_http(probe, "/readyz");
  probe->set_failurethreshold(1);
  run(pod);
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  const std::string url = "http://" + status(*pod)->podip() + ":8080/control/ready?set=";
  ASSERT_EQ(std::system((testing_node::demo() + " fetch '" + url + "false' > /dev/null").c_str()), 0);
  EXPECT_TRUE(wait([&] { return !ready(*pod); }, 2s));
  EXPECT_TRUE(node_->has_event("Unhealthy"));
  ASSERT_EQ(std::system((testing_node::demo() + " fetch '" + url + "true' > /dev/null").c_str()), 0);
  EXPECT_TRUE(wait([&] { return ready(*pod); }, 2s));
  EXPECT_EQ(container(*pod).restartcount(), 0);
}

TEST_F(AgentTest, ACrashIsSeenAtOnceAndRestartsBackOff) {
  auto pod = make_pod("crash", {"exit", "7", "--say", "last words"});
  pod->mutable_spec()->mutable_containers(0)->set_terminationmessagepolicy("FallbackToLogsOnError");
  const auto begin = std::chrono::steady_clock::now();
  run(pod);
  ASSERT_TRUE(wait([&] { return container(*pod).restartcount() >= 3; }));
  std::printf("    crash: third restart after %.0f ms (back-off 0, 200, 400 ms)\n", ms_since(begin));
  ASSERT_TRUE(wait([&] { return container(*pod).state().waiting().reason() == "CrashLoopBackOff"; }));
  EXPECT_EQ(container(*pod).laststate().terminated().exitcode(), 7);
  EXPECT_EQ(container(*pod).laststate().terminated().message(), "last words\n");
  EXPECT_EQ(status(*pod)->phase(), "Running");
  EXPECT_GE(ms_since(begin), 600);
}

TEST_F(AgentTest, LivenessKillsAndRestarts) {
  auto pod = make_pod("sick", {"serve", "--drain", "0", "--controls"});
  auto* probe = pod->mutable_spec()->mutable_containers(0)->mutable_livenessprobe();
  probe_http(probe, "/healthz");
  probe->set_failurethreshold(1);
  run(pod);
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  ASSERT_EQ(std::system(
                (testing_node::demo() + " fetch 'http://" + status(*pod)->podip() + ":8080/control/healthy?set=false' >/dev/null")
                    .c_str()),
            0);
  ASSERT_TRUE(wait([&] { return container(*pod).restartcount() == 1 && ready(*pod); }));
  EXPECT_TRUE(std::any_of(node_->events.begin(), node_->events.end(), [](const auto& e) {
    return e.reason == "Killing" && e.message == "Container app failed liveness probe, will be restarted";
  }));
  EXPECT_EQ(container(*pod).laststate().terminated().exitcode(), 0);
}

TEST_F(AgentTest, InitContainersSidecarsAndTheEndOfAJob) {
  auto pod = make_pod("job", {"exit", "0", "--after", "300ms"});
  pod->mutable_spec()->set_restartpolicy("Never");
  for (const char* name : {"first", "side", "second"}) {
    auto* c = pod->mutable_spec()->add_initcontainers();
    c->set_name(name);
    c->set_image("fairlead.local/demo:1");
    for (const char* word : {"exit", "0", "--say"}) c->add_args(word);
    c->add_args(name);
  }
  auto* side = pod->mutable_spec()->mutable_initcontainers(1);
  side->set_restartpolicy("Always");
  side->clear_args();
  side->add_args("serve");
  side->add_args("--drain=0");
  run(pod);
  ASSERT_TRUE(wait([&] { return status(*pod) && status(*pod)->phase() == "Succeeded"; }));
  EXPECT_EQ(log_of(*pod, 0, "first"), "first\n");
  EXPECT_EQ(log_of(*pod, 0, "second"), "second\n");
  ASSERT_TRUE(wait([&] { return status(*pod)->initcontainerstatuses(1).state().has_terminated(); }));
  EXPECT_EQ(status(*pod)->initcontainerstatuses(0).state().terminated().reason(), "Completed");
  EXPECT_EQ(status(*pod)->phase(), "Succeeded");
  EXPECT_TRUE(condition(status(*pod), "Initialized"));
}

TEST_F(AgentTest, VolumesEnvironmentAndTheirChanges) {
  auto pod = make_pod("conf", {"cat", "/etc/conf/key", "/etc/conf/labels", "/cache/none"});
  pod->mutable_spec()->set_restartpolicy("Never");
  (*pod->mutable_metadata()->mutable_labels())["app"] = "conf";
  pod->mutable_spec()->set_serviceaccountname("sa");
  auto* v = pod->mutable_spec()->add_volumes();
  v->set_name("conf");
  auto* projected = v->mutable_volumesource()->mutable_projected();
  projected->add_sources()->mutable_configmap()->mutable_localobjectreference()->set_name("settings");
  auto* item = projected->add_sources()->mutable_downwardapi()->add_items();
  item->set_path("labels");
  item->mutable_fieldref()->set_fieldpath("metadata.labels");
  projected->add_sources()->mutable_serviceaccounttoken()->set_path("token");
  v = pod->mutable_spec()->add_volumes();
  v->set_name("cache");
  v->mutable_volumesource()->mutable_emptydir()->set_medium("Memory");
  v->mutable_volumesource()->mutable_emptydir()->mutable_sizelimit()->set_string("1Mi");
  auto* c = pod->mutable_spec()->mutable_containers(0);
  c->clear_args();
  for (const char* word : {"serve", "--drain", "0"}) c->add_args(word);
  for (const char* name : {"conf", "cache"}) {
    auto* m = c->add_volumemounts();
    m->set_name(name);
    m->set_mountpath(std::string("/etc/") + name);
  }
  run(pod);
  // The ConfigMap is not there yet: the pod waits and says why; when it appears, it starts at once.
  ASSERT_TRUE(wait([&] { return node_->has_event("FailedMount"); }));
  ASSERT_TRUE(
      wait([&] { return container(*pod).state().waiting().message() == "volume \"conf\": configmap \"settings\" not found"; }));
  auto settings = std::make_shared<corev1::ConfigMap>();
  (*settings->mutable_data())["key"] = "one";
  node_->objects->config_maps["default/settings"] = settings;
  const auto appeared = std::chrono::steady_clock::now();
  node_->objects->changed(pod->metadata().uid());
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  std::printf("    conf: ready %.0f ms after its ConfigMap appeared\n", ms_since(appeared));
  const std::string id = container(*pod).containerid().substr(13);
  const auto cat = [&](const std::string& file) {
    Result<ExecResult> out = fail(ErrorCode::internal, "");
    bool done = false;
    net::co_spawn(io_, runtime_->exec(id, {"/fairlead-demo", "cat", file}, 5s), [&](std::exception_ptr, Result<ExecResult> r) {
      out = std::move(r);
      done = true;
    });
    wait([&] { return done; });
    return out ? out->stdout_text + out->stderr_text : out.error().message;
  };
  EXPECT_EQ(cat("/etc/conf/key"), "one");
  EXPECT_EQ(cat("/etc/conf/labels"), "app=\"conf\"");
  EXPECT_EQ(cat("/etc/conf/token"), "token-for-sa-");
  EXPECT_THAT(cat("/proc/mounts"), HasSubstr(" /etc/cache tmpfs"));
  EXPECT_THAT(cat("/etc/hosts"), HasSubstr(status(*pod)->podip() + "\tconf\n"));
  EXPECT_EQ(cat("/proc/sys/kernel/hostname"), "conf\n");
  // A change of the ConfigMap reaches the running container.
  settings = std::make_shared<corev1::ConfigMap>();
  (*settings->mutable_data())["key"] = "two";
  node_->objects->config_maps["default/settings"] = settings;
  node_->objects->changed(pod->metadata().uid());
  EXPECT_TRUE(wait([&] { return cat("/etc/conf/key") == "two"; }, 5s));
}

TEST_F(AgentTest, ImagesThatAreNotThere) {
  auto pod = make_pod("noimage", {});
  pod->mutable_spec()->mutable_containers(0)->set_image("fairlead.local/none:1");
  pod->mutable_spec()->mutable_containers(0)->set_imagepullpolicy("Never");
  run(pod);
  ASSERT_TRUE(wait([&] { return container(*pod).state().waiting().reason() == "ErrImageNeverPull"; }));
  EXPECT_EQ(status(*pod)->phase(), "Pending");
  auto pull = make_pod("pull", {});
  pull->mutable_spec()->mutable_containers(0)->set_image("127.0.0.1:1/none:1");
  run(pull);
  ASSERT_TRUE(wait([&] { return container(*pull).state().waiting().reason() == "ErrImagePull"; }));
  ASSERT_TRUE(wait([&] { return container(*pull).state().waiting().reason() == "ImagePullBackOff"; }));
  auto bad = make_pod("badname", {});
  bad->mutable_spec()->mutable_containers(0)->set_image("not a name");
  run(bad);
  ASSERT_TRUE(wait([&] { return container(*bad).state().waiting().reason() == "InvalidImageName"; }));
}

TEST_F(AgentTest, ACommandThatCannotRun) {
  auto pod = make_pod("nocommand", {});
  pod->mutable_spec()->set_restartpolicy("Never");
  pod->mutable_spec()->mutable_containers(0)->add_command("/does/not/exist");
  run(pod);
  ASSERT_TRUE(wait([&] { return status(*pod) && status(*pod)->phase() == "Failed"; }));
  EXPECT_EQ(container(*pod).state().terminated().exitcode(), 128);
  EXPECT_THAT(container(*pod).state().terminated().message(), HasSubstr("no such file"));
}

TEST_F(AgentTest, HooksRunAndGraceIsKept) {
  auto pod = make_pod("hooks", {"serve", "--drain", "0"});
  pod->mutable_spec()->set_terminationgraceperiodseconds(10);
  auto* life = pod->mutable_spec()->mutable_containers(0)->mutable_lifecycle();
  for (const char* word : {"/fairlead-demo", "write", "/dev/termination-log", "started"})
    life->mutable_poststart()->mutable_exec()->add_command(word);
  life->mutable_prestop()->mutable_sleep()->set_seconds(1);
  run(pod);
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  const auto begin = std::chrono::steady_clock::now();
  remove(pod, 10);
  EXPECT_GE(ms_since(begin), 1000);
  EXPECT_LT(ms_since(begin), 9000) << "not the whole grace period";
  EXPECT_EQ(container(*pod).state().terminated().message(), "started\n");

  auto stubborn = make_pod("stubborn", {});
  stubborn->mutable_spec()->mutable_containers(0)->add_command("/fairlead-demo");
  for (const char* word : {"serve", "--drain", "60s"}) stubborn->mutable_spec()->mutable_containers(0)->add_args(word);
  run(stubborn);
  ASSERT_TRUE(wait([&] { return ready(*stubborn); }));
  node_->agent->set_pod(deleted(*stubborn, 30));
  wait([] { return false; }, 500ms);
  remove(stubborn, 0);  // a second deletion without grace does not wait for the first
  EXPECT_EQ(container(*stubborn).state().terminated().exitcode(), 137);
}

TEST_F(AgentTest, ASandboxThatDiesIsReplaced) {
  auto pod = make_pod("boxed", {"serve", "--drain", "0"});
  run(pod);
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  const std::string before = status(*pod)->podip();
  ASSERT_EQ(std::system("pkill -9 -x pause"), 0);  // in this PID namespace there is one
  ASSERT_TRUE(wait([&] { return ready(*pod) && container(*pod).restartcount() == 1 && status(*pod)->podip() != before; }));
}

TEST_F(AgentTest, WhatNoPodOwnsIsRemoved) {
  auto pod = make_pod("orphan", {"serve", "--drain", "0"});
  run(pod);
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  pods_.clear();
  node_->stop();
  boot();  // this agent has never heard of the pod
  wait([] { return false; }, 1500ms);
  EXPECT_NE(testing_node::leftovers(*containerd_), "");  // nothing is removed before the API has told all its pods
  node_->agent->set_synced();
  ASSERT_TRUE(wait([&] { return testing_node::leftovers(*containerd_).empty(); }));
  EXPECT_TRUE(node_->api->removals.empty());
}

TEST_F(AgentTest, HostNetworkAndResources) {
  auto pod = make_pod("host", {"serve", "--drain", "0", "--port", "18080", "--udp-port", "0"});
  pod->mutable_spec()->set_hostnetwork(true);
  auto& limits = *pod->mutable_spec()->mutable_containers(0)->mutable_resources()->mutable_limits();
  limits["cpu"].set_string("500m");
  limits["memory"].set_string("64Mi");
  probe_http(pod->mutable_spec()->mutable_containers(0)->mutable_readinessprobe(), "/readyz", 18080);
  run(pod);
  ASSERT_TRUE(wait([&] { return ready(*pod); }));
  EXPECT_EQ(status(*pod)->podip(), "10.99.0.1");
  EXPECT_EQ(status(*pod)->qosclass(), "Guaranteed");
  const std::string group = testing_node::node_cgroup() + "/pod" + pod->metadata().uid();
  EXPECT_EQ(read_file("/sys/fs/cgroup/memory" + group + "/memory.limit_in_bytes").value_or("?"), std::to_string(64 << 20) + "\n");
  EXPECT_EQ(read_file("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_quota_us").value_or("?"), "50000\n");
}

TEST_F(AgentTest, ManyPodsAtOnce) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 8; ++i) run(make_pod("p" + std::to_string(i), {"serve", "--drain", "0"}));
  ASSERT_TRUE(wait([&] { return std::all_of(pods_.begin(), pods_.end(), [&](const auto& p) { return ready(*p); }); }, 60s));
  std::printf("    8 pods ready after %.0f ms\n", ms_since(begin));
}

TEST_F(AgentTest, TheApiMayBeAwayForAWhile) {
  node_->api->unavailable = 5;
  auto pod = make_pod("patient", {"serve", "--drain", "0"});
  run(pod);
  EXPECT_TRUE(wait([&] { return ready(*pod); }));
}

}  // namespace
}  // namespace fairlead::kubelet

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (std::getenv("FAIRLEAD_DEBUG")) fairlead::log::set_level(fairlead::log::Level::debug);
  return fairlead::kubelet::testing_node::run_in_node(argc, argv, [] { return RUN_ALL_TESTS(); });
}
