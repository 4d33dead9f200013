#include "kube/patch.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <ctime>
#include <span>

#include "kube/api.h"
#include "kube/codec.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/policy/v1.pb.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

json::value parse(std::string_view text) {
  const auto v = parse_json(text);
  EXPECT_TRUE(v.has_value()) << text;
  return v ? *v : json::value();
}

// ---- RFC 6902, with the examples of its appendix among them

struct Row {
  const char* target;
  const char* patch;
  const char* result;  // or the message of the error
  bool ok = true;
};

TEST(JsonPatch, Rows) {
  const Row rows[] = {
      {R"({"foo":"bar"})", R"([{"op":"add","path":"/baz","value":"qux"}])", R"({"foo":"bar","baz":"qux"})"},
      {R"({"foo":["bar","baz"]})", R"([{"op":"add","path":"/foo/1","value":"qux"}])", R"({"foo":["bar","qux","baz"]})"},
      {R"({"foo":["bar"]})", R"([{"op":"add","path":"/foo/-","value":["abc"]}])", R"({"foo":["bar",["abc"]]})"},
      {R"({"foo":["bar"]})", R"([{"op":"add","path":"/foo/1","value":"x"}])", R"({"foo":["bar","x"]})"},
      {R"({"baz":"qux","foo":"bar"})", R"([{"op":"remove","path":"/baz"}])", R"({"foo":"bar"})"},
      {R"({"foo":["bar","qux","baz"]})", R"([{"op":"remove","path":"/foo/1"}])", R"({"foo":["bar","baz"]})"},
      {R"({"baz":"qux"})", R"([{"op":"replace","path":"/baz","value":null}])", R"({"baz":null})"},
      {R"({"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}})",
       R"([{"op":"move","from":"/foo/waldo","path":"/qux/thud"}])",
       R"({"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}})"},
      {R"({"foo":["all","grass","cows","eat"]})", R"([{"op":"move","from":"/foo/1","path":"/foo/3"}])",
       R"({"foo":["all","cows","eat","grass"]})"},
      {R"({"a":{"b":1}})", R"([{"op":"copy","from":"/a","path":"/c"},{"op":"replace","path":"/c/b","value":2}])",
       R"({"a":{"b":1},"c":{"b":2}})"},
      {R"({"baz":"qux","foo":["a",2,"c"]})",
       R"([{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2.0}])",
       R"({"baz":"qux","foo":["a",2,"c"]})"},
      {R"({"a":{"x":1,"y":[{}]}})", R"([{"op":"test","path":"/a","value":{"y":[{}],"x":1}}])", R"({"a":{"x":1,"y":[{}]}})"},
      {R"({"/":9,"~1":10})", R"([{"op":"replace","path":"/~1","value":1},{"op":"replace","path":"/~01","value":2}])",
       R"({"/":1,"~1":2})"},
      {R"({"":1})", R"([{"op":"replace","path":"/","value":2}])", R"({"":2})"},
      {R"({"a":1})", R"([{"op":"replace","path":"","value":{"b":2}}])", R"({"b":2})"},
      {R"({"a":1})", R"([])", R"({"a":1})"},
      {R"({"a":1})", R"([{"op":"move","from":"/a","path":"/a"}])", R"({"a":1})"},
      {R"({"a":1})", R"([{"op":"add","path":"/a","value":2,"extra":true}])", R"({"a":2})"},

      {R"({"a":1})", R"([{"op":"test","path":"/a","value":2}])", R"(operation 0 (test "/a"): the value is different)", false},
      {R"({"a":1})", R"([{"op":"test","path":"/a","value":1},{"op":"remove","path":"/b"}])",
       R"(operation 1 (remove "/b"): there is no "b")", false},
      {R"({"a":1})", R"([{"op":"replace","path":"/b/c","value":1}])", R"(operation 0 (replace "/b/c"): there is no "b")", false},
      {R"({"a":1})", R"([{"op":"add","path":"/b/c","value":1}])", R"(operation 0 (add "/b/c"): there is no "b")", false},
      {R"({"a":1})", R"([{"op":"add","path":"/a/c","value":1}])",
       R"(operation 0 (add "/a/c"): "c" would stand in something that is neither an object nor a list)", false},
      {R"({"a":[1]})", R"([{"op":"add","path":"/a/3","value":1}])",
       R"(operation 0 (add "/a/3"): index 3 is beyond the end of a list of 1)", false},
      {R"({"a":[1]})", R"([{"op":"add","path":"/a/01","value":1}])",
       R"(operation 0 (add "/a/01"): "01" is not an index of a list)", false},
      {R"({"a":[1]})", R"([{"op":"remove","path":"/a/-"}])", R"(operation 0 (remove "/a/-"): "-" is not an index of a list)",
       false},
      {R"({"a":{"b":1}})", R"([{"op":"move","from":"/a","path":"/a/b/c"}])",
       R"(operation 0 (move "/a/b/c"): cannot move a value into itself)", false},
      {R"({"a":1})", R"([{"op":"remove","path":""}])", R"(operation 0 (remove ""): the whole document cannot be removed)", false},
      {R"({})", R"({})", "a JSON patch must be a list of operations", false},
      {R"({})", R"([5])", "operation 0: must be an object", false},
      {R"({})", R"([{"path":"/a"}])", "operation 0: op: Required value", false},
      {R"({})", R"([{"op":"add","value":1}])", "operation 0: path: Required value", false},
      {R"({})", R"([{"op":"add","path":"/a"}])", "operation 0: value: Required value", false},
      {R"({})", R"([{"op":"copy","path":"/a"}])", "operation 0: from: Required value", false},
      {R"({})", R"([{"op":"add","path":"a","value":1}])", "operation 0: path \"a\" is not a JSON pointer", false},
      {R"({})", R"([{"op":"add","path":"/~2","value":1}])", "operation 0: path \"/~2\" is not a JSON pointer", false},
      {R"({})", R"([{"op":"merge","path":"/a","value":1}])",
       "operation 0: op \"merge\" is not one of add, remove, replace, move, copy, test", false},
  };
  for (const Row& r : rows) {
    SCOPED_TRACE(std::string(r.target) + " " + r.patch);
    const auto out = json_patch(parse(r.target), parse(r.patch));
    ASSERT_EQ(out.has_value(), r.ok) << (out ? to_json(*out) : out.error().message);
    if (r.ok) {
      EXPECT_EQ(*out, parse(r.result)) << to_json(*out);
    } else {
      EXPECT_EQ(out.error().message, r.result);
    }
  }
}

