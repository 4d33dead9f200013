// Moving between the embedded store and a real etcd, both ways, by snapshot: the same keys, revisions, history and hash.
#include <gtest/gtest.h>

#include "controlplane/etcd/snapshot.h"
#include "tests/controlplane/etcd/real_etcd.h"

namespace fairlead::etcd {
namespace {

CommandOutput run(std::vector<std::string> argv) {
  ProcessOptions o;
  o.argv = std::move(argv);
  o.environment = {"PATH=/usr/bin:/bin", "ETCDCTL_API=3", "HOME=/tmp"};
  auto r = run_command(o);
  EXPECT_TRUE(r) << r.error().message;
  return r ? *r : CommandOutput{};
}

// Some of everything: versions, deletions, a lease, odd keys, a compaction in the middle.
template <typename Put, typename Delete, typename Compact>
void fill(Put put, Delete remove, Compact compact) {
  for (int i = 0; i < 300; ++i) put("/registry/pods/default/p" + std::to_string(i % 100), std::string("k8s\0", 4) + std::string(static_cast<std::size_t>(i) * 20, 'x'));
  for (int i = 0; i < 40; i += 3) remove("/registry/pods/default/p" + std::to_string(i));
  compact(200);
  put(std::string("\0\xff", 2), "odd");
  put(std::string(3000, 'l'), "long");
  remove("/registry/pods/default/p99");
}

// "http://127.0.0.1:1234, 4231" from hashkv.
std::string hash_of(const std::string& endpoint) {
  const auto out = run({etcd_tool("etcdctl"), "--endpoints", endpoint, "endpoint", "hashkv"});
  return out.stdout_text.substr(out.stdout_text.find(", ") + 2);
}

void expect_same(Kv& kv, Store& store) {
  const RangeRequest all{.key = std::string(1, '\0'), .range_end = std::string(1, '\0')};
  const auto now = store.revision();
  for (Revision r : {now, now - 1, now - 10, store.compacted()}) {
    auto request = all;
    request.revision = r;
    auto theirs = await(kv.range(request));
    ASSERT_TRUE(theirs) << r << ": " << theirs.error().message;
    auto ours = store.range_now(request);
    ASSERT_TRUE(ours) << r << ": " << ours.error().message;
    EXPECT_EQ(theirs->kvs, ours->kvs) << "at revision " << r;
    EXPECT_EQ(theirs->revision, ours->revision);
  }
}

class Migration : public testing::Test {
 protected:
  void SetUp() override {
    if (!RealEtcd::available()) GTEST_SKIP() << "etcd-server or etcd-client is not installed";
  }
};

TEST_F(Migration, FromEtcdIntoTheEmbeddedStore) {
  RealEtcd etcd;
  auto kv = etcd.connect();
  ASSERT_TRUE(kv);
  fill([&](std::string k, std::string v) { ASSERT_TRUE(await(kv->put({.key = k, .value = v}))); },
       [&](std::string k) { ASSERT_TRUE(await(kv->delete_range({.key = k}))); },
       [&](Revision r) { ASSERT_TRUE(await(kv->compact(r, true))); });
  const auto lease = await(kv->lease_grant(600, 0))->id;
  ASSERT_TRUE(await(kv->put({.key = "leased", .value = "x", .lease = lease})));
  TempDir dir;
  const auto file = dir.path() + "/snapshot.db";
  ASSERT_TRUE(run({etcd_tool("etcdctl"), "--endpoints", etcd.url(0), "snapshot", "save", file}).status.ok());
  auto imported = import_snapshot(file, dir.path() + "/store");
  ASSERT_TRUE(imported) << imported.error().message;
  auto store = Store::open(dir.path() + "/store").value();
  EXPECT_EQ(store->compacted(), 200);
  expect_same(*kv, *store);
  EXPECT_EQ(std::to_string(hash_kv(*store, 0)->hash) + "\n", hash_of(etcd.url(0)));
  EXPECT_EQ(store->lease_info(lease, true).keys, (std::vector<std::string>{"leased"}));
  const auto before = store->revision();
  EXPECT_EQ(await(store->put({.key = "after", .value = "x"}))->revision, before + 1);
}

TEST_F(Migration, FromTheEmbeddedStoreIntoEtcd) {
  TempDir dir;
  auto store = Store::open(dir.path() + "/store").value();
  fill([&](std::string k, std::string v) { ASSERT_TRUE(await(store->put({.key = k, .value = v}))); },
       [&](std::string k) { ASSERT_TRUE(await(store->delete_range({.key = k}))); },
       [&](Revision r) { ASSERT_TRUE(await(store->compact(r, true))); });
  const auto file = dir.path() + "/snapshot.db";
  ASSERT_TRUE(write_snapshot(*store, file));
  RealEtcd etcd({.members = 1, .restore = file});
  auto kv = etcd.connect();
  ASSERT_TRUE(kv);
  expect_same(*kv, *store);
  EXPECT_EQ(std::to_string(hash_kv(*store, 0)->hash) + "\n", hash_of(etcd.url(0)));
  auto old = await(kv->range({.key = "/registry/pods/default/p1", .revision = 100}));
  ASSERT_FALSE(old);
  EXPECT_EQ(old.error().message, "etcdserver: mvcc: required revision has been compacted");
}

}  // namespace
}  // namespace fairlead::etcd
