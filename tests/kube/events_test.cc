#include "kube/events.h"

#include <gtest/gtest.h>

namespace fairlead::kube {
namespace {

using std::chrono::seconds;

corev1::ObjectReference pod(const std::string& name = "web-1") {
  corev1::ObjectReference r;
  r.set_kind("Pod");
  r.set_namespace_("default");
  r.set_name(name);
  r.set_uid("uid-" + name);
  return r;
}

struct EventCorrelatorTest : testing::Test {
  EventCorrelator correlator{"kubelet", "n1"};
  SteadyTime steady{};
  WallTime wall{seconds(1'800'000'000)};
  std::optional<EventWrite> see(const std::string& reason, const std::string& message, const corev1::ObjectReference& about = pod()) {
    return correlator.observe(about, "Warning", reason, message, steady, wall);
  }
};

TEST_F(EventCorrelatorTest, ANewEventIsComplete) {
  const auto w = see("BackOff", "restarting");
  ASSERT_TRUE(w);
  EXPECT_TRUE(w->create);
  EXPECT_TRUE(w->event.metadata().name().starts_with("web-1.")) << w->event.metadata().name();
  EXPECT_EQ(w->event.metadata().namespace_(), "default");
  EXPECT_EQ(w->event.involvedobject().uid(), "uid-web-1");
  EXPECT_EQ(w->event.type(), "Warning");
  EXPECT_EQ(w->event.reason(), "BackOff");
  EXPECT_EQ(w->event.message(), "restarting");
  EXPECT_EQ(w->event.source().component(), "kubelet");
  EXPECT_EQ(w->event.source().host(), "n1");
  EXPECT_EQ(w->event.count(), 1);
  EXPECT_EQ(w->event.firsttimestamp().seconds(), 1'800'000'000);
}

TEST_F(EventCorrelatorTest, TheSameAgainRaisesTheCount) {
  const std::string name = see("BackOff", "restarting")->event.metadata().name();
  wall += seconds(10);
  const auto again = see("BackOff", "restarting");
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->create);
  EXPECT_EQ(again->event.metadata().name(), name);
  EXPECT_EQ(again->event.count(), 2);
  EXPECT_EQ(again->event.firsttimestamp().seconds(), 1'800'000'000);
  EXPECT_EQ(again->event.lasttimestamp().seconds(), 1'800'000'010);
  EXPECT_TRUE(see("BackOff", "another message")->create);
  EXPECT_TRUE(see("BackOff", "restarting", pod("web-2"))->create) << "another object";
}

TEST_F(EventCorrelatorTest, ManyMessagesWithOneReasonAreCombined) {
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(see("Unhealthy", "probe " + std::to_string(i))->create);
  const auto first = see("Unhealthy", "probe 10");
  EXPECT_TRUE(first->create);
  EXPECT_EQ(first->event.message(), "(combined from similar events): probe 10");
  const auto second = see("Unhealthy", "probe 11");
  EXPECT_FALSE(second->create);
  EXPECT_EQ(second->event.message(), "(combined from similar events): probe 11") << "the last one is shown";
  EXPECT_EQ(second->event.count(), 2);
  steady += seconds(601);
  EXPECT_EQ(see("Unhealthy", "probe 12")->event.message(), "probe 12") << "after ten quiet minutes they stand alone again";
}

TEST_F(EventCorrelatorTest, OneObjectHasABurstAndThenARate) {
  int written = 0;
  for (int i = 0; i < 100; ++i) written += see("Failed", "same").has_value();
  EXPECT_EQ(written, 25);
  EXPECT_TRUE(see("Failed", "same", pod("web-2"))) << "another object has a burst of its own";
  steady += seconds(300);
  EXPECT_TRUE(see("Failed", "same"));
  EXPECT_FALSE(see("Failed", "same"));
}

TEST_F(EventCorrelatorTest, MemoryIsBounded) {
  for (int i = 0; i < 20'000; ++i) see("Failed", "m", pod("p" + std::to_string(i)));
  EXPECT_LE(correlator.size(), 4096u);
}

TEST_F(EventCorrelatorTest, AnEventThatWasLostIsCreatedAgain) {
  const auto w = see("BackOff", "restarting");
  correlator.forget(w->key);
  EXPECT_TRUE(see("BackOff", "restarting")->create);
}

TEST_F(EventCorrelatorTest, LongMessagesAndClusterObjects) {
  auto node = pod("n1");
  node.set_kind("Node");
  node.clear_namespace_();
  const auto w = see("NodeNotReady", std::string(5000, 'x'), node);
  EXPECT_EQ(w->event.metadata().namespace_(), "default");
  EXPECT_EQ(w->event.message().size(), 1024u);
}

}  // namespace
}  // namespace fairlead::kube
