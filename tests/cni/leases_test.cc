// The rules of leases, on the map model and on the real store: every row runs on both.
#include "cni/ipam/leases.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "cni/ipam/lmdb_book.h"

namespace fairlead::cni {
namespace {

class MapBook final : public LeaseBook {
 public:
  Result<std::optional<Lease>> find(const IpAddress& ip) override {
    const auto it = leases.find(ip);
    return it == leases.end() ? std::optional<Lease>() : std::optional<Lease>(it->second);
  }
  Result<std::vector<IpAddress>> held_by(const Owner& o) override {
    std::vector<IpAddress> out;
    for (const auto& [ip, l] : leases)
      if (!l.released && l.owner == o) out.push_back(ip);
    return out;
  }
  Result<> put(const Lease& l) override {
    leases[l.ip] = l;
    return {};
  }
  Result<> erase(const IpAddress& ip) override {
    leases.erase(ip);
    return {};
  }
  Result<std::optional<IpAddress>> last_of(Family f) override { return last.contains(f) ? std::optional(last[f]) : std::nullopt; }
  Result<> set_last(const IpAddress& ip) override {
    last[ip.family()] = ip;
    return {};
  }
  Result<std::vector<Lease>> all() override {
    std::vector<Lease> out;
    for (const auto& [ip, l] : leases) out.push_back(l);
    return out;
  }
  Result<std::optional<std::string>> record(const Owner& o) override { return records.contains(o) ? std::optional(records[o]) : std::nullopt; }
  Result<> set_record(const Owner& o, const std::string& text) override {
    if (text.empty()) records.erase(o);
    else records[o] = text;
    return {};
  }
  Result<std::vector<Owner>> recorded() override {
    std::vector<Owner> out;
    for (const auto& [o, text] : records) out.push_back(o);
    return out;
  }
  std::map<IpAddress, Lease> leases;
  std::map<Family, IpAddress> last;
  std::map<Owner, std::string> records;
};

// One transaction on either book.
class Books : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!GetParam()) return;
    folder_ = std::filesystem::temp_directory_path() / ("fairlead-leases-" + std::to_string(getpid()));
    auto s = LeaseStore::open(folder_, "net", {.boot_id = "boot", .netns_inode = 1});
    ASSERT_TRUE(s) << s.error().msg;
    store_.emplace(std::move(*s));
  }
  void TearDown() override {
    store_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  template <typename F>
  auto in(F work) {
    if (store_) return store_->write(work);
    MapBook copy = map_;
    auto r = work(static_cast<LeaseBook&>(copy));
    if (r) map_ = copy;
    return r;
  }
  CniResult<std::vector<Allocation>> add(const std::string& id, std::vector<std::string> wanted = {}) {
    AllocationRequest q{.owner = {id, "eth0"}, .netns = "/n/" + id, .now = now_, .reuse_delay = BootTime(1000)};
    for (const auto& w : wanted) q.wanted.push_back(*IpAddress::parse(w));
    return in([&](LeaseBook& b) { return allocate(b, sets_, q); });
  }
  std::string got(const std::string& id, std::vector<std::string> wanted = {}) {
    const auto r = add(id, std::move(wanted));
    if (!r) return "error " + std::to_string(static_cast<unsigned>(r.error().code));
    std::string out;
    for (const auto& a : *r) out += (out.empty() ? "" : " ") + a.ip.to_string();
    return out;
  }
  std::size_t del(const std::string& id) {
    const auto r = in([&](LeaseBook& b) { return release(b, {id, "eth0"}, now_); });
    EXPECT_TRUE(r.has_value());
    return r->size();
  }
  void ranges(const std::string& text) {
    const auto doc = parse_json(R"({"r":)" + text + "}");
    sets_ = *parse_range_sets(Field(*doc).get("r"));
  }

  std::string folder_;
  std::optional<LeaseStore> store_;
  MapBook map_;
  std::vector<RangeSet> sets_;
  BootTime now_{1'000'000};
};

