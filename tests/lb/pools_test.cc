#include "lb/pools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/files.h"
#include "base/random.h"
#include "base/scope_guard.h"

namespace fairlead::lb {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string pool(const std::string& name, const std::string& spec) {
  return fmt::format("---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {}, namespace: metallb-system}}\nspec: {}\n", name, spec);
}
std::string l2(const std::string& name, const std::string& spec) {
  return fmt::format("---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: {}}}\nspec: {}\n", name, spec);
}
PoolsRead read(const std::string& yaml, const PoolSet& previous = {}) { return parse_pools({{"pools.yaml", yaml}}, previous); }
std::vector<std::string> texts(const PoolsRead& r) {
  std::vector<std::string> out;
  for (const auto& d : r.diagnostics) out.push_back((d.refused ? "refused " : "note ") + d.to_string());
  return out;
}
std::vector<std::string> names(const PoolSet& s) {
  std::vector<std::string> out;
  for (const auto& p : s.pools) out.push_back(p.name);
  return out;
}

// As it stands in MetalLB's documentation for users, all fields at once.
TEST(Pools, EveryField) {
  const auto r = read(R"(
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first
  namespace: metallb-system
  labels: {zone: east}
spec:
  addresses: [192.0.2.0/24, "2001:db8::1-2001:db8::9"]
  autoAssign: false
  avoidBuggyIPs: true
  serviceAllocation:
    priority: 50
    namespaces: [a, b]
    namespaceSelectors: [{matchLabels: {team: x}}]
    serviceSelectors: [{matchExpressions: [{key: app, operator: In, values: [web]}]}]
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: adv}
spec:
  ipAddressPools: [first]
  ipAddressPoolSelectors: [{matchLabels: {zone: west}}]
  nodeSelectors: [{matchLabels: {kubernetes.io/hostname: n1}}]
  interfaces: [eth1]
)");
  EXPECT_THAT(texts(r), ElementsAre());
  ASSERT_EQ(r.set.pools.size(), 1u);
  const auto& p = r.set.pools[0];
  EXPECT_EQ(p.name, "first");
  EXPECT_FALSE(p.auto_assign);
  EXPECT_TRUE(p.avoid_buggy_ips);
  EXPECT_EQ(p.size(), 254u + 9u);
  EXPECT_FALSE(p.contains(*IpAddress::parse("192.0.2.0")));
  EXPECT_FALSE(p.contains(*IpAddress::parse("192.0.2.255")));
  EXPECT_TRUE(p.contains(*IpAddress::parse("192.0.2.254")));
  EXPECT_TRUE(p.has_family(Family::v6));
  EXPECT_EQ(p.allocation->priority, 50u);
  EXPECT_EQ(p.allocation->namespaces, (std::set<std::string>{"a", "b"}));
  EXPECT_EQ(p.allocation->namespace_selectors.at(0).to_string(), "team=x");
  EXPECT_EQ(p.allocation->service_selectors.at(0).to_string(), "app=web");
  const auto& a = r.set.l2.at(0);
  EXPECT_TRUE(a.covers(&p));
  Pool west{.name = "w", .labels = {{"zone", "west"}}}, other{.name = "o"};
  EXPECT_TRUE(a.covers(&west));
  EXPECT_FALSE(a.covers(&other));
  EXPECT_FALSE(a.covers(nullptr));
  EXPECT_TRUE(L2Advertisement{}.covers(nullptr));
  EXPECT_EQ(a.node_selectors.at(0).to_string(), "kubernetes.io/hostname=n1");
  EXPECT_EQ(a.interfaces, std::set<std::string>{"eth1"});
}

TEST(Pools, OneBadObjectHarmsNoOther) {
  const struct {
    const char* spec;
    const char* says;
  } rows[] = {
      {"{}", "spec.addresses: needs at least one"},
      {"{addresses: 192.0.2.0/24}", "spec.addresses: must be a list"},
      {"{addresses: [7]}", "spec.addresses[0]: must be text"},
      {"{addresses: [192.0.2.0/24, 10.0.0.300/24]}", "spec.addresses[1]: "},
      {"{addresses: [192.0.2.0/24, 192.0.2.7-192.0.2.9]}", "spec.addresses[1]: 192.0.2.7-192.0.2.9 overlaps spec.addresses[0]"},
      {"{addresses: [192.0.2.7-192.0.2.9, 192.0.2.0/24]}", "spec.addresses[1]: 192.0.2.0/24 overlaps spec.addresses[0]"},
      {"{addresses: [192.0.2.0/24], autoAssign: maybe}", "spec.autoAssign: must be true or false"},
      {"{addresses: [192.0.2.0/24], serviceAllocation: {priority: -1}}", "spec.serviceAllocation.priority: must be a whole number"},
      {"{addresses: [192.0.2.0/24], serviceAllocation: {namespaceSelectors: [{matchLabel: {a: b}}]}}",
       "spec.serviceAllocation.namespaceSelectors[0]: unknown field"},
      {"{addresses: [192.0.2.0/24], serviceAllocation: {serviceSelectors: [{matchExpressions: [{key: a, operator: Near}]}]}}",
       "spec.serviceAllocation.serviceSelectors[0]"},
      {"[]", "spec: must be an object"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.spec);
    const auto r = read(pool("bad", row.spec) + pool("good", "{addresses: [198.51.100.0/28]}"));
    EXPECT_THAT(names(r.set), ElementsAre("good"));
    ASSERT_EQ(r.diagnostics.size(), 1u);
    EXPECT_TRUE(r.stale());
    EXPECT_EQ(r.diagnostics[0].object, "IPAddressPool bad (pools.yaml)");
    EXPECT_THAT(r.diagnostics[0].message, HasSubstr(row.says));
  }
}

