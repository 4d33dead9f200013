// The OpenAPI endpoints: /openapi/v2 (JSON or protobuf) and /openapi/v3 (an index, and one document per group version). The
// documents themselves are generated from the schema by kube/openapi.h; here is what HTTP adds: formats, ETags and hashes.
#pragma once

#include <optional>

#include "controlplane/apiserver/handlers/context.h"
#include "kube/openapi.h"

namespace fairlead::apiserver {

// One version of a custom resource, and the schema of its objects.
struct OpenApiVersion {
  std::shared_ptr<const kube::Kind> kind;
  boost::json::value schema;
};
// The v3 documents of custom resources. (v2 has none: the clients that read it do without.)
std::vector<kube::OpenApiV3> custom_openapi(const std::vector<OpenApiVersion>& versions);

// nullopt: no such document. `custom`: see above.
std::optional<http::Response> openapi_answer(const RequestContext& ctx, const std::vector<kube::OpenApiV3>& custom);

}  // namespace fairlead::apiserver
