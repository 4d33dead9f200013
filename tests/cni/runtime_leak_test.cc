// A minute in which containerd itself is killed and started again, and the plugin too, while pods come and go through the real
// runtime interface. In the end no address, link or rule may be left.
//
// What a killed containerd has begun and not written down it never takes up again: it neither calls DEL for it nor, in the
// versions of today, GC. So the end has two parts, as a runtime of specification 1.1 has it: every sandbox that the runtime
// knows is stopped, and then GC says that nothing else is valid.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/mount.h>

#include <atomic>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/files.h"
#include "controlplane/kubelet/proto/cri.pb.h"
#include "controlplane/kubelet/runtime_cri.h"
#include "tests/cni/harness.h"
#include "tests/controlplane/kubelet/containerd_node.h"

namespace fairlead::cni {
namespace {

using kubelet::testing_node::Containerd;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr int kSlots = 6;

// The runtime from one thread, a call at a time.
class Client {
 public:
  explicit Client(const std::string& endpoint) : runtime_(*kubelet::make_cri_runtime(io_.get_executor(), endpoint)) {}
  Result<std::string> run(std::shared_ptr<const kubelet::cri::PodSandboxConfig> config) { return wait(runtime_->run_sandbox(std::move(config))); }
  Result<> stop(const std::string& id) { return wait(runtime_->stop_sandbox(id)); }
  Result<> remove(const std::string& id) { return wait(runtime_->remove_sandbox(id)); }
  Result<std::vector<kubelet::SandboxRecord>> list(const std::string& uid) { return wait(runtime_->list_sandboxes(uid)); }

 private:
  template <typename R>
  R wait(Task<R> task) {
    std::optional<R> out;
    net::co_spawn(io_, std::move(task), [&](std::exception_ptr e, R r) {
      if (e) std::rethrow_exception(e);
      out.emplace(std::move(r));
    });
    const auto guard = net::make_work_guard(io_);
    io_.restart();
    while (!out) io_.run_one();
    return std::move(*out);
  }
  net::io_context io_;
  std::shared_ptr<kubelet::Runtime> runtime_;
};

struct Counts {
  std::atomic<int> started{0}, failed{0}, stopped{0};
};

std::shared_ptr<const kubelet::cri::PodSandboxConfig> sandbox(int slot, int attempt) {
  auto c = std::make_shared<kubelet::cri::PodSandboxConfig>();
  const std::string name = fmt::format("pod{}-{}", slot, attempt);
  c->mutable_metadata()->set_name(name);
  c->mutable_metadata()->set_uid(fmt::format("slot{}", slot));
  c->mutable_metadata()->set_namespace_("default");
  c->mutable_metadata()->set_attempt(static_cast<unsigned>(attempt));
  c->set_log_directory(kubelet::testing_node::node_dir() + "/logs");
  (*c->mutable_labels())[kubelet::kLabelPodUid] = fmt::format("slot{}", slot);
  (*c->mutable_annotations())["kubernetes.io/ingress-bandwidth"] = "10M";
  (*c->mutable_annotations())["kubernetes.io/egress-bandwidth"] = "10M";
  auto* port = c->add_port_mappings();
  port->set_container_port(80);
  port->set_host_port(8000 + slot);
  c->mutable_linux()->set_cgroup_parent(fmt::format("{}/pod{}", kubelet::testing_node::node_cgroup(), slot));
  return c;
}

// Stops and removes what the runtime knows of this slot; whether it could.
bool clear(Client& client, int slot, Counts& n) {
  const auto known = client.list(fmt::format("slot{}", slot));
  if (!known) return false;
  bool good = true;
  for (const auto& s : *known) {
    if (client.stop(s.id) && client.remove(s.id))
      ++n.stopped;
    else
      good = false;
  }
  return good;
}

void live(const std::string& endpoint, int slot, unsigned seed, const std::atomic<bool>& over, Counts& n) {
  Client client(endpoint);
  std::mt19937 random(seed);
  for (int attempt = 0; !over; ++attempt) {
    ++(client.run(sandbox(slot, attempt)) ? n.started : n.failed);
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 300));
    while (!clear(client, slot, n) && !over) std::this_thread::sleep_for(50ms);
  }
}

