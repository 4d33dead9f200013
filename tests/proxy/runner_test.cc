// The sync runner between a state and a dataplane that does what the test says: when it applies, what it applies again after
// a failure, and that nothing is released before the kernel has confirmed it.
#include "proxy/runner.h"

#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <deque>
#include <mutex>

#include "tests/proxy/world.h"

namespace fairlead::proxy {
namespace {

using namespace std::chrono_literals;
using testing::make_endpoints;
using testing::make_service;

class ScriptedDataplane final : public Dataplane {
 public:
  std::string_view name() const override { return "scripted"; }
  Result<ApplyReport> apply(const PlanDelta& delta) override {
    const std::lock_guard lock(mutex_);
    seen_.push_back(delta);
    if (answers_.empty()) return ApplyReport{};
    auto r = std::move(answers_.front());
    answers_.pop_front();
    return r;
  }
  Result<> remove_all_owned() override { return {}; }
  Result<std::vector<Drift>> verify(const Plan&) override { return std::vector<Drift>{}; }
  Result<Decision> trace(const Packet&) override { return Decision{}; }
  Result<std::vector<Traffic>> traffic() override { return std::vector<Traffic>{}; }
  std::string render_text(const Plan&) const override { return {}; }
  void on_foreign_change(std::function<void()> handler) override { foreign = std::move(handler); }

  void answer(Result<ApplyReport> r) {
    const std::lock_guard lock(mutex_);
    answers_.push_back(std::move(r));
  }
  void fail_next(int times) {
    for (int i = 0; i < times; ++i) answer(fairlead::fail(ErrorCode::unavailable, "EBUSY"));
  }
  std::vector<PlanDelta> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  std::function<void()> foreign;

 private:
  mutable std::mutex mutex_;
  std::vector<PlanDelta> seen_;
  std::deque<Result<ApplyReport>> answers_;
};

class RunnerTest : public ::testing::Test {
 protected:
  void make(RunnerOptions o = {}) {
    o.retry_interval = 20ms;
    runner = std::make_unique<SyncRunner>(io.get_executor(), dataplane, state, planner, SystemClock::get(), o);
    runner->on_synced([this](const SyncResult& r) {
      ++(r.report ? good : bad);
      times.insert(times.end(), r.trigger_times.begin(), r.trigger_times.end());
    });
  }
  void service(const std::string& name, const std::string& ip) { state.set_service("default/" + name, make_service(name, ip)); }
  void endpoints(const std::string& name, const std::vector<std::string>& ips, std::optional<WallTime> when = {}) {
    std::vector<testing::Pod> pods;
    for (const auto& ip : ips) pods.push_back({ip, "n1"});
    const auto all = make_endpoints(pods);
    Slice s = all->slices.empty() ? Slice{} : *all->slices[0];
    s.name = name + "-1";
    state.set_slice("default/" + s.name, std::pair{"default/" + name, s}, when);
  }
  bool until(std::function<bool()> f) {
    for (int i = 0; i < 4000 && !f(); ++i) {
      io.restart();
      io.run_for(5ms);
    }
    return f();
  }
  // Long enough that what should not happen would have happened on any but a very slow machine.
  void idle() {
    for (int i = 0; i < 5; ++i) {
      io.restart();
      io.run_for(5ms);
    }
  }
  static std::string keys(const PlanDelta& d) {
    std::string s = d.full ? "full" : "";
    for (const auto& [key, plan] : d.services) s += (s.empty() ? "" : " ") + (plan ? "" : "-" + std::string()) + std::string(name_of(key));
    return s;
  }

