// Handlers for objects of a resource: get, list, create, update, patch, delete, deletecollection.
#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/handlers/context.h"
#include "kube/codec.h"

namespace fairlead::apiserver {
namespace {

ApiResult<Registry::Part> part_of(const RequestContext& ctx) {
  if (ctx.info.subresource.empty()) return Registry::Part::main;
  if (ctx.info.subresource == "status") return Registry::Part::status;
  if (ctx.info.subresource == "finalize") return Registry::Part::finalize;
  return api_fail(page_not_found());
}

}  // namespace

Task<Reply> handle_get(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format());
  const auto& r = *ctx->resource;
  auto object = co_await core.registry->get(r, ctx->info.ns, ctx->info.name, ctx->query("resourceVersion"));
  if (!object) co_return api_fail(std::move(object).error());
  co_return object_response(200, r, **object, ctx->encode_options(format, core.clock.wall()));
}

Task<Reply> handle_list(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format());
  if (ctx->target.get("sendInitialEvents")) {
    field::ErrorList e;
    e.forbidden(field::Path("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    co_return api_fail(invalid("meta.k8s.io", "ListOptions", "", e));
  }
  API_CO_TRY(auto query, list_query(*ctx));
  const auto& r = *ctx->resource;
  auto listed = co_await core.registry->list(r, std::move(query));
  if (!listed) co_return api_fail(std::move(listed).error());
  ListBody body;
  body.resource_version = std::to_string(listed->revision);
  body.continue_token = std::move(listed->continue_token);
  body.remaining = listed->remaining;
  body.items = std::move(listed->items);
  const auto options = ctx->encode_options(format, core.clock.wall());
  co_return make_response(200, content_type(format, false), encode_list(r, body, options));
}

Task<Reply> handle_create(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format());
  const auto& r = *ctx->resource;
  API_CO_TRY(const auto options, ctx->write_options());
  API_CO_TRY(const auto validation, ctx->field_validation());
  API_CO_TRY(auto object,
             decode_body(ctx->request, *r.kind->prototype, r.kind->api_version(), r.kind->kind, validation, ctx->warnings, r.strategy.get()));
  auto created = co_await core.registry->create(r, ctx->info.ns, std::move(object), options);
  if (!created) co_return api_fail(std::move(created).error());
  co_return object_response(201, r, **created, ctx->encode_options(format, core.clock.wall()));
}

Task<Reply> handle_update(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format());
  API_CO_TRY(const auto part, part_of(*ctx));
  const auto& r = *ctx->resource;
  API_CO_TRY(const auto options, ctx->write_options());
  API_CO_TRY(const auto validation, ctx->field_validation());
  API_CO_TRY(auto decoded,
             decode_body(ctx->request, *r.kind->prototype, r.kind->api_version(), r.kind->kind, validation, ctx->warnings, r.strategy.get()));
  const std::shared_ptr<const Message> wanted = std::move(decoded);
  const Registry::Edit edit = [wanted](const Message*) -> ApiResult<Registry::Object> { return clone(*wanted); };
  auto done = co_await core.registry->update(r, ctx->info.ns, ctx->info.name, part, edit, options);
  if (!done) co_return api_fail(std::move(done).error());
  co_return object_response(done->created ? 201 : 200, r, *done->object, ctx->encode_options(format, core.clock.wall()));
}

Task<Reply> handle_patch(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format());
  API_CO_TRY(const auto part, part_of(*ctx));
  const auto& r = *ctx->resource;
  API_CO_TRY(const auto type, patch_type(ctx->request, r.json_only));
  API_CO_TRY(auto patch, parse_patch(ctx->request));
  API_CO_TRY(const auto options, ctx->write_options());
  API_CO_TRY(const auto validation, ctx->field_validation());
  const Registry::Edit edit = [&](const Message* current) -> ApiResult<Registry::Object> {
    if (!current) return api_fail(not_found(*r.kind, ctx->info.name));
    ctx->warnings.clear();
    return apply_patch(*current, r.kind->api_version(), r.kind->kind, type, patch, validation, ctx->warnings, r.strategy.get());
  };
  auto done = co_await core.registry->update(r, ctx->info.ns, ctx->info.name, part, edit, options);
  if (!done) co_return api_fail(std::move(done).error());
  co_return object_response(200, r, *done->object, ctx->encode_options(format, core.clock.wall()));
}

Task<Reply> handle_delete(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format());
  const auto& r = *ctx->resource;
  API_CO_TRY(auto options, ctx->write_options());
  API_CO_TRY(const auto how, delete_options(*ctx));
  for (const auto& d : how.dryrun()) options.dry_run = options.dry_run || d == "All";
  auto done = co_await core.registry->remove(r, ctx->info.ns, ctx->info.name, how, options);
  if (!done) co_return api_fail(std::move(done).error());
  if (done->gone) {
    auto plain = format;
    plain.shape = Shape::object;
    co_return plain_response(200, success_status(r, meta_of(*done->object)), "v1", "Status", plain);
  }
  const bool accepted = how.propagationpolicy() == "Foreground" || (how.has_orphandependents() && !how.orphandependents());
  co_return object_response(accepted ? 202 : 200, r, *done->object, ctx->encode_options(format, core.clock.wall()));
}

Task<Reply> handle_delete_collection(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format());
  const auto& r = *ctx->resource;
  API_CO_TRY(auto options, ctx->write_options());
  API_CO_TRY(const auto how, delete_options(*ctx));
  for (const auto& d : how.dryrun()) options.dry_run = options.dry_run || d == "All";
  API_CO_TRY(auto query, list_query(*ctx));
  auto done = co_await core.registry->remove_collection(r, std::move(query), how, options);
  if (!done) co_return api_fail(std::move(done).error());
  ListBody body;
  body.resource_version = std::to_string(done->revision);
  body.items = std::move(done->items);
  co_return make_response(200, content_type(format, false), encode_list(r, body, ctx->encode_options(format, core.clock.wall())));
}

}  // namespace fairlead::apiserver
