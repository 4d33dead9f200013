// A cluster of three real etcd members under the client while writes flow: the leader is killed, a member is frozen (to the
// others it is cut off), and all come back. No acknowledged write may be lost, and a watch must see every revision once.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>

#include "tests/controlplane/etcd/real_etcd.h"

namespace fairlead::etcd {
namespace {

struct Written {
  std::mutex mutex;
  std::map<std::string, std::pair<std::string, Revision>> acknowledged;  // key -> value, revision
  std::atomic<int> failures{0};
  std::atomic<bool> stop{false};
};

Task<> write_keys(std::shared_ptr<Remote> kv, Written& w, int worker) {
  for (int i = 0; !w.stop; ++i) {
    PutRequest p;
    p.key = fmt::format("w/{}/{:06}", worker, i);
    p.value = std::to_string(i);
    auto r = co_await kv->put(p);
    if (r) {
      std::lock_guard lock(w.mutex);
      w.acknowledged[p.key] = {p.value, r->revision};
    } else {
      ++w.failures;  // it may or may not be there: the next key
    }
    auto slept = co_await sleep_for(std::chrono::milliseconds(2));
    if (!slept) co_return;
  }
}

struct Seen {
  std::mutex mutex;
  std::map<std::string, Revision> events;
  std::string error;
  Revision last = 0;
};

Task<> follow(std::shared_ptr<Remote> kv, Written& w, Seen& seen, Revision from) {
  WatchRequest request;
  request.key = "w/";
  request.range_end = "w0";
  request.start_revision = from;
  auto stream = co_await kv->watch(request);
  if (!stream) {
    seen.error = stream.error().message;
    co_return;
  }
  for (;;) {
    auto batch = co_await (*stream)->next();
    std::lock_guard lock(seen.mutex);
    if (!batch) {
      if (!w.stop) seen.error = batch.error().message;
      co_return;
    }
    for (const auto& e : batch->events) {
      if (e.kv.mod_revision < seen.last) seen.error = "an event came out of order";
      if (!seen.events.emplace(e.kv.key, e.kv.mod_revision).second) seen.error = "an event came twice: " + e.kv.key;
      seen.last = e.kv.mod_revision;
      if (e.kv.key == "w/end") co_return;
    }
  }
}

TEST(RealCluster, LeaderKilledMemberFrozenNothingAcknowledgedIsLost) {
  if (!RealEtcd::available()) GTEST_SKIP() << "etcd-server is not installed";
  RealEtcd cluster({.members = 3, .restore = {}});
  auto kv = cluster.connect();
  ASSERT_TRUE(kv);
  const auto begin = await(kv->range({.key = "x"}))->revision;
  Written written;
  Seen seen;
  net::io_context io;
  for (int i = 0; i < 8; ++i) net::co_spawn(io, write_keys(kv, written, i), net::detached);
  net::co_spawn(io, follow(kv, written, seen, begin + 1), net::detached);
  std::thread loop([&] { io.run(); });
  const auto pause = [](int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); };
  const auto leader = [&] {
    for (int i = 0; i < 3; ++i) {
      auto one = Remote::connect({.endpoints = {cluster.url(i)}, .dial_timeout = std::chrono::milliseconds(500), .request_timeout = std::chrono::milliseconds(1000)});
      if (!one) continue;
      auto s = await((*one)->status());
      if (s && s->leader != 0 && s->leader == s->member) return i;
    }
    return -1;
  };
  const auto acknowledged = [&] {
    std::lock_guard lock(written.mutex);
    return written.acknowledged.size();
  };
  const auto goes_on = [&](const char* what) {
    const auto before = acknowledged();
    for (int i = 0; i < 200 && acknowledged() < before + 50; ++i) pause(100);
    EXPECT_GE(acknowledged(), before + 50) << "no writes any more: " << what;
  };
  goes_on("at the beginning");
  for (int round = 0; round < 2; ++round) {
    const int killed = leader();
    ASSERT_GE(killed, 0);
    cluster.kill(killed);
    goes_on("after the leader was killed");
    cluster.start(killed);
    goes_on("after it came back");
    const int frozen = leader();
    ASSERT_GE(frozen, 0);
    cluster.signal(frozen, SIGSTOP);
    pause(3000);
    goes_on("while the leader is cut off");
    cluster.signal(frozen, SIGCONT);
    goes_on("after it came back");
  }
  written.stop = true;
  pause(500);
  std::optional<Result<PutResponse>> end;
  for (int i = 0; i < 50 && !(end && *end); ++i) end = await(kv->put({.key = "w/end", .value = "x"}));
  ASSERT_TRUE(*end) << end->error().message;
  for (int i = 0; i < 100; ++i) {
    std::lock_guard lock(seen.mutex);
    if (seen.events.contains("w/end") || !seen.error.empty()) break;
    pause(100);
  }
  io.stop();
  loop.join();
  EXPECT_EQ(seen.error, "");
  auto all = await(kv->range({.key = "w/", .range_end = "w0"}));
  ASSERT_TRUE(all) << all.error().message;
  std::map<std::string, std::string> there;
  for (const auto& one : all->kvs) there[one.key] = one.value;
  std::size_t unseen = 0;
  for (const auto& [key, value] : written.acknowledged) {
    ASSERT_TRUE(there.contains(key)) << "acknowledged and lost: " << key;
    EXPECT_EQ(there[key], value.first);
    const auto e = seen.events.find(key);
    if (e == seen.events.end() || e->second != value.second) ++unseen;
  }
  EXPECT_EQ(unseen, 0u) << "acknowledged writes that the watch did not see at their revision";
  EXPECT_EQ(seen.events.size(), there.size()) << "the watch saw what is not there, or missed what is";
  std::printf("%zu writes acknowledged, %d failed, %zu events\n", written.acknowledged.size(), written.failures.load(), seen.events.size());
}

}  // namespace
}  // namespace fairlead::etcd
