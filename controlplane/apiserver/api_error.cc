#include "controlplane/apiserver/api_error.h"

#include <set>

namespace fairlead::apiserver {
namespace {

ApiError for_resource(int code, std::string_view reason, const kube::Kind& kind, std::string_view name, std::string message) {
  ApiError e;
  e.code = code;
  e.reason = reason;
  e.message = std::move(message);
  e.group = kind.group;
  e.kind = kind.resource;
  e.name = name;
  return e;
}

ApiError plain(int code, std::string_view reason, std::string message) {
  ApiError e;
  e.code = code;
  e.reason = reason;
  e.message = std::move(message);
  return e;
}

}  // namespace

ApiError not_found(const kube::Kind& kind, std::string_view name) {
  return for_resource(404, "NotFound", kind, name, fmt::format("{} \"{}\" not found", kind.group_resource(), name));
}

ApiError already_exists(const kube::Kind& kind, std::string_view name) {
  return for_resource(409, "AlreadyExists", kind, name, fmt::format("{} \"{}\" already exists", kind.group_resource(), name));
}

ApiError generate_name_conflict(const kube::Kind& kind, std::string_view name) {
  auto e = for_resource(409, "AlreadyExists", kind, name,
                        fmt::format("{} \"{}\" already exists, the server was not able to generate a unique name for the object",
                                    kind.group_resource(), name));
  e.retry_after_seconds = 1;
  return e;
}

ApiError conflict(const kube::Kind& kind, std::string_view name, std::string_view why) {
  return for_resource(409, "Conflict", kind, name,
                      fmt::format("Operation cannot be fulfilled on {} \"{}\": {}", kind.group_resource(), name, why));
}

ApiError modified_conflict(const kube::Kind& kind, std::string_view name) {
  return conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again");
}

ApiError forbidden(const kube::Kind& kind, std::string_view name, std::string_view why) {
  return for_resource(403, "Forbidden", kind, name,
                      name.empty() ? fmt::format("{} is forbidden: {}", kind.group_resource(), why)
                                   : fmt::format("{} \"{}\" is forbidden: {}", kind.group_resource(), name, why));
}

ApiError invalid(std::string_view group, std::string_view kind, std::string_view name, const field::ErrorList& errors) {
  ApiError e;
  e.code = 422;
  e.reason = "Invalid";
  e.group = group;
  e.kind = kind;
  e.name = name;
  std::vector<std::string> messages;
  std::set<std::string> seen;
  for (const auto& f : errors) {
    e.causes.push_back({std::string(field::reason(f.type)), f.body(), f.field});
    if (auto text = f.text(); seen.insert(text).second) messages.push_back(std::move(text));
  }
  std::string all;
  for (const auto& m : messages) all += (all.empty() ? "" : ", ") + m;
  if (messages.size() > 1) all = "[" + all + "]";
  const auto qualified = group.empty() ? std::string(kind) : fmt::format("{}.{}", kind, group);
  e.message = fmt::format("{} \"{}\" is invalid: {}", qualified, name, all);
  return e;
}

ApiError invalid(const kube::Kind& kind, std::string_view name, const field::ErrorList& errors) {
  return invalid(kind.group, kind.kind, name, errors);
}

ApiError bad_request(std::string message) { return plain(400, "BadRequest", std::move(message)); }
ApiError unauthorized() { return plain(401, "Unauthorized", "Unauthorized"); }

ApiError method_not_allowed(const kube::Kind& kind, std::string_view verb) {
  auto e = for_resource(405, "MethodNotAllowed", kind, "",
                        fmt::format("{} is not supported on resources of kind \"{}\"", verb, kind.group_resource()));
  return e;
}

ApiError page_not_found() {
  auto e = plain(404, "NotFound", "the server could not find the requested resource");
  e.causes.push_back({"UnexpectedServerResponse", "404 page not found", ""});
  return e;
}

ApiError not_acceptable(std::string_view accepted) {
  return plain(406, "NotAcceptable", fmt::format("only the following media types are accepted: {}", accepted));
}

ApiError unsupported_media_type(std::string_view accepted) {
  return plain(415, "UnsupportedMediaType",
               fmt::format("the body of the request was in an unknown format - accepted media types include: {}", accepted));
}

ApiError too_large() {
  return plain(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728");
}

ApiError too_many_requests(int retry_after_seconds) {
  auto e = plain(429, "TooManyRequests", "Too many requests, please try again later.");
  e.retry_after_seconds = retry_after_seconds;
  return e;
}

ApiError expired(std::string_view why) { return plain(410, "Expired", std::string(why)); }

ApiError too_large_resource_version(std::int64_t wanted, std::int64_t current, int retry_after_seconds) {
  auto e = timeout(fmt::format("Too large resource version: {}, current: {}", wanted, current), retry_after_seconds);
  e.causes.push_back({"ResourceVersionTooLarge", "Too large resource version", ""});
  return e;
}

ApiError timeout(std::string_view why, int retry_after_seconds) {
  auto e = plain(504, "Timeout", fmt::format("Timeout: {}", why));
  e.retry_after_seconds = retry_after_seconds;
  return e;
}

ApiError internal(std::string_view why) {
  auto e = plain(500, "InternalError", fmt::format("Internal error occurred: {}", why));
  e.causes.push_back({"", std::string(why), ""});
  return e;
}

ApiError service_unavailable(std::string_view why) { return plain(503, "ServiceUnavailable", std::string(why)); }

ApiError from_error(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument: return bad_request(error.message);
    case ErrorCode::expired: return expired(error.message);
    case ErrorCode::timeout: return timeout(error.message, 1);
    case ErrorCode::unavailable:
    case ErrorCode::cancelled: return service_unavailable(error.message);
    case ErrorCode::resource_exhausted: {
      auto e = internal(error.message);  // a full store: a 500 with the store's own words
      return e;
    }
    default: return internal(error.message);
  }
}

}  // namespace fairlead::apiserver
