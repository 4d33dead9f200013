// A disk that is really full (a small tmpfs): writes are refused with etcd's own error, nothing that was answered is lost, reads
// and watches go on, and when there is space again and the alarm is cleared, so do writes. Needs root, for the mount.
#include <gtest/gtest.h>

#include <unistd.h>

#include <map>
#include <thread>

#include "controlplane/etcd/store.h"
#include "tests/controlplane/etcd/testing.h"
#include "tests/controlplane/etcd/tmpfs.h"

namespace fairlead::etcd {
namespace {

constexpr char kNoSpaceText[] = "etcdserver: mvcc: database space exceeded";

struct Written {
  std::map<std::string, Revision> acknowledged;
  std::map<std::string, int> errors;
  int after_refusal = 0;
};

// Many at once, each until it has been refused some times.
Task<> fill(Store& store, Written& w, int worker, std::size_t bytes) {
  for (int i = 0, refused = 0; refused < 5 && i < 100'000; ++i) {
    PutRequest p;
    p.key = fmt::format("k/{}/{:05}", worker, i);
    p.value = std::string(bytes, static_cast<char>('a' + i % 26));
    const auto key = p.key;
    auto r = co_await store.put(std::move(p));
    if (r) {
      w.acknowledged[key] = r->revision;
      w.after_refusal += refused > 0;
    } else {
      ++w.errors[r.error().message];
      ++refused;
    }
  }
}

void expect_all_there(Store& store, const Written& w) {
  RangeRequest all;
  all.key = "k/";
  all.range_end = "k0";
  const auto found = store.range_now(all);
  ASSERT_TRUE(found) << found.error().message;
  std::map<std::string, const KeyValue*> there;
  for (const auto& kv : found->kvs) there[kv.key] = &kv;
  for (const auto& [key, revision] : w.acknowledged) {
    ASSERT_TRUE(there.contains(key)) << "acknowledged and lost: " << key;
    EXPECT_EQ(there[key]->mod_revision, revision);
  }
}

class DiskFull : public ::testing::TestWithParam<std::size_t> {};

TEST_P(DiskFull, WritesAreRefusedReadsGoOnSpaceBringsItBack) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount a tmpfs";
  TempDir dir;
  Tmpfs disk(dir.path(), 72);
  Written w;
  {
    auto store = Store::open(dir.path()).value();
    net::io_context io;
    for (int i = 0; i < 64; ++i) net::co_spawn(io, fill(*store, w, i, GetParam()), net::detached);
    io.run();
    EXPECT_GT(w.acknowledged.size() * GetParam(), 10u << 20);
    ASSERT_EQ(w.errors.size(), 1u) << w.errors.begin()->first << ", " << w.errors.rbegin()->first;
    EXPECT_EQ(w.errors.begin()->first, kNoSpaceText);
    EXPECT_EQ(w.after_refusal, 0) << "the alarm stays up";
    EXPECT_TRUE(store->status().no_space);
    EXPECT_EQ(store->status().failure, "");
    expect_all_there(*store, w);
    // A watch reads the history from the full disk, and deletes are taken.
    WatchRequest history;
    history.key = "k/";
    history.range_end = "k0";
    history.start_revision = 2;
    auto stream = await(store->watch(history));
    ASSERT_TRUE(stream);
    std::size_t events = 0;
    while (events < w.acknowledged.size()) {
      auto batch = await((*stream)->next());
      ASSERT_TRUE(batch) << batch.error().message;
      events += batch->events.size();
    }
    EXPECT_EQ(events, w.acknowledged.size());
    DeleteRangeRequest del;
    del.key = w.acknowledged.begin()->first;
    ASSERT_TRUE(await(store->delete_range(del)));
    w.acknowledged.erase(w.acknowledged.begin());
    EXPECT_FALSE(await(store->put({.key = "more", .value = "x"})));
    // Space, and the alarm cleared.
    disk.resize(256);
    bool flushed = false;
    for (int i = 0; i < 600 && !flushed; ++i) {
      flushed = store->flush().has_value();
      if (!flushed) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    ASSERT_TRUE(flushed) << "it tries again by itself";
    EXPECT_FALSE(await(store->put({.key = "more", .value = "x"}))) << "only the operator clears the alarm";
    store->set_settings({{kAlarmNoSpace, std::nullopt}}, [](Result<Revision>) {});
    const auto put = await(store->put({.key = "more", .value = "x"}));
    EXPECT_TRUE(put) << put.error().message;
    expect_all_there(*store, w);
  }
  auto again = Store::open(dir.path());
  ASSERT_TRUE(again) << again.error().message;
  expect_all_there(**again, w);
}

TEST_P(DiskFull, KilledWhileFullHasEverythingAfterwards) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount a tmpfs";
  TempDir dir;
  Tmpfs disk(dir.path(), 72);
  Written w;
  TempDir copy;
  Tmpfs other(copy.path(), 512);
  {
    auto store = Store::open(dir.path()).value();
    net::io_context io;
    for (int i = 0; i < 64; ++i) net::co_spawn(io, fill(*store, w, i, GetParam()), net::detached);
    io.run();
    // What a crash at this moment would leave.
    std::filesystem::copy(dir.path(), copy.path(), std::filesystem::copy_options::recursive);
  }
  auto again = Store::open(copy.path());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE((*again)->status().no_space) << "the alarm is stored";
  expect_all_there(**again, w);
  // On the disk that still is full: it opens and can be read, or says why not.
  auto full = Store::open(dir.path());
  if (full)
    expect_all_there(**full, w);
  else
    EXPECT_EQ(full.error().code, ErrorCode::resource_exhausted) << full.error().message;
}

INSTANTIATE_TEST_SUITE_P(Values, DiskFull, ::testing::Values(1'000, 100'000));

}  // namespace
}  // namespace fairlead::etcd
