#include "controlplane/apiserver/handlers/context.h"

#include "controlplane/apiserver/core.h"

namespace fairlead::apiserver {

bool RequestContext::flag(std::string_view key) const {
  const auto v = target.get(key);
  return v && (v->empty() || *v == "true" || *v == "1" || *v == "True" || *v == "TRUE" || *v == "t" || *v == "T");
}

ApiResult<Format> RequestContext::format(bool stream) const {
  Offers offers;
  offers.stream = stream;
  offers.protobuf = !resource || !resource->json_only;
  return negotiate(request.headers.value_or("Accept", ""), offers);
}

EncodeOptions RequestContext::encode_options(const Format& f, WallTime now) const {
  EncodeOptions o;
  o.format = f;
  o.now = now;
  const auto include = query("includeObject");
  if (include == "None") o.include = IncludeObject::none;
  if (include == "Object") o.include = IncludeObject::object;
  return o;
}

ApiResult<WriteOptions> RequestContext::write_options() {
  WriteOptions o;
  for (const auto& [key, value] : target.query) {
    if (key != "dryRun") continue;
    if (value != "All") {
      field::ErrorList e;
      e.not_supported(field::Path("dryRun"), value, {"All"});
      return api_fail(invalid("meta.k8s.io", "CreateOptions", "", e));
    }
    o.dry_run = true;
  }
  o.field_manager = query("fieldManager");
  if (o.field_manager.size() > 128) {
    field::ErrorList e;
    e.too_long(field::Path("fieldManager"), 128);
    return api_fail(invalid("meta.k8s.io", "CreateOptions", "", e));
  }
  o.user = user;
  o.warnings = &warnings;
  return o;
}

ApiResult<FieldValidation> RequestContext::field_validation() const {
  const auto v = query("fieldValidation");
  if (v.empty() || v == "Warn") return FieldValidation::warn;
  if (v == "Strict") return FieldValidation::strict;
  if (v == "Ignore") return FieldValidation::ignore;
  field::ErrorList e;
  e.not_supported(field::Path("fieldValidation"), v, {"Ignore", "Strict", "Warn"});
  return api_fail(invalid("meta.k8s.io", "CreateOptions", "", e));
}

http::Response make_response(unsigned status, std::string type, std::string body) {
  http::Response r;
  r.status = status;
  r.headers.set("Content-Type", type);
  r.body = std::move(body);
  return r;
}

http::Response object_response(unsigned status, const Resource& resource, const Message& object, const EncodeOptions& options) {
  return make_response(status, content_type(options.format, false), encode_object(resource, object, options));
}

http::Response plain_response(unsigned status, const Message& object, std::string_view api_version, std::string_view kind,
                              const Format& format) {
  return make_response(status, content_type(format, false), encode_plain(object, api_version, kind, format));
}

ApiResult<ListQuery> list_query(const RequestContext& ctx) {
  ListQuery q;
  q.ns = ctx.info.ns;
  auto labels = kube::LabelSelector::parse(ctx.query("labelSelector"));
  if (!labels) return api_fail(bad_request(fmt::format("unable to parse requirement: {}", labels.error().message)));
  q.labels = std::move(*labels);
  auto fields = kube::FieldSelector::parse(ctx.query("fieldSelector"));
  if (!fields) return api_fail(bad_request(fields.error().message));
  q.fields = std::move(*fields);
  q.resource_version = ctx.query("resourceVersion");
  q.resource_version_match = ctx.query("resourceVersionMatch");
  q.continue_token = ctx.query("continue");
  if (const auto text = ctx.query("limit"); !text.empty()) {
    auto limit = parse_resource_version(text);
    if (!limit) return api_fail(bad_request(fmt::format("limit: {}", limit.error().message)));
    q.limit = *limit;
  }
  return q;
}

ApiResult<metav1::DeleteOptions> delete_options(const RequestContext& ctx) {
  metav1::DeleteOptions how;
  if (!ctx.request.body.empty()) {
    Warnings ignored;
    auto body = decode_body(ctx.request, how, "v1", "DeleteOptions", FieldValidation::ignore, ignored);
    if (!body) return api_fail(std::move(body).error());
    how = static_cast<const metav1::DeleteOptions&>(**body);
  }
  if (const auto text = ctx.query("gracePeriodSeconds"); !text.empty() && !how.has_graceperiodseconds()) {
    auto n = parse_resource_version(text);
    if (!n) return api_fail(bad_request(fmt::format("gracePeriodSeconds: {}", n.error().message)));
    how.set_graceperiodseconds(*n);
  }
  if (const auto policy = ctx.query("propagationPolicy"); !policy.empty() && !how.has_propagationpolicy()) how.set_propagationpolicy(policy);
  if (ctx.target.get("orphanDependents") && !how.has_orphandependents()) how.set_orphandependents(ctx.flag("orphanDependents"));
  return how;
}

}  // namespace fairlead::apiserver
