// RequestContext: one request on its way through the handlers. Shared with the stream that a watch or log leaves behind.
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <optional>
#include <string>

#include "base/http/server.h"
#include "controlplane/apiserver/auth/user.h"
#include "controlplane/apiserver/encode.h"
#include "controlplane/apiserver/negotiation.h"
#include "controlplane/apiserver/registry/registry.h"
#include "controlplane/apiserver/request_info.h"

namespace fairlead::apiserver {

struct Core;

enum class FieldValidation { ignore, warn, strict };

struct RequestContext {
  http::Request request;
  http::Target target;
  RequestInfo info;
  User user;
  std::string audit_id;
  Warnings warnings;
  std::shared_ptr<const Resource> resource;  // null: the request is about none

  std::string query(std::string_view key) const {
    const auto v = target.get(key);
    return v ? std::string(*v) : std::string();
  }
  bool flag(std::string_view key) const;
  std::string header(std::string_view name) const { return std::string(request.headers.value_or(name, "")); }

  ApiResult<Format> format(bool stream = false) const;
  EncodeOptions encode_options(const Format& format, WallTime now) const;
  // dryRun, fieldManager and who writes. Fails on a dryRun other than All.
  ApiResult<WriteOptions> write_options();
  ApiResult<FieldValidation> field_validation() const;
};
using ContextPtr = std::shared_ptr<RequestContext>;
using Reply = ApiResult<http::Response>;

http::Response make_response(unsigned status, std::string content_type, std::string body);
http::Response object_response(unsigned status, const Resource& resource, const Message& object, const EncodeOptions& options);
http::Response plain_response(unsigned status, const Message& object, std::string_view api_version, std::string_view kind,
                              const Format& format);

// ---- the handlers, by verb (one file each)
Task<Reply> handle_get(Core& core, ContextPtr ctx);
Task<Reply> handle_list(Core& core, ContextPtr ctx);
Task<Reply> handle_watch(Core& core, ContextPtr ctx);
Task<Reply> handle_create(Core& core, ContextPtr ctx);
Task<Reply> handle_update(Core& core, ContextPtr ctx);
Task<Reply> handle_patch(Core& core, ContextPtr ctx);
Task<Reply> handle_delete(Core& core, ContextPtr ctx);
Task<Reply> handle_delete_collection(Core& core, ContextPtr ctx);
// Subresources with a kind of their own.
Task<Reply> handle_scale(Core& core, ContextPtr ctx);
Task<Reply> handle_binding(Core& core, ContextPtr ctx, bool top_level);
Task<Reply> handle_eviction(Core& core, ContextPtr ctx);
Task<Reply> handle_token_request(Core& core, ContextPtr ctx);
Task<Reply> handle_log(Core& core, ContextPtr ctx);
// Kinds that are questions: SubjectAccessReview and its kin, TokenReview, SelfSubjectReview.
bool is_review(const RequestInfo& info);
Task<Reply> handle_review(Core& core, ContextPtr ctx);
// What is not a resource: discovery, OpenAPI, health, version, metrics. nullopt: not one of these paths.
std::optional<Reply> handle_path(Core& core, const RequestContext& ctx);

// Shared pieces.
ApiResult<ListQuery> list_query(const RequestContext& ctx);
ApiResult<metav1::DeleteOptions> delete_options(const RequestContext& ctx);

// Reads a request body as one object of this kind, by Content-Type; reports unknown and duplicate fields as asked for.
// `strategy`, where given, prunes what the codec takes for any kind (Strategy::prune).
ApiResult<std::unique_ptr<Message>> decode_body(const http::Request& request, const Message& prototype, std::string_view api_version,
                                                std::string_view kind, FieldValidation validation, Warnings& warnings,
                                                const Strategy* strategy = nullptr);
// The JSON value of an object that came as a patch result.
ApiResult<std::unique_ptr<Message>> decode_json_object(const boost::json::value& json, const Message& prototype,
                                                       std::string_view api_version, std::string_view kind,
                                                       FieldValidation validation, Warnings& warnings, Warnings strict = {},
                                                       const Strategy* strategy = nullptr);

enum class PatchType { json, merge, strategic };
// `json_only`: the kind has no schema that a strategic merge patch could go by.
ApiResult<PatchType> patch_type(const http::Request& request, bool json_only = false);
// The patched object. `api_version` and `kind` are those of `current`.
ApiResult<std::unique_ptr<Message>> apply_patch(const Message& current, std::string_view api_version, std::string_view kind,
                                                PatchType type, const boost::json::value& patch, FieldValidation validation,
                                                Warnings& warnings, const Strategy* strategy = nullptr);
// The patch body as JSON (YAML is accepted where upstream does).
ApiResult<boost::json::value> parse_patch(const http::Request& request);

}  // namespace fairlead::apiserver
