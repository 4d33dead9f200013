// OpenAPI documents of the API that Fairlead serves, derived from the table of kinds and the descriptors of their messages:
//   v2  Swagger 2.0, as JSON and as gnostic protobuf: kubectl up to 1.26 reads it for create, apply and explain
//   v3  one document for each group-version, as JSON, and an index: newer kubectl, and every client that explains fields
// Pure functions that return text, a few hundred kilobytes at most: whoever serves them keeps them. Thread safe.
//
// What clients look for in them: x-kubernetes-group-version-kind on schemas and operations, the query parameters
// fieldValidation and dryRun of patch operations, patch strategies and merge keys, list types, and the descriptions, which
// are our own words (kube/openapi_descriptions.cc).
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kube/kinds.h"

namespace fairlead::kube {

struct OpenApiOptions {
  std::string title = "Kubernetes";
  std::string version = "v1.36.0";
  bool server_side_apply = false;  // patch operations take application/apply-patch+yaml
  std::function<bool(const Kind&)> include = [](const Kind& k) { return k.served; };
};

std::string openapi_v2_json(const OpenApiOptions& options = {});
// Content type: application/com.github.proto-openapi.spec.v2.v1.0+protobuf (asked for with an @ before v1.0).
std::string openapi_v2_protobuf(const OpenApiOptions& options = {});

struct OpenApiV3 {
  std::string path;  // "api/v1", "apis/apps/v1"
  std::string json;
  std::string hash;  // of the JSON, in hexadecimal: its ETag, and `hash` in the URL
};
std::vector<OpenApiV3> openapi_v3(const OpenApiOptions& options = {});
// The same for kinds that CustomResourceDefinitions made: the schema of their objects stands in the definition.
struct CustomSchema {
  const Kind* kind = nullptr;
  const boost::json::value* schema = nullptr;
};
std::vector<OpenApiV3> openapi_v3_custom(const std::vector<CustomSchema>& schemas, const OpenApiOptions& options = {});
// What /openapi/v3 answers: {"paths":{"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1?hash=..."}}}
std::string openapi_v3_index(const std::vector<OpenApiV3>& documents);

// The description of a message or of one of its fields, by the schema's names: ("k8s.io.api.core.v1.Pod", "spec"). "" when
// there is none.
std::string_view api_description(std::string_view message, std::string_view field = {});
std::vector<std::string> described_names();  // "message#field", for the test that each of them exists

}  // namespace fairlead::kube
