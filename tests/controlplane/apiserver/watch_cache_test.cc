// The watch cache by itself: snapshots, history, selectors that are entered and left, slow watchers, waiting for a revision;
// and with the feeder and the embedded store.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <filesystem>
#include <thread>

#include "controlplane/apiserver/encode.h"
#include "controlplane/apiserver/registry/strategies.h"
#include "controlplane/apiserver/storage/cache_feeder.h"
#include "controlplane/apiserver/storage/storage.h"
#include "controlplane/etcd/store.h"
#include "kube/codec.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "tests/base/asio_test_util.h"

namespace fairlead::apiserver {
namespace {

using fairlead::test::Loop;

const Resource& pods() {
  static const Resources* r = new Resources(ClusterFacts{});
  return *r->find("", "v1", "pods");
}

EntryPtr pod(std::string name, etcd::Revision revision, std::string node = {}, std::string app = {}, std::string ns = "default") {
  corev1::Pod p;
  p.mutable_metadata()->set_name(name);
  p.mutable_metadata()->set_namespace_(ns);
  if (!app.empty()) (*p.mutable_metadata()->mutable_labels())["app"] = app;
  if (!node.empty()) p.mutable_spec()->set_nodename(node);
  return make_entry(pods(), pods().key(ns, name), revision, p);
}

Selection select(std::string labels = {}, std::string fields = {}, std::string ns = {}, std::string name = {}) {
  auto s = Selection::make(pods(), ns, name, *kube::LabelSelector::parse(labels), *kube::FieldSelector::parse(fields));
  EXPECT_TRUE(s) << s.error().message;
  return *s;
}

// "ADDED a@5 DELETED b@6", and " closed" at the end of a subscription.
std::string drain(Watcher& w) {
  const auto d = w.drain();
  std::string out;
  for (const auto& i : d.items) out += fmt::format("{}{} {}@{}", out.empty() ? "" : " ", to_string(i.type), i.object->name, i.object->revision);
  return out + (d.closed ? " closed" : "");
}

struct Fixture : ::testing::Test {
  Loop loop;
  ManualClock clock;
  CacheOptions options;
  std::shared_ptr<WatchCache> cache;

