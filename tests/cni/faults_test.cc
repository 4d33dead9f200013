// The plugin fails, or is killed, at every step of an ADD; a DEL afterwards leaves nothing. The steps are counted by the
// port, so a new step is covered without a new row.
#include <gtest/gtest.h>
#include <signal.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>

#include <filesystem>
#include <random>
#include <thread>

#include "cni/gc.h"
#include "cni/nat/layout.h"
#include "netlink/rt_socket.h"
#include "nftables/kernel_netlink.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

enum class Fault { none, fail_before, fail_after, kill_before, kill_after };

// Passes calls on; at the n-th apply (from 1) it does what is asked for.
class FaultyKernel final : public Kernel {
 public:
  FaultyKernel(std::unique_ptr<Kernel> inner, Fault fault, int at, int* applied) : inner_(std::move(inner)), fault_(fault), at_(at), applied_(applied) {}
  CniResult<> apply(const Step& s) override {
    const bool now = ++*applied_ == at_;
    if (now && fault_ == Fault::kill_before) ::kill(::getpid(), SIGKILL);
    if (now && fault_ == Fault::fail_before) return cni_fail(Code::kernel, "injected before {}", to_string(s));
    auto done = inner_->apply(s);
    if (now && fault_ == Fault::kill_after) ::kill(::getpid(), SIGKILL);
    if (now && fault_ == Fault::fail_after) return cni_fail(Code::kernel, "injected after {}", to_string(s));
    return done;
  }
  CniResult<> undo(const Step& s) override { return inner_->undo(s); }
  CniResult<Observed> observe(const std::string& a, const std::string& b) override { return inner_->observe(a, b); }
  CniResult<> settle() override { return inner_->settle(); }
  CniResult<bool> nat_present(const PodNat& n) override { return inner_->nat_present(n); }
  CniResult<std::vector<netlink::Link>> host_links() override { return inner_->host_links(); }
  CniResult<> set_loopback(bool up) override { return inner_->set_loopback(up); }
  CniResult<bool> loopback_up() override { return inner_->loopback_up(); }

 private:
  std::unique_ptr<Kernel> inner_;
  Fault fault_;
  int at_;
  int* applied_;
};

Services with_fault(Fault fault, int at, int* applied) {
  Services s = real_services();
  s.open_kernel = [=](const std::string& netns) -> CniResult<std::unique_ptr<Kernel>> {
    auto inner = open_kernel(netns);
    if (!inner) return cni_fail(inner.error());
    return std::make_unique<FaultyKernel>(std::move(*inner), fault, at, applied);
  };
  return s;
}

class Faults : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    host_.emplace(std::move(*NetNs::create()));
    rt_.emplace(std::move(*RtSocket::open_in(host_->fd())));
    folder_ = fmt::format("/run/fairlead-faults-{}", getpid());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Each pod has host ports of its own: a forgotten one keeps them for a minute.
  std::string conf(const std::string& id) const {
    const int port = 20000 + static_cast<int>(ports_.emplace(id, ports_.size()).first->second);
    return fmt::format(R"({{"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni","wiring":"{0}","hairpinMode":true,"ipMasq":true,"sysctl":{{"net.ipv4.conf.IFNAME.arp_filter":"1"}},
      "ipam":{{"ranges":[[{{"subnet":"10.244.0.0/16"}}],[{{"subnet":"fd00:10:244::/64"}}]],"dataDir":"{1}"}},
      "hostsDir":"{1}/hosts","runtimeConfig":{{"aliases":["db"],"portMappings":[{{"HostPort":{2},"ContainerPort":80,"Protocol":"tcp"}},{{"HostPort":{2},"ContainerPort":53,"Protocol":"udp","HostIP":"127.0.0.1"}}],"bandwidth":{{"IngressRate":8000000,"IngressBurst":800000,"EgressRate":8000000,"EgressBurst":800000}}}}}})", GetParam(), folder_, port);
  }
  PluginCall call(const std::string& id, const NetNs& pod, Services s = real_services()) const {
    return {.host_fd = host_->fd(), .id = id, .netns = path_of(pod), .conf = conf(id), .services = std::move(s)};
  }
  std::string leftovers() { return cni::leftovers(*host_, folder_, "pods", folder_ + "/hosts/pods"); }

  std::optional<NetNs> host_;
  std::optional<RtSocket> rt_;
  std::string folder_;
  mutable std::map<std::string, std::size_t> ports_;
};

TEST_P(Faults, AFailedAddLeavesNothingByItself) {
  int steps = 0;
  {
    const NetNs pod = *NetNs::create();
    ASSERT_EQ(call("count", pod, with_fault(Fault::none, 0, &steps)).run("ADD").exit_code, 0);
    ASSERT_EQ(call("count", pod).run("DEL").exit_code, 0);
  }
  ASSERT_GE(steps, 7);
  for (int at = 1; at <= steps; ++at)
    for (const Fault fault : {Fault::fail_before, Fault::fail_after}) {
      const NetNs pod = *NetNs::create();
      int applied = 0;
      const Outcome o = call("c1", pod, with_fault(fault, at, &applied)).run("ADD");
      EXPECT_EQ(o.exit_code, 1) << at;
      EXPECT_NE(o.out.find("injected"), std::string::npos) << o.out;
      EXPECT_EQ(leftovers(), "") << "step " << at << ": " << o.out;
      EXPECT_FALSE(*RtSocket::open_in(pod.fd())->find_link("eth0"));
      EXPECT_EQ(call("c1", pod).run("DEL").exit_code, 0);
    }
}