TEST_P(Books, AddressesGoRoundAndRest) {
  ranges(R"([[{"subnet":"10.0.0.0/29"}]])");
  EXPECT_EQ(got("a"), "10.0.0.2");
  EXPECT_EQ(got("b"), "10.0.0.3");
  EXPECT_EQ(del("a"), 1u);
  EXPECT_EQ(got("c"), "10.0.0.4") << "a freed address is not the next one";
  EXPECT_EQ(got("d"), "10.0.0.5");
  EXPECT_EQ(got("e"), "10.0.0.6");
  EXPECT_EQ(got("f"), "error 11") << "the only free one rests: try again later";
  now_ += BootTime(1000);
  EXPECT_EQ(got("f"), "10.0.0.2");
  EXPECT_EQ(got("g"), "error 102") << "all in use";
  EXPECT_EQ(del("nobody"), 0u);
  EXPECT_EQ(del("c"), 1u);
  EXPECT_EQ(del("c"), 0u);
}

TEST_P(Books, OneOwnerOneLease) {
  ranges(R"([[{"subnet":"10.0.0.0/24"}]])");
  EXPECT_EQ(got("a"), "10.0.0.2");
  EXPECT_EQ(got("a"), "error 101");
  del("a");
  EXPECT_EQ(got("a"), "10.0.0.3");
}

TEST_P(Books, RequestedAddresses) {
  ranges(R"([[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]])");
  EXPECT_EQ(got("a", {"10.0.0.77"}), "10.0.0.77 fd00::2");
  EXPECT_EQ(got("b", {"10.0.0.77"}), "error 102") << "in use";
  EXPECT_EQ(got("b", {"192.168.0.1"}), "error 7") << "in no range";
  EXPECT_EQ(got("b", {"10.0.0.1"}), "error 7") << "the gateway";
  EXPECT_EQ(got("b", {"10.0.0.5", "10.0.0.6"}), "error 7") << "two of one set";
  EXPECT_EQ(got("b", {"fd00::9", "10.0.0.9"}), "10.0.0.9 fd00::9");
  EXPECT_EQ(got("c"), "10.0.0.2 fd00::3") << "requests do not move the round, failures leave nothing";
  del("a");
  EXPECT_EQ(got("d", {"10.0.0.77"}), "10.0.0.77 fd00::4") << "asked for by name, it need not rest";
}

TEST_P(Books, AFailureInTheSecondSetLeavesNothingOfTheFirst) {
  ranges(R"([[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/126"}]])");
  EXPECT_EQ(got("a"), "10.0.0.2 fd00::2");
  EXPECT_EQ(got("b"), "10.0.0.3 fd00::3");
  EXPECT_EQ(got("c"), "error 102");
  del("a");
  now_ += BootTime(1000);
  EXPECT_EQ(got("c"), "10.0.0.4 fd00::2");
}