TEST(JsonPatch, ErrorsTellMalformedFromUnfit) {
  EXPECT_EQ(json_patch(parse("{}"), parse(R"([{"op":"remove","path":"/a"}])")).error().code, ErrorCode::failed_precondition);
  EXPECT_EQ(json_patch(parse("{}"), parse(R"([{"op":"remove"}])")).error().code, ErrorCode::invalid_argument);
}

TEST(JsonPatch, Bounded) {
  json::array many;
  for (int i = 0; i < 10001; ++i) many.push_back({{"op", "test"}, {"path", ""}, {"value", json::object()}});
  EXPECT_EQ(json_patch(json::object(), many).error().message, "the patch has 10001 operations, the limit is 10000");
  many.pop_back();
  EXPECT_TRUE(json_patch(json::object(), many).has_value());

  json::array doubling;  // each operation doubles the document
  for (int i = 0; i < 64; ++i) doubling.push_back({{"op", "copy"}, {"from", "/a"}, {"path", "/a/-"}});
  const auto r = json_patch(parse(R"({"a":["0123456789"]})"), doubling);
  ASSERT_FALSE(r.has_value());
  EXPECT_TRUE(r.error().message.find("larger than") != std::string::npos ||
              r.error().message.find("nested more than") != std::string::npos);

  json::array deeper;
  std::string path;
  for (int i = 0; i < 200; ++i) {
    path += "/a";
    deeper.push_back({{"op", "add"}, {"path", path}, {"value", json::object()}});
  }
  EXPECT_NE(json_patch(json::object(), deeper).error().message.find("nested more than 100 levels"), std::string::npos);
}

// ---- RFC 7396, its table of examples