  void SetUp() override { remake(); }
  void remake() {
    cache = std::make_shared<WatchCache>(pods(), clock, options);
    cache->reset({pod("a", 3, "n1", "web"), pod("b", 4, "n2", "db"), pod("c", 2, "n1", "web", "other")}, 5);
  }
  void put(EntryPtr e) {
    const auto revision = e->revision;
    std::vector<WatchCache::Write> w;
    w.push_back({e->key, e, revision});
    cache->apply(std::move(w), revision);
  }
  void del(std::string name, etcd::Revision revision, std::string ns = "default") {
    std::vector<WatchCache::Write> w;
    w.push_back({pods().key(ns, name), nullptr, revision});
    cache->apply(std::move(w), revision);
  }
  std::unique_ptr<Watcher> watch(Selection s, etcd::Revision after, bool initial = false) {
    WatchCache::WatchSpec spec{std::move(s), after, initial};
    auto w = cache->watch(loop.executor(), std::move(spec));
    EXPECT_TRUE(w) << (w ? "" : w.error().message);
    return w ? std::move(*w) : nullptr;
  }
  std::string names(const WatchCache::Page& p) {
    std::string out;
    for (const auto& e : p.items) out += (out.empty() ? "" : " ") + e->name;
    return out;
  }
};

TEST_F(Fixture, ListsAreSnapshotsWithPagesAndSelectors) {
  EXPECT_EQ(names(cache->list(select())), "a b c");
  EXPECT_EQ(names(cache->list(select("", "", "default"))), "a b");
  EXPECT_EQ(names(cache->list(select("app=web"))), "a c");
  EXPECT_EQ(names(cache->list(select("app!=web"))), "b");
  EXPECT_EQ(names(cache->list(select("", "spec.nodeName=n1"))), "a c");
  EXPECT_EQ(names(cache->list(select("", "spec.nodeName!=n1"))), "b");
  EXPECT_EQ(names(cache->list(select("", "metadata.name=b"))), "b");
  EXPECT_EQ(names(cache->list(select("", "metadata.namespace=other"))), "c");
  const auto page = cache->list(select(), 2);
  EXPECT_EQ(names(page), "a b");
  EXPECT_TRUE(page.more);
  EXPECT_EQ(page.remaining, 1);
  EXPECT_EQ(page.revision, 5);
  EXPECT_EQ(page.last_key, "/registry/pods/default/b");
  const auto bad = Selection::make(pods(), "", "", {}, *kube::FieldSelector::parse("spec.hostname=x"));
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message, "field label not supported: spec.hostname");
}

TEST_F(Fixture, WatchFromARevisionSeesWhatFollows) {
  auto w = watch(select(), 5);
  EXPECT_EQ(drain(*w), "");
  put(pod("d", 6));
  put(pod("a", 7, "n2", "web"));
  del("b", 8);
  EXPECT_EQ(drain(*w), "ADDED d@6 MODIFIED a@7 DELETED b@8");
  // A later watcher gets from history what it missed, and nothing else.
  auto late = watch(select(), 6);
  EXPECT_EQ(drain(*late), "MODIFIED a@7 DELETED b@8");
  auto now = watch(select(), 8);
  EXPECT_EQ(drain(*now), "");
  // From the future: silence until then.
  auto future = watch(select(), 10);
  put(pod("e", 9));
  put(pod("f", 10));
  put(pod("g", 11));
  EXPECT_EQ(drain(*future), "ADDED g@11");
}

TEST_F(Fixture, InitialStateThenChanges) {
  auto w = watch(select("", "", "default"), 0, true);
  ASSERT_EQ(w->initial.size(), 2u);
  EXPECT_EQ(w->initial_revision, 5);
  put(pod("d", 6));
  put(pod("x", 7, "", "", "other"));
  EXPECT_EQ(drain(*w), "ADDED d@6");
}

TEST_F(Fixture, EnteringAndLeavingASelector) {
  auto web = watch(select("app=web"), 5);
  auto n2 = watch(select("", "spec.nodeName=n2"), 5);
  put(pod("a", 6, "n1", "db"));     // leaves app=web
  put(pod("b", 7, "n2", "web"));    // enters app=web, stays on n2
  put(pod("b", 8, "n3", "web"));    // leaves n2
  put(pod("a", 9, "n2", "db"));     // enters n2
  del("a", 10);
  EXPECT_EQ(drain(*web), "DELETED a@6 ADDED b@7 MODIFIED b@8");
  EXPECT_EQ(drain(*n2), "MODIFIED b@7 DELETED b@8 ADDED a@9 DELETED a@10");
  EXPECT_EQ(cache->watcher_count(), 2u);
  n2.reset();
  EXPECT_EQ(cache->watcher_count(), 1u);
}

TEST_F(Fixture, ADeletionShowsTheLastStateAtItsOwnRevision) {
  auto w = watch(select("app=web"), 5);
  del("a", 9);
  const auto d = w->drain();
  ASSERT_EQ(d.items.size(), 1u);
  const auto object = decode_entry(pods(), *d.items[0].object);
  EXPECT_EQ(meta_of(*object).resourceversion(), "9");
  EXPECT_EQ(meta_of(*object).labels().at("app"), "web");
}

TEST_F(Fixture, HistoryIsBoundedAndOldWatchesAreRefused) {
  options.min_history = 3;
  options.history_age = std::chrono::seconds(75);
  remake();
  EXPECT_FALSE(cache->watch(loop.executor(), {select(), 4, false}));  // before the list it was made from
  for (int i = 6; i < 16; ++i) put(pod("p" + std::to_string(i), i));
  EXPECT_TRUE(watch(select(), 5));  // young enough
  clock.advance(std::chrono::seconds(80));
  put(pod("q", 16));
  const auto old = cache->watch(loop.executor(), {select(), 5, false});
  ASSERT_FALSE(old);
  EXPECT_EQ(old.error().code, 410);
  EXPECT_EQ(old.error().reason, "Expired");
  EXPECT_EQ(old.error().message, "too old resource version: 5 (14)");
  auto young = watch(select(), 13);
  EXPECT_EQ(drain(*young), "ADDED p14@14 ADDED p15@15 ADDED q@16");
}

TEST_F(Fixture, ASlowWatcherIsClosedNotBufferedForEver) {
  options.max_queued = 3;
  remake();
  auto slow = watch(select(), 5);
  auto quick = watch(select(), 5);
  for (int i = 6; i < 9; ++i) put(pod("p", i));
  EXPECT_EQ(drain(*quick), "ADDED p@6 MODIFIED p@7 MODIFIED p@8");
  put(pod("p", 9));
  EXPECT_EQ(drain(*slow), " closed");
  EXPECT_EQ(drain(*quick), "MODIFIED p@9");
}

TEST_F(Fixture, ARebuildClosesWatchers) {
  auto w = watch(select(), 5);
  auto indexed = watch(select("", "spec.nodeName=n1"), 5);
  cache->reset({pod("z", 20)}, 21);
  EXPECT_EQ(drain(*w), " closed");
  EXPECT_EQ(drain(*indexed), " closed");
  EXPECT_EQ(names(cache->list(select())), "z");
}

TEST_F(Fixture, RevisionMovesWithOtherCollections) {
  cache->apply({}, 9);
  EXPECT_EQ(cache->revision(), 9);
  bool reached = true, timed_out = false;
  loop.run([&]() -> Task<> {
    timed_out = !co_await cache->wait_for(12, std::chrono::milliseconds(5));
    reached = co_await cache->wait_for(9, std::chrono::seconds(1));
  });
  EXPECT_TRUE(timed_out);
  EXPECT_TRUE(reached);
}

TEST_F(Fixture, WaitersAreWokenFromAnotherThread) {
  bool reached = false;
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    put(pod("w", 30));
  });
  loop.run([&]() -> Task<> { reached = co_await cache->wait_for(30, std::chrono::seconds(10)); });
  writer.join();
  EXPECT_TRUE(reached);
}

