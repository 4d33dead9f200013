#include "kube/openapi.h"

#include <gtest/gtest.h>

#include <boost/json/value.hpp>
#include <set>

#include "kube/api.h"
#include "kube/codec.h"
#include "kube/proto/openapi/v2.pb.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

json::value parse(const std::string& text) {
  auto v = parse_json(text);
  EXPECT_TRUE(v.has_value());
  return v ? std::move(*v) : json::value();
}

// Every $ref of a document, wherever it stands.
void collect_refs(const json::value& v, std::set<std::string>& out) {
  if (const auto* a = v.if_array()) {
    for (const auto& x : *a) collect_refs(x, out);
  } else if (const auto* o = v.if_object()) {
    for (const auto& [k, x] : *o) {
      if (std::string_view(k) == "$ref") out.insert(std::string(x.as_string()));
      collect_refs(x, out);
    }
  }
}

void expect_refs_resolve(const json::value& document, std::string_view prefix, const json::object& schemas) {
  std::set<std::string> refs;
  collect_refs(document, refs);
  EXPECT_GT(refs.size(), 10u);
  for (const auto& ref : refs) {
    ASSERT_TRUE(ref.starts_with(prefix)) << ref;
    EXPECT_TRUE(schemas.contains(ref.substr(prefix.size()))) << ref;
  }
}

TEST(OpenApi, V2Schemas) {
  const json::value d = parse(openapi_v2_json());
  EXPECT_EQ(d.at("swagger").as_string(), "2.0");
  const auto& definitions = d.at("definitions").as_object();
  expect_refs_resolve(d, "#/definitions/", definitions);

  const auto& deployment = definitions.at("io.k8s.api.apps.v1.Deployment");
  EXPECT_EQ(deployment.at("x-kubernetes-group-version-kind"), parse(R"([{"group":"apps","kind":"Deployment","version":"v1"}])"));
  EXPECT_EQ(deployment.at("properties").at("spec").at("$ref").as_string(), "#/definitions/io.k8s.api.apps.v1.DeploymentSpec");
  EXPECT_EQ(deployment.at("properties").at("kind").at("type").as_string(), "string");
  const auto& spec = definitions.at("io.k8s.api.apps.v1.DeploymentSpec");
  EXPECT_EQ(spec.at("properties").at("replicas").at("format").as_string(), "int32");
  EXPECT_EQ(spec.at("required"), parse(R"(["selector","template"])"));
  EXPECT_EQ(spec.at("properties").at("strategy").at("x-kubernetes-patch-strategy").as_string(), "retainKeys");
  const auto& containers = definitions.at("io.k8s.api.core.v1.PodSpec").at("properties").at("containers");
  EXPECT_EQ(containers.at("x-kubernetes-patch-merge-key").as_string(), "name");
  EXPECT_EQ(containers.at("x-kubernetes-patch-strategy").as_string(), "merge");
  EXPECT_EQ(containers.at("x-kubernetes-list-type").as_string(), "map");
  EXPECT_EQ(containers.at("x-kubernetes-list-map-keys"), parse(R"(["name"])"));
  const auto& port = definitions.at("io.k8s.api.core.v1.ContainerPort").at("properties").at("protocol");
  EXPECT_EQ(port.at("default").as_string(), "TCP");
  const auto& volume = definitions.at("io.k8s.api.core.v1.Volume").at("properties").as_object();
  EXPECT_TRUE(volume.contains("emptyDir")) << "inlined members stand in their parent";
  EXPECT_FALSE(volume.contains("volumeSource"));
  EXPECT_EQ(definitions.at("io.k8s.apimachinery.pkg.apis.meta.v1.Time").at("format").as_string(), "date-time");
  EXPECT_EQ(
      definitions.at("io.k8s.api.core.v1.Secret").at("properties").at("data").at("additionalProperties").at("format").as_string(),
      "byte");
  EXPECT_TRUE(definitions.contains("io.k8s.api.networking.v1.Ingress"));
  EXPECT_FALSE(definitions.contains("io.k8s.api.networking.v1.NetworkPolicy")) << "not served yet";
}

const json::value* find_parameter(const json::value& operation, std::string_view name) {
  for (const auto& p : operation.at("parameters").as_array()) {
    if (p.at("name").as_string() == name) return &p;
  }
  return nullptr;
}

