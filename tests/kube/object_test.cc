#include "kube/object.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <set>

#include "kube/codec.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kube {
namespace {

corev1::Pod pod(std::string_view json) {
  corev1::Pod p;
  const auto r = from_json(json, p);
  EXPECT_TRUE(r.has_value()) << r.error().message;
  return p;
}

TEST(Object, MetaAndKeys) {
  corev1::Pod p;
  EXPECT_EQ(meta_of(p).name(), "") << "an object without metadata has empty metadata";
  mutable_meta(p).set_name("web-0");
  EXPECT_EQ(p.metadata().name(), "web-0");
  EXPECT_EQ(key_of(p), "web-0");
  mutable_meta(p).set_namespace_("default");
  EXPECT_EQ(key_of(p), "default/web-0");
  EXPECT_EQ(split_key("default/web-0").ns, "default");
  EXPECT_EQ(split_key("default/web-0").name, "web-0");
  EXPECT_EQ(split_key("n1").ns, "");
  EXPECT_EQ(split_key("n1").name, "n1");
  EXPECT_FALSE(has_meta(*corev1::PodSpec::descriptor()));
  EXPECT_FALSE(has_meta(*corev1::PodList::descriptor())) << "a list has ListMeta";
}

TEST(Object, FieldText) {
  const auto p =
      pod(R"({"metadata":{"name":"a","labels":{"app.kubernetes.io/name":"x"},"creationTimestamp":"2024-05-01T10:00:00Z"},
      "spec":{"nodeName":"n1","hostNetwork":true,"containers":[{"name":"c","livenessProbe":{"httpGet":{"port":"web"}},
      "resources":{"limits":{"cpu":"1"}}}]},"status":{"phase":"Running","podIPs":[{"ip":"10.0.0.1"}]}})");
  const struct {
    const char* path;
    std::optional<std::string> text;
  } rows[] = {
      {"metadata.name", "a"},
      {"metadata.namespace", ""},
      {"metadata.labels.app.kubernetes.io/name", "x"},
      {"metadata.labels.other", ""},
      {"metadata.creationTimestamp", "2024-05-01T10:00:00Z"},
      {"metadata.deletionTimestamp", ""},
      {"spec.nodeName", "n1"},
      {"spec.hostNetwork", "true"},
      {"spec.hostPID", "false"},
      {"spec.priority", ""},
      {"spec.containers[0].name", "c"},
      {"spec.containers[0].livenessProbe.httpGet.port", "web"},
      {"spec.containers[0].readinessProbe.httpGet.port", ""},
      {"spec.containers[7].name", ""},
      {"status.podIPs[0].ip", "10.0.0.1"},
      {"status.phase", "Running"},
      {"", std::nullopt},
      {"spec", std::nullopt},
      {"spec.nope", std::nullopt},
      {"spec.nodeName.x", std::nullopt},
      {"spec.containers", std::nullopt},
      {"spec.containers.name", std::nullopt},
      {"spec.containers[x].name", std::nullopt},
      {"spec.containers[0", std::nullopt},
      {"spec.nodeName[0]", std::nullopt},
      {"spec..nodeName", std::nullopt},
      {".spec", std::nullopt},
      {"[0]", std::nullopt},
  };
  for (const auto& r : rows) EXPECT_EQ(field_text(p, r.path), r.text) << r.path;
  EXPECT_EQ(field_text(corev1::Pod(), "spec.nodeName"), "");
}

TEST(Object, StableHash) {
  const auto p = pod(R"({"metadata":{"labels":{"a":"1","b":"2"}},"spec":{"containers":[{"name":"c","image":"i"}]}})");
  const auto q = pod(R"({"spec":{"containers":[{"image":"i","name":"c"}]},"metadata":{"labels":{"b":"2","a":"1"}}})");
  EXPECT_EQ(stable_hash(p), stable_hash(q)) << "the order of members does not matter";
  EXPECT_NE(stable_hash(p), stable_hash(p, 0));
  EXPECT_NE(stable_hash(p, 0), stable_hash(p, 1));
  std::set<std::string> seen;
  corev1::Pod many;
  for (int i = 0; i < 10000; ++i) {
    many.mutable_spec()->set_nodename(std::to_string(i));
    const std::string h = stable_hash(many);
    EXPECT_LE(h.size(), 10u);
    EXPECT_EQ(h.find_first_not_of(kSafeNameCharacters), std::string::npos) << h;
    seen.insert(h);
  }
  EXPECT_EQ(seen.size(), 10000u);
  // A stored label must still match after an upgrade: this value never changes.
  EXPECT_EQ(stable_hash(p), "hshnh6v4p");
}

TEST(Object, MergePatch) {
  const struct {
    const char *before, *after, *patch;
  } rows[] = {
      {R"({"a":1})", R"({"a":1})", R"({})"},
      {R"({"a":1,"b":2})", R"({"a":1,"b":3})", R"({"b":3})"},
      {R"({"a":1,"b":2})", R"({"a":1})", R"({"b":null})"},
      {R"({"a":{"x":1,"y":2}})", R"({"a":{"x":1,"y":3,"z":[1]}})", R"({"a":{"y":3,"z":[1]}})"},
      {R"({"a":[1,2]})", R"({"a":[2]})", R"({"a":[2]})"},
      {R"({"a":5})", R"({"a":{"b":1}})", R"({"a":{"b":1}})"},
      {R"(5)", R"({"a":1})", R"({"a":1})"},
  };
  for (const auto& r : rows) {
    EXPECT_EQ(create_merge_patch(boost::json::parse(r.before), boost::json::parse(r.after)), boost::json::parse(r.patch))
        << r.before;
  }
  const auto before = pod(R"({"metadata":{"name":"a","labels":{"x":"1"}},"status":{"phase":"Pending"}})");
  const auto after = pod(R"({"metadata":{"name":"a"},"status":{"phase":"Running"}})");
  EXPECT_EQ(create_merge_patch(before, after),
            boost::json::parse(R"({"metadata":{"labels":null},"status":{"phase":"Running"}})"));
}

}  // namespace
}  // namespace fairlead::kube
