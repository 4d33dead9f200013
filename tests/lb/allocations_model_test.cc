// Random services come, change, move and go, pools grow and shrink, writes fail half way; after every step the allocator is
// compared with a model so simple that it is seen to be right: a list of who holds what.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "base/random.h"
#include "lb/reconcile.h"

namespace fairlead::lb {
namespace {

struct Model {
  std::map<std::string, Claim> holders;

  static bool compatible(const Claim& a, const Claim& b) {
    if (a.sharing_key.empty() || a.sharing_key != b.sharing_key || a.backends != b.backends) return false;
    return std::none_of(a.ports.begin(), a.ports.end(), [&](const auto& p) { return b.ports.contains(p); });
  }
  bool may_have(const std::string& who, const Claim& shape, const IpAddress& ip) const {
    for (const auto& [name, claim] : holders) {
      const bool holds = std::find(claim.addresses.begin(), claim.addresses.end(), ip) != claim.addresses.end();
      if (name != who && holds && !compatible(claim, shape)) return false;
    }
    return true;
  }
  std::vector<IpAddress> choices(const ServiceRequest& r, const PoolSet& pools, Family f) const {
    std::vector<IpAddress> out;
    for (const auto& p : pools.pools)
      for (const auto& range : p.ranges)
        if (range.first.family() == f)
          for (auto ip = range.first; ip <= range.last; ip = ip.plus(1))
            if (p.contains(ip) && may_have(r.key, r.shape, ip)) out.push_back(ip);
    return out;
  }
};

PoolSet some_pools(Random& random) {
  std::string yaml;
  const auto pool = [&](const char* name, const std::string& addresses) {
    yaml += fmt::format("---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {}}}\nspec: {{addresses: [{}], avoidBuggyIPs: {}}}\n", name, addresses,
                        random.below(2) ? "true" : "false");
  };
  if (random.below(8) != 0) pool("a", fmt::format("192.0.2.253-192.0.3.{}", random.below(5)));
  if (random.below(3) != 0) pool("b", fmt::format("198.51.100.0-198.51.100.{}, '2001:db8::-2001:db8::{}'", random.below(4), random.below(4)));
  return parse_pools({{"f", yaml}}).set;
}

void change(ServiceRequest& r, Random& random) {
  static const std::vector<std::string> keys = {"", "k", "l"};
  r.load_balancer = random.below(5) != 0;
  r.shape.sharing_key = keys[random.below(3)];
  r.shape.backends = random.below(4) == 0 ? "local:x" : "";
  r.shape.ports = {{static_cast<Port>(80 + random.below(3)), Protocol::tcp}};
  r.families = random.below(4) == 0 ? std::vector{Family::v6} : std::vector{Family::v4};
  r.wanted.clear();
  if (random.below(4) == 0 && r.families[0] == Family::v4) r.wanted = {IpAddress::v4(192, 0, 2, 253).plus(random.below(8))};
}

TEST(AllocationsModel, RandomOperations) {
  const char* given = std::getenv("FAIRLEAD_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : SystemRandom::get().next();
  SCOPED_TRACE(fmt::format("FAIRLEAD_SEED={}", seed));
  SeededRandom random(seed);
  PoolSet pools = some_pools(random);
  Allocations book;
  Model model;
  std::map<std::string, ServiceRequest> services;
  int given_out = 0, refused = 0, reverted = 0, shared = 0;
  const auto carry_out = [&](ServiceRequest& r, bool fails) {
    const auto d = reconcile(r, pools, book, {});
    Transaction t(book, r.key);
    if (d.next == Next::hold) {
      EXPECT_TRUE(t.hold(d.claim)) << r.key;
    }
    if (d.next == Next::release) t.release();
    if (fails && d.next != Next::done) {
      t.revert();
      ++reverted;
      return;
    }
    t.commit();
    if (d.status) r.status = *d.status;
    if (d.next == Next::hold) model.holders[r.key] = d.claim;
    if (d.next == Next::release) model.holders.erase(r.key);
  };
  for (int step = 0; step < 20'000; ++step) {
    const auto what = random.below(100);
    if (what == 0) {
      pools = some_pools(random);
    } else if (what == 1) {  // a restart in quiet times: everything is forgotten but the services
      for (auto& [k, s] : services) carry_out(s, false);
      book = {};
      std::vector<ServiceRequest> all;
      for (const auto& [k, s] : services) all.push_back(s);
      adopt(all, book, {});
    }
    const auto key = fmt::format("ns/{}", random.below(14));
    auto& r = services[key];
    r.key = key;
    r.ns = "ns";
    if (r.families.empty() || random.below(3) == 0) change(r, random);

    const auto d = reconcile(r, pools, book, {});
    const auto* had = book.find(key);
    if (r.load_balancer && !had) {
      // It gets one if, and only if, there is one for it.
      auto choices = model.choices(r, pools, r.families[0]);
      if (!r.wanted.empty()) std::erase_if(choices, [&](const IpAddress& ip) { return ip != r.wanted[0]; });
      ASSERT_EQ(d.next == Next::hold, !choices.empty()) << key;
      if (d.next == Next::hold) {
        ASSERT_EQ(d.claim.addresses.size(), 1u);
        ASSERT_TRUE(std::find(choices.begin(), choices.end(), d.claim.addresses[0]) != choices.end());
      }
      ++(choices.empty() ? refused : given_out);
    }
    carry_out(r, random.below(4) == 0);
    ASSERT_EQ(book.all().size(), model.holders.size());
    for (const auto& [k, claim] : model.holders) {
      ASSERT_NE(book.find(k), nullptr) << k;
      ASSERT_EQ(*book.find(k), claim) << k;
      for (const auto& ip : claim.addresses) {
        ASSERT_TRUE(model.may_have(k, claim, ip)) << k << " and another one hold " << ip.to_string();
        shared += book.holders(ip).size() > 1;
      }
    }
  }
  // The run was worth something.
  EXPECT_GT(given_out, 100);
  EXPECT_GT(refused, 100);
  EXPECT_GT(reverted, 100);
  EXPECT_GT(shared, 100);
}

}  // namespace
}  // namespace fairlead::lb