  net::io_context io{1};
  net::executor_work_guard<net::io_context::executor_type> work = net::make_work_guard(io);  // the worker posts back from its own thread
  ScriptedDataplane dataplane;
  ProxyState state;
  Planner planner{testing::global_plan(), testing::node_facts()};
  std::unique_ptr<SyncRunner> runner;
  std::size_t good = 0, bad = 0;
  std::vector<WallTime> times;
};

TEST_F(RunnerTest, NothingIsAppliedBeforeItBegins) {
  make();
  service("a", "10.96.1.1");
  runner->notify();
  idle();
  EXPECT_TRUE(dataplane.seen().empty());
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  EXPECT_EQ(keys(dataplane.seen()[0]), "full a");
  EXPECT_FALSE(runner->busy());
}

TEST_F(RunnerTest, AStormIsOneCommit) {
  make();
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  service("a", "10.96.1.1");
  for (int i = 0; i < 1000; ++i) {
    endpoints("a", {"10.0.0." + std::to_string(i % 200 + 1)});
    runner->notify();
  }
  ASSERT_TRUE(until([&] { return good == 2; }));
  idle();
  ASSERT_EQ(dataplane.seen().size(), 2u);
  EXPECT_EQ(keys(dataplane.seen()[1]), "a");
}

TEST_F(RunnerTest, AFailedDeltaComesAgainTogetherWithWhatIsNew) {
  make();
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  dataplane.fail_next(1);
  service("a", "10.96.1.1");
  const WallTime when = WallTime{} + std::chrono::hours(1);
  endpoints("a", {"10.0.0.1"}, when);
  runner->notify();
  ASSERT_TRUE(until([&] { return bad == 1; }));
  EXPECT_TRUE(runner->busy());
  EXPECT_TRUE(times.empty()) << "not programmed yet";
  service("b", "10.96.1.2");
  runner->notify();
  ASSERT_TRUE(until([&] { return good == 2; }));
  EXPECT_EQ(keys(dataplane.seen()[2]), "a b");
  EXPECT_EQ(times, std::vector<WallTime>{when});
  EXPECT_FALSE(runner->busy());
  // Confirmed: the next one has only what is new.
  service("c", "10.96.1.3");
  runner->notify();
  ASSERT_TRUE(until([&] { return good == 3; }));
  EXPECT_EQ(keys(dataplane.seen().back()), "c");
}

TEST_F(RunnerTest, WhatIsDeletedWhileItFailsIsDeletedInTheEnd) {
  make();
  service("a", "10.96.1.1");
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  dataplane.fail_next(1);
  service("b", "10.96.1.2");
  runner->notify();
  ASSERT_TRUE(until([&] { return bad == 1; }));
  state.set_service("default/a", std::nullopt);
  state.set_service("default/b", std::nullopt);
  runner->notify();
  ASSERT_TRUE(until([&] { return good == 2; }));
  // b may be half in the kernel for all we know, so it is named, too.
  EXPECT_EQ(keys(dataplane.seen().back()), "-a -b");
}

TEST_F(RunnerTest, AFailedFullSyncStaysFullAndIsTriedUntilItWorks) {
  make();
  dataplane.fail_next(6);
  service("a", "10.96.1.1");
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  EXPECT_EQ(bad, 6u);
  for (const auto& d : dataplane.seen()) EXPECT_EQ(keys(d), "full a");
}

TEST_F(RunnerTest, WhatWasBroughtInReachesAfterApplyOnceAndOnlyOnSuccess) {
  make();
  std::mutex mutex;
  std::vector<std::string> brought;
  runner->after_apply([&](const std::vector<Planner::Change>& changes, const NodeFacts& node) {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(node.name, "n1");
    for (const auto& c : changes) brought.push_back(c.key);
  });
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  dataplane.fail_next(2);
  service("a", "10.96.1.1");
  runner->notify();
  ASSERT_TRUE(until([&] { return bad == 2; }));
  {
    const std::lock_guard lock(mutex);
    EXPECT_TRUE(brought.empty());
  }
  ASSERT_TRUE(until([&] { return good == 2; }));
  const std::lock_guard lock(mutex);
  EXPECT_EQ(brought, std::vector<std::string>{"default/a"});
}

TEST_F(RunnerTest, WhenAskedItCallsAgainWithNothing) {
  make();
  ApplyReport again;
  again.call_again = true;
  dataplane.answer(again);
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 2; }));
  EXPECT_EQ(keys(dataplane.seen()[1]), "");
}

TEST_F(RunnerTest, ForeignChangesAndTimeLeadToFullComparisons) {
  RunnerOptions o;
  o.full_interval = 30ms;
  make(o);
  service("a", "10.96.1.1");
  runner->begin();
  ASSERT_TRUE(until([&] { return good >= 2; }));
  EXPECT_TRUE(dataplane.seen()[1].relist);
  EXPECT_EQ(keys(dataplane.seen()[1]), "full a");
  const auto before = good;
  dataplane.foreign();
  ASSERT_TRUE(until([&] { return good > before; }));
  EXPECT_EQ(keys(dataplane.seen().back()), "full a");
}

TEST_F(RunnerTest, ChangesWithinTheMinimumIntervalGoOutTogether) {
  RunnerOptions o;
  o.min_interval = 200ms;
  make(o);
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  service("a", "10.96.1.1");
  runner->notify();
  io.restart();
  io.poll();
  service("b", "10.96.1.2");
  runner->notify();
  ASSERT_TRUE(until([&] { return good == 2; }));
  // On a machine that slept for 200 ms in between there would be three; then the first has a alone.
  EXPECT_TRUE(keys(dataplane.seen()[1]) == "a b" || keys(dataplane.seen()[1]) == "a");
}

TEST_F(RunnerTest, AFlapThatReturnsBeforeItWasTakenIsNothing) {
  make();
  service("a", "10.96.1.1");
  endpoints("a", {"10.0.0.1"});
  runner->begin();
  ASSERT_TRUE(until([&] { return good == 1; }));
  endpoints("a", {"10.0.0.2"});
  endpoints("a", {"10.0.0.1"});
  EXPECT_FALSE(state.pending());
}

}  // namespace
}  // namespace fairlead::proxy