TEST(MergePatch, Rows) {
  const Row rows[] = {
      {R"({"a":"b"})", R"({"a":"c"})", R"({"a":"c"})"},
      {R"({"a":"b"})", R"({"b":"c"})", R"({"a":"b","b":"c"})"},
      {R"({"a":"b"})", R"({"a":null})", R"({})"},
      {R"({"a":"b","b":"c"})", R"({"a":null})", R"({"b":"c"})"},
      {R"({"a":["b"]})", R"({"a":"c"})", R"({"a":"c"})"},
      {R"({"a":"c"})", R"({"a":["b"]})", R"({"a":["b"]})"},
      {R"({"a":{"b":"c"}})", R"({"a":{"b":"d","c":null}})", R"({"a":{"b":"d"}})"},
      {R"({"a":[{"b":"c"}]})", R"({"a":[1]})", R"({"a":[1]})"},
      {R"(["a","b"])", R"({"a":"b"})", R"({"a":"b"})"},
      {R"({"e":null})", R"({"a":1})", R"({"e":null,"a":1})"},
      {R"([1,2])", R"({"a":"b","c":null})", R"({"a":"b"})"},
      {R"({})", R"({"a":{"bb":{"ccc":null}}})", R"({"a":{"bb":{}}})"},
      {R"({})", R"([1])", "a merge patch must be an object", false},
      {R"({})", R"("x")", "a merge patch must be an object", false},
  };
  for (const Row& r : rows) {
    SCOPED_TRACE(std::string(r.target) + " " + r.patch);
    const auto out = merge_patch(parse(r.target), parse(r.patch));
    ASSERT_EQ(out.has_value(), r.ok);
    if (r.ok) {
      EXPECT_EQ(*out, parse(r.result)) << to_json(*out);
    } else {
      EXPECT_EQ(out.error().message, r.result);
    }
  }
}

// ---- strategic merge patch

void strategic(const google::protobuf::Descriptor& schema, std::span<const Row> rows) {
  for (const Row& r : rows) {
    SCOPED_TRACE(std::string(r.target) + "\n" + r.patch);
    const auto out = strategic_patch(parse(r.target), parse(r.patch), schema);
    ASSERT_EQ(out.has_value(), r.ok) << (out ? to_json(*out) : out.error().message);
    if (r.ok) {
      EXPECT_EQ(*out, parse(r.result)) << to_json(*out);
    } else {
      EXPECT_EQ(out.error().message, r.result);
      EXPECT_EQ(out.error().code, ErrorCode::invalid_argument);
    }
  }
}

TEST(StrategicPatch, Objects) {
  const Row rows[] = {
      {R"({"metadata":{"name":"a","labels":{"x":"1","y":"2"}}})", R"({"metadata":{"labels":{"x":null,"z":"3"}}})",
       R"({"metadata":{"name":"a","labels":{"y":"2","z":"3"}}})"},
      {R"({})", R"({"metadata":{"labels":{"a":"b","gone":null}}})", R"({"metadata":{"labels":{"a":"b"}}})"},
      {R"({"spec":{"nodeName":"a","hostNetwork":true}})", R"({"spec":{"$patch":"replace","nodeName":"b"}})",
       R"({"spec":{"nodeName":"b"}})"},
      {R"({"spec":{"nodeName":"a"}})", R"({"spec":{"$patch":"delete"}})", R"({"spec":{}})"},
      {R"({"spec":{"nodeName":"a"}})", R"({"spec":{"$patch":"merge","hostPID":true}})",
       R"({"spec":{"nodeName":"a","hostPID":true}})"},
      {R"({"spec":{"nodeName":"a"}})", R"({"spec":{"$patch":"merges"}})",
       "spec: $patch must be \"replace\", \"delete\" or \"merge\"", false},
      {R"({"spec":{"nodeSelector":{"a":"1"}}})", R"({"spec":{"nodeSelector":{"b":"2"}}})",
       R"({"spec":{"nodeSelector":{"a":"1","b":"2"}}})"},
      {R"({"spec":{"unknown":{"a":1,"l":[1]}}})", R"({"spec":{"unknown":{"b":2,"l":[2]}}})",
       R"({"spec":{"unknown":{"a":1,"b":2,"l":[2]}}})"},
      {R"({"spec":5})", R"({"spec":{"nodeName":"a"}})", R"({"spec":{"nodeName":"a"}})"},
      {R"({"spec":{"nodeName":"a"}})", R"({"spec":null})", R"({})"},
      {R"([])", R"({"spec":{}})", R"({"spec":{}})"},
      {R"({})", R"([])", "a strategic merge patch must be an object", false},
  };
  strategic(*corev1::Pod::descriptor(), rows);
}

