#include "controlplane/apiserver/openapi_documents.h"

#include <memory>

#include "base/version.h"
#include "kube/openapi.h"

namespace fairlead::apiserver {
namespace {

constexpr char kV2Protobuf[] = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
constexpr std::string_view kV2ProtobufOld = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";  // what kubectl asks for

struct Documents {
  std::string v2_json, v2_json_tag;
  std::string v2_protobuf, v2_protobuf_tag;
  std::string v3_index;
  std::vector<kube::OpenApiV3> v3;
};

std::string tag_of(const std::string& text) { return fmt::format("\"{:016X}\"", std::hash<std::string>{}(text)); }

// Made when first asked for: a cluster without people never needs them.
const Documents& documents() {
  static const std::unique_ptr<const Documents> made = [] {
    kube::OpenApiOptions options;
    options.version = kKubernetesVersion;
    auto d = std::make_unique<Documents>();
    d->v2_json = kube::openapi_v2_json(options);
    d->v2_protobuf = kube::openapi_v2_protobuf(options);
    d->v2_json_tag = tag_of(d->v2_json);
    d->v2_protobuf_tag = tag_of(d->v2_protobuf);
    d->v3 = kube::openapi_v3(options);
    d->v3_index = kube::openapi_v3_index(d->v3);
    return d;
  }();
  return *made;
}

http::Response tagged(const RequestContext& ctx, std::string type, const std::string& body, const std::string& tag) {
  auto r = ctx.header("If-None-Match") == tag ? make_response(304, type, "") : make_response(200, type, body);
  r.headers.set("ETag", tag);
  r.headers.set("Vary", "Accept");
  return r;
}

std::optional<http::Response> v3_document(const RequestContext& ctx, std::string_view path, const std::vector<kube::OpenApiV3>& list) {
  for (const auto& d : list) {
    if (d.path != path) continue;
    const auto wanted = ctx.query("hash");
    if (!wanted.empty() && wanted != d.hash) {
      auto r = make_response(301, "text/plain; charset=utf-8", "");
      r.headers.set("Location", fmt::format("/openapi/v3/{}?hash={}", d.path, d.hash));
      return r;
    }
    auto r = tagged(ctx, "application/json", d.json, "\"" + d.hash + "\"");
    if (!wanted.empty()) r.headers.set("Cache-Control", "public, immutable");
    return r;
  }
  return std::nullopt;
}

}  // namespace

std::vector<kube::OpenApiV3> custom_openapi(const std::vector<OpenApiVersion>& versions) {
  std::vector<kube::CustomSchema> schemas;
  for (const auto& v : versions) schemas.push_back({v.kind.get(), &v.schema});
  kube::OpenApiOptions options;
  options.version = kKubernetesVersion;
  return kube::openapi_v3_custom(schemas, options);
}

std::optional<http::Response> openapi_answer(const RequestContext& ctx, const std::vector<kube::OpenApiV3>& custom) {
  const auto& path = ctx.info.path;
  const auto accept = ctx.header("Accept");
  if (path == "/swagger-2.0.0.pb-v1") return tagged(ctx, kV2Protobuf, documents().v2_protobuf, documents().v2_protobuf_tag);
  if (path == "/openapi/v2") {
    const bool protobuf = accept.find(kV2Protobuf) != std::string::npos || accept.find(kV2ProtobufOld) != std::string::npos;
    return protobuf ? tagged(ctx, kV2Protobuf, documents().v2_protobuf, documents().v2_protobuf_tag)
                    : tagged(ctx, "application/json", documents().v2_json, documents().v2_json_tag);
  }
  if (path == "/openapi/v3" || path == "/openapi/v3/") {
    if (custom.empty()) return make_response(200, "application/json", documents().v3_index);
    auto all = documents().v3;
    all.insert(all.end(), custom.begin(), custom.end());
    return make_response(200, "application/json", kube::openapi_v3_index(all));
  }
  constexpr std::string_view prefix = "/openapi/v3/";
  if (!path.starts_with(prefix)) return std::nullopt;
  const auto name = std::string_view(path).substr(prefix.size());
  if (auto found = v3_document(ctx, name, documents().v3)) return found;
  return v3_document(ctx, name, custom);
}

}  // namespace fairlead::apiserver
