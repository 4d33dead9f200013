// ApiError: what a request that failed is answered with, before it is written as a metav1.Status. ApiResult<T> is the
// result type inside the apiserver: the HTTP code, the machine-readable reason and the causes (one per field) are part of
// the contract with clients, so a plain Error is not enough. Reasons, codes and wording follow Kubernetes
// (staging/src/k8s.io/apimachinery/pkg/api/errors); kubectl prints the message as it is. Values; thread safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "base/result.h"
#include "controlplane/apiserver/validation/field.h"
#include "kube/api.h"
#include "kube/kinds.h"

namespace fairlead::apiserver {

struct Cause {
  std::string reason;
  std::string message;
  std::string field;
};

struct ApiError {
  int code = 500;
  std::string reason = "InternalError";
  std::string message;
  std::string group;  // of details
  std::string kind;   // of details: the resource for NotFound and the like, the kind for Invalid
  std::string name;
  std::string uid;
  std::vector<Cause> causes;
  int retry_after_seconds = 0;
  std::string continue_token;  // a fresh token for a list that expired in the middle
};

template <typename T = void>
using ApiResult = tl::expected<T, ApiError>;
using ApiFailure = tl::unexpected<ApiError>;

inline ApiFailure api_fail(ApiError e) { return ApiFailure(std::move(e)); }

// Group and resource of a kind, for messages: "deployments.apps".
ApiError not_found(const kube::Kind& kind, std::string_view name);
ApiError already_exists(const kube::Kind& kind, std::string_view name);
ApiError generate_name_conflict(const kube::Kind& kind, std::string_view name);
ApiError conflict(const kube::Kind& kind, std::string_view name, std::string_view why);
ApiError modified_conflict(const kube::Kind& kind, std::string_view name);
ApiError forbidden(const kube::Kind& kind, std::string_view name, std::string_view why);
ApiError invalid(const kube::Kind& kind, std::string_view name, const field::ErrorList& errors);
ApiError invalid(std::string_view group, std::string_view kind, std::string_view name, const field::ErrorList& errors);
ApiError bad_request(std::string message);
ApiError unauthorized();
ApiError method_not_allowed(const kube::Kind& kind, std::string_view verb);
ApiError page_not_found();
ApiError not_acceptable(std::string_view accepted);
ApiError unsupported_media_type(std::string_view accepted);
ApiError too_large();
ApiError too_many_requests(int retry_after_seconds);
ApiError expired(std::string_view why);
ApiError too_large_resource_version(std::int64_t wanted, std::int64_t current, int retry_after_seconds);
ApiError timeout(std::string_view why, int retry_after_seconds);
ApiError internal(std::string_view why);
ApiError service_unavailable(std::string_view why);

// An error of the store or of one of our libraries as seen by a client.
ApiError from_error(const Error& error);

}  // namespace fairlead::apiserver

// Like FL_TRY and FL_CO_TRY, for ApiResult.
#define API_TRY_IMPL(tmp, decl, expr, ret)                                     \
  auto tmp = (expr);                                                           \
  if (!tmp) [[unlikely]] ret ::fairlead::apiserver::api_fail(std::move(tmp).error()); \
  decl = std::move(*tmp)
#define API_CHECK_IMPL(tmp, expr, ret) \
  if (auto tmp = (expr); !tmp) [[unlikely]] ret ::fairlead::apiserver::api_fail(std::move(tmp).error())
#define API_TRY(decl, ...) API_TRY_IMPL(FL_CAT(api_r_, __COUNTER__), decl, (__VA_ARGS__), return)
#define API_CO_TRY(decl, ...) API_TRY_IMPL(FL_CAT(api_r_, __COUNTER__), decl, (__VA_ARGS__), co_return)
#define API_CHECK(...) API_CHECK_IMPL(FL_CAT(api_r_, __COUNTER__), (__VA_ARGS__), return)
#define API_CO_CHECK(...) API_CHECK_IMPL(FL_CAT(api_r_, __COUNTER__), (__VA_ARGS__), co_return)