TEST(StrategicPatch, ListsByMergeKey) {
  const Row rows[] = {
      {R"({"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"2"}]}})",
       R"({"spec":{"containers":[{"name":"b","image":"3"},{"name":"c","image":"4"}]}})",
       R"({"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"3"},{"name":"c","image":"4"}]}})"},
      {R"({"spec":{"containers":[{"name":"a","env":[{"name":"X","value":"1"},{"name":"Y","value":"2"}]}]}})",
       R"({"spec":{"containers":[{"name":"a","env":[{"name":"X","$patch":"delete"},{"name":"Z","value":"3"}]}]}})",
       R"({"spec":{"containers":[{"name":"a","env":[{"name":"Y","value":"2"},{"name":"Z","value":"3"}]}]}})"},
      {R"({"spec":{"containers":[{"name":"a"},{"name":"b"}]}})", R"({"spec":{"containers":[{"$patch":"replace"},{"name":"c"}]}})",
       R"({"spec":{"containers":[{"name":"c"}]}})"},
      {R"({"spec":{"containers":[{"name":"a"}]}})", R"({"spec":{"containers":[{"image":"x"}]}})",
       "spec.containers[0]: does not contain the declared merge key: name", false},
      {R"({"spec":{"containers":[{"name":"a"}]}})", R"({"spec":{"containers":[{"$patch":"delete"}]}})",
       "spec.containers[0]: $patch: delete needs the merge key \"name\"", false},
      {R"({"spec":{"containers":[{"name":"a"}]}})", R"({"spec":{"containers":["a"]}})", "spec.containers[0]: must be an object",
       false},
      {R"({"spec":{"containers":[{"name":"a","ports":[{"containerPort":80,"protocol":"TCP"}]}]}})",
       R"({"spec":{"containers":[{"name":"a","ports":[{"containerPort":80,"name":"http"}]}]}})",
       R"({"spec":{"containers":[{"name":"a","ports":[{"containerPort":80,"protocol":"TCP","name":"http"}]}]}})"},
      {R"({"spec":{"tolerations":[{"key":"a"}]}})", R"({"spec":{"tolerations":[{"key":"b"}]}})",
       R"({"spec":{"tolerations":[{"key":"b"}]}})"},
      {R"({"spec":{"containers":[{"name":"a","args":["x"]}]}})", R"({"spec":{"containers":[{"name":"a","args":["y"]}]}})",
       R"({"spec":{"containers":[{"name":"a","args":["y"]}]}})"},
      {R"({"status":{"conditions":[{"type":"Ready","status":"False"},{"type":"PodScheduled","status":"True"}]}})",
       R"({"status":{"conditions":[{"type":"Ready","status":"True"}]}})",
       R"({"status":{"conditions":[{"type":"Ready","status":"True"},{"type":"PodScheduled","status":"True"}]}})"},
      {R"({})",
       R"({"spec":{"containers":[{"name":"a","$patch":"delete"},{"name":"b","env":[{"$patch":"replace"},{"name":"X"}]}]}})",
       R"({"spec":{"containers":[{"name":"b","env":[{"name":"X"}]}]}})"},
      {R"({"spec":{"ephemeralContainers":[{"name":"d1"}]}})",
       R"({"spec":{"ephemeralContainers":[{"name":"d2","targetContainerName":"a"}]}})",
       R"({"spec":{"ephemeralContainers":[{"name":"d1"},{"name":"d2","targetContainerName":"a"}]}})"},
  };
  strategic(*corev1::Pod::descriptor(), rows);
}

