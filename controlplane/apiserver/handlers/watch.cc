// Watches: a stream of events from a watch cache to one client.
#include <algorithm>

#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/handlers/context.h"

namespace fairlead::apiserver {
namespace {

using std::chrono::seconds;

constexpr std::size_t kWriteAtOnce = 256u << 10;
constexpr auto kBookmarkEvery = seconds(60);

struct WatchSession {
  ContextPtr ctx;
  const Resource* resource = nullptr;
  EncodeOptions encode;
  std::unique_ptr<Watcher> watcher;
  bool bookmarks = false;
  bool initial_bookmark = false;  // the client asked for the mark behind the initial events
  SteadyTime ends;
  const Clock* clock = nullptr;
  std::atomic<bool> gone{false};
  bool first = true;  // nothing sent yet: a Table tells its columns
};

int frame_key(const EncodeOptions& o, EventType t) {
  return (o.format.index() * 4 + static_cast<int>(o.include)) * 4 + static_cast<int>(t);
}

void append_item(WatchSession& s, const WatchItem& item, std::string& out) {
  if (item.frames && !(s.first && s.encode.format.shape == Shape::table)) {
    const auto make = [&] { return encode_event(*s.resource, item.type, *item.object, s.encode, false); };
    out += *item.frames->get({s.resource, frame_key(s.encode, item.type)}, make);
  } else {
    out += encode_event(*s.resource, item.type, *item.object, s.encode, s.first);
  }
  s.first = false;
}

Task<Result<>> send_initial(WatchSession& s, http::BodyWriter& writer) {
  std::string out;
  for (auto& entry : s.watcher->initial) {
    append_item(s, {EventType::added, std::move(entry), nullptr}, out);
    if (out.size() < kWriteAtOnce) continue;
    auto ok = co_await writer.write(out);
    if (!ok) co_return ok;
    out.clear();
  }
  s.watcher->initial = {};
  if (s.initial_bookmark) {
    out += encode_bookmark(*s.resource, s.watcher->initial_revision, true, s.encode, s.first);
    s.first = false;
  }
  if (!out.empty()) {
    auto ok = co_await writer.write(out);
    if (!ok) co_return ok;
  }
  co_return Result<>{};
}

// Sends changes until the client goes, the time is up, or the cache closes the subscription.
Task<Result<>> run_watch(std::shared_ptr<WatchSession> s, http::BodyWriter& writer) {
  writer.on_closed([weak = std::weak_ptr<WatchSession>(s)] {
    if (const auto session = weak.lock()) {
      session->gone = true;
      session->watcher->wake();
    }
  });
  auto sent = co_await send_initial(*s, writer);
  if (!sent) co_return sent;
  auto next_bookmark = std::chrono::steady_clock::now() + kBookmarkEvery;
  etcd::Revision told = s->watcher->initial_revision;
  while (!s->gone) {
    auto drained = s->watcher->drain();
    s->encode.now = s->clock->wall();
    std::string out;
    for (const auto& item : drained.items) {
      append_item(*s, item, out);
      told = item.object->revision;
      if (out.size() < kWriteAtOnce) continue;
      auto ok = co_await writer.write(out);
      if (!ok) co_return ok;
      out.clear();
    }
    const auto now = std::chrono::steady_clock::now();
    // The last bookmark comes shortly before the end, so that the client resumes from where it is.
    const bool ending = now >= s->ends - seconds(2);
    if (s->bookmarks && (now >= next_bookmark || (ending && told < drained.revision))) {
      out += encode_bookmark(*s->resource, drained.revision, false, s->encode, s->first);
      s->first = false;
      told = drained.revision;
      next_bookmark = now + kBookmarkEvery;
    }
    if (!out.empty()) {
      auto ok = co_await writer.write(out);
      if (!ok) co_return ok;
    }
    if (drained.closed || now >= s->ends) break;
    auto until = s->ends;
    if (s->bookmarks) until = std::min(until, ending ? s->ends : std::min(next_bookmark, s->ends - seconds(2)));
    co_await s->watcher->wait_until(until);
  }
  co_return Result<>{};
}

ApiResult<> check_watch_parameters(const RequestContext& ctx, const ListQuery& q) {
  field::ErrorList e;
  const bool send = ctx.target.get("sendInitialEvents").has_value();
  if (send && q.resource_version_match != "NotOlderThan")
    e.forbidden(field::Path("resourceVersionMatch"),
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
  if (!send && !q.resource_version_match.empty())
    e.forbidden(field::Path("resourceVersionMatch"), "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
  if (!q.continue_token.empty()) e.forbidden(field::Path("continue"), "continue is forbidden for watch");
  if (!e.empty()) return api_fail(invalid("meta.k8s.io", "ListOptions", "", e));
  return {};
}

}  // namespace

Task<Reply> handle_watch(Core& core, ContextPtr ctx) {
  API_CO_TRY(const auto format, ctx->format(true));
  API_CO_TRY(auto query, list_query(*ctx));
  API_CO_CHECK(check_watch_parameters(*ctx, query));
  const auto& r = *ctx->resource;
  auto after = parse_resource_version(query.resource_version);
  if (!after) co_return api_fail(bad_request(fmt::format("resourceVersion: {}", after.error().message)));
  auto selection = Selection::make(r, query.ns, ctx->info.collection ? "" : ctx->info.name, query.labels, query.fields);
  if (!selection) co_return api_fail(bad_request(selection.error().message));

  const bool send_initial = ctx->flag("sendInitialEvents");
  WatchCache::WatchSpec spec;
  spec.selection = std::move(*selection);
  spec.after = *after;
  spec.initial_state = send_initial || (!ctx->target.get("sendInitialEvents") && *after == 0);
  if (spec.initial_state || *after == 0) {
    // "Any state" may be old; no version means the newest; a version with sendInitialEvents means at least that one.
    etcd::Revision at_least = *after;
    if (query.resource_version.empty()) {
      auto newest = co_await core.storage->current_revision();
      if (!newest) co_return api_fail(std::move(newest).error());
      at_least = *newest;
    }
    auto fresh = co_await core.feeder->ensure_fresh(r.cache, at_least);
    if (!fresh) co_return api_fail(std::move(fresh).error());
    if (!spec.initial_state && *after == 0) spec.after = r.cache->revision();
  }

  auto session = std::make_shared<WatchSession>();
  session->ctx = ctx;
  session->resource = &r;
  session->encode = ctx->encode_options(format, core.clock.wall());
  session->clock = &core.clock;
  session->bookmarks = ctx->flag("allowWatchBookmarks");
  session->initial_bookmark = send_initial && session->bookmarks;
  auto timeout = seconds(1800 + core.random.below(1800));
  if (const auto text = ctx->query("timeoutSeconds"); !text.empty()) {
    auto n = parse_resource_version(text);
    if (!n) co_return api_fail(bad_request(fmt::format("timeoutSeconds: {}", n.error().message)));
    if (*n > 0) timeout = seconds(std::min<std::int64_t>(*n, 24 * 3600));
  }
  session->ends = std::chrono::steady_clock::now() + timeout;

  http::Response response;
  response.headers.set("Content-Type", content_type(format, true));
  const auto executor = co_await net::this_coro::executor;
  auto watcher = r.cache->watch(executor, std::move(spec));
  if (!watcher) {
    if (watcher.error().code != 410) co_return api_fail(std::move(watcher).error());
    // As upstream: a watch that is too old is a good answer whose only event says so.
    response.body = encode_error_event(watcher.error(), format);
    co_return response;
  }
  session->watcher = std::move(*watcher);
  response.stream = [session](http::BodyWriter& writer) { return run_watch(session, writer); };
  co_return response;
}

}  // namespace fairlead::apiserver
