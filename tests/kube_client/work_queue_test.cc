// Keys to be reconciled: the rules on a clock that the test moves, then the workers on a real loop.
#include "kube/work_queue.h"

#include <gmock/gmock.h>

#include "base/event.h"
#include "kube/key_scheduler.h"
#include "tests/base/asio_test_util.h"

namespace fairlead::kube {
namespace {

using namespace std::chrono_literals;
using fairlead::test::Loop;
using testing::ElementsAre;

struct Keys {
  std::string take() { return scheduler.take(clock.steady()).value_or("-"); }
  ManualClock clock;
  KeyScheduler scheduler;
};

TEST(KeyScheduler, HandsOutEachKeyOnceInOrder) {
  Keys k;
  for (const char* key : {"a", "b", "a", "c", "b"}) k.scheduler.add(key);
  EXPECT_EQ(k.take(), "a");
  EXPECT_EQ(k.take(), "b");
  EXPECT_EQ(k.take(), "c");
  EXPECT_EQ(k.take(), "-");
}

TEST(KeyScheduler, AKeyAddedWhileWorkedOnComesBackOnceAfterwards) {
  Keys k;
  k.scheduler.add("a");
  EXPECT_EQ(k.take(), "a");
  k.scheduler.add("a");
  k.scheduler.add("a");
  EXPECT_EQ(k.take(), "-") << "never two workers on one key";
  k.scheduler.done("a");
  EXPECT_EQ(k.take(), "a");
  k.scheduler.done("a");
  EXPECT_EQ(k.take(), "-");
  EXPECT_EQ(k.scheduler.working(), 0u);
}

TEST(KeyScheduler, FailuresWaitTwiceAsLongEachTimeUpToTheMost) {
  Keys k;
  std::vector<long> waits;
  k.scheduler.add("a");
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(k.take(), "a");
    const auto wait = k.scheduler.failed("a", k.clock.steady());
    waits.push_back(wait.count());
    k.clock.advance(wait - 1ms);
    ASSERT_EQ(k.take(), "-") << "not before its time";
    k.clock.advance(1ms);
  }
  EXPECT_THAT(std::vector<long>(waits.begin(), waits.begin() + 5), ElementsAre(5, 10, 20, 40, 80));
  EXPECT_EQ(waits.back(), 300'000);
  ASSERT_EQ(k.take(), "a");
  k.scheduler.done("a");
  k.scheduler.add("a");
  ASSERT_EQ(k.take(), "a");
  EXPECT_EQ(k.scheduler.failed("a", k.clock.steady()), 5ms) << "a success forgets the failures";
}

TEST(KeyScheduler, DelayedKeysKeepTheEarliestTime) {
  Keys k;
  const auto start = k.clock.steady();
  k.scheduler.add_at("a", start + 10s);
  k.scheduler.add_at("a", start + 5s);
  k.scheduler.add_at("a", start + 20s);
  k.scheduler.add_at("b", start + 7s);
  EXPECT_EQ(k.scheduler.next_due(), start + 5s);
  EXPECT_EQ(k.scheduler.delayed(), 2u);
  k.clock.advance(5s);
  EXPECT_EQ(k.take(), "a");
  EXPECT_EQ(k.take(), "-");
  k.clock.advance(100s);
  EXPECT_EQ(k.take(), "b");
  EXPECT_EQ(k.take(), "-");
  EXPECT_FALSE(k.scheduler.next_due());
}

TEST(KeyScheduler, AFailedKeyThatWasAddedMeanwhileIsReadyAtOnce) {
  Keys k;
  k.scheduler.add("a");
  EXPECT_EQ(k.take(), "a");
  k.scheduler.add("a");
  k.scheduler.failed("a", k.clock.steady());
  EXPECT_EQ(k.take(), "a") << "something changed: no need to wait for the backoff";
}

TEST(WorkQueue, RunsEachKeyAndNeverTwiceAtATime) {
  Loop loop;
  std::map<std::string, int> done;
  int running = 0, most = 0;
  std::set<std::string> now;
  const auto reconcile = [&](std::string key) -> Task<Result<Next>> {
    EXPECT_TRUE(now.insert(key).second) << key << " is worked on twice at a time";
    most = std::max(most, ++running);
    const auto slept = co_await sleep_for(1ms);
    EXPECT_TRUE(slept);
    --running;
    now.erase(key);
    ++done[key];
    co_return Next{};
  };
  WorkQueue queue(loop.executor(), "test", reconcile);
  queue.run(3);
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 10; ++i) queue.add("k" + std::to_string(i));
    loop.idle(2ms);
  }
  loop.idle(50ms);
  EXPECT_EQ(most, 3);
  EXPECT_EQ(done.size(), 10u);
  EXPECT_EQ(queue.depth(), 0u);
  loop.run([&]() -> Task<> { co_await queue.stop(); });
}

TEST(WorkQueue, RetriesErrorsAndExceptionsAndComesAgainWhenAsked) {
  Loop loop;
  std::vector<std::string> story;
  const auto reconcile = [&](std::string key) -> Task<Result<Next>> {
    story.push_back(key);
    if (story.size() == 1) co_return fail(ErrorCode::unavailable, "first");
    if (story.size() == 2) throw std::runtime_error("second");
    if (story.size() == 3) co_return Next{2ms};
    co_return Next{};
  };
  WorkQueue queue(loop.executor(), "test", reconcile);
  queue.run(1);
  queue.add_after("k", 1ms);
  EXPECT_EQ(queue.depth(), 1u);
  loop.idle(200ms);
  EXPECT_THAT(story, ElementsAre("k", "k", "k", "k"));
  loop.run([&]() -> Task<> { co_await queue.stop(); });
}

TEST(WorkQueue, StopWaitsForRunningWorkAndTakesNoMore) {
  Loop loop;
  Event go(loop.executor());
  std::vector<std::string> story;
  const auto reconcile = [&](std::string key) -> Task<Result<Next>> {
    story.push_back("begin " + key);
    co_await go.wait();
    story.push_back("end " + key);
    co_return Next{};
  };
  WorkQueue queue(loop.executor(), "test", reconcile);
  queue.run(1);
  queue.add("a");
  queue.add("b");
  loop.idle(5ms);
  const auto stop = [&]() -> Task<> {
    co_await queue.stop();
    story.push_back("stopped");
  };
  net::co_spawn(loop.context(), stop, net::detached);
  loop.idle(5ms);
  EXPECT_THAT(story, ElementsAre("begin a"));
  go.set();
  loop.idle(5ms);
  EXPECT_THAT(story, ElementsAre("begin a", "end a", "stopped"));
}

TEST(WorkQueue, MayGoWhileWorkIsRunning) {
  Loop loop;
  Event go(loop.executor());
  bool ended = false;
  const auto reconcile = [&](std::string) -> Task<Result<Next>> {
    co_await go.wait();
    ended = true;
    co_return fail(ErrorCode::unavailable, "would be tried again");
  };
  {
    WorkQueue queue(loop.executor(), "test", reconcile);
    queue.run(1);
    queue.add("a");
    loop.idle(5ms);
  }
  go.set();
  loop.idle(50ms);
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace fairlead::kube