TEST(StrategicPatch, PrimitiveLists) {
  const Row rows[] = {
      {R"({"metadata":{"finalizers":["a","b"]}})", R"({"metadata":{"finalizers":["b","c"]}})",
       R"({"metadata":{"finalizers":["a","b","c"]}})"},
      {R"({"metadata":{"finalizers":["a","b","c"]}})", R"({"metadata":{"$deleteFromPrimitiveList/finalizers":["b","x"]}})",
       R"({"metadata":{"finalizers":["a","c"]}})"},
      {R"({"metadata":{}})", R"({"metadata":{"$deleteFromPrimitiveList/finalizers":["b"]}})", R"({"metadata":{}})"},
      {R"({"metadata":{"finalizers":["a","b"]}})",
       R"({"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"$setElementOrder/finalizers":["c","b"],"finalizers":["c"]}})",
       R"({"metadata":{"finalizers":["c","b"]}})"},
      {R"({"metadata":{"finalizers":["a"]}})", R"({"metadata":{"finalizers":[{}]}})",
       "metadata.finalizers: must be a list of plain values", false},
      {R"({"metadata":{"finalizers":["a"]}})", R"({"metadata":{"$deleteFromPrimitiveList/finalizers":"a"}})",
       "metadata.finalizers: $deleteFromPrimitiveList must be a list", false},
  };
  strategic(*corev1::Pod::descriptor(), rows);
}

TEST(StrategicPatch, ElementOrder) {
  const Row rows[] = {
      {R"({"spec":{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}})",
       R"({"spec":{"$setElementOrder/containers":[{"name":"c"},{"name":"a"},{"name":"b"}]}})",
       R"({"spec":{"containers":[{"name":"c"},{"name":"a"},{"name":"b"}]}})"},
      {R"({"spec":{"containers":[{"name":"a"},{"name":"server"},{"name":"c"}]}})",
       R"({"spec":{"$setElementOrder/containers":[{"name":"n"},{"name":"a"},{"name":"c"}],"containers":[{"name":"n","image":"i"}]}})",
       R"({"spec":{"containers":[{"name":"n","image":"i"},{"name":"a"},{"name":"server"},{"name":"c"}]}})"},
      {R"({"spec":{"containers":[{"name":"a"},{"name":"b"}]}})",
       R"({"spec":{"$setElementOrder/containers":[{"name":"b"}],"containers":[{"name":"a","$patch":"delete"},{"name":"b","image":"x"}]}})",
       R"({"spec":{"containers":[{"name":"b","image":"x"}]}})"},
      {R"({"spec":{}})", R"({"spec":{"$setElementOrder/containers":[{"name":"b"}]}})", R"({"spec":{}})"},
      {R"({"spec":{}})", R"({"spec":{"$setElementOrder/containers":[{"name":"b"}],"containers":[{"name":"b"}]}})",
       R"({"spec":{"containers":[{"name":"b"}]}})"},
      {R"({"spec":{"containers":[{"name":"a"}]}})",
       R"({"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"b"}]}})",
       "spec.containers: the item \"b\" of the patch is not in $setElementOrder", false},
      {R"({"spec":{"containers":[]}})",
       R"({"spec":{"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"b"},{"name":"a"}]}})",
       "spec.containers: the order of the patch does not match $setElementOrder at \"a\"", false},
      {R"({"spec":{"tolerations":[]}})", R"({"spec":{"$setElementOrder/tolerations":[{"key":"a"}]}})",
       "spec.tolerations: $setElementOrder is only for lists that are merged", false},
      {R"({"spec":{"containers":[]}})", R"({"spec":{"$setElementOrder/containers":5}})",
       "spec.containers: $setElementOrder must be a list", false},
  };
  strategic(*corev1::Pod::descriptor(), rows);
}

TEST(StrategicPatch, RetainKeys) {
  const Row rows[] = {
      {R"({"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}})",
       R"({"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}})", R"({"spec":{"strategy":{"type":"Recreate"}}})"},
      {R"({"spec":{"template":{"spec":{"volumes":[{"name":"v","emptyDir":{}}]}}}})",
       R"({"spec":{"template":{"spec":{"volumes":[{"$retainKeys":["name","secret"],"name":"v","secret":{"secretName":"s"}}]}}}})",
       R"({"spec":{"template":{"spec":{"volumes":[{"name":"v","secret":{"secretName":"s"}}]}}}})"},
      {R"({"spec":{"strategy":{}}})", R"({"spec":{"strategy":{"$retainKeys":["x"],"type":"Recreate"}}})",
       "spec.strategy: the list in $retainKeys must contain all members of the patch: \"type\" is missing", false},
      {R"({"spec":{"strategy":{}}})", R"({"spec":{"strategy":{"$retainKeys":"type"}}})",
       "spec.strategy: $retainKeys must be a list of strings", false},
      {R"({"spec":{"strategy":{"type":"Recreate"}}})", R"({"spec":{"strategy":{"$retainKeys":["type"]}}})",
       R"({"spec":{"strategy":{"type":"Recreate"}}})"},
  };
  strategic(*appsv1::Deployment::descriptor(), rows);
}