TEST(OpenApi, V2Operations) {
  const json::value d = parse(openapi_v2_json());
  const auto& paths = d.at("paths").as_object();
  const auto& item = paths.at("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
  EXPECT_EQ(item.at("patch").at("x-kubernetes-group-version-kind").at("kind").as_string(), "Deployment");
  EXPECT_EQ(item.at("patch").at("operationId").as_string(), "patchAppsV1NamespacedDeployment");
  for (const auto name : {"dryRun", "fieldValidation", "fieldManager", "force", "body"})
    EXPECT_TRUE(find_parameter(item.at("patch"), name)) << name;
  for (const auto method : {"get", "put", "delete"}) EXPECT_TRUE(item.as_object().contains(method));
  const auto& scale = paths.at("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale");
  EXPECT_EQ(scale.at("patch").at("x-kubernetes-group-version-kind"),
            parse(R"({"group":"autoscaling","kind":"Scale","version":"v1"})"));
  EXPECT_TRUE(paths.contains("/api/v1/nodes/{name}/status"));
  EXPECT_TRUE(paths.contains("/api/v1/pods")) << "all namespaces";
  EXPECT_EQ(paths.at("/api/v1/namespaces/{namespace}/pods/{name}/binding")
                .at("post")
                .at("x-kubernetes-group-version-kind")
                .at("kind")
                .as_string(),
            "Binding");
  EXPECT_FALSE(paths.contains("/api/v1/namespaces/{namespace}/pods/{name}/exec")) << "not served yet";
  EXPECT_FALSE(paths.at("/api/v1/namespaces").as_object().contains("delete")) << "namespaces have no deletecollection";
  std::set<std::string> ids;
  for (const auto& [path, path_item] : paths) {
    for (const auto& [method, op] : path_item.as_object()) {
      if (std::string_view(method) == "parameters") continue;
      EXPECT_TRUE(ids.insert(std::string(op.at("operationId").as_string())).second) << op.at("operationId").as_string();
    }
  }
}

TEST(OpenApi, GnosticSaysTheSame) {
  const json::value d = parse(openapi_v2_json());
  openapi::v2::Document g;
  ASSERT_TRUE(g.ParseFromString(openapi_v2_protobuf()));
  EXPECT_EQ(g.swagger(), "2.0");
  EXPECT_EQ(static_cast<std::size_t>(g.definitions().additional_properties_size()), d.at("definitions").as_object().size());
  EXPECT_EQ(static_cast<std::size_t>(g.paths().path_size()), d.at("paths").as_object().size());
  for (const auto& named : g.definitions().additional_properties()) {
    if (named.name() != "io.k8s.api.core.v1.PodSpec") continue;
    for (const auto& p : named.value().properties().additional_properties()) {
      if (p.name() != "containers") continue;
      EXPECT_EQ(p.value().type().value(0), "array");
      EXPECT_EQ(p.value().items().schema(0).ref(), "#/definitions/io.k8s.api.core.v1.Container");
      std::set<std::string> extensions;
      for (const auto& e : p.value().vendor_extension()) extensions.insert(e.name() + "=" + e.value().yaml());
      EXPECT_TRUE(extensions.contains("x-kubernetes-patch-merge-key=\"name\"\n"));
      return;
    }
  }
  FAIL() << "PodSpec.containers is missing";
}

TEST(OpenApi, V3) {
  const auto documents = openapi_v3();
  std::set<std::string> paths;
  for (const auto& d : documents) {
    SCOPED_TRACE(d.path);
    paths.insert(d.path);
    EXPECT_EQ(d.hash.size(), 128u);
    const json::value v = parse(d.json);
    EXPECT_EQ(v.at("openapi").as_string(), "3.0.0");
    expect_refs_resolve(v, "#/components/schemas/", v.at("components").at("schemas").as_object());
    // What kubectl demands before it leaves validation to the server.
    for (const auto& [path, item] : v.at("paths").as_object()) {
      const auto* patch = item.as_object().if_contains("patch");
      if (!patch) continue;
      EXPECT_TRUE(find_parameter(*patch, "fieldValidation")) << std::string_view(path);
      EXPECT_TRUE(patch->as_object().contains("x-kubernetes-group-version-kind"));
      EXPECT_TRUE(patch->at("requestBody").at("content").as_object().contains("application/strategic-merge-patch+json"));
      EXPECT_FALSE(patch->at("requestBody").at("content").as_object().contains("application/apply-patch+yaml"));
    }
  }
  EXPECT_EQ(paths, (std::set<std::string>{"api/v1", "apis/apps/v1", "apis/coordination.k8s.io/v1", "apis/discovery.k8s.io/v1",
                                          "apis/events.k8s.io/v1", "apis/networking.k8s.io/v1"}));
  const json::value index = parse(openapi_v3_index(documents));
  EXPECT_EQ(index.at("paths").at("api/v1").at("serverRelativeURL").as_string(), "/openapi/v3/api/v1?hash=" + documents[0].hash);
  EXPECT_EQ(openapi_v3()[0].hash, documents[0].hash) << "the same document each time";
}

TEST(OpenApi, EveryKindHasADocument) {
  OpenApiOptions all;
  all.include = [](const Kind&) { return true; };
  all.server_side_apply = true;
  const json::value d = parse(openapi_v2_json(all));
  expect_refs_resolve(d, "#/definitions/", d.at("definitions").as_object());
  EXPECT_TRUE(d.at("definitions").as_object().contains("io.k8s.api.rbac.v1.ClusterRole"));
  EXPECT_GT(openapi_v3(all).size(), 8u);
  EXPECT_NE(openapi_v2_json(all).find("application/apply-patch+yaml"), std::string::npos);
}

TEST(OpenApi, DescriptionsBelongToTheSchema) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  std::size_t fields = 0;
  for (const std::string& key : described_names()) {
    const auto hash = key.find('#');
    const auto* message = pool->FindMessageTypeByName(key.substr(0, hash));
    ASSERT_NE(message, nullptr) << key;
    const std::string field = key.substr(hash + 1);
    if (field.empty()) continue;
    EXPECT_NE(message->FindFieldByName(field), nullptr) << key;
    ++fields;
  }
  EXPECT_GT(fields, 250u);
  // The kinds that are served, and their top fields, say what they are.
  for (const Kind& k : kinds()) {
    if (!k.served) continue;
    const auto* d = k.prototype->GetDescriptor();
    EXPECT_NE(api_description(d->full_name()), "") << k.kind;
    for (int i = 0; i < d->field_count(); ++i) {
      if (d->field(i)->name().starts_with("deprecated") || k.kind == "Event") continue;
      EXPECT_NE(api_description(d->full_name(), d->field(i)->name()), "") << k.kind << "." << d->field(i)->name();
    }
  }
}

}  // namespace
}  // namespace fairlead::kube
