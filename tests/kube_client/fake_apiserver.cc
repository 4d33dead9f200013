#include "tests/kube_client/fake_apiserver.h"

#include <gtest/gtest.h>

#include "kube/object.h"

namespace fairlead::kube::test {

namespace {

constexpr const char* kProto = "application/vnd.kubernetes.protobuf";

std::string encode(const Message& object, bool proto) {
  if (proto) return to_protobuf(object);
  return to_json(object);
}

bool in_namespace(const Message& object, const std::string& ns) { return ns.empty() || meta_of(object).namespace_() == ns; }

}  // namespace

http::Response status_response(unsigned code, const std::string& reason, const std::string& message, bool proto) {
  metav1::Status s;
  s.set_status("Failure");
  s.set_reason(reason);
  s.set_message(message);
  s.set_code(static_cast<int>(code));
  http::Response r;
  r.status = code;
  r.headers.set("Content-Type", proto ? kProto : "application/json");
  r.body = encode(s, proto);
  return r;
}

std::string watch_frame(const std::string& type, const Message& object, bool proto) {
  if (!proto) return "{\"type\":\"" + type + "\",\"object\":" + to_json(object) + "}\n";
  metav1::WatchEvent e;
  e.set_type(type);
  e.mutable_object()->set_raw(to_protobuf(object));
  const auto body = e.SerializeAsString();
  const auto n = static_cast<std::uint32_t>(body.size());
  std::string out{static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
  return out + body;
}

FakeApiserver::FakeApiserver(net::any_io_executor executor, std::optional<http::TlsOptions> tls, SocketAddress listen)
    : executor_(std::move(executor)) {
  options_.listen = listen;
  options_.tls = std::move(tls);
  start();
}

FakeApiserver::~FakeApiserver() { drop_watches(); }

std::string FakeApiserver::url() const {
  return std::string(options_.tls ? "https" : "http") + "://" + options_.listen.to_string();
}

void FakeApiserver::start() {
  auto made = http::serve(executor_, options_, [this](http::Request r) { return handle(std::move(r)); });
  if (!made) throw std::runtime_error(made.error().message);
  server_ = std::move(*made);
  options_.listen = server_->address();
}

Task<> FakeApiserver::stop() {
  drop_watches();
  const auto old = std::move(server_);
  if (old) co_await old->stop(std::chrono::milliseconds(100));
}

void FakeApiserver::put(const Message& object) {
  const Kind& kind = kind_of(*object.GetDescriptor());
  const std::shared_ptr<Message> copy(object.New());
  copy->CopyFrom(object);
  auto& slot = objects_[std::string(kind.resource)][key_of(*copy)];
  mutable_meta(*copy).set_resourceversion(std::to_string(++version_));
  if (meta_of(*copy).uid().empty()) mutable_meta(*copy).set_uid(slot ? meta_of(*slot).uid() : "uid-" + std::to_string(version_));
  const bool existed = slot != nullptr;
  slot = copy;
  log_event(existed ? "MODIFIED" : "ADDED", kind, copy);
}

void FakeApiserver::remove(const Kind& kind, const std::string& key) {
  auto& all = objects_[std::string(kind.resource)];
  const auto it = all.find(key);
  if (it == all.end()) return;
  const std::shared_ptr<Message> last(it->second->New());
  last->CopyFrom(*it->second);
  mutable_meta(*last).set_resourceversion(std::to_string(++version_));
  all.erase(it);
  log_event("DELETED", kind, last);
}

void FakeApiserver::log_event(std::string type, const Kind& kind, std::shared_ptr<Message> object) {
  log_.push_back({version_, std::move(type), &kind, std::move(object)});
  for (const auto& weak : watchers_) {
    const auto w = weak.lock();
    if (!w || w->kind != &kind || !in_namespace(*log_.back().object, w->ns)) continue;
    w->queue.push_back(log_.back());
    w->wake->cancel();
  }
}

void FakeApiserver::compact() {
  log_.clear();
  compacted_ = ++version_;
}

void FakeApiserver::drop_watches() {
  for (const auto& weak : watchers_)
    if (const auto w = weak.lock()) w->cut = true, w->wake->cancel();
}

void FakeApiserver::finish_watches() {
  for (const auto& weak : watchers_)
    if (const auto w = weak.lock()) w->finish = true, w->wake->cancel();
}

FakeApiserver::LoggedEvent FakeApiserver::bookmark_event(const Kind& kind, bool initial_end) const {
  std::shared_ptr<Message> object(kind.prototype->New());
  mutable_meta(*object).set_resourceversion(std::to_string(version_));
  if (initial_end) (*mutable_meta(*object).mutable_annotations())["k8s.io/initial-events-end"] = "true";
  return {version_, "BOOKMARK", &kind, object};
}

void FakeApiserver::bookmark() {
  for (const auto& weak : watchers_)
    if (const auto w = weak.lock()) w->queue.push_back(bookmark_event(*w->kind, false)), w->wake->cancel();
}

void FakeApiserver::resend(std::size_t last) {
  for (const auto& weak : watchers_) {
    const auto w = weak.lock();
    if (!w) continue;
    for (std::size_t i = log_.size() - std::min(last, log_.size()); i < log_.size(); ++i)
      if (log_[i].kind == w->kind) w->queue.push_back(log_[i]);
    w->wake->cancel();
  }
}

std::map<std::string, std::shared_ptr<Message>> FakeApiserver::objects(const Kind& kind) const {
  const auto it = objects_.find(std::string(kind.resource));
  return it == objects_.end() ? std::map<std::string, std::shared_ptr<Message>>{} : it->second;
}

// /api/v1/[namespaces/NS/]RESOURCE[/NAME[/SUB]] and /apis/GROUP/VERSION/...
std::optional<FakeApiserver::Parsed> FakeApiserver::parse(const std::string& text) {
  Parsed p;
  auto target = http::Target::parse(text);
  if (!target) return std::nullopt;
  p.target = std::move(*target);
  std::vector<std::string> parts;
  for (std::size_t at = 1; at <= p.target.path.size();) {
    const auto slash = std::min(p.target.path.find('/', at), p.target.path.size());
    parts.push_back(p.target.path.substr(at, slash - at));
    at = slash + 1;
  }
  std::size_t i = 0;
  if (parts.size() < 3) return std::nullopt;
  std::string group;
  if (parts[i++] == "apis") group = parts[i++];
  const std::string version = parts[i++];
  if (parts.size() > i + 2 && parts[i] == "namespaces") {
    p.ns = parts[i + 1];
    i += 2;
  }
  if (i >= parts.size()) return std::nullopt;
  p.kind = find_resource(group, version, parts[i++]);
  if (i < parts.size()) p.name = parts[i++];
  if (i < parts.size()) p.subresource = parts[i++];
  return p.kind == nullptr ? std::nullopt : std::optional(std::move(p));
}

http::Response FakeApiserver::object_response(unsigned status, const Message& object, bool proto) const {
  http::Response r;
  r.status = status;
  r.headers.set("Content-Type", proto ? kProto : "application/json");
  r.body = encode(object, proto);
  return r;
}

Task<http::Response> FakeApiserver::handle(http::Request request) {
  requests.push_back(request.method + " " + request.target);
  authorizations.emplace_back(request.headers.value_or("authorization", ""));
  if (intercept) {
    if (auto answer = intercept(request)) co_return std::move(*answer);
  }
  const bool proto = protobuf && request.headers.value_or("accept", "").find(kProto) != std::string_view::npos;
  const auto p = parse(request.target);
  if (!p) co_return status_response(404, "NotFound", "the server could not find the requested resource", proto);
  if (request.method == "GET" && p->target.get("watch") == "true") co_return watch(*p, proto);
  if (request.method == "GET" && p->name.empty()) co_return list(*p, proto);
  if (request.method == "DELETE") co_return erase(*p, proto);
  if (request.method != "GET") co_return write(*p, request, proto);
  auto& all = objects_[std::string(p->kind->resource)];
  const auto it = all.find(key_of(p->ns, p->name));
  if (it == all.end())
    co_return status_response(404, "NotFound", fmt::format("{} \"{}\" not found", p->kind->resource, p->name), proto);
  co_return object_response(200, *it->second, proto);
}

http::Response FakeApiserver::list(const Parsed& p, bool proto) {
  const std::unique_ptr<Message> page(p.kind->list_prototype->New());
  const auto* reflection = page->GetReflection();
  const auto* items = page->GetDescriptor()->FindFieldByName("items");
  auto& meta =
      static_cast<metav1::ListMeta&>(*reflection->MutableMessage(page.get(), page->GetDescriptor()->FindFieldByName("metadata")));
  const auto limit = p.target.get("limit");
  const std::size_t most = limit ? std::stoul(std::string(*limit)) : SIZE_MAX;
  const std::string from(p.target.get("continue").value_or(""));
  std::size_t n = 0;
  for (const auto& [key, object] : objects_[std::string(p.kind->resource)]) {
    if (key < from || !in_namespace(*object, p.ns)) continue;
    if (n++ == most) {
      meta.set_continue_(key);
      break;
    }
    reflection->AddMessage(page.get(), items)->CopyFrom(*object);
  }
  meta.set_resourceversion(std::to_string(version_));
  return object_response(200, *page, proto);
}

http::Response FakeApiserver::write(const Parsed& p, const http::Request& request, bool proto) {
  const bool proto_body = request.headers.value_or("content-type", "").starts_with(kProto);
  if (proto_body && !protobuf)
    return status_response(415, "UnsupportedMediaType", "the body of the request was in an unknown format", proto);
  const std::unique_ptr<Message> object(p.kind->prototype->New());
  const auto r = proto_body ? from_protobuf(request.body, *object) : from_json(request.body, *object);
  if (!r) return status_response(400, "BadRequest", r.error().message, proto);
  auto& all = objects_[std::string(p.kind->resource)];
  const auto key = key_of(*object);
  const auto it = all.find(key);
  if (request.method == "POST") {
    if (it != all.end())
      return status_response(409, "AlreadyExists", fmt::format("{} \"{}\" already exists", p.kind->resource, key), proto);
  } else {
    if (it == all.end())
      return status_response(404, "NotFound", fmt::format("{} \"{}\" not found", p.kind->resource, key), proto);
    const auto& version = meta_of(*object).resourceversion();
    if (!version.empty() && version != meta_of(*it->second).resourceversion())
      return status_response(409, "Conflict", "the object has been modified", proto);
  }
  put(*object);
  return object_response(request.method == "POST" ? 201 : 200, *all[key], proto);
}

http::Response FakeApiserver::erase(const Parsed& p, bool proto) {
  const auto key = key_of(p.ns, p.name);
  if (!objects_[std::string(p.kind->resource)].contains(key))
    return status_response(404, "NotFound", fmt::format("{} \"{}\" not found", p.kind->resource, p.name), proto);
  remove(*p.kind, key);
  metav1::Status s;
  s.set_status("Success");
  return object_response(200, s, proto);
}

http::Response FakeApiserver::watch(const Parsed& p, bool proto) {
  const bool initial = p.target.get("sendInitialEvents") == "true";
  if (initial && !watch_list)
    return status_response(422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch", proto);
  const std::string text(p.target.get("resourceVersion").value_or(""));
  const std::uint64_t from = text.empty() ? 0 : std::stoull(text);
  const auto w = std::make_shared<Watcher>();
  w->wake = std::make_shared<net::steady_timer>(executor_);
  w->kind = p.kind;
  w->ns = p.ns;
  bool gone = false;
  if (initial) {
    for (const auto& [key, object] : objects_[std::string(p.kind->resource)])
      if (in_namespace(*object, p.ns)) w->queue.push_back({version_, "ADDED", p.kind, object});
    w->queue.push_back(bookmark_event(*p.kind, true));
  } else if (from < compacted_) {
    if (!gone_in_stream) return status_response(410, "Expired", "too old resource version", proto);
    gone = true;
  } else {
    for (const auto& e : log_)
      if (e.version > from && e.kind == p.kind && in_namespace(*e.object, p.ns)) w->queue.push_back(e);
  }
  std::erase_if(watchers_, [](const auto& weak) { return weak.expired(); });
  watchers_.push_back(w);
  http::Response r;
  r.headers.set("Content-Type", proto ? std::string(kProto) + ";stream=watch" : "application/json");
  r.stream = [w, proto, gone](http::BodyWriter& out) { return pump(w, proto, gone, out); };
  return r;
}

Task<Result<>> FakeApiserver::pump(std::shared_ptr<Watcher> w, bool proto, bool gone, http::BodyWriter& out) {
  out.on_closed([weak = std::weak_ptr(w)] {
    if (const auto self = weak.lock()) self->finish = true, self->wake->cancel();
  });
  if (gone) {
    metav1::Status s;
    s.set_status("Failure");
    s.set_reason("Expired");
    s.set_message("too old resource version");
    s.set_code(410);
    const auto frame = watch_frame("ERROR", s, proto);
    co_return co_await out.write(frame);
  }
  for (;;) {
    while (!w->queue.empty()) {
      const auto event = w->queue.front();
      w->queue.pop_front();
      const auto frame = watch_frame(event.type, *event.object, proto);
      auto sent = co_await out.write(frame);
      if (!sent) co_return sent;
    }
    if (w->cut) co_return fail(ErrorCode::unavailable, "cut by the test");
    if (w->finish || out.is_closed()) co_return Result<>{};
    w->wake->expires_at(net::steady_timer::time_point::max());
    auto [ec] = co_await w->wake->async_wait(use_result);
    (void)ec;
  }
}

}  // namespace fairlead::kube::test
