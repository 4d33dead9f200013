#include "controlplane/apiserver/handlers/api_handler.h"

#include <map>
#include <mutex>

#include "base/log.h"
#include "base/scope_guard.h"
#include "controlplane/apiserver/handlers/context.h"

namespace fairlead::apiserver {
namespace {

http::Response error_response(const ApiError& error, std::string_view accept) {
  Offers offers;
  offers.shapes = false;
  Format format;
  // A client that takes nothing we have still gets its error, as JSON.
  if (const auto negotiated = negotiate(accept, offers)) format = *negotiated;
  auto r = plain_response(static_cast<unsigned>(error.code), to_status(error), "v1", "Status", format);
  if (error.retry_after_seconds && (error.code == 429 || error.code >= 500))
    r.headers.set("Retry-After", std::to_string(error.retry_after_seconds));
  if (error.code == 401) r.headers.set("WWW-Authenticate", "Bearer realm=\"kubernetes\"");
  return r;
}

// RFC 7234 warning-text: a quoted string without control characters.
std::string warning_header(std::string_view text) {
  std::string out = "299 - \"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

bool long_running(const RequestInfo& info) { return info.verb == "watch" || info.subresource == "log"; }

struct InFlight {
  std::atomic<int>* counter = nullptr;
  ~InFlight() {
    if (counter) --*counter;
  }
};

class Metrics {
 public:
  explicit Metrics(metrics::Registry& registry) : registry_(registry) {}
  // What a client made up (methods, names of resources that are not there) makes no label values.
  void count(const RequestContext& ctx, unsigned code, double seconds, bool stream) {
    RequestInfo info = ctx.info;
    if (!ctx.resource) info.group = info.resource = info.subresource = "";
    if (!known_verb(info.verb)) info.verb = "other";
    const auto key = fmt::format("{}|{}|{}|{}|{}", info.verb, info.group, info.resource, info.subresource, code);
    metrics::Counter* counter = nullptr;
    {
      std::lock_guard lock(mutex_);
      auto& slot = counters_[key];
      if (!slot)
        slot = &registry_.counter("apiserver_request_total", "Requests by verb, resource and HTTP code.",
                                  {{"verb", upper(info.verb)}, {"group", info.group}, {"resource", info.resource},
                                   {"subresource", info.subresource}, {"code", std::to_string(code)}});
      counter = slot;
    }
    counter->inc();
    if (!stream) duration(info).observe(seconds);
  }

 private:
  static std::string upper(std::string s) {
    for (char& c : s)
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    return s;
  }
  static bool known_verb(std::string_view v) {
    for (const std::string_view k : {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "post", "put"})
      if (v == k) return true;
    return false;
  }
  metrics::Histogram& duration(const RequestInfo& info) {
    std::lock_guard lock(mutex_);
    auto& slot = durations_[info.verb];
    if (!slot)
      slot = &registry_.histogram("apiserver_request_duration_seconds", "Time to answer requests that are not streams.",
                                  metrics::exponential_buckets(0.0005, 2, 16), {{"verb", upper(info.verb)}});
    return *slot;
  }
  metrics::Registry& registry_;
  std::mutex mutex_;
  std::map<std::string, metrics::Counter*> counters_;
  std::map<std::string, metrics::Histogram*> durations_;
};

bool offers_verb(const Resource& r, const RequestInfo& info) {
  if (info.subresource.empty()) return r.kind->has_verb(info.verb);
  const auto* s = r.kind->find_subresource(info.subresource);
  return s && s->served && std::find(s->verbs.begin(), s->verbs.end(), info.verb) != s->verbs.end();
}

Task<Reply> route_subresource(Core& core, ContextPtr ctx) {
  const auto& s = ctx->info.subresource;
  Task<Reply> next = s == "scale"      ? handle_scale(core, ctx)
                     : s == "binding"  ? handle_binding(core, ctx, false)
                     : s == "eviction" ? handle_eviction(core, ctx)
                     : s == "token"    ? handle_token_request(core, ctx)
                     : s == "log"      ? handle_log(core, ctx)
                     : ctx->info.verb == "get"   ? handle_get(core, ctx)
                     : ctx->info.verb == "patch" ? handle_patch(core, ctx)
                                                 : handle_update(core, ctx);
  auto reply = co_await std::move(next);
  co_return reply;
}

Task<Reply> route_resource(Core& core, ContextPtr ctx) {
  const auto& info = ctx->info;
  if (is_review(info)) {
    auto reply = co_await handle_review(core, ctx);
    co_return reply;
  }
  if (info.group.empty() && info.resource == "bindings" && info.verb == "create") {
    auto reply = co_await handle_binding(core, ctx, true);
    co_return reply;
  }
  ctx->resource = core.resources.find_served(info.group, info.version, info.resource);
  if (!ctx->resource) co_return api_fail(page_not_found());
  const auto& kind = *ctx->resource->kind;
  if (!info.rest.empty()) co_return api_fail(page_not_found());
  if (kind.namespaced() && info.ns.empty() && !info.collection) co_return api_fail(page_not_found());
  if (!kind.namespaced() && kind.kind != "Namespace" && !info.ns.empty()) co_return api_fail(page_not_found());
  if (!info.subresource.empty()) {
    const auto* s = kind.find_subresource(info.subresource);
    if (!s || !s->served) co_return api_fail(page_not_found());
  }
  if (!offers_verb(*ctx->resource, info)) co_return api_fail(method_not_allowed(kind, info.verb));
  if (!info.subresource.empty()) {
    auto reply = co_await route_subresource(core, ctx);
    co_return reply;
  }
  const auto& v = info.verb;
  if (v == "create" && ctx->resource->no_create) {
    auto refused = method_not_allowed(kind, v);
    refused.message = "create not allowed while custom resource definition is terminating";
    co_return api_fail(std::move(refused));
  }
  if (v == "create" && !info.collection) co_return api_fail(method_not_allowed(kind, "create"));
  if ((v == "update" || v == "patch") && info.collection) co_return api_fail(method_not_allowed(kind, v));
  Task<Reply> next = v == "get"                ? handle_get(core, ctx)
                     : v == "list"             ? handle_list(core, ctx)
                     : v == "watch"            ? handle_watch(core, ctx)
                     : v == "create"           ? handle_create(core, ctx)
                     : v == "update"           ? handle_update(core, ctx)
                     : v == "patch"            ? handle_patch(core, ctx)
                     : v == "deletecollection" ? handle_delete_collection(core, ctx)
                                               : handle_delete(core, ctx);
  auto reply = co_await std::move(next);
  co_return reply;
}

ApiResult<> check_access(const Core& core, const RequestContext& ctx) {
  const auto attributes = attributes_of(ctx.info);
  const auto decision = core.authorizer->authorize(ctx.user, attributes);
  if (decision.allowed) return {};
  // Nobody in particular, where somebody is wanted: say so, and clients look for credentials.
  if (ctx.user.anonymous()) return api_fail(unauthorized());
  ApiError e;
  e.code = 403;
  e.reason = "Forbidden";
  e.group = ctx.info.group;
  e.kind = ctx.info.resource;
  e.name = ctx.info.name;
  auto subject = ctx.info.resource + (ctx.info.group.empty() ? "" : "." + ctx.info.group);
  if (!ctx.info.name.empty()) subject += fmt::format(" \"{}\"", ctx.info.name);
  const auto why = denial_text(ctx.user, attributes, decision.reason);
  e.message = ctx.info.is_resource ? fmt::format("{} is forbidden: {}", subject, why) : "forbidden: " + why;
  return api_fail(std::move(e));
}

ApiResult<> take_slot(Core& core, const RequestInfo& info, InFlight& slot) {
  if (long_running(info) || !info.is_resource) return {};
  const bool read = info.verb == "get" || info.verb == "list";
  auto& counter = read ? core.reads_in_flight : core.writes_in_flight;
  const auto limit = read ? core.options.max_reads_in_flight : core.options.max_writes_in_flight;
  if (static_cast<std::size_t>(counter.fetch_add(1)) >= limit) {
    --counter;
    return api_fail(too_many_requests(1));
  }
  slot.counter = &counter;
  return {};
}

Task<Reply> process(Core& core, ContextPtr ctx) {
  auto target = http::Target::parse(ctx->request.target);
  if (!target) co_return api_fail(bad_request(target.error().message));
  ctx->target = std::move(*target);
  ctx->info = parse_request_info(ctx->request.method, ctx->target);
  API_CO_TRY(ctx->user, core.authenticator->authenticate(ctx->request));
  InFlight slot;
  API_CO_CHECK(take_slot(core, ctx->info, slot));
  API_CO_CHECK(check_access(core, *ctx));
  if (!ctx->info.is_resource) {
    if (auto reply = handle_path(core, *ctx)) co_return std::move(*reply);
    co_return api_fail(page_not_found());
  }
  // "/apis/apps/v1" has the shape of a resource's path only with one more segment; discovery documents come first.
  if (ctx->request.headers.get("Impersonate-User")) co_return api_fail(bad_request("impersonation is not supported"));
  auto reply = co_await route_resource(core, ctx);
  co_return reply;
}

Task<http::Response> serve_request(std::shared_ptr<Core> core, std::shared_ptr<Metrics> metrics, http::Request request) {
  const auto started = std::chrono::steady_clock::now();
  auto ctx = std::make_shared<RequestContext>();
  const auto given = request.headers.value_or("Audit-ID", "");
  ctx->audit_id = given.empty() || given.size() > 64 ? random_uuid(core->random) : std::string(given);
  ctx->request = std::move(request);
  auto reply = co_await process(*core, ctx);
  http::Response response;
  if (reply)
    response = std::move(*reply);
  else
    response = error_response(reply.error(), ctx->request.headers.value_or("Accept", ""));
  response.headers.set("Audit-Id", ctx->audit_id);
  if (!response.headers.get("Cache-Control")) response.headers.set("Cache-Control", "no-cache, private");
  for (const auto& w : ctx->warnings) response.headers.add("Warning", warning_header(w));
  const auto took = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  metrics->count(*ctx, response.status, took, static_cast<bool>(response.stream));
  if (response.status >= 500) {
    log::warn("{} {} by {}: {} {}", ctx->request.method, ctx->info.path, ctx->user.name, response.status,
              reply ? "" : reply.error().message);
  } else {
    log::debug("{} {} by {}: {} in {:.1f} ms", ctx->request.method, ctx->request.target, ctx->user.name, response.status, took * 1000);
  }
  ctx->request.body = {};  // a stream keeps the context, not the body
  co_return response;
}

}  // namespace

http::Response render_status(unsigned status, std::string message) {
  ApiError e;
  if (status == 413) {
    e = too_large();
  } else {
    e = bad_request(std::move(message));
    e.code = static_cast<int>(status);
  }
  return error_response(e, "application/json");
}

http::Handler make_api_handler(std::shared_ptr<Core> core) {
  auto metrics = std::make_shared<Metrics>(core->metrics);
  return [core = std::move(core), metrics](http::Request request) { return serve_request(core, metrics, std::move(request)); };
}

}  // namespace fairlead::apiserver
