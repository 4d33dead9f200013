// The lab survives what a person or the kernel does to it: a dead node, a dead supervisor, an interrupted `up`.
#include <signal.h>

#include "lab/state.h"
#include "tests/e2e/lab.h"

namespace fairlead::e2e {
namespace {

using namespace std::chrono_literals;

lab::State state() {
  auto s = lab::load_state(lab::kDefaultStateDir);
  EXPECT_TRUE(s) << s.error().message;
  return s.value_or(lab::State{});
}

TEST(Recovery, DeadSupervisorIsReplacedByTheNextUpAndNodesLiveOn) {
  const auto before = state();
  ASSERT_EQ(::kill(before.supervisor.pid, SIGKILL), 0);
  ASSERT_TRUE(eventually(5s, [&] { return !lab::alive(before.supervisor); }));
  const auto told = run({"fairlead", "status"});
  EXPECT_EQ(told.code, 1);
  EXPECT_NE(told.out.find("supervisor not running"), std::string::npos) << told;
  const auto up = run({"fairlead", "up"});
  EXPECT_TRUE(up.ok()) << up;
  const auto after = state();
  EXPECT_TRUE(lab::alive(after.supervisor));
  EXPECT_EQ(after.node_inits, before.node_inits) << "a node was restarted";
}

TEST(Recovery, DeadNodeComesBackLikeAMachineThatReboots) {
  ASSERT_TRUE(kubectl({"create", "deployment", "reboot", "--image=fairlead.local/demo:1", "--replicas=2"}).ok());
  ASSERT_TRUE(kubectl({"rollout", "status", "deployment/reboot", "--timeout=60s"}).ok());
  const auto before = state().node_inits["worker-1"];
  ASSERT_EQ(::kill(before.pid, SIGKILL), 0);
  EXPECT_TRUE(eventually(20s, [&] { const auto now = state().node_inits["worker-1"]; return lab::alive(now) && !(now == before); }));
  EXPECT_TRUE(eventually(60s, [&] { return run({"fairlead", "status"}).code == 0; })) << run({"fairlead", "status"});
  EXPECT_TRUE(eventually(60s, [&] { return kubectl({"get", "deployment", "reboot"}).out.find("2/2") != std::string::npos; }))
      << kubectl({"get", "pods", "-o", "wide"}) << kubectl({"get", "events"});
  kubectl({"delete", "deployment", "reboot"});
}

}  // namespace
}  // namespace fairlead::e2e