TEST_P(Faults, DelUndoesAnAddThatWasKilled) {
  int steps = 0;
  {
    const NetNs pod = *NetNs::create();
    ASSERT_EQ(call("count", pod, with_fault(Fault::none, 0, &steps)).run("ADD").exit_code, 0);
    ASSERT_EQ(call("count", pod).run("DEL").exit_code, 0);
  }
  for (int at = 1; at <= steps; ++at)
    for (const Fault fault : {Fault::kill_before, Fault::kill_after}) {
      const NetNs pod = *NetNs::create();
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        int applied = 0;
        const Outcome o = call("c1", pod, with_fault(fault, at, &applied)).run("ADD");
        ::_exit(o.exit_code == 0 ? 0 : 9);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "step " << at;
      EXPECT_NE(leftovers(), "") << "the killed ADD had at least an address";
      EXPECT_EQ(call("c1", pod).run("DEL").exit_code, 0);
      EXPECT_EQ(leftovers(), "") << "step " << at;
      // And the container can be attached again.
      EXPECT_EQ(call("c1", pod).run("ADD").exit_code, 0);
      EXPECT_EQ(call("c1", pod).run("DEL").exit_code, 0);
      EXPECT_EQ(leftovers(), "");
    }
}

// The real program, killed at random moments of ADD and DEL, and runtimes that forget pods altogether.
TEST_P(Faults, RandomKillsLeaveNothing) {
  const char* bin = std::getenv("FAIRLEAD_BIN");
  if (bin == nullptr) GTEST_SKIP() << "FAIRLEAD_BIN is not set";
  const std::string program = std::string(bin) + "/fairlead-cni";
  const char* seed_text = std::getenv("SEED");
  const unsigned seed = seed_text ? static_cast<unsigned>(std::stoul(seed_text)) : std::random_device{}();
  SCOPED_TRACE(fmt::format("SEED={}", seed));
  std::mt19937 random(seed);
  std::set<std::string> forgotten;
  int killed = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  for (int n = 0; std::chrono::steady_clock::now() < until; ++n) {
    const NetNs pod = *NetNs::create();
    const std::string id = fmt::format("pod{}", n), netns = path_of(pod);
    const auto start = [&](const char* verb, std::optional<std::chrono::microseconds> kill_after) {
      const std::string text = conf(id);
      const pid_t child = ::fork();
      if (child == 0) {
        ::setns(host_->fd(), CLONE_NEWNET);
        int fds[2];
        if (::pipe(fds) != 0) ::_exit(8);
        if (::write(fds[1], text.data(), text.size()) != static_cast<ssize_t>(text.size())) ::_exit(8);
        ::close(fds[1]);
        ::dup2(fds[0], 0);
        ::dup2(::open("/dev/null", O_WRONLY), 1);
        for (const auto& [k, v] : std::map<std::string, std::string>{{"CNI_COMMAND", verb}, {"CNI_CONTAINERID", id}, {"CNI_NETNS", netns}, {"CNI_IFNAME", "eth0"}, {"CNI_PATH", "/x"}})
          ::setenv(k.c_str(), v.c_str(), 1);
        ::execl(program.c_str(), program.c_str(), nullptr);
        ::_exit(8);
      }
      if (kill_after) {
        std::this_thread::sleep_for(*kill_after);
        ::kill(child, SIGKILL);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      if (WIFSIGNALED(status)) ++killed;
      return status;
    };
    const auto moment = [&] { return std::chrono::microseconds(random() % 6000); };
    if (random() % 2) {
      start("ADD", moment());
    } else {
      const int status = start("ADD", std::nullopt);
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "an ADD after all this still works";
    }
    const auto choice = random() % 4;
    if (choice == 0) {
      forgotten.insert(id);  // the runtime died and never calls DEL; the namespace goes with this iteration
      continue;
    }
    if (choice == 1) start("DEL", moment());
    const int last = start("DEL", std::nullopt);
    EXPECT_TRUE(WIFEXITED(last) && WEXITSTATUS(last) == 0);
  }
  EXPECT_GT(killed, 2);
  // What the forgotten ones left is found by the collector: their links go with the namespaces, their leases are orphans.
  // The kernel takes namespaces down in the background.
  std::string left;
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] {
      auto store = LeaseStore::open_existing(folder_, "pods", *current_scope());
      ASSERT_TRUE(store && *store);
      auto kernel = open_kernel("");
      const auto collected = collect_invalid(**kernel, &**store, "pods", {}, boot_time_now());
      ASSERT_TRUE(collected.has_value());
      EXPECT_TRUE(collected->failed.empty());
    }));
    left = leftovers();
    if (left.empty()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(left, "");
}

INSTANTIATE_TEST_SUITE_P(Wirings, Faults, testing::Values("routed", "bridge"), [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace fairlead::cni