TEST_F(Fixture, BytesAreMadeOnceForAllWatchers) {
  auto a = watch(select(), 5), b = watch(select("app=web"), 5);
  put(pod("a", 6, "n1", "web"));
  const auto x = a->drain(), y = b->drain();
  ASSERT_EQ(x.items[0].frames, y.items[0].frames);
  int made = 0;
  const auto make = [&] { return std::to_string(++made); };
  const auto first = x.items[0].frames->get({&pods(), 1}, make);
  EXPECT_EQ(y.items[0].frames->get({&pods(), 1}, make), first);
  EXPECT_NE(y.items[0].frames->get({&pods(), 2}, make), first);
  EXPECT_EQ(made, 2);
}

// ---- with the store

struct WithStore : ::testing::Test {
  std::string dir;
  std::unique_ptr<etcd::Store> store;
  Loop loop;
  Resources resources{ClusterFacts{}};
  std::shared_ptr<WatchCache> cache;
  std::unique_ptr<CacheFeeder> feeder;
  std::unique_ptr<Storage> storage;
  net::cancellation_signal cancel;
  bool running = false;

  void SetUp() override {
    char path[] = "/tmp/fairlead-watch-cache-XXXXXX";
    dir = ::mkdtemp(path);
    auto opened = etcd::Store::open(dir);
    ASSERT_TRUE(opened) << opened.error().message;
    store = std::move(*opened);
    auto& r = resource();
    cache = std::make_shared<WatchCache>(r, SystemClock::get(), CacheOptions{});
    r.cache = cache;
    feeder = std::make_unique<CacheFeeder>(*store, "/registry", std::vector{cache});
    storage = std::make_unique<Storage>(*store, "/registry", SystemClock::get());
    running = true;
    net::co_spawn(loop.context(), feeder->run(), net::bind_cancellation_slot(cancel.slot(), [this](std::exception_ptr) { running = false; }));
  }
  void TearDown() override {
    feeder->stop();
    cancel.emit(net::cancellation_type::terminal);
    while (running) loop.idle(std::chrono::milliseconds(10));
    store.reset();
    std::filesystem::remove_all(dir);
  }
  Resource& resource() {
    for (auto& r : resources.all())
      if (r->kind->kind == "ConfigMap") return *r;
    std::abort();
  }
  std::unique_ptr<Message> config_map(const std::string& name, const std::string& value) {
    auto o = resource().make();
    EXPECT_TRUE(kube::from_json(fmt::format(R"({{"metadata":{{"name":"{}","namespace":"default"}},"data":{{"k":"{}"}}}})", name, value), *o));
    return o;
  }
};