// Patches as kubectl and the node agent send them, and the objects they leave.
TEST(StrategicPatch, AsSentByClients) {
  const Row service[] = {
      {R"({"spec":{"ports":[{"port":80,"protocol":"TCP","targetPort":80,"nodePort":30080}],"selector":{"app":"a"}}})",
       R"({"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"}},"spec":{"$setElementOrder/ports":[{"port":80}],"ports":[{"port":80,"targetPort":8080}]}})",
       R"({"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"}},"spec":{"ports":[{"port":80,"protocol":"TCP","targetPort":8080,"nodePort":30080}],"selector":{"app":"a"}}})"},
  };
  strategic(*corev1::Service::descriptor(), service);
  const Row node[] = {
      {R"({"spec":{"podCIDRs":["10.0.0.0/24"]},"status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}})",
       R"({"status":{"$setElementOrder/conditions":[{"type":"MemoryPressure"},{"type":"Ready"}],"conditions":[{"type":"MemoryPressure","status":"False"}],"$setElementOrder/addresses":[{"type":"InternalIP"}],"addresses":[{"type":"InternalIP","address":"10.0.0.2"}]}})",
       R"({"spec":{"podCIDRs":["10.0.0.0/24"]},"status":{"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"10.0.0.2"}]}})"},
  };
  strategic(*corev1::Node::descriptor(), node);
  const Row applied[] = {
      {R"({"metadata":{"name":"web","resourceVersion":"5"},"spec":{"replicas":2,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}},)"
       R"("template":{"spec":{"containers":[{"name":"c","image":"x:1","ports":[{"containerPort":80,"protocol":"TCP"}]},{"name":"old","image":"y"}]}}}})",
       R"({"metadata":{"uid":null},"spec":{"strategy":{"$retainKeys":["type"],"rollingUpdate":null,"type":"Recreate"},"template":{"spec":{)"
       R"("$setElementOrder/containers":[{"name":"new"},{"name":"c"}],"containers":[{"image":"z:1","name":"new"},)"
       R"({"$setElementOrder/ports":[{"containerPort":80}],"image":"x:2","name":"c","ports":[{"containerPort":80,"protocol":null}]},)"
       R"({"$patch":"delete","name":"old"}]}}}})",
       R"({"metadata":{"name":"web","resourceVersion":"5"},"spec":{"replicas":2,"strategy":{"type":"Recreate"},"template":{"spec":{"containers":[)"
       R"({"image":"z:1","name":"new"},{"name":"c","image":"x:2","ports":[{"containerPort":80}]}]}}}})"},
  };
  strategic(*appsv1::Deployment::descriptor(), applied);
  const Row budget[] = {
      {R"({"spec":{"selector":{"matchLabels":{"a":"1"}}}})", R"({"spec":{"selector":{"matchLabels":{"b":"2"}}}})",
       R"({"spec":{"selector":{"matchLabels":{"b":"2"}}}})"},
  };
  strategic(*policyv1::PodDisruptionBudget::descriptor(), budget);
}

TEST(StrategicPatch, LongListsAreLinear) {
  json::array a, b, order;
  for (int i = 0; i < 20000; ++i) {
    a.push_back(json::object{{"name", fmt::format("a{}", i)}});
    b.push_back(json::object{{"name", fmt::format("b{}", i)}});
    order.push_back(json::object{{"name", fmt::format("b{}", i)}});
  }
  const auto wrap = [](json::array list) { return json::object{{"spec", {{"imagePullSecrets", std::move(list)}}}}; };
  json::object patch = wrap(b);
  patch["spec"].as_object()["$setElementOrder/imagePullSecrets"] = order;
  const std::clock_t start = std::clock();
  const auto out = strategic_patch(wrap(a), patch, *corev1::Pod::descriptor());
  ASSERT_TRUE(out.has_value());
  EXPECT_EQ(out->at("spec").at("imagePullSecrets").as_array().size(), 40000u);
  EXPECT_LT(std::clock() - start, 8 * CLOCKS_PER_SEC) << "processor time; a quadratic merge takes minutes";
}

}  // namespace
}  // namespace fairlead::kube
