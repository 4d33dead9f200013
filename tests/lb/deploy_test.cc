// deploy/lb.yaml: every object is one that the API takes, and its pools are ones that the programs take.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <set>

#include "base/files.h"
#include "kube/codec.h"
#include "kube/kinds.h"
#include "lb/pools.h"

namespace fairlead::lb {
namespace {

TEST(LbManifest, IsValid) {
  const auto text = read_file("deploy/lb.yaml");
  ASSERT_TRUE(text) << text.error().message;
  std::vector<std::string> strict;
  const auto documents = kube::parse_yaml(*text, {.strict = &strict});
  ASSERT_TRUE(documents) << documents.error().message;
  std::set<std::string> kinds;
  for (const auto& d : *documents) {
    const std::string kind(d.at("kind").as_string());
    kinds.insert(kind);
    const auto object = kube::decode_object(d, {.strict = &strict});
    EXPECT_TRUE(object) << kind << ": " << (object ? "" : object.error().message);
    if (kind != "ConfigMap") continue;
    const auto read = parse_pools({{"pools.yaml", std::string(d.at("data").at("pools.yaml").as_string())}});
    EXPECT_THAT(read.diagnostics, testing::IsEmpty());
    ASSERT_EQ(read.set.pools.size(), 1u);
    ASSERT_EQ(read.set.l2.size(), 1u);
    EXPECT_TRUE(read.set.l2[0].covers(&read.set.pools[0]));
  }
  EXPECT_THAT(strict, testing::IsEmpty());
  EXPECT_THAT(kinds, testing::IsSupersetOf({"ServiceAccount", "ClusterRole", "Role", "ConfigMap", "Deployment", "DaemonSet"}));
}

}  // namespace
}  // namespace fairlead::lb
