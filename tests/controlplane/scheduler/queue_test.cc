#include "controlplane/scheduler/queue.h"

#include <gtest/gtest.h>

#include "tests/controlplane/scheduler/make.h"

namespace fairlead::scheduler {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct QueueTest : testing::Test {
  SchedulingQueue queue;
  SteadyTime now{};
  std::string pop_name() {
    auto item = queue.pop(now);
    return item ? item->pod->pod->metadata().name() : "";
  }
};

TEST_F(QueueTest, HigherPriorityFirstThenLongerWaiting) {
  queue.add(PodMaker("first").get(), now);
  now += milliseconds(1);
  queue.add(PodMaker("second").get(), now);
  queue.add(PodMaker("urgent").priority(10).get(), now);
  EXPECT_EQ(pop_name(), "urgent");
  EXPECT_EQ(pop_name(), "first");
  EXPECT_EQ(pop_name(), "second");
  EXPECT_EQ(pop_name(), "");
}

TEST_F(QueueTest, UnschedulablePodWaitsForAChangeThatConcernsIt) {
  queue.add(PodMaker("p").get(), now);
  queue.unschedulable(*queue.pop(now), bit(Plugin::node_resources), now);
  const auto yes = [](const PodInfo&) { return true; };
  const auto no = [](const PodInfo&) { return false; };
  now += seconds(2);
  EXPECT_EQ(queue.move(bit(Plugin::taint_toleration), yes, now), 0u) << "a taint does not help a pod that lacks cpu";
  EXPECT_EQ(queue.move(bit(Plugin::node_resources), no, now), 0u) << "the freed cpu is too little";
  EXPECT_EQ(pop_name(), "");
  EXPECT_EQ(queue.move(bit(Plugin::node_resources), yes, now), 1u);
  EXPECT_EQ(pop_name(), "p");
}

TEST_F(QueueTest, BackoffDoublesToItsLimit) {
  queue.add(PodMaker("p").get(), now);
  for (const int expected : {1, 2, 4, 8, 10, 10}) {
    auto item = queue.pop(now);
    ASSERT_TRUE(item);
    queue.retry(std::move(*item), now);
    ASSERT_TRUE(queue.next_wakeup());
    EXPECT_EQ(*queue.next_wakeup() - now, seconds(expected));
    EXPECT_FALSE(queue.pop(now + seconds(expected) - milliseconds(1))) << "after an error it waits its backoff, whatever happens";
    now += seconds(expected);
  }
}

TEST_F(QueueTest, AHelpfulChangeDuringBackoffIsTakenWhenThereIsNothingElse) {
  queue.add(PodMaker("p").get(), now);
  queue.unschedulable(*queue.pop(now), bit(Plugin::node_resources), now);
  queue.move(bit(Plugin::node_resources), [](const PodInfo&) { return true; }, now);
  EXPECT_EQ(queue.backoff(), 1u);
  queue.add(PodMaker("other").get(), now);
  EXPECT_EQ(pop_name(), "other");
  EXPECT_EQ(pop_name(), "p");
}

TEST_F(QueueTest, UnschedulablePodIsTriedAnywayAfterFiveMinutes) {
  queue.add(PodMaker("p").get(), now);
  queue.unschedulable(*queue.pop(now), bit(Plugin::node_resources), now);
  EXPECT_EQ(*queue.next_wakeup() - now, seconds(300));
  now += seconds(300);
  EXPECT_EQ(pop_name(), "p");
}

TEST_F(QueueTest, AnUpdateReplacesThePodWhereItWaits) {
  queue.add(PodMaker("p").get(), now);
  queue.unschedulable(*queue.pop(now), bit(Plugin::node_resources), now);
  queue.add(PodMaker("p").label("seen", "1").get(), now, /*changed=*/false);
  EXPECT_EQ(queue.waiting(), 1u) << "a status change does not help";
  queue.add(PodMaker("p").label("seen", "2").get(), now, /*changed=*/true);
  auto item = queue.pop(now);
  ASSERT_TRUE(item);
  EXPECT_EQ(item->pod->pod->metadata().labels().at("seen"), "2");
  EXPECT_EQ(item->attempts, 2);
}

TEST_F(QueueTest, RemovedPodsDoNotComeBack) {
  for (const char* name : {"a", "b", "c"}) queue.add(PodMaker(name).get(), now);
  queue.unschedulable(*queue.pop(now), 0, now);
  queue.retry(*queue.pop(now), now);
  for (const char* name : {"a", "b", "c"}) queue.remove(std::string("uid-default-") + name);
  now += seconds(1000);
  EXPECT_EQ(pop_name(), "");
  EXPECT_FALSE(queue.next_wakeup());
}

// Whatever happens, a pod is in exactly one place, and every pod that is neither removed nor out comes out in the end.
TEST_F(QueueTest, RandomHistoriesLoseNoPod) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SeededRandom random(seed);
    SchedulingQueue q;
    std::set<std::string> alive;
    SteadyTime t{};
    for (int step = 0; step < 200; ++step) {
      t += milliseconds(random.below(1500));
      const std::string name = "p" + std::to_string(random.below(10));
      switch (random.below(5)) {
        case 0:
          q.add(PodMaker(name).priority(static_cast<int>(random.below(3))).get(), t, random.below(2));
          alive.insert("uid-default-" + name);
          break;
        case 1:
          q.remove("uid-default-" + name);
          alive.erase("uid-default-" + name);
          break;
        case 2: q.move(bit(Plugin::node_ports), [&](const PodInfo&) { return random.below(2) == 0; }, t); break;
        default:
          if (auto item = q.pop(t)) {
            if (random.below(3) == 0) alive.erase(item->pod->uid());
            else if (random.below(2)) q.retry(std::move(*item), t);
            else q.unschedulable(std::move(*item), bit(Plugin::node_ports), t);
          }
      }
      ASSERT_EQ(q.active() + q.backoff() + q.waiting(), alive.size()) << "seed " << seed;
    }
    t += seconds(1000);
    while (auto item = q.pop(t)) ASSERT_EQ(alive.erase(item->pod->uid()), 1u) << "seed " << seed;
    EXPECT_TRUE(alive.empty()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace fairlead::scheduler