TEST_F(WithStore, WritesReachTheCacheAndListsAreConsistent) {
  loop.run([&]() -> Task<> {
    const auto& r = resource();
    for (int i = 0; i < 20; ++i) {
      const auto name = "c" + std::to_string(i);
      const auto object = config_map(name, "v");
      auto made = co_await storage->create(r, r.key("default", name), *object, std::chrono::seconds(0));
      if (!made) throw std::runtime_error(made.error().message);
      auto revision = co_await storage->current_revision();
      auto fresh = co_await feeder->ensure_fresh(cache, *revision);
      EXPECT_TRUE(fresh);
      EXPECT_EQ(cache->size(), static_cast<std::size_t>(i + 1));  // own write is seen at once
      EXPECT_NE(cache->get(r.key("default", name)), nullptr);
    }
    const auto again = config_map("c3", "v");
    auto twice = co_await storage->create(r, r.key("default", "c3"), *again, std::chrono::seconds(0));
    EXPECT_FALSE(twice);
    if (!twice) { EXPECT_EQ(twice.error().message, "configmaps \"c3\" already exists"); }
  });
}

TEST_F(WithStore, ARevisionOfForeignKeysIsReachedByProgress) {
  loop.run([&]() -> Task<> {
    etcd::PutRequest put;
    put.key = "/elsewhere/x";
    put.value = "y";
    auto done = co_await store->put(put);
    auto fresh = co_await feeder->ensure_fresh(cache, done->revision);
    EXPECT_TRUE(fresh) << (fresh ? "" : fresh.error().message);
    auto never = co_await feeder->ensure_fresh(cache, done->revision + 100);
    EXPECT_FALSE(never);
    if (!never) {
      EXPECT_EQ(never.error().code, 504);
      EXPECT_EQ(never.error().message, fmt::format("Timeout: Too large resource version: {}, current: {}", done->revision + 100, done->revision));
    }
  });
}

TEST_F(WithStore, UpdatesRetryOnConflictAndSkipNoChange) {
  loop.run([&]() -> Task<> {
    const auto& r = resource();
    const auto key = r.key("default", "a");
    const auto object = config_map("a", "0");
    auto made = co_await storage->create(r, key, *object, std::chrono::seconds(0));
    int calls = 0;
    // A stale copy is tried first, fails in the transaction, and the change is applied to the newer object.
    auto first = co_await storage->get(r, key, "a");
    const auto stale = make_entry(r, key, first->revision, *first->object);
    const Storage::Transform set_one = [&](const Message* current) -> ApiResult<Storage::Outcome> {
      ++calls;
      Storage::Outcome o;
      o.put = clone(*current);
      (*mutable_meta_of(*o.put).mutable_labels())["n"] = std::to_string(calls);
      return o;
    };
    auto one = co_await storage->update(r, key, "a", set_one, nullptr);
    EXPECT_TRUE(one && one->written);
    calls = 10;
    auto two = co_await storage->update(r, key, "a", set_one, stale);
    EXPECT_TRUE(two && two->written);
    EXPECT_EQ(calls, 12);  // once on the stale copy, once on the real one
    const Storage::Transform same = [](const Message* current) -> ApiResult<Storage::Outcome> {
      Storage::Outcome o;
      o.put = clone(*current);
      return o;
    };
    auto unchanged = co_await storage->update(r, key, "a", same, nullptr);
    EXPECT_TRUE(unchanged && !unchanged->written);
    EXPECT_EQ(unchanged->stored.revision, two->stored.revision);
    auto missing = co_await storage->update(r, r.key("default", "b"), "b", [](const Message*) -> ApiResult<Storage::Outcome> {
      return Storage::Outcome{};
    }, nullptr);
    EXPECT_FALSE(missing);
  });
}

}  // namespace
}  // namespace fairlead::apiserver
