// A minute in the life of a node on which everything dies: the plugin at any instruction, the runtime with and without it,
// the node agent between promise and deed. Runtimes that come back take away what they know of, sometimes forget a pod, and
// call GC. In the end nothing may be left. Namespaces live through it all, so links go only if somebody deletes them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "cni/agent/sweeper.h"
#include "cni/gc.h"
#include "netlink/rt_socket.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using namespace std::chrono_literals;

constexpr std::size_t kSlots = 8;

// What the runtime keeps on disk, here in memory that outlives it.
struct Journal {
  std::array<std::atomic<int>, kSlots> pod;   // number of the pod in this slot; 0: none
  std::atomic<int> last{0};
  std::atomic<int> added{0}, failed{0}, deleted{0}, collected{0};
};

class Leak : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const char* bin = std::getenv("FAIRLEAD_BIN");
    ASSERT_NE(bin, nullptr) << "FAIRLEAD_BIN names the folder of fairlead-cni";
    program_ = std::string(bin) + "/fairlead-cni";
    host_.emplace(std::move(*NetNs::create()));
    for (std::size_t i = 0; i < kSlots; ++i) slots_.push_back(*NetNs::create());
    folder_ = fmt::format("/run/fairlead-leak-{}", getpid());
    void* m = ::mmap(nullptr, sizeof(Journal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(m, MAP_FAILED);
    journal_ = new (m) Journal;
    // Plugins whose runtime was killed end as children of this process, which waits for them.
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  }
  void TearDown() override {
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
    if (journal_ != nullptr) ::munmap(journal_, sizeof(Journal));
    std::filesystem::remove_all(folder_);
  }

  static std::string id_of(int pod) { return fmt::format("pod{}", pod); }
  std::string conf(std::size_t slot, const std::string& more = "") const {
    return fmt::format(R"({{"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni","wiring":"{0}","ipMasq":true,"hostsDir":"{1}/hosts",
      "ipam":{{"ranges":[[{{"subnet":"10.244.0.0/16"}}],[{{"subnet":"fd00:10:244::/64"}}]],"dataDir":"{1}"}}{2},
      "runtimeConfig":{{"aliases":["db"],"portMappings":[{{"HostPort":{3},"ContainerPort":80,"Protocol":"tcp"}},{{"HostPort":{3},"ContainerPort":53,"Protocol":"udp"}}],
      "bandwidth":{{"IngressRate":8000000,"IngressBurst":800000,"EgressRate":8000000,"EgressBurst":800000}}}}}})", GetParam(), folder_, more, 8000 + slot);
  }

  // One call of the real program; its exit code, or -1 when it was killed.
  int plugin(const char* verb, const std::string& id, std::size_t slot, std::optional<std::chrono::microseconds> kill_after, const std::string& more = "") const {
    const std::string text = conf(slot, more);
    const pid_t child = ::fork();
    if (child == 0) {
      ::setns(host_->fd(), CLONE_NEWNET);
      int fds[2];
      if (::pipe(fds) != 0 || ::write(fds[1], text.data(), text.size()) != static_cast<ssize_t>(text.size())) ::_exit(8);
      ::close(fds[1]);
      ::dup2(fds[0], 0);
      ::dup2(::open("/dev/null", O_WRONLY), 1);
      ::setenv("CNI_COMMAND", verb, 1);
      ::setenv("CNI_CONTAINERID", id.c_str(), 1);
      ::setenv("CNI_NETNS", fmt::format("/proc/self/fd/{}", slots_[slot].fd()).c_str(), 1);
      ::setenv("CNI_IFNAME", "eth0", 1);
      ::setenv("CNI_PATH", "/x", 1);
      ::fcntl(slots_[slot].fd(), F_SETFD, 0);
      ::execl(program_.c_str(), program_.c_str(), nullptr);
      ::_exit(8);
    }
    if (kill_after) {
      std::this_thread::sleep_for(*kill_after);
      ::kill(child, SIGKILL);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::string still_there() const {
    std::string list;
    for (const auto& p : journal_->pod)
      if (p != 0) list += (list.empty() ? "" : ",") + fmt::format(R"({{"containerID":"{}","ifname":"eth0"}})", id_of(p));
    return fmt::format(R"(,"cni.dev/valid-attachments":[{}])", list);
  }

  // Takes away what an earlier one left, then starts and ends pods until it is killed.
  [[noreturn]] void runtime(unsigned seed) {
    std::mt19937 random(seed);
    for (std::size_t slot = 0; slot < kSlots; ++slot)
      if (const int pod = journal_->pod[slot]; pod != 0) {
        if (random() % 4 != 0 && plugin("DEL", id_of(pod), slot, {}) == 0) ++journal_->deleted;
        journal_->pod[slot] = 0;  // or forgotten
      }
    if (plugin("GC", "", 0, {}, still_there()) == 0) ++journal_->collected;
    for (;;) {
      const std::size_t slot = random() % kSlots;
      const auto moment = [&]() -> std::optional<std::chrono::microseconds> {
        if (random() % 3 != 0) return std::nullopt;
        return std::chrono::microseconds(random() % 12000);
      };
      if (const int pod = journal_->pod[slot]; pod != 0) {
        (void)plugin("DEL", id_of(pod), slot, moment());
        if (plugin("DEL", id_of(pod), slot, {}) != 0) continue;
        ++journal_->deleted;
        journal_->pod[slot] = 0;
        continue;
      }
      const int pod = ++journal_->last;
      journal_->pod[slot] = pod;
      ++(plugin("ADD", id_of(pod), slot, moment()) == 0 ? journal_->added : journal_->failed);
    }
  }

  pid_t start(const std::function<void()>& work) {
    const pid_t child = ::fork();
    // Both of them, whoever comes first: the group is there when this returns.
    if (child != 0) ::setpgid(child, child);
    if (child != 0) return child;
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is stopped leaves nobody
    work();
    ::_exit(0);
  }

  std::optional<NetNs> host_;
  std::vector<NetNs> slots_;
  std::string folder_, program_;
  Journal* journal_ = nullptr;
};

TEST_P(Leak, NothingIsLeftWhateverDies) {
  const char* seed_text = std::getenv("FAIRLEAD_SEED");
  const unsigned seed = seed_text ? static_cast<unsigned>(std::stoul(seed_text)) : std::random_device{}();
  SCOPED_TRACE(fmt::format("FAIRLEAD_SEED={}", seed));
  std::mt19937 random(seed);
  int runtimes = 0, agents = 0;
  const auto start_runtime = [&] {
    const unsigned s = random();
    ++runtimes;
    return start([&] { runtime(s); });
  };
  const auto start_agent = [&] {
    ++agents;
    return start([&] {
      ::setns(host_->fd(), CLONE_NEWNET);
      const auto sweeper = LinkSweeper::start();
      ::pause();
    });
  };
  pid_t runtime_pid = start_runtime(), agent_pid = start_agent();
  const auto until = std::chrono::steady_clock::now() + 30s;
  while (std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
    switch (random() % 3) {
      case 0: ::kill(-runtime_pid, SIGKILL); break;  // with the plugin it runs
      case 1: ::kill(runtime_pid, SIGKILL); break;   // the plugin goes on alone
      case 2:
        ::kill(agent_pid, SIGKILL);
        ::waitpid(agent_pid, nullptr, 0);
        if (random() % 2) std::this_thread::sleep_for(std::chrono::milliseconds(random() % 200));
        agent_pid = start_agent();
        continue;
    }
    ::waitpid(runtime_pid, nullptr, 0);
    runtime_pid = start_runtime();
  }
  ::kill(-runtime_pid, SIGKILL);
  ::kill(agent_pid, SIGKILL);
  while (::waitpid(-1, nullptr, 0) > 0) {
  }
  // The node's last runtime knows of no pod.
  for (auto& p : journal_->pod) p = 0;
  EXPECT_EQ(plugin("GC", "", 0, {}, still_there()), 0);
  EXPECT_EQ(leftovers(*host_, folder_, "pods", folder_ + "/hosts/pods"), "");
  for (const NetNs& ns : slots_) EXPECT_FALSE(*netlink::RtSocket::open_in(ns.fd())->find_link("eth0"));
  // And the node works.
  EXPECT_EQ(plugin("ADD", "after", 0, {}), 0);
  EXPECT_EQ(plugin("DEL", "after", 0, {}), 0);
  EXPECT_EQ(leftovers(*host_, folder_, "pods", folder_ + "/hosts/pods"), "");
  // It has been a life worth the name.
  EXPECT_GT(runtimes, 10);
  EXPECT_GT(agents, 2);
  EXPECT_GT(journal_->added, 10);
  EXPECT_GT(journal_->deleted, 10);
  EXPECT_GT(journal_->collected, 2);
  std::printf("%d runtimes, %d agents, ADD %d good %d failed or killed, DEL %d, GC %d\n", runtimes, agents, journal_->added.load(), journal_->failed.load(),
              journal_->deleted.load(), journal_->collected.load());
}

INSTANTIATE_TEST_SUITE_P(Wirings, Leak, testing::Values("routed", "bridge"), [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace fairlead::cni