TEST(Pools, WhatIsNotActedUponIsSaid) {
  const auto r = read(pool("p", "{addresses: [192.0.2.0/28], autoAsign: false}") + l2("a", "{ipAddressPools: [p, q]}") +
                      "---\napiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: tor}\nspec: {myASN: 64500, peerASN: 64501, peerAddress: 192.0.2.254, bfdProfile: fast}\n"
                      "---\napiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\nmetadata: {name: all}\n"
                      "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
                      "---\napiVersion: metallb.io/v1beta1\nkind: Pool\nmetadata: {name: x}\n"
                      "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {}\n---\n");
  EXPECT_THAT(names(r.set), ElementsAre("p"));
  EXPECT_THAT(texts(r), ElementsAre("note IPAddressPool p (pools.yaml): spec.autoAsign: is not known here and has no effect",
                                    "note BGPPeer tor (pools.yaml): spec.bfdProfile: fast: BFD is not supported; the session works without it and notices a dead router when its hold time is over",
                                    "refused pools.yaml document 5: apiVersion: \"v1\" is not of metallb.io",
                                    "note Pool x (pools.yaml): kind: is not one that address pools are made of",
                                    "refused pools.yaml document 7: metadata.name: is missing",
                                    "note L2Advertisement a (pools.yaml): spec.ipAddressPools: there is no pool q"));
}

TEST(Pools, OverlapsAreRefused) {
  const auto one = pool("b", "{addresses: [192.0.2.0/28]}");
  const auto both = one + pool("a", "{addresses: [192.0.2.8-192.0.2.20]}");
  EXPECT_THAT(names(read(both).set), ElementsAre("a")) << "nobody was there before: the first by name";
  const auto later = read(both, read(one).set);
  EXPECT_THAT(names(later.set), ElementsAre("b")) << "who was there before stays";
  EXPECT_THAT(texts(later), ElementsAre("refused IPAddressPool a (pools.yaml): spec.addresses: 192.0.2.8-192.0.2.20 overlaps IPAddressPool b"));
  // A pool that grows into its neighbour keeps its old form.
  const auto before = read(pool("a", "{addresses: [192.0.2.32/28]}") + one).set;
  const auto grown = read(pool("a", "{addresses: [192.0.2.0/24]}") + one, before);
  EXPECT_THAT(names(grown.set), ElementsAre("a", "b"));
  EXPECT_EQ(grown.set.find("a")->size(), 16u);
  EXPECT_THAT(grown.diagnostics.at(0).message, HasSubstr("last good form stays"));
  EXPECT_THAT(names(read(pool("p", "{addresses: [192.0.2.0/28]}") + pool("p", "{addresses: [10.0.0.0/28]}")).set), ElementsAre("p")) << "one name, one pool";
}

TEST(Pools, TheLastGoodFormStays) {
  const auto good = read(pool("p", "{addresses: [192.0.2.0/28]}") + l2("a", "{}")).set;
  const auto bad_object = read(pool("p", "{addresses: [rubbish]}") + l2("a", "{interfaces: eth0}"), good);
  EXPECT_EQ(bad_object.set.find("p")->size(), 16u);
  EXPECT_EQ(bad_object.set.l2.size(), 1u);
  EXPECT_THAT(bad_object.diagnostics.at(0).message, HasSubstr("last good form stays in force"));
  const auto no_yaml = read("a: [", good);
  EXPECT_THAT(names(no_yaml.set), ElementsAre("p"));
  EXPECT_EQ(no_yaml.set.l2.size(), 1u);
  EXPECT_TRUE(no_yaml.stale());
  EXPECT_THAT(names(read("", good).set), ElementsAre()) << "taken away on purpose";
}

TEST(Pools, ReadsAFolder) {
  const auto dir = std::filesystem::temp_directory_path().string() + "/fairlead-pools-" + random_suffix(SystemRandom::get(), 10);
  ASSERT_TRUE(make_dirs(dir + "/..data"));
  const auto undo = on_exit([&] { std::filesystem::remove_all(dir); });
  for (const char* name : {"b.yaml", "a.yml", "README.md", ".hidden.yaml"}) ASSERT_TRUE(write_file_atomic(dir + "/" + name, name));
  const auto files = read_pool_dir(dir);
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_THAT(*files, ElementsAre(PoolText{"a.yml", "a.yml"}, PoolText{"b.yaml", "b.yaml"}));
  EXPECT_EQ(read_pool_dir(dir + "/none").error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace fairlead::lb
