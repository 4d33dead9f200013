// What is not a resource: discovery, OpenAPI, health, version, metrics.
#include <boost/json/serialize.hpp>

#include "base/version.h"
#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/discovery.h"
#include "controlplane/apiserver/handlers/context.h"
#include "controlplane/apiserver/openapi_documents.h"

namespace fairlead::apiserver {
namespace json = boost::json;
namespace {

std::string_view without_slash(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return path;
}

std::string version_json() {
  // The API level that is served. Clients such as CoreDNS parse these.
  const json::object v = {{"major", "1"},
                          {"minor", "36"},
                          {"gitVersion", fmt::format("{}+fairlead-{}", kKubernetesVersion, kVersion)},
                          {"gitCommit", ""},
                          {"gitTreeState", "clean"},
                          {"buildDate", "1970-01-01T00:00:00Z"},
                          {"goVersion", ""},
                          {"compiler", "gcc"},
#if defined(__aarch64__)
                          {"platform", "linux/arm64"}};
#else
                          {"platform", "linux/amd64"}};
#endif
  return json::serialize(v);
}

struct Check {
  std::string_view name;
  bool ok;
};

std::vector<Check> checks(const Core& core, std::string_view path) {
  bool caches = true;
  for (const auto& r : core.resources.all()) caches = caches && r->cache->ready();
  std::vector<Check> out = {{"ping", true}, {"etcd", caches}, {"watch-cache", caches}};
  if (path.starts_with("/readyz")) out.push_back({"shutdown", !core.stopping});
  return out;
}

// "ok", or one line per check with ?verbose or when one fails; /livez/<check> is one check alone.
http::Response health(const Core& core, const RequestContext& ctx) {
  const auto path = without_slash(ctx.info.path);
  const auto name_at = path.find('/', 1);
  const auto only = name_at == std::string_view::npos ? std::string_view{} : path.substr(name_at + 1);
  const auto kind = std::string(path.substr(1, name_at == std::string_view::npos ? path.npos : name_at - 1));
  bool ok = true, found = only.empty();
  std::string text;
  for (const auto& c : checks(core, path)) {
    if (!only.empty() && c.name != only) continue;
    bool excluded = false;
    for (const auto& [k, v] : ctx.target.query) excluded = excluded || (k == "exclude" && v == c.name);
    found = true;
    if (excluded) {
      text += fmt::format("[+]{} excluded: ok\n", c.name);
      continue;
    }
    ok = ok && c.ok;
    text += c.ok ? fmt::format("[+]{} ok\n", c.name) : fmt::format("[-]{} failed: reason withheld\n", c.name);
  }
  if (!found) return make_response(404, "text/plain; charset=utf-8", "404 page not found\n");
  const bool verbose = ctx.target.get("verbose").has_value();
  if (ok && !verbose) text = "ok";
  else text += fmt::format("{} check {}\n", kind, ok ? "passed" : "failed");
  auto r = make_response(ok ? 200 : 500, "text/plain; charset=utf-8", std::move(text));
  r.headers.set("X-Content-Type-Options", "nosniff");
  return r;
}

http::Response discovery_answer(const DiscoveryDocuments& d, const RequestContext& ctx, std::string_view path, const std::string& legacy) {
  if (const auto type = wants_aggregated(ctx.header("Accept")); !type.empty() && d.aggregated.contains(path)) {
    const auto& etag = d.etags.find(path)->second;
    http::Response r = ctx.header("If-None-Match") == etag ? make_response(304, type, "")
                                                            : make_response(200, type, d.aggregated.find(path)->second);
    r.headers.set("ETag", etag);
    r.headers.set("Vary", "Accept");
    r.headers.set("Cache-Control", "public");
    return r;
  }
  return make_response(200, "application/json", legacy);
}

json::array root_paths(const DiscoveryDocuments& discovery) {
  json::array out;
  for (const auto& [path, text] : discovery.legacy) out.emplace_back(path);
  for (const auto p : {"/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"}) out.emplace_back(p);
  return out;
}

}  // namespace

std::optional<Reply> handle_path(Core& core, const RequestContext& ctx) {
  const auto path = without_slash(ctx.info.path);
  const bool get = ctx.request.method == "GET" || ctx.request.method == "HEAD";
  const auto known = [&](http::Response r) -> std::optional<Reply> {
    if (!get) {
      ApiError e;
      e.code = 405;
      e.reason = "MethodNotAllowed";
      e.message = "the server does not allow this method on the requested resource";
      return Reply(api_fail(std::move(e)));
    }
    return Reply(std::move(r));
  };
  const auto documents = core.documents();
  const auto& discovery = *documents->discovery;
  if (const auto it = discovery.legacy.find(path); it != discovery.legacy.end())
    return known(discovery_answer(discovery, ctx, path, it->second));
  for (const std::string_view h : {"/healthz", "/livez", "/readyz"})
    if (path == h || (path.starts_with(h) && path[h.size()] == '/')) return known(health(core, ctx));
  if (path == "/version") return known(make_response(200, "application/json", version_json()));
  if (path == "/metrics") return known(make_response(200, "text/plain; version=0.0.4; charset=utf-8", core.metrics.text()));
  if (path == "/") return known(make_response(200, "application/json", json::serialize(json::object{{"paths", root_paths(discovery)}})));
  if (path.starts_with("/openapi/") || path == "/swagger-2.0.0.pb-v1")
    if (auto r = openapi_answer(ctx, documents->custom_openapi)) return known(std::move(*r));
  return std::nullopt;
}

}  // namespace fairlead::apiserver
