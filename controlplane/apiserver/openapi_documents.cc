#include "controlplane/apiserver/openapi_documents.h"

namespace fairlead::apiserver {

std::optional<http::Response> openapi_answer(const RequestContext&) { return std::nullopt; }

}  // namespace fairlead::apiserver