TEST_P(Books, OrphansGoButNotYoungOnes) {
  ranges(R"([[{"subnet":"10.0.0.0/24"}]])");
  got("old");
  got("alive");
  now_ += BootTime(60'000);
  got("young");
  const auto freed = in([&](LeaseBook& b) { return release_orphans(b, now_, BootTime(30'000), [](const Lease& l) { return l.owner.container_id != "alive"; }); });
  ASSERT_TRUE(freed);
  ASSERT_EQ(freed->size(), 1u);
  EXPECT_EQ(freed->at(0).owner.container_id, "old");
  EXPECT_EQ(got("old"), "10.0.0.5") << "its lease is gone, so it may have one again";
}

TEST_P(Books, RecordsBelongToOwners) {
  const auto set = [&](const Owner& o, const std::string& text) { return in([&](LeaseBook& b) { return lift(b.set_record(o, text), Code::io_failure); }).has_value(); };
  const auto get = [&](const Owner& o) { return *in([&](LeaseBook& b) { return lift(b.record(o), Code::io_failure); }); };
  const Owner a{"a", "eth0"}, b{"a", "eth1"};
  EXPECT_TRUE(set(a, "one") && set(b, "two"));
  EXPECT_EQ(get(a), "one");
  EXPECT_EQ(get(b), "two");
  EXPECT_EQ(*in([&](LeaseBook& k) { return lift(k.recorded(), Code::io_failure); }), (std::vector<Owner>{a, b}));
  EXPECT_TRUE(set(a, "") && set(a, ""));
  EXPECT_EQ(get(a), std::nullopt);
  EXPECT_EQ(*in([&](LeaseBook& k) { return lift(k.recorded(), Code::io_failure); }), (std::vector<Owner>{b}));
}

// The real store against the model, with random calls from a seed.
TEST(Store, BehavesLikeTheModel) {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    const std::string folder = std::filesystem::temp_directory_path() / fmt::format("fairlead-model-{}-{}", getpid(), seed);
    auto store = LeaseStore::open(folder, "net", {.boot_id = "b", .netns_inode = seed});
    ASSERT_TRUE(store) << store.error().msg;
    MapBook model;
    const auto doc = parse_json(R"({"r":[[{"subnet":"10.0.0.0/27"},{"subnet":"10.0.9.0/28"}],[{"subnet":"fd00::/122"}]]})");
    const auto sets = *parse_range_sets(Field(*doc).get("r"));
    std::mt19937 random(seed);
    BootTime now{1000};
    for (int step = 0; step < 800; ++step) {
      now += BootTime(random() % 50);
      const Owner owner{"c" + std::to_string(random() % 60), "eth0"};
      if (random() % 3 != 0) {
        AllocationRequest q{.owner = owner, .netns = "/n", .now = now, .reuse_delay = BootTime(200)};
        if (random() % 8 == 0) q.wanted.push_back(IpAddress::v4(10, 0, 0, random() % 32));
        MapBook copy = model;
        const auto want = allocate(copy, sets, q);
        if (want) model = copy;
        const auto have = store->write([&](LeaseBook& b) { return allocate(b, sets, q); });
        ASSERT_EQ(have.has_value(), want.has_value()) << "seed " << seed << " step " << step;
        if (!want) {
          EXPECT_EQ(have.error(), want.error());
          continue;
        }
        for (std::size_t i = 0; i < want->size(); ++i) ASSERT_EQ(have->at(i).ip, want->at(i).ip) << "seed " << seed << " step " << step;
      } else {
        const auto want = release(model, owner, now);
        const auto have = store->write([&](LeaseBook& b) { return release(b, owner, now); });
        ASSERT_EQ(*have, *want) << "seed " << seed << " step " << step;
      }
    }
    EXPECT_EQ(*store->all(), *model.all()) << "seed " << seed;
    std::filesystem::remove_all(folder);
  }
}

TEST(Store, ANewBootForgetsTheOldOne) {
  const std::string folder = std::filesystem::temp_directory_path() / fmt::format("fairlead-boot-{}", getpid());
  const auto lease = [](LeaseBook& b) -> CniResult<> { return lift(b.put({.ip = IpAddress::v4(10, 0, 0, 5), .owner = {"a", "eth0"}}), Code::io_failure); };
  const StoreScope first{.boot_id = "one", .netns_inode = 1}, second{.boot_id = "two", .netns_inode = 1}, other_host{.boot_id = "two", .netns_inode = 2};
  ASSERT_TRUE(LeaseStore::open(folder, "net", first)->write(lease));
  EXPECT_EQ(LeaseStore::open(folder, "net", first)->all()->size(), 1u);
  EXPECT_FALSE(*LeaseStore::open_existing(folder, "net", second)) << "DEL makes no file";
  EXPECT_TRUE(LeaseStore::open(folder, "net", second)->all()->empty());
  EXPECT_FALSE(*LeaseStore::open_existing(folder, "net", first)) << "the old boot's file is gone";
  ASSERT_TRUE(LeaseStore::open(folder, "net", second)->write(lease));
  EXPECT_TRUE(LeaseStore::open(folder, "net", other_host)->all()->empty());
  EXPECT_EQ(LeaseStore::open(folder, "net", second)->all()->size(), 1u) << "another host namespace of this boot lives on";
  std::filesystem::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Both, Books, testing::Bool(), [](const auto& i) { return std::string(i.param ? "Lmdb" : "Map"); });

}  // namespace
}  // namespace fairlead::cni
