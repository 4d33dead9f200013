// The program in iptables mode: rules without a cluster, traces from the kernel, and clean-up of ours and of kube-proxy's.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/process.h"
#include "iptables/dataplane.h"
#include "tests/proxy/testnet.h"
#include "tests/proxy/world.h"

namespace fairlead::iptables {
namespace {

using namespace proxy::testing;
using ::testing::HasSubstr;
using ::testing::Not;

class Command : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testnet::available()) GTEST_SKIP() << "needs root";
    const char* bin = std::getenv("FAIRLEAD_BIN");
    ASSERT_TRUE(bin) << "FAIRLEAD_BIN names the folder of the programs";
    program_ = std::string(bin) + "/fairlead";
  }
  CommandOutput run(const testnet::Namespace& ns, std::vector<std::string> arguments) const {
    ProcessOptions o;
    o.argv = std::move(arguments);
    o.argv.insert(o.argv.begin(), program_);
    o.netns = fmt::format("/proc/self/fd/{}", ns.fd());
    auto out = run_command(o, {}, std::chrono::minutes(2));
    if (!out) ADD_FAILURE() << out.error().message;
    return out.value_or(CommandOutput{});
  }
  static std::string everything(const testnet::Namespace& ns) {
    return ns.sh("for t in iptables ip6tables; do for b in nft legacy; do $t-$b-save 2>/dev/null | grep -E '^-A|^:.* - ' || true; done; done").value_or("failed");
  }

 private:
  std::string program_;
};

// kube-proxy's rules in iptables mode and in ipvs mode, as far as cleaning up is concerned; what follows is not its.
constexpr const char* kLeft = R"(*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-NODE-PORT - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A KUBE-SERVICES -d 10.96.0.77/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SEP-AAAAAAAAAAAAAAAA -s 10.9.9.9/32 -j KUBE-MARK-MASQ
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-NODE-PORT -j KUBE-LOAD-BALANCER
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -j KUBE-IPVS-FILTER
COMMIT
)";

TEST_F(Command, CleanupRemovesOursAndKubeProxysFromBothIptables) {
  for (const std::string backend : {"nft", "legacy"}) {
    testnet::Namespace ns;
    (void)ns.sh(fmt::format("iptables-{}-restore --noflush <<'END'\n{}END\n", backend, kLeft));
    ns.in([&] {
      auto d = open_dataplane({.backend = backend == "nft" ? Backend::legacy : Backend::nft});
      ASSERT_TRUE(d) << d.error().message;
    });
    const auto done = run(ns, {"proxy", "--cleanup", "--proxy-mode=iptables"});
    EXPECT_TRUE(done.status.ok()) << done.stderr_text;
    EXPECT_EQ(everything(ns), ":KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n") << backend;
  }
}

TEST_F(Command, CleanupInAnotherModeRemovesTheseRulesToo) {
  testnet::Namespace ns;
  ns.in([&] {
    auto d = open_dataplane({.backend = Backend::nft});
    ASSERT_TRUE(d) << d.error().message;
    ASSERT_TRUE((*d)->apply(plan(world()).full_delta()));
  });
  EXPECT_THAT(everything(ns), HasSubstr("KUBE-SVC-"));
  const auto done = run(ns, {"proxy", "--cleanup", "--proxy-mode=nftables"});
  EXPECT_TRUE(done.status.ok()) << done.stderr_text;
  EXPECT_EQ(everything(ns), "");
}

TEST_F(Command, TraceTellsTheRules) {
  testnet::Namespace ns;
  ns.in([&] {
    auto d = open_dataplane({.backend = Backend::legacy});
    ASSERT_TRUE(d) << d.error().message;
    ASSERT_TRUE((*d)->apply(plan(world()).full_delta()));
  });
  const auto out = run(ns, {"trace", "10.244.0.2", "10.96.0.22:80", "--interface=pod2", "--proxy-mode=iptables"});
  EXPECT_TRUE(out.status.ok()) << out.stderr_text;
  EXPECT_THAT(out.stdout_text, HasSubstr("nat KUBE-SERVICES: -d 10.96.0.22/32 -p tcp -m tcp --dport 80 -m comment --comment \"default/one cluster IP\" -j KUBE-SVC-"));
  EXPECT_THAT(out.stdout_text, HasSubstr("10.244.0.2:8080"));
}

TEST_F(Command, BadBackendIsRefusedByName) {
  testnet::Namespace ns;
  const auto out = run(ns, {"proxy", "--cleanup", "--proxy-mode=iptables", "--iptables-backend=nftables"});
  EXPECT_EQ(out.status.code, 2);
  EXPECT_THAT(out.stderr_text, HasSubstr("iptables-backend: \"nftables\" is not auto, nft or legacy"));
}

TEST_F(Command, PlanPrintsTheRulesOfThisMode) {
  testnet::Namespace ns;
  const auto out = run(ns, {"proxy", "plan", "--rules", "--proxy-mode=iptables", "-f", "tests/iptables/plan.yaml"});
  EXPECT_TRUE(out.status.ok()) << out.stderr_text;
  EXPECT_THAT(out.stdout_text, HasSubstr("-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -m comment --comment \"default/web:http cluster IP\" -j KUBE-SVC-"));
  EXPECT_THAT(out.stdout_text, HasSubstr("-j DNAT --to-destination 10.244.0.2:8080"));
  EXPECT_EQ(everything(ns), "") << "no kernel is touched";
}

}  // namespace
}  // namespace fairlead::iptables
