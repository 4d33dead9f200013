// The OpenAPI endpoints: /openapi/v2 (JSON or protobuf) and /openapi/v3 (an index, and one document per group version). The
// documents themselves are generated from the schema by kube/openapi.h; here is what HTTP adds: formats, ETags and hashes.
#pragma once

#include <optional>

#include "controlplane/apiserver/handlers/context.h"

namespace fairlead::apiserver {

// nullopt: no such document.
std::optional<http::Response> openapi_answer(const RequestContext& ctx);

}  // namespace fairlead::apiserver
