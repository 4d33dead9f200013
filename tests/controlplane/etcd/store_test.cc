// What only the embedded store promises: opening, durability, files, quota. The data model is tested by kv_suite.
#include "controlplane/etcd/store.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <future>
#include <memory>
#include <thread>

#include "base/files.h"
#include "base/random.h"
#include "tests/controlplane/etcd/testing.h"

namespace fairlead::etcd {
namespace {

Revision put(Store& s, const std::string& key, const std::string& value, LeaseId lease = 0) {
  auto r = await(s.put({.key = key, .value = value, .lease = lease}));
  EXPECT_TRUE(r) << (r ? "" : r.error().message);
  return r ? r->revision : 0;
}
std::string get(Store& s, const std::string& key) {
  auto r = s.range_now({.key = key});
  if (!r) return "error: " + r.error().message;
  return r->kvs.empty() ? "(none)" : r->kvs[0].value;
}

TEST(Store, StartsAtOneAndKeepsWhatItAnswered) {
  TempDir dir;
  {
    auto s = Store::open(dir.path()).value();
    EXPECT_EQ(s->revision(), 1);
    EXPECT_EQ(put(*s, "a", "1"), 2);
    EXPECT_EQ(put(*s, "a", "2"), 3);
    EXPECT_EQ(put(*s, std::string(3000, 'k'), std::string(100'000, 'v')), 4);
    ASSERT_TRUE(await(s->delete_range({.key = "a"})));
    EXPECT_EQ(put(*s, "b", "x", 0), 6);
  }
  for (int i = 0; i < 3; ++i) {
    auto s = Store::open(dir.path()).value();
    EXPECT_EQ(s->revision(), 6);
    EXPECT_EQ(get(*s, "a"), "(none)");
    EXPECT_EQ(get(*s, "b"), "x");
    EXPECT_EQ(get(*s, std::string(3000, 'k')).size(), 100'000u);
    EXPECT_EQ(s->range_now({.key = "a", .revision = 2})->kvs.at(0).value, "1");
  }
}

// Servers hand in what came together. A few are written on the spot, many by the writer; both at once from several threads.
TEST(Store, HandsInFromManyThreads) {
  TempDir dir;
  constexpr int kThreads = 4, kRounds = 100;
  std::atomic<int> answered{0}, on_the_spot{0};
  int expected = 0;
  for (int i = 0; i < kRounds; ++i) expected += kThreads * (1 + i % 7);
  {
    auto s = Store::open(dir.path()).value();
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < kRounds; ++i) {
          const auto me = std::this_thread::get_id();
          s->gather();
          for (int n = 0; n < 1 + i % 7; ++n)
            s->put({.key = fmt::format("{}/{}/{}", t, i, n), .value = "v"}, [&, me](Result<PutResponse> r) {
              answered += r.has_value();
              on_the_spot += std::this_thread::get_id() == me;
            });
          s->hand_in();
          const auto beside = std::make_shared<std::promise<bool>>();
          s->put({.key = "beside", .value = "x"}, [beside](Result<PutResponse> r) { beside->set_value(r.has_value()); });
          EXPECT_TRUE(beside->get_future().get());
        }
      });
    for (auto& t : threads) t.join();
    while (answered < expected) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_GT(on_the_spot, 0);
    EXPECT_LT(on_the_spot, expected);
    EXPECT_EQ(s->revision(), 1 + expected + kThreads * kRounds);
  }
  auto s = Store::open(dir.path()).value();
  EXPECT_EQ(s->range_now({.key = "0", .range_end = "9", .count_only = true})->count, expected);
}

TEST(Store, HandsInNothingAfterItFailed) {
  TempDir dir;
  StoreOptions o;
  std::atomic<bool> broken{false};
  o.wal.sync = [&](int fd) -> Result<> {
    if (broken) return fail(ErrorCode::unavailable, "the disk is gone");
    return ::fdatasync(fd) == 0 ? Result<>() : Result<>(fail_errno(errno, "fdatasync"));
  };
  auto s = Store::open(dir.path(), o).value();
  put(*s, "a", "1");
  broken = true;
  for (int i = 0; i < 2; ++i) {
    const auto answer = std::make_shared<std::promise<std::string>>();  // by this thread, or by the writer if it is just looking at the clock
    s->gather();
    s->put({.key = "a", .value = "2"}, [answer](Result<PutResponse> r) { answer->set_value(r ? "stored" : r.error().message); });
    s->hand_in();
    const auto said = answer->get_future().get();
    EXPECT_NE(said.find("the disk is gone"), std::string::npos) << said;
  }
  EXPECT_EQ(get(*s, "a"), "1");
}

TEST(Store, TwoProcessesCannotOpenOneFolder) {
  TempDir dir;
  auto s = Store::open(dir.path()).value();
  auto second = Store::open(dir.path());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::failed_precondition);
  EXPECT_NE(second.error().message.find("another process"), std::string::npos) << second.error().message;
}

TEST(Store, RefusesAnotherFormat) {
  TempDir dir;
  { ASSERT_TRUE(Store::open(dir.path())); }
  ASSERT_TRUE(write_file_atomic(dir.path() + "/format", "fairlead-etcd 99\n"));
  auto s = Store::open(dir.path());
  ASSERT_FALSE(s);
  EXPECT_NE(s.error().message.find("fairlead-etcd 99"), std::string::npos) << s.error().message;
}

TEST(Store, AFailedFlushStopsWritesAndReadsGoOn) {
  TempDir dir;
  std::atomic<bool> broken{false};
  StoreOptions o;
  o.wal.sync = [&](int) -> Result<> {
    if (broken) return fail_errno(EIO, "flush the write-ahead log");
    return {};
  };
  {
    auto s = Store::open(dir.path(), o).value();
    put(*s, "a", "1");
    broken = true;
    auto r = await(s->put({.key = "a", .value = "2"}));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, ErrorCode::unavailable);
    EXPECT_NE(r.error().message.find("stopped accepting writes"), std::string::npos) << r.error().message;
    broken = false;
    EXPECT_FALSE(await(s->put({.key = "a", .value = "3"}))) << "the first failure is final";
    EXPECT_EQ(get(*s, "a"), "1");
    EXPECT_EQ(s->revision(), 2);
    EXPECT_NE(s->status().failure, "");
  }
}

TEST(Store, LeasesRunOutByTheClockAndSurviveARestart) {
  TempDir dir;
  ManualClock clock;
  StoreOptions o;
  o.clock = &clock;
  LeaseId id;
  {
    auto s = Store::open(dir.path(), o).value();
    id = await(s->lease_grant(10, 0))->id;
    put(*s, "l1", "x", id);
    put(*s, "l2", "y", id);
    clock.advance(std::chrono::seconds(8));
    EXPECT_EQ(await(s->lease_keep_alive(id))->ttl_seconds, 10);
    clock.advance(std::chrono::seconds(9));
    EXPECT_EQ(s->lease_info(id, true).ttl_seconds, 1);
  }
  auto s = Store::open(dir.path(), o).value();
  auto info = s->lease_info(id, true);
  EXPECT_EQ(info.ttl_seconds, 10);
  EXPECT_EQ(info.keys, (std::vector<std::string>{"l1", "l2"}));
  auto w = await(s->watch({.key = "l", .range_end = "m"})).value();
  clock.advance(std::chrono::seconds(11));
  s->wake();
  auto batch = await_for(w->next(), std::chrono::seconds(5));
  ASSERT_TRUE(batch && *batch);
  ASSERT_EQ((*batch)->events.size(), 2u) << "one revision takes all keys of the lease";
  EXPECT_EQ((*batch)->events[0].kv.mod_revision, (*batch)->events[1].kv.mod_revision);
  EXPECT_EQ(s->lease_info(id, false).ttl_seconds, -1);
  EXPECT_EQ(get(*s, "l1"), "(none)");
}

TEST(Store, CompactionFreesRowsAndWatchersHear) {
  TempDir dir;
  StoreOptions o;
  o.flush_interval = std::chrono::milliseconds(5);
  o.keep_recent_bytes = 0;
  auto s = Store::open(dir.path(), o).value();
  for (int round = 0; round < 20; ++round)
    for (int k = 0; k < 100; ++k) put(*s, "k" + std::to_string(k), std::to_string(round));
  const auto last = s->revision();
  ASSERT_TRUE(s->flush());
  ASSERT_TRUE(await(s->compact(last, true)));
  ASSERT_TRUE(s->flush());
  auto old = s->range_now({.key = "k1", .revision = last - 1});
  ASSERT_FALSE(old);
  EXPECT_EQ(old.error().message, "etcdserver: mvcc: required revision has been compacted");
  EXPECT_EQ(get(*s, "k7"), "19");
  auto w = await(s->watch({.key = "k", .range_end = "l", .start_revision = 5})).value();
  auto batch = await_for(w->next(), std::chrono::seconds(5));
  ASSERT_TRUE(batch);
  ASSERT_FALSE(*batch);
  EXPECT_EQ(w->compact_revision(), last);
  std::size_t rows = 0;
  for (int i = 0; i < 200; ++i) {
    rows = 0;
    ASSERT_TRUE(s->scan(1, last, [&](RevKey, const RowView&) -> Result<bool> { ++rows; return true; }));
    if (rows == 100) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(rows, 100u);
}

// Watchers that begin in the past, or fall behind, while writes flow: each sees every event once and in order.
TEST(Store, WatchersCatchUpWhileWritesFlow) {
  TempDir dir;
  StoreOptions o;
  o.flush_interval = std::chrono::milliseconds(1);
  o.flush_bytes = 4096;
  o.keep_recent_bytes = 0;
  o.wal.sync = [](int) { return Result<>{}; };
  auto s = Store::open(dir.path(), o).value();
  constexpr int kWrites = 20'000;
  std::atomic<int> written{0};
  std::function<void()> next = [&] {
    const int i = written;
    s->put({.key = "k" + std::to_string(i % 10), .value = std::to_string(i)}, [&](Result<PutResponse> r) {
      ASSERT_TRUE(r);
      if (++written < kWrites) next();
    });
  };
  next();
  struct Seen {
    std::shared_ptr<Watcher> watcher;
    std::shared_ptr<std::atomic<bool>> ready = std::make_shared<std::atomic<bool>>(true);
    Revision next = 0, step = 1;
  };
  std::vector<Seen> watchers;
  SeededRandom random(7);
  while (watchers.size() < 60 || written < kWrites || std::any_of(watchers.begin(), watchers.end(), [](auto& w) { return w.next < kWrites + 2; })) {
    if (watchers.size() < 60) {
      Seen w;
      w.step = watchers.size() % 2 ? 10 : 1;  // every event, or one in ten: then most of what it reads is not for it
      w.next = 2 + static_cast<Revision>(random.below(static_cast<std::uint64_t>(s->revision())));
      const auto from = w.next;
      if (w.step == 10) w.next = (w.next + 9) / 10 * 10;  // revision r holds key k((r - 2) % 10)
      WatchRequest request{.key = "k", .range_end = "l", .start_revision = from};
      if (w.step == 10) request = {.key = "k8", .start_revision = from};
      w.watcher = s->add_watcher(request, [ready = w.ready] { *ready = true; });
      watchers.push_back(std::move(w));
    }
    for (auto& w : watchers) {
      if (!w.ready->exchange(false)) continue;
      while (auto batch = w.watcher->poll()) {
        ASSERT_TRUE(*batch) << (*batch).error().message;
        for (const auto& e : (*batch)->events) {
          ASSERT_EQ(e.kv.mod_revision, w.next);
          ASSERT_EQ(e.kv.value, std::to_string(w.next - 2));
          w.next += w.step;
        }
        if (random.below(4) == 0) {  // be slow now and then
          *w.ready = true;
          break;
        }
      }
    }
  }
  for (auto& w : watchers) w.watcher->cancel();
}

TEST(Store, QuotaRaisesNoSpaceUntilItIsCleared) {
  TempDir dir;
  StoreOptions o;
  o.quota_bytes = 1 << 20;
  o.flush_interval = std::chrono::milliseconds(5);
  auto s = Store::open(dir.path(), o).value();
  Result<PutResponse> r;
  int written = 0;
  for (; written < 200; ++written) {
    r = await(s->put({.key = "k" + std::to_string(written), .value = std::string(10'000, 'x')}));
    if (!r) break;
  }
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().message, "etcdserver: mvcc: database space exceeded");
  EXPECT_GT(written, 50);
  EXPECT_TRUE(s->status().no_space);
  ASSERT_TRUE(await(s->delete_range({.key = "k", .range_end = "l"}))) << "deleting must still work";
  ASSERT_TRUE(await(s->compact(s->revision(), true)));
  EXPECT_FALSE(await(s->put({.key = "a", .value = "b"}))) << "the alarm stays";
  ASSERT_TRUE(s->flush());  // what is still on its way counts as well
  for (int i = 0; i < 500 && s->status().used_bytes > 200'000; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  s->set_settings({{kAlarmNoSpace, std::nullopt}}, [](Result<Revision>) {});
  EXPECT_TRUE(await(s->put({.key = "a", .value = "b"})));
}

}  // namespace
}  // namespace fairlead::etcd
