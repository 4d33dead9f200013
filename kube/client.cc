#include "kube/client.h"

#include <algorithm>
#include <set>

#include "base/files.h"
#include "base/log.h"
#include "kube/api_error.h"
#include "kube/codec.h"
#include "kube/object.h"
#include "kube/watch_frames.h"

namespace fairlead::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using SteadyPoint = std::chrono::steady_clock::time_point;

constexpr std::string_view kProtobuf = "application/vnd.kubernetes.protobuf";
constexpr std::string_view kJson = "application/json";
constexpr int kMaxTries = 10;

SteadyPoint now() { return std::chrono::steady_clock::now(); }

class Query {
 public:
  void add(std::string_view key, std::string_view value) {
    if (value.empty()) return;
    text_.append(text_.empty() ? "?" : "&").append(key).append("=").append(http::percent_encode(value));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Reads a file again when its content may have changed: at most once in `interval`, or when told to.
class WatchedFile {
 public:
  explicit WatchedFile(std::string path) : path_(std::move(path)) {}
  // True when the content is new. A file that cannot be read keeps its old content.
  bool refresh(seconds interval) {
    if (path_.empty() || (read_ && now() - *read_ < interval)) return false;
    read_ = now();
    auto text = read_file(path_, 1u << 20);
    if (!text) {
      log::warn("credentials: {}", text.error().message);
      return false;
    }
    while (!text->empty() && (text->back() == '\n' || text->back() == '\r' || text->back() == ' ')) text->pop_back();
    if (*text == content_) return false;
    content_ = std::move(*text);
    return true;
  }
  const std::string& content() const { return content_; }

 private:
  std::string path_;
  std::string content_;
  std::optional<SteadyPoint> read_;
};

// Who we are: token and certificates, re-read from their files.
class Credentials {
 public:
  explicit Credentials(const RestConfig& c)
      : config_(c), token_(c.token_file), certificate_(c.certificate_file), key_(c.key_file), ca_(c.ca_file) {}
  bool rotates() const { return !config_.token_file.empty() || !config_.certificate_file.empty(); }
  // True when the TLS part changed.
  bool refresh(seconds interval) {
    token_.refresh(interval);
    const bool a = certificate_.refresh(interval), b = key_.refresh(interval), c = ca_.refresh(interval);
    return a || b || c;
  }
  const std::string& token() const { return token_.content().empty() ? config_.token : token_.content(); }
  http::ClientTls tls() const {
    http::ClientTls t;
    t.ca_pem = ca_.content().empty() ? config_.ca_pem : ca_.content();
    t.certificate_pem = certificate_.content().empty() ? config_.certificate_pem : certificate_.content();
    t.key_pem = key_.content().empty() ? config_.key_pem : key_.content();
    t.server_name = config_.tls_server_name;
    t.insecure = config_.insecure_skip_tls_verify;
    return t;
  }

 private:
  RestConfig config_;
  WatchedFile token_, certificate_, key_, ca_;
};

Result<> decode(std::string_view content_type, std::string_view body, Message& out) {
  auto r = is_protobuf(content_type) ? from_protobuf(body, out) : from_json(body, out);
  if (!r) return fail(ErrorCode::internal, "the server's answer: {}", r.error().message);
  return {};
}

Result<WatchEvent> decode_event(WatchFrames::Format format, std::string_view frame, const Kind& kind) {
  std::string type;
  boost::json::value json;
  metav1::WatchEvent proto;
  if (format == WatchFrames::Format::protobuf) {
    if (!proto.ParseFromArray(frame.data(), static_cast<int>(frame.size())))
      return fail(ErrorCode::internal, "watch event: malformed protobuf");
    type = proto.type();
  } else {
    FL_TRY_CTX(json, parse_json(frame), "watch event");
    const auto* object = json.if_object();
    const auto* t = object == nullptr ? nullptr : object->if_contains("type");
    if (t == nullptr || !t->is_string() || !object->contains("object"))
      return fail(ErrorCode::internal, "watch event: no type or object");
    type = std::string(t->get_string());
  }
  const auto read = [&](Message& out) -> Result<> {
    auto r = format == WatchFrames::Format::protobuf ? from_protobuf(proto.object().raw(), out)
                                                     : from_json_value(json.as_object().at("object"), out);
    if (!r) return fail(ErrorCode::internal, "watch event: {}", r.error().message);
    return {};
  };
  if (type == "ERROR") {
    metav1::Status status;
    FL_CHECK(read(status));
    return fail(error_of_status(status));
  }
  WatchEvent event;
  if (type == "ADDED")
    event.type = WatchEvent::Type::added;
  else if (type == "MODIFIED")
    event.type = WatchEvent::Type::modified;
  else if (type == "DELETED")
    event.type = WatchEvent::Type::deleted;
  else if (type == "BOOKMARK")
    event.type = WatchEvent::Type::bookmark;
  else
    return fail(ErrorCode::internal, "watch event of unknown type \"{}\"", type.substr(0, 40));
  event.object.reset(kind.prototype->New());
  FL_CHECK(read(*event.object));
  const auto& meta = meta_of(*event.object);
  event.resource_version = meta.resourceversion();
  if (event.type == WatchEvent::Type::bookmark) {
    const auto mark = meta.annotations().find("k8s.io/initial-events-end");
    if (mark != meta.annotations().end() && mark->second == "true") event.type = WatchEvent::Type::initial_events_end;
  } else if (meta.name().empty()) {
    return fail(ErrorCode::internal, "watch event: an object without a name");
  }
  return event;
}

const metav1::ListMeta& list_meta_of(const Message& list) {
  const auto* field = list.GetDescriptor()->FindFieldByName("metadata");
  return static_cast<const metav1::ListMeta&>(list.GetReflection()->GetMessage(list, field));
}

// Moves the items of a list message to the end of `out`, without copying them.
void take_items(Message& list, ObjectList& out) {
  const auto* field = list.GetDescriptor()->FindFieldByName("items");
  const auto* reflection = list.GetReflection();
  const auto before = static_cast<std::ptrdiff_t>(out.items.size());
  for (int n = reflection->FieldSize(list, field); n > 0; --n) out.items.emplace_back(reflection->ReleaseLast(&list, field));
  std::reverse(out.items.begin() + before, out.items.end());
}

class WatchStreamImpl final : public WatchStream {
 public:
  WatchStreamImpl(const Kind& kind, std::unique_ptr<http::ResponseStream> stream, WatchFrames::Format format,
                  milliseconds idle_timeout)
      : kind_(kind), stream_(std::move(stream)), format_(format), idle_timeout_(idle_timeout), frames_(format) {}

  Task<Result<std::optional<WatchEvent>>> next() override {
    for (;;) {
      auto frame = frames_.next();
      if (!frame) co_return fail(std::move(frame).error());
      if (*frame) {
        auto event = decode_event(format_, **frame, kind_);
        if (!event) co_return fail(std::move(event).error());
        co_return std::optional<WatchEvent>(std::move(*event));
      }
      auto bytes = co_await stream_->read_some(idle_timeout_);
      if (!bytes) co_return fail(std::move(bytes).error());
      if (bytes->empty()) {
        if (!frames_.at_boundary()) co_return fail(ErrorCode::unavailable, "the watch ended in the middle of an event");
        co_return std::optional<WatchEvent>();
      }
      frames_.add(std::move(*bytes));
    }
  }

 private:
  const Kind& kind_;
  std::unique_ptr<http::ResponseStream> stream_;
  const WatchFrames::Format format_;
  const milliseconds idle_timeout_;
  WatchFrames frames_;
};

std::string_view patch_type(PatchType t) {
  switch (t) {
    case PatchType::json: return "application/json-patch+json";
    case PatchType::merge: return "application/merge-patch+json";
    case PatchType::strategic: return "application/strategic-merge-patch+json";
    case PatchType::apply: return "application/apply-patch+yaml";
  }
  return kJson;
}

class ClientImpl final : public Client {
 public:
  ClientImpl(net::any_io_executor executor, std::shared_ptr<http::Client> http, Credentials credentials, std::string user_agent,
             const ClientTuning& tuning)
      : executor_(std::move(executor)),
        http_(std::move(http)),
        credentials_(std::move(credentials)),
        user_agent_(std::move(user_agent)),
        tuning_(tuning) {}

  net::any_io_executor executor() const override { return executor_; }

  Task<Result<>> get_into(const Kind& kind, std::string ns, std::string name, Message& out) override {
    FL_CO_CHECK(check_target(kind, ns, name));
    auto request = make_request("GET", resource_path(kind, ns, name), kind);
    auto r = co_await call_into(std::move(request), &out);
    co_return r;
  }

  Task<Result<ObjectList>> list_of(const Kind& kind, std::string ns, ListOptions options) override;

  Task<Result<>> create_into(const Kind& kind, const Message& object, Message& out) override {
    const auto& ns = meta_of(object).namespace_();
    if (kind.namespaced() && ns.empty()) co_return fail(ErrorCode::invalid_argument, "create {}: no namespace", kind.resource);
    auto r = co_await send_object("POST", resource_path(kind, ns), kind, object, &out);
    co_return r;
  }

  Task<Result<>> update_into(const Kind& kind, const Message& object, std::string subresource, Message& out) override {
    const auto& meta = meta_of(object);
    FL_CO_CHECK(check_target(kind, meta.namespace_(), meta.name()));
    auto r = co_await send_object("PUT", resource_path(kind, meta.namespace_(), meta.name(), subresource), kind, object, &out);
    co_return r;
  }

  Task<Result<>> patch_into(const Kind& kind, std::string ns, std::string name, std::string subresource, PatchType type,
                            std::string body, Message& out) override {
    FL_CO_CHECK(check_target(kind, ns, name));
    Query query;
    if (type == PatchType::apply) {
      query.add("fieldManager", user_agent_.substr(0, user_agent_.find('/')));
      query.add("force", "true");
    }
    auto request = make_request("PATCH", resource_path(kind, ns, name, subresource) + query.text(), kind);
    request.headers.set("Content-Type", std::string(patch_type(type)));
    request.body = std::move(body);
    auto r = co_await call_into(std::move(request), &out);
    co_return r;
  }

  Task<Result<>> delete_object(const Kind& kind, std::string ns, std::string name, DeleteOptions options) override;
  Task<Result<std::unique_ptr<WatchStream>>> watch(const Kind& kind, std::string ns, WatchOptions options) override;

  Task<Result<>> create_subresource(const Kind& kind, std::string ns, std::string name, std::string subresource,
                                    std::string api_version, std::string body_kind, const Message& body, Message* out) override {
    FL_CO_CHECK(check_target(kind, ns, name));
    auto request = make_request("POST", resource_path(kind, ns, name, subresource), kind);
    request.headers.set("Content-Type", std::string(kProtobuf));
    request.body = to_protobuf(body, api_version, body_kind);
    auto r = co_await call_into(std::move(request), out);
    co_return r;
  }

 private:
  static Result<> check_target(const Kind& kind, std::string_view ns, std::string_view name) {
    if (name.empty()) return fail(ErrorCode::invalid_argument, "{}: no name", kind.resource);
    if (kind.namespaced() && ns.empty()) return fail(ErrorCode::invalid_argument, "{} {}: no namespace", kind.resource, name);
    return {};
  }
  http::Request make_request(std::string method, std::string target, const Kind& kind) const {
    http::Request r;
    r.method = std::move(method);
    r.target = std::move(target);
    r.headers.add("Accept", json_only_.contains(&kind) ? std::string(kJson) : fmt::format("{},{}", kProtobuf, kJson));
    r.headers.add("User-Agent", user_agent_);
    return r;
  }
  void authorize(http::Request& request, seconds interval);

  // With retries; the answer may be an unsuccessful one.
  Task<Result<http::ClientResponse>> call(http::Request request, milliseconds timeout);
  Task<Result<>> call_into(http::Request request, Message* out);
  Task<Result<>> send_object(std::string method, std::string target, const Kind& kind, const Message& object, Message* out);
  static Result<> finish(const Result<http::ClientResponse>& answer, Message* out);
  std::optional<milliseconds> wait_before_retry(unsigned status, const http::Headers& headers, std::string_view body, int tries,
                                                SteadyPoint end) const;

  const net::any_io_executor executor_;
  const std::shared_ptr<http::Client> http_;
  Credentials credentials_;
  const std::string user_agent_;
  const ClientTuning tuning_;
  std::set<const Kind*> json_only_;  // kinds whose server refused protobuf bodies
};

void ClientImpl::authorize(http::Request& request, seconds interval) {
  if (credentials_.refresh(interval)) {
    if (auto r = http_->set_tls(credentials_.tls()); !r) log::warn("keep the old client certificate: {}", r.error().message);
  }
  if (!credentials_.token().empty()) request.headers.set("Authorization", "Bearer " + credentials_.token());
}

// How long to wait before the request is sent again; nullopt: this answer is final.
std::optional<milliseconds> ClientImpl::wait_before_retry(unsigned status, const http::Headers& headers, std::string_view body,
                                                          int tries, SteadyPoint end) const {
  if (status == 401 && tries == 1 && credentials_.rotates()) return milliseconds(0);  // once more with what the files say now
  if ((status != 429 && status != 503) || tries >= kMaxTries) return std::nullopt;
  const auto wait = retry_after(status, headers, body);
  if (!wait || now() + *wait >= end) return std::nullopt;
  return *wait;
}

Task<Result<http::ClientResponse>> ClientImpl::call(http::Request request, milliseconds timeout) {
  const auto end = now() + timeout;
  seconds interval = tuning_.credentials_interval;
  for (int tries = 1;; ++tries) {
    authorize(request, interval);
    const auto left = std::max(std::chrono::duration_cast<milliseconds>(end - now()), milliseconds(1));
    auto answer = co_await http_->request(request, left);
    if (!answer || answer->status < 300) co_return answer;
    const auto wait = wait_before_retry(answer->status, answer->headers, answer->body, tries, end);
    if (!wait) co_return answer;
    interval = answer->status == 401 ? seconds(0) : tuning_.credentials_interval;
    auto slept = co_await sleep_for(*wait);
    if (!slept) co_return fail(std::move(slept).error());
  }
}

Result<> ClientImpl::finish(const Result<http::ClientResponse>& answer, Message* out) {
  if (!answer) return fail(answer.error());
  if (answer->status >= 300) return fail(error_of_response(answer->status, answer->headers, answer->body));
  if (out == nullptr) return {};
  return decode(answer->headers.value_or("content-type", ""), answer->body, *out);
}

Task<Result<>> ClientImpl::call_into(http::Request request, Message* out) {
  const auto answer = co_await call(std::move(request), tuning_.timeout);
  co_return finish(answer, out);
}

Task<Result<>> ClientImpl::send_object(std::string method, std::string target, const Kind& kind, const Message& object,
                                       Message* out) {
  for (;;) {
    auto request = make_request(method, target, kind);
    const bool json = json_only_.contains(&kind);
    request.headers.set("Content-Type", std::string(json ? kJson : kProtobuf));
    if (json)
      append_json(request.body, object, kind.api_version(), kind.kind);
    else
      request.body = to_protobuf(object, kind.api_version(), kind.kind);
    const auto answer = co_await call(std::move(request), tuning_.timeout);
    const bool refused = answer && (answer->status == 415 || answer->status == 406);
    if (json || !refused) co_return finish(answer, out);
    json_only_.insert(&kind);  // a custom resource: its server speaks JSON alone
  }
}

Task<Result<ObjectList>> ClientImpl::list_of(const Kind& kind, std::string ns, ListOptions options) {
  if (kind.list_prototype == nullptr) co_return fail(ErrorCode::invalid_argument, "{} cannot be listed", kind.resource);
  ObjectList out;
  std::string next;
  bool whole = options.page_size <= 0;
  for (;;) {
    Query query;
    query.add("labelSelector", options.label_selector);
    query.add("fieldSelector", options.field_selector);
    if (next.empty()) query.add("resourceVersion", options.resource_version);
    if (!whole) query.add("limit", std::to_string(options.page_size));
    query.add("continue", next);
    auto request = make_request("GET", resource_path(kind, ns) + query.text(), kind);
    const std::unique_ptr<Message> page(kind.list_prototype->New());
    auto r = co_await call_into(std::move(request), page.get());
    if (!r && r.error().code == ErrorCode::expired && !next.empty()) {
      // The snapshot behind the pages is gone: all at once, which cannot expire.
      out = {};
      next.clear();
      whole = true;
      continue;
    }
    if (!r) co_return fail(std::move(r).error());
    take_items(*page, out);
    const auto& meta = list_meta_of(*page);
    out.resource_version = meta.resourceversion();
    next = meta.continue_();
    if (next.empty()) co_return out;
  }
}

Task<Result<>> ClientImpl::delete_object(const Kind& kind, std::string ns, std::string name, DeleteOptions o) {
  FL_CO_CHECK(check_target(kind, ns, name));
  metav1::DeleteOptions body;
  if (o.grace_period_seconds) body.set_graceperiodseconds(*o.grace_period_seconds);
  if (!o.propagation_policy.empty()) body.set_propagationpolicy(o.propagation_policy);
  if (!o.uid.empty()) body.mutable_preconditions()->set_uid(o.uid);
  if (!o.resource_version.empty()) body.mutable_preconditions()->set_resourceversion(o.resource_version);
  auto request = make_request("DELETE", resource_path(kind, ns, name), kind);
  // JSON is understood everywhere, also where the kind has no protobuf form, and this body is small.
  request.headers.set("Content-Type", std::string(kJson));
  append_json(request.body, body, "v1", "DeleteOptions");
  auto r = co_await call_into(std::move(request), nullptr);
  co_return r;
}

Task<Result<std::unique_ptr<WatchStream>>> ClientImpl::watch(const Kind& kind, std::string ns, WatchOptions options) {
  Query query;
  query.add("watch", "true");
  query.add("allowWatchBookmarks", "true");
  query.add("labelSelector", options.label_selector);
  query.add("fieldSelector", options.field_selector);
  query.add("resourceVersion", options.resource_version);
  query.add("timeoutSeconds", std::to_string(options.timeout.count()));
  if (options.initial_events) {
    query.add("sendInitialEvents", "true");
    query.add("resourceVersionMatch", "NotOlderThan");
  }
  const auto end = now() + tuning_.timeout;
  seconds interval = tuning_.credentials_interval;
  for (int tries = 1;; ++tries) {
    auto request = make_request("GET", resource_path(kind, ns) + query.text(), kind);
    authorize(request, interval);
    const auto left = std::max(std::chrono::duration_cast<milliseconds>(end - now()), milliseconds(1));
    auto stream = co_await http_->open(std::move(request), left);
    if (!stream) co_return fail(std::move(stream).error());
    const auto status = (*stream)->status();
    if (status == 200) {
      const bool proto = is_protobuf((*stream)->headers().value_or("content-type", ""));
      // A live watch is never silent for longer than its own timeout.
      const auto idle = std::chrono::duration_cast<milliseconds>(options.timeout + seconds(30));
      co_return std::make_unique<WatchStreamImpl>(kind, std::move(*stream),
                                                  proto ? WatchFrames::Format::protobuf : WatchFrames::Format::json, idle);
    }
    std::string body;
    while (body.size() < (1u << 20)) {
      auto piece = co_await (*stream)->read_some(milliseconds(5'000));
      if (!piece || piece->empty()) break;
      body += *piece;
    }
    if (status < 300) co_return fail(ErrorCode::internal, "watch {}: the server answered {}", kind.resource, status);
    const auto wait = wait_before_retry(status, (*stream)->headers(), body, tries, end);
    if (!wait) co_return fail(error_of_response(status, (*stream)->headers(), body));
    interval = status == 401 ? seconds(0) : tuning_.credentials_interval;
    stream->reset();
    auto slept = co_await sleep_for(*wait);
    if (!slept) co_return fail(std::move(slept).error());
  }
}

}  // namespace

Result<std::shared_ptr<Client>> make_client(net::any_io_executor executor, const RestConfig& config, std::string user_agent,
                                            const ClientTuning& tuning) {
  Credentials credentials(config);
  credentials.refresh(seconds(0));
  http::ClientOptions o;
  o.base_url = config.server;
  o.tls = credentials.tls();
  FL_TRY_CTX(auto http, http::make_client(executor, std::move(o)), "API client for {}", config.server);
  if (user_agent.empty()) user_agent = "fairlead";
  return std::make_shared<ClientImpl>(std::move(executor), std::move(http), std::move(credentials), std::move(user_agent),
                                      tuning);
}

}  // namespace fairlead::kube
