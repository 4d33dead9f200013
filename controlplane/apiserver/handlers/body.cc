// Request bodies and patches: bytes to objects.
#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/handlers/context.h"
#include "kube/codec.h"
#include "kube/custom.h"
#include "kube/patch.h"

namespace fairlead::apiserver {
namespace json = boost::json;
namespace {

constexpr std::string_view kPatchTypes =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";
constexpr std::string_view kJsonPatchTypes = "application/json-patch+json, application/merge-patch+json";

std::string_view version_of(std::string_view api_version) {
  const auto slash = api_version.find('/');
  return slash == std::string_view::npos ? api_version : api_version.substr(slash + 1);
}

ApiError not_handled(std::string_view api_version, std::string_view got_kind, std::string_view kind, std::string_view why) {
  return bad_request(fmt::format("{} in version \"{}\" cannot be handled as a {}: {}", got_kind, version_of(api_version), kind, why));
}

// Options are written under several groups by different clients; the kind is what counts.
bool same_type(std::string_view got_version, std::string_view got_kind, std::string_view api_version, std::string_view kind) {
  if (got_kind != kind) return false;
  return got_version == api_version || kind == "DeleteOptions" ||
         (kind == "Eviction" && (got_version == "policy/v1" || got_version == "policy/v1beta1"));
}

ApiResult<> check_type(std::string_view got_version, std::string_view got_kind, std::string_view api_version, std::string_view kind) {
  if (got_version.empty() && got_kind.empty()) return {};  // the endpoint says what it is
  if (!got_kind.empty() && !got_version.empty() && same_type(got_version, got_kind, api_version, kind)) return {};
  if (got_kind.empty() || got_kind == kind) {
    if (got_version == api_version || got_version.empty()) return {};
    return api_fail(bad_request(
        fmt::format("the API version in the data ({}) does not match the expected API version ({})", got_version, api_version)));
  }
  return api_fail(not_handled(got_version, got_kind, kind, "the kind of the data does not match the kind of the endpoint"));
}

std::string text_member(const json::object& o, std::string_view key) {
  const auto* v = o.if_contains(key);
  return v && v->is_string() ? std::string(v->get_string()) : std::string();
}

ApiResult<> judge_strict(const Warnings& strict, std::string_view api_version, std::string_view kind, FieldValidation validation,
                         Warnings& warnings) {
  if (strict.empty() || validation == FieldValidation::ignore) return {};
  if (validation == FieldValidation::warn) {
    warnings.insert(warnings.end(), strict.begin(), strict.end());
    return {};
  }
  std::string all;
  for (const auto& s : strict) all += (all.empty() ? "" : ", ") + s;
  return api_fail(not_handled(api_version, kind, kind, "strict decoding error: " + all));
}

ApiResult<std::unique_ptr<Message>> decode_protobuf(std::string_view body, const Message& prototype, std::string_view api_version,
                                                    std::string_view kind) {
  auto envelope = kube::open_envelope(body);
  if (!envelope) return api_fail(bad_request(envelope.error().message));
  API_CHECK(check_type(envelope->api_version, envelope->kind, api_version, kind));
  std::unique_ptr<Message> out(prototype.New());
  if (!out->ParseFromString(envelope->raw)) return api_fail(not_handled(api_version, kind, kind, "malformed protobuf"));
  if (auto ok = kube::normalize(*out); !ok) return api_fail(not_handled(api_version, kind, kind, ok.error().message));
  return out;
}

ApiResult<json::value> parse_text(std::string_view body, bool yaml, Warnings& strict) {
  kube::DecodeOptions options;
  options.strict = &strict;
  if (!yaml) {
    auto v = kube::parse_json(body, options);
    if (!v) return api_fail(bad_request(fmt::format("couldn't get version/kind; json parse error: {}", v.error().message)));
    return std::move(*v);
  }
  auto documents = kube::parse_yaml(body, options);
  if (!documents) return api_fail(bad_request(fmt::format("error converting YAML to JSON: {}", documents.error().message)));
  if (documents->size() != 1) return api_fail(bad_request("the request body must hold exactly one YAML document"));
  return std::move(documents->front());
}

}  // namespace

ApiResult<std::unique_ptr<Message>> decode_json_object(const json::value& value, const Message& prototype, std::string_view api_version,
                                                       std::string_view kind, FieldValidation validation, Warnings& warnings,
                                                       Warnings strict, const Strategy* strategy) {
  const auto* object = value.if_object();
  if (!object) return api_fail(bad_request("the request body must be a JSON object"));
  API_CHECK(check_type(text_member(*object, "apiVersion"), text_member(*object, "kind"), api_version, kind));
  json::object rest = *object;
  rest.erase("apiVersion");
  rest.erase("kind");
  std::unique_ptr<Message> out(prototype.New());
  kube::DecodeOptions options;
  options.strict = &strict;
  if (auto ok = kube::from_json_value(rest, *out, options); !ok) return api_fail(not_handled(api_version, kind, kind, ok.error().message));
  if (strategy) strategy->prune(*out, &strict);
  API_CHECK(judge_strict(strict, api_version, kind, validation, warnings));
  return out;
}

ApiResult<std::unique_ptr<Message>> decode_body(const http::Request& request, const Message& prototype, std::string_view api_version,
                                                std::string_view kind, FieldValidation validation, Warnings& warnings,
                                                const Strategy* strategy) {
  API_TRY(const auto encoding, body_encoding(request.headers.value_or("Content-Type", "")));
  if (request.body.empty()) return api_fail(bad_request("the request body is empty"));
  if (encoding == Encoding::protobuf && prototype.GetDescriptor() == kube::CustomObject::descriptor())
    return api_fail(unsupported_media_type("application/json, application/yaml"));
  if (encoding == Encoding::protobuf) return decode_protobuf(request.body, prototype, api_version, kind);
  Warnings strict;
  API_TRY(const auto value, parse_text(request.body, encoding == Encoding::yaml, strict));
  return decode_json_object(value, prototype, api_version, kind, validation, warnings, std::move(strict), strategy);
}

ApiResult<PatchType> patch_type(const http::Request& request, bool json_only) {
  const auto type = media_type(request.headers.value_or("Content-Type", ""));
  if (type == "application/json-patch+json") return PatchType::json;
  if (type == "application/merge-patch+json") return PatchType::merge;
  if (type == "application/strategic-merge-patch+json" && !json_only) return PatchType::strategic;
  return api_fail(unsupported_media_type(json_only ? kJsonPatchTypes : kPatchTypes));
}

ApiResult<json::value> parse_patch(const http::Request& request) {
  auto v = kube::parse_json(request.body);
  if (!v) return api_fail(bad_request(fmt::format("error decoding patch: {}", v.error().message)));
  return std::move(*v);
}

ApiResult<std::unique_ptr<Message>> apply_patch(const Message& current, std::string_view api_version, std::string_view kind,
                                                PatchType type, const json::value& patch, FieldValidation validation,
                                                Warnings& warnings, const Strategy* strategy) {
  const json::value before = kube::to_json_object(current, api_version, kind);
  Result<json::value> after = fail(ErrorCode::internal, "");
  switch (type) {
    case PatchType::json: after = kube::json_patch(before, patch); break;
    case PatchType::merge: after = kube::merge_patch(before, patch); break;
    case PatchType::strategic: after = kube::strategic_patch(before, patch, *current.GetDescriptor()); break;
  }
  if (!after) {
    if (type != PatchType::json || after.error().code == ErrorCode::invalid_argument) return api_fail(bad_request(after.error().message));
    ApiError e;  // a well-formed JSON patch that does not fit the object
    e.code = 422;
    e.reason = "Invalid";
    e.message = after.error().message;
    return api_fail(std::move(e));
  }
  return decode_json_object(*after, current, api_version, kind, validation, warnings, {}, strategy);
}

}  // namespace fairlead::apiserver