// The plugins that run now. This process is the first of its own PID namespace: nobody else's are to be seen.
int kill_plugins() {
  int killed = 0;
  std::error_code ec;
  for (fs::directory_iterator it("/proc", ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string comm;
    std::getline(std::ifstream(it->path() / "comm"), comm);
    if (comm == "fairlead-cni" && ::kill(std::stoi(name), SIGKILL) == 0) ++killed;
  }
  return killed;
}

TEST(RuntimeLeak, NothingIsLeftWhenContainerdDies) {
  const char* bin = std::getenv("FAIRLEAD_BIN");
  ASSERT_NE(bin, nullptr) << "FAIRLEAD_BIN names the folder of fairlead-cni";
  const char* seed_text = std::getenv("FAIRLEAD_SEED");
  const unsigned seed = seed_text ? static_cast<unsigned>(std::stoul(seed_text)) : std::random_device{}();
  SCOPED_TRACE(fmt::format("FAIRLEAD_SEED={}", seed));
  auto started = Containerd::start(false);
  ASSERT_TRUE(started) << started.error().message;
  Containerd& containerd = **started;
  const std::string folder = containerd.dir();
  for (const char* program : {"fairlead-cni", "loopback"}) fs::create_symlink(fs::absolute(std::string(bin) + "/fairlead-cni"), folder + "/cni-bin/" + program);
  const std::string conf = fmt::format(R"({{"type":"fairlead-cni","ipMasq":true,"hostsDir":"{0}/hosts","capabilities":{{"portMappings":true,"bandwidth":true}},
    "ipam":{{"ranges":[[{{"subnet":"10.244.0.0/16"}}],[{{"subnet":"fd00:10:244::/64"}}]],"dataDir":"{0}/leases"}}}})", folder);
  ASSERT_TRUE(write_file_atomic(folder + "/cni-conf/10-pods.conflist", R"({"cniVersion":"1.0.0","name":"pods","plugins":[)" + conf + "]}"));

  Counts n;
  std::atomic<bool> over{false};
  std::mt19937 random(seed);
  std::vector<std::thread> slots;
  for (int i = 0; i < kSlots; ++i) slots.emplace_back([&, i, s = random()] { live(containerd.endpoint(), i, s, over, n); });
  int crashes = 0, plugins = 0;
  for (const auto until = std::chrono::steady_clock::now() + 60s; std::chrono::steady_clock::now() < until;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 1500));
    plugins += kill_plugins();
    if (random() % 3 != 0) continue;
    const auto again = containerd.kill_and_restart();
    ASSERT_TRUE(again) << again.error().message;
    ++crashes;
  }
  over = true;
  for (auto& t : slots) t.join();

  Client client(containerd.endpoint());
  bool cleared = false;
  for (int i = 0; i < 600 && !cleared; ++i) {
    cleared = true;
    for (int slot = 0; slot < kSlots; ++slot) cleared &= clear(client, slot, n);
    if (!cleared) std::this_thread::sleep_for(100ms);
  }
  EXPECT_TRUE(cleared) << "a sandbox could not be stopped";
  const netlink::NetNs host = *netlink::NetNs::current();
  const std::string begun = leftovers(host, folder + "/leases", "pods", folder + "/hosts/pods");
  auto gc = parse_json(conf)->as_object();
  gc["cniVersion"] = "1.1.0";
  gc["name"] = "pods";
  gc["cni.dev/valid-attachments"] = boost::json::array();
  PluginCall call{.host_fd = host.fd(), .id = "", .netns = "", .conf = boost::json::serialize(gc)};
  const Outcome collected = call.run("GC");
  EXPECT_EQ(collected.exit_code, 0) << collected.out;
  EXPECT_EQ(leftovers(host, folder + "/leases", "pods", folder + "/hosts/pods"), "");
  std::printf("containerd killed %d times, plugin %d times; pods: %d started, %d failed, %d stopped; left by the runtime before GC: %s\n", crashes, plugins, n.started.load(), n.failed.load(),
              n.stopped.load(), begun.empty() ? "nothing" : begun.c_str());
  EXPECT_GE(crashes, 5);
  EXPECT_GT(n.started, 10);
  // And the node works.
  const auto id = client.run(sandbox(0, 100'000));
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_NE(leftovers(host, folder + "/leases", "pods", folder + "/hosts/pods"), "");
  EXPECT_TRUE(clear(client, 0, n));
  EXPECT_EQ(leftovers(host, folder + "/leases", "pods", folder + "/hosts/pods"), "");
}

}  // namespace
}  // namespace fairlead::cni

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  return fairlead::kubelet::testing_node::run_in_node(argc, argv, [] {
    // containerd's library keeps the results of plugins there.
    (void)fairlead::make_dirs("/var/lib/cni");
    if (::mount("tmpfs", "/var/lib/cni", "tmpfs", 0, "mode=755") != 0) return 1;
    return RUN_ALL_TESTS();
  });
}
