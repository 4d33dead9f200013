#include "ingress/runtime/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/http/message.h"
#include "base/text.h"
#include "ingress/runtime/access_log.h"
#include "ingress/runtime/backend.h"
#include "ingress/core/client_certificate.h"
#include "ingress/runtime/own_request.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {
namespace {

constexpr unsigned kMostInformational = 16;  // answers with 1xx to one request

bool idempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "PUT" || method == "DELETE";
}

// Fields that the router writes itself.
bool is_forwarding(HeaderId id) { return id >= HeaderId::x_forwarded_for && id <= HeaderId::forwarded; }

bool good_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 32 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
  });
}

// W3C Trace Context, version 00: 00-<32 hex>-<16 hex>-<2 hex>, neither id all zero.
bool good_traceparent(std::string_view v) {
  if (v.size() != 55 || !v.starts_with("00-") || v[35] != '-' || v[52] != '-') return false;
  const auto hex = [](std::string_view s) { return std::all_of(s.begin(), s.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }); };
  const auto trace = v.substr(3, 32), span = v.substr(36, 16);
  return hex(trace) && hex(span) && hex(v.substr(53)) && trace.find_first_not_of('0') != std::string_view::npos && span.find_first_not_of('0') != std::string_view::npos;
}

void write_hex(char* to, std::uint64_t v) {
  for (int i = 15; i >= 0; --i, v >>= 4) to[i] = "0123456789abcdef"[v & 15];
}

}  // namespace

void Exchange::reset() {
  route_ = nullptr;
  target_ = nullptr;
  decision_ = Decision{};
  host_ = path_ = {};
  own_ = false;
  client_auth_ = nullptr;
  asking_ = nullptr;
  mirror_ = nullptr;
  verdict_key_.clear();
  auth_cookies_.clear();
  text_.clear();
  replay_.clear();
  request_trailers_.clear();
  replayable_ = true;
  request_complete_ = false;
  bytes_in_ = bytes_out_ = 0;
  request_id_[0] = 0;
  upstream_ = nullptr;
  endpoint_.reset();
  backend_ = nullptr;
  fresh_connection_ = false;
  avoid_.clear();
  tries_ = informational_ = 0;
  pinned_ = false;
  limit_key_ = 0;
  status_ = 0;
  response_started_ = tunnel_ = client_paused_ = backend_paused_ = finished_ = false;
  note_ = "";
}

void Exchange::begin(Downstream& client, Peer& peer, std::string_view head_bytes, unsigned http_version) {
  reset();
  client_ = &client;
  peer_ = &peer;
  http_version_ = http_version;
  https_ = peer.https;
  started_us_ = worker_.reactor().now_us();
  table_ = worker_.hold_table();
  worker_.count().requests.add();
  head_.assign(head_bytes);
  if (const auto e = parse_request_head(head_, worker_.options().head_limits, request_)) {
    worker_.count().bad_requests.add();
    request_.keep_alive = false;
    request_complete_ = true;
    return reply_status(e.status, e.reason);
  }
  request_complete_ = !request_.has_body();
  if (worker_.options().trust_forwarded && equal_ignoring_case(request_.value_of(HeaderId::x_forwarded_proto), "https")) https_ = true;
  route();
}

void Exchange::begin_own(Downstream& client, Peer& peer, TableHolder* table, std::string_view head, const Target* target, bool https) {
  reset();
  client_ = &client;
  peer_ = &peer;
  http_version_ = 11;
  https_ = https;
  own_ = true;
  started_us_ = worker_.reactor().now_us();
  table_ = worker_.hold_table(table);
  head_.assign(head);
  if (const auto e = parse_request_head(head_, worker_.options().head_limits, request_)) {
    request_complete_ = true;
    return reply_status(e.status, e.reason);
  }
  request_complete_ = !request_.has_body();
  if (!target) return route();
  target_ = target;
  forward();
}

Asker Exchange::asker() const { return {peer_->address, https_, worker_.options().https_port, worker_.random()}; }

void Exchange::route() {
  const auto host = host_of(request_.authority);
  host_ = host;
  if (std::any_of(host.begin(), host.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) {
    host_buffer_ = lower(host);
    host_ = host_buffer_;
  }
  if (request_.path == "*") path_ = "/";
  else if (!normalize_path(request_.path, path_buffer_, path_)) return reply_status(400, "the path leaves the root or is malformed");
  const auto& table = *table_->table;
  if (!table.www_redirects.empty())
    if (const auto www = table.www_redirects.find(host_); www != table.www_redirects.end())
      return reply({308, {{"Location", fmt::format("{}://{}{}", https_ ? "https" : "http", www->second, request_.target)}}, "308 Permanent Redirect\n"}, "from-to-www-redirect");
  const auto match = table.match(host_, path_);
  if (match.add_slash) {
    const auto query = request_.query.empty() ? std::string() : fmt::format("?{}", request_.query);
    return reply({301, {{"Location", fmt::format("{}://{}{}/{}", https_ ? "https" : "http", request_.authority, request_.path, query)}}, "301 Moved Permanently\n"}, "only the path with a slash is routed");
  }
  route_ = match.route;
  if (match.host && match.host->client_auth() && !check_client(*match.host->client_auth())) return;
  if (!match.route) return reply_status(404, "no rule matches");
  target_ = &route_->target;
  const auto& policy = *route_->target.policy;
  if (policy.plain() && !route_->canary) return forward();
  decision_ = decide(*route_, request_, host_, path_, asker());
  target_ = decision_.target;
  if (decision_.reply) return reply(std::move(*decision_.reply), "answered by policy");
  if (decision_.needs_password && !check_password_cached()) return reply(unauthorized(policy.basic_auth), "wrong user or password");
  if (!check_limits()) return reply_status(503, "over the limit of requests");
  if (decision_.ask_first) return ask();
  forward();
}

// False: it has been answered.
bool Exchange::check_client(const ClientAuth& auth) {
  // Who is to come by HTTPS is sent there first, and authorities come without it; there is nothing to check here.
  if (!https_ && route_ && (is_acme_challenge(path_) || wants_https(*route_, host_, path_, asker()))) return true;
  auto found = judge_client(auth, peer_->https, peer_->server_name, peer_->identity.get(), host_);
  client_auth_ = &auth;
  if (!found.reply) return true;
  request_.keep_alive = request_.keep_alive && found.reply->status != 421;
  reply(std::move(*found.reply), found.why);
  return false;
}

// Asks the authentication service; the client's body waits meanwhile.
void Exchange::ask() {
  const auto& auth = route_->target.policy->external_auth;
  if (own_) return reply_status(503, "the authentication service is behind itself");
  verdict_key_ = auth_cache_key(auth, request_, host_, path_, asker());
  if (const auto* kept = verdict_key_.empty() ? nullptr : worker_.known_verdict(verdict_key_)) {
    worker_.count().auth_kept.add();
    verdict_key_.clear();
    return on_verdict(*kept);
  }
  worker_.count().auth_asked.add();
  if (!auth.request.to_itself && !auth.request.target) return on_verdict({});
  if (!request_complete_) {
    client_paused_ = true;
    client_->pause_request();
  }
  choose_request_id();
  const auto question = auth_question(auth, request_, host_, path_, asker(), request_id_);
  const auto& policy = *route_->target.policy;
  asking_ = AuthCall::ask(worker_, *this, auth, *peer_, table_, question, std::chrono::milliseconds(policy.connect_timeout + policy.read_timeout).count());
}

void Exchange::on_verdict(AuthVerdict verdict) {
  asking_ = nullptr;
  if (finished_) return;
  const auto& auth = route_->target.policy->external_auth;
  if (const auto seconds = auth_cache_seconds(auth, verdict.status); seconds > 0 && !verdict_key_.empty() && verdict.cookies.empty()) worker_.remember_verdict(verdict_key_, verdict, seconds);
  auth_cookies_ = std::move(verdict.cookies);
  if (!verdict.allowed()) {
    const bool fault = verdict.status == 503;
    (fault ? worker_.count().auth_faults : worker_.count().auth_denied).add();
    return reply(auth_refusal(auth, verdict, request_, host_, path_, asker()), fault ? "the authentication service could not be asked" : "the authentication service says no");
  }
  for (auto& h : verdict.request_headers) decision_.request_headers.push_back(std::move(h));
  const bool waits = std::exchange(client_paused_, false);
  forward();
  if (waits && !finished_ && !client_paused_) client_->resume_request();
}

bool Exchange::check_password_cached() {
  const auto& auth = route_->target.policy->basic_auth;
  const auto given = request_.value_of(HeaderId::authorization);
  const auto parsed = parse_basic(given);
  if (!parsed) return false;
  const auto it = std::find_if(auth.credentials->users.begin(), auth.credentials->users.end(), [&](const auto& u) { return u.first == parsed->user; });
  if (it == auth.credentials->users.end()) return false;
  // Two independent 64-bit sums over what the answer depends on, kept in this process alone.
  const auto a = hash_text(it->second) ^ (hash_text(given) * 3), b = hash_text(std::string(given) + it->second);
  if (worker_.known_good(a, b)) return true;
  if (!check_password(parsed->password, it->second)) return false;
  worker_.remember_good(a, b);
  return true;
}

bool Exchange::check_limits() {
  const auto& l = route_->target.policy->limits;
  if (!l.any() || in_any(l.exempt, peer_->address)) return true;
  const auto who = hash_text({reinterpret_cast<const char*>(peer_->address.bytes().data()), peer_->address.bytes().size()}) ^ hash_text(route_->ingress);
  const auto now = worker_.reactor().now_us();
  if (l.per_second != 0 && !worker_.limiter().take(who * 2 + 1, l.per_second, double(l.per_second) * l.burst_multiplier, now)) return false;
  if (l.per_minute != 0 && !worker_.limiter().take(who * 2 + 2, l.per_minute / 60.0, double(l.per_minute) * l.burst_multiplier, now)) return false;
  if (l.connections != 0) {
    if (!worker_.limiter().enter(who, l.connections)) return false;
    limit_key_ = who;
  }
  return true;
}

void Exchange::forward() {
  if (!target_->upstream) return reply_status(503, "the service does not exist");
  const auto& policy = *target_->policy;
  // Never in the clear, nor to anybody, where TLS is asked for and cannot be had. (A canary's own policy has not been asked yet.)
  if (!target_->upstream->transport.usable() || !policy.refuse.empty()) return reply_status(503, "how to reach the backend is not understood");
  if (policy.max_body_bytes != 0 && request_.content_length && *request_.content_length > policy.max_body_bytes) {
    request_.keep_alive = false;
    return reply_status(413, "the body is larger than allowed");
  }
  upstream_ = &worker_.upstream(target_->upstream);
  upstream_->count_request();
  target_->upstream->stats->of(worker_.number()).requests.add();
  write_request();
  if (route_ && route_->target.policy->mirror.enabled && !own_ && !request_.wants_upgrade()) mirror();
  try_backend();
}

// Fields of the client that others speak for.
bool Exchange::replaced(const Field& f) const {
  const auto& policy = *route_->target.policy;
  if (f.id == HeaderId::authorization) return policy.basic_auth.enabled;
  const auto& names = policy.external_auth.response_headers;
  return policy.external_auth.enabled && std::any_of(names.begin(), names.end(), [&](const auto& n) { return equal_ignoring_case(n, f.name); });
}

// The copy has the request's head but for where it goes, and its body if that is wanted.
void Exchange::mirror() {
  const auto& m = route_->target.policy->mirror;
  if (!m.request.to_itself && !m.request.target) return;
  auto path = escape_unsafe(expand(m.request.path, request_, host_, path_, asker(), {}));
  if (!path.starts_with('/')) path.insert(path.begin(), '/');
  const auto host = m.host ? escape_unsafe(expand(*m.host, request_, host_, path_, asker(), {})) : m.request.authority(host_);
  auto head = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\n", request_.method, path, host);
  std::string_view rest = text_;
  for (int line = 0; !rest.empty(); ++line) {
    const auto size = rest.find('\n') + 1;
    Field f;
    const bool field = line >= 2 && parse_field_line(rest.substr(0, size), f);
    const bool framing = field && (f.id == HeaderId::content_length || f.id == HeaderId::transfer_encoding);
    if (line >= 2 && !(field && f.id == HeaderId::expect) && !(framing && !m.body)) head += rest.substr(0, size);
    rest.remove_prefix(size);
  }
  mirror_ = MirrorCall::start(worker_, &mirror_, m.request, *peer_, table_, head);
  if (mirror_ && m.body && (!replay_.empty() || request_complete_)) mirror_->body(replay_, request_complete_, request_trailers_);
}

void Exchange::write_request() {
  const auto& policy = *target_->policy;
  auto& t = text_;
  if (own_ && !route_) return void(t = head_);  // written as it shall be
  t.reserve(head_.size() + 512);
  t += request_.method;
  t += ' ';
  t += decision_.path_and_query.empty() ? request_.target : std::string_view(decision_.path_and_query);
  t += " HTTP/1.1\r\nHost: ";
  t += policy.upstream_vhost.empty() ? request_.authority : std::string_view(policy.upstream_vhost);
  t += "\r\n";
  // Neighbours that are both forwarded are copied together.
  const char* run = nullptr;
  const char* run_end = nullptr;
  const auto flush = [&] {
    if (run) t.append(run, static_cast<std::size_t>(run_end - run));
    run = nullptr;
  };
  const bool trust = worker_.options().trust_forwarded;
  const bool replaces = !route_->target.policy->plain();
  for (const auto& f : request_.fields) {
    const bool skip = f.drop || f.id == HeaderId::host || (is_forwarding(f.id) && !(trust && f.id == HeaderId::forwarded)) || f.id == HeaderId::x_request_id ||
                      (f.id == HeaderId::traceparent && !good_traceparent(f.value)) ||
                      (replaces && replaced(f));
    if (skip) {
      flush();
      continue;
    }
    if (!run) run = f.line.data();
    else if (run_end != f.line.data()) flush(), run = f.line.data();
    run_end = f.line.data() + f.line.size();
  }
  flush();
  if (request_.chunked) t += "Transfer-Encoding: chunked\r\n";
  if (request_.wants_upgrade()) t.append("Connection: Upgrade\r\nUpgrade: ").append(request_.upgrade).append("\r\n");
  write_forwarded_headers();
  if (client_auth_) write_client_certificate();
  for (const auto& [name, value] : decision_.request_headers) t.append(name).append(": ").append(value).append("\r\n");
  t += "\r\n";
}

void Exchange::write_client_certificate() {
  for (const auto& [name, value] : client_headers(*client_auth_, peer_->identity.get())) text_.append(name).append(": ").append(value).append("\r\n");
}

// The client's, when it is well formed; else one of our own.
void Exchange::choose_request_id() {
  if (request_id_[0] != 0) return;
  const auto given = request_.value_of(HeaderId::x_request_id);
  std::size_t size = 32;
  if (good_request_id(given)) {
    std::memcpy(request_id_, given.data(), size = given.size());
  } else {
    write_hex(request_id_, worker_.random());
    write_hex(request_id_ + 16, worker_.random());
  }
  request_id_[size] = 0;
}

void Exchange::write_forwarded_headers() {
  auto& t = text_;
  if (peer_->headers.empty()) {
    const auto ip = peer_->address.to_string();
    const std::string_view scheme = peer_->https ? "https" : "http";
    peer_->headers = fmt::format("X-Real-IP: {}\r\nX-Forwarded-Port: {}\r\nX-Forwarded-Proto: {}\r\nX-Forwarded-Scheme: {}\r\nX-Scheme: {}\r\nX-Forwarded-For: {}\r\n", ip, peer_->local_port, scheme, scheme, scheme, ip);
  }
  if (!worker_.options().trust_forwarded) {
    t += peer_->headers;
    t.append("X-Forwarded-Host: ").append(request_.authority).append("\r\n");
    if (const auto* f = request_.find(HeaderId::x_forwarded_for)) t.append("X-Original-Forwarded-For: ").append(f->value).append("\r\n");
  } else {
    // A trusted proxy in front: what it says stands, our own peer is added.
    const auto ip = peer_->address.to_string();
    const auto keep = [&](HeaderId id, std::string_view name, std::string_view otherwise) {
      const auto* f = request_.find(id);
      t.append(name).append(": ").append(f ? f->value : otherwise).append("\r\n");
    };
    const std::string_view scheme = https_ ? "https" : "http";
    const auto before = request_.value_of(HeaderId::x_forwarded_for);
    t.append("X-Forwarded-For: ").append(before).append(before.empty() ? "" : ", ").append(ip).append("\r\n");
    keep(HeaderId::x_real_ip, "X-Real-IP", ip);
    keep(HeaderId::x_forwarded_host, "X-Forwarded-Host", request_.authority);
    keep(HeaderId::x_forwarded_port, "X-Forwarded-Port", std::to_string(peer_->local_port));
    keep(HeaderId::x_forwarded_proto, "X-Forwarded-Proto", scheme);
    keep(HeaderId::x_forwarded_scheme, "X-Forwarded-Scheme", scheme);
    keep(HeaderId::x_scheme, "X-Scheme", scheme);
  }
  choose_request_id();
  t.append("X-Request-ID: ").append(request_id_).append("\r\n");
  if (!good_traceparent(request_.value_of(HeaderId::traceparent))) {
    char trace[] = "00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(trace + 3, worker_.random());
    write_hex(trace + 19, worker_.random());
    write_hex(trace + 36, worker_.random() | 1);
    t.append("traceparent: ").append(trace, 55).append("\r\n");
  }
}

void Exchange::try_backend() {
  const auto& policy = *target_->policy;
  const auto now = worker_.reactor().now_ms();
  auto& counters = target_->upstream->stats->of(worker_.number());
  UpstreamState::Choice choice;
  choice.chance = worker_.random();
  choice.avoid = avoid_.empty() ? nullptr : &avoid_;
  if (policy.balance == Balance::least_request) choice.kind = UpstreamState::Choice::Kind::least;
  if (policy.hash_by) {
    choice.kind = UpstreamState::Choice::Kind::hash;
    choice.hash = hash_text(expand(*policy.hash_by, request_, host_, path_, {peer_->address, https_}, {}));
  }
  endpoint_.reset();
  pinned_ = false;
  if (policy.affinity.enabled) {
    std::uint64_t wanted = 0;
    const auto cookie = cookie_value(request_.value_of(HeaderId::cookie), policy.affinity.name);
    if (cookie.size() == 16) {
      for (const char c : cookie) wanted = wanted * 16 + static_cast<std::uint64_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
      auto pinned = choice;
      pinned.kind = UpstreamState::Choice::Kind::pinned;
      pinned.hash = wanted;
      endpoint_ = upstream_->pick(pinned, now);
      pinned_ = endpoint_ != nullptr;
    }
  }
  if (!endpoint_) endpoint_ = upstream_->pick(choice, now);
  if (!endpoint_) {
    counters.refused.add();
    return reply_status(503, upstream_->endpoints().empty() ? "the service has no endpoints" : "all endpoints are at their limit");
  }
  ++tries_;
  auto* backend = open_backend(worker_, *upstream_, endpoint_, fresh_connection_);
  if (!backend) {
    worker_.count().connect_failures.add();
    upstream_->failed(*endpoint_, now);
    counters.failures.add();
    return again_or_fail(BackendFailure::connect);
  }
  fresh_connection_ = !backend->reused();
  backend_ = backend;
  backend->start(*this);
  if (backend_ && backend_->backlog() > kHighWater && !client_paused_) {
    client_paused_ = true;
    client_->pause_request();
  }
}

void Exchange::request_body(std::string_view data, bool end, std::string_view trailers) {
  if (finished_) return;
  bytes_in_ += data.size();
  request_complete_ = end;
  request_trailers_ = trailers;
  const auto most = target_ ? target_->policy->max_body_bytes : 0;
  if (most != 0 && bytes_in_ > most) {
    request_.keep_alive = false;
    return request_failed(413, "the body is larger than allowed");
  }
  if (replayable_ && !response_started_) {
    if (replay_.size() + data.size() <= kReplayBytes || !backend_) replay_ += data;
    else replayable_ = false, std::string().swap(replay_);
  }
  if (mirror_ && route_->target.policy->mirror.body) mirror_->body(data, end, trailers);
  if (!backend_) return;
  backend_->send_body(data, end, trailers);
  if (backend_ && backend_->backlog() > kHighWater && !client_paused_) {
    client_paused_ = true;
    client_->pause_request();
  }
}

void Exchange::request_failed(unsigned status, const char* why) {
  if (finished_) return;
  detach_backend();
  request_.keep_alive = false;
  if (!response_started_) return reply_status(status, why);
  note_ = why;
  client_->abort_response();
  finish();
}

void Exchange::tunnel_data(std::string_view data) {
  if (!backend_) return;
  bytes_in_ += data.size();
  backend_->send_raw(data);
  if (backend_ && backend_->backlog() > kHighWater && !client_paused_) {
    client_paused_ = true;
    client_->pause_request();
  }
}

void Exchange::backend_drained() {
  if (!client_paused_) return;
  client_paused_ = false;
  client_->resume_request();
}

void Exchange::client_drained() {
  if (!backend_paused_) return;
  backend_paused_ = false;
  if (backend_) backend_->resume_response();
}

void Exchange::client_gone() {
  if (finished_) return;
  note_ = "the client went away";
  detach_backend();
  finish();
}

void Exchange::on_informational() {
  if (++informational_ > kMostInformational) {
    note_ = "the backend tells more ahead of its answer than anybody needs";
    detach_backend();
    target_->upstream->stats->of(worker_.number()).failures.add();
    return reply_status(502, note_);
  }
  if (!request_.http10) client_->send_informational(response_);
}

bool Exchange::retry_for_status() {
  const auto& r = target_->policy->retries;
  if (r.on_status.empty() || std::find(r.on_status.begin(), r.on_status.end(), response_.status) == r.on_status.end()) return false;
  if (!may_try_again(BackendFailure::invalid) || !upstream_->may_retry()) return false;
  upstream_->failed(*endpoint_, worker_.reactor().now_ms());
  target_->upstream->stats->of(worker_.number()).retries.add();
  detach_backend();
  avoid_.push_back(endpoint_->endpoint.hash);
  try_backend();
  return true;
}

void Exchange::on_head(std::string_view first, bool end, std::string_view trailers) {
  if (end) backend_ = nullptr;
  if (retry_for_status()) return;
  upstream_->succeeded(*endpoint_);
  status_ = response_.status;
  response_started_ = true;
  std::string().swap(replay_);
  count_response(first.size());
  if (target_->policy->affinity.enabled && !pinned_ && route_) add_affinity_cookie();
  if (!decision_.response_headers.empty() || !auth_cookies_.empty()) set_response_headers();
  const bool with_trailers = end && !trailers.empty();
  client_->send_head(response_, decision_.response_headers, first, end && !with_trailers);
  if (finished_) return;
  if (with_trailers) client_->send_data({}, true, trailers);
  if (finished_) return;
  if (end) return finish();
  if (client_->backlog() > kHighWater && backend_) {
    backend_paused_ = true;
    backend_->pause_response();
  }
}

void Exchange::on_data(std::string_view data, bool end, std::string_view trailers) {
  if (end) backend_ = nullptr;
  count_response(data.size());
  client_->send_data(data, end, trailers);
  if (finished_) return;
  if (end) return finish();
  if (client_->backlog() > kHighWater && backend_ && !backend_paused_) {
    backend_paused_ = true;
    backend_->pause_response();
  }
}

void Exchange::on_upgraded(std::string_view first) {
  upstream_->succeeded(*endpoint_);
  status_ = 101;
  response_started_ = tunnel_ = true;
  count_response(first.size());
  client_->start_tunnel(response_, decision_.response_headers, first);
}

void Exchange::on_tunnel_data(std::string_view data) {
  count_response(data.size());
  client_->send_data(data, false, {});
  if (!finished_ && client_->backlog() > kHighWater && backend_ && !backend_paused_) {
    backend_paused_ = true;
    backend_->pause_response();
  }
}

void Exchange::on_tunnel_closed() {
  backend_ = nullptr;
  client_->send_data({}, true, {});
  if (!finished_) finish();
}

bool Exchange::may_try_again(BackendFailure failure) const {
  const auto& r = target_->policy->retries;
  if (response_started_ || !replayable_) return false;
  const auto most = r.tries == 0 ? std::max<std::size_t>(upstream_->endpoints().size(), 1) : r.tries;
  if (tries_ >= most) return false;
  if (r.within_seconds != 0 && worker_.reactor().now_us() - started_us_ > r.within_seconds * 1'000'000) return false;
  const bool nothing_sent = failure <= BackendFailure::refused;
  return nothing_sent || r.non_idempotent || idempotent(request_.method);
}

void Exchange::again_or_fail(BackendFailure failure) {
  const auto& r = target_->policy->retries;
  const bool timeout = failure == BackendFailure::connect_timeout || failure == BackendFailure::read_timeout;
  const bool wanted = timeout ? r.on_timeout : failure == BackendFailure::invalid ? r.on_invalid : r.on_error;
  if (wanted && may_try_again(failure) && upstream_->may_retry()) {
    target_->upstream->stats->of(worker_.number()).retries.add();
    avoid_.push_back(endpoint_->endpoint.hash);
    return try_backend();
  }
  reply_status(timeout ? 504 : 502, note_);
}

void Exchange::on_failed(BackendFailure failure, std::string_view why) {
  backend_ = nullptr;
  // A kept connection that its other side closed at the same moment says nothing about the endpoint, and costs no try.
  const bool unseen = failure == BackendFailure::refused || (failure == BackendFailure::broken && idempotent(request_.method));
  if (unseen && !fresh_connection_ && !response_started_ && replayable_) {
    fresh_connection_ = true;
    --tries_;
    return try_backend();
  }
  auto& counters = target_->upstream->stats->of(worker_.number());
  counters.failures.add();
  if (upstream_->failed(*endpoint_, worker_.reactor().now_ms())) counters.ejections.add();
  note_ = failure == BackendFailure::connect           ? "cannot connect to the endpoint"
          : failure == BackendFailure::connect_timeout ? "connecting took too long"
          : failure == BackendFailure::refused         ? "the backend refused the request"
          : failure == BackendFailure::read_timeout    ? "the backend is silent"
          : failure == BackendFailure::invalid         ? "the answer is malformed"
                                                       : "the backend broke the connection";
  log_backend_failure(*target_->upstream, endpoint_->endpoint.address, why);
  if (response_started_) {
    client_->abort_response();
    return finish();
  }
  again_or_fail(failure);
}

// What policies set replaces what the backend says; cookies are added.
void Exchange::set_response_headers() {
  const auto& policy = *route_->target.policy;
  for (auto& f : response_.fields)
    for (const auto& [name, value] : policy.response_headers)
      if (equal_ignoring_case(f.name, name)) f.drop = true;
  add_auth_cookies();
}

void Exchange::add_auth_cookies() {
  const auto& policy = *route_->target.policy;
  if (auth_sets_cookies(policy.external_auth, status_))
    for (auto& c : auth_cookies_) decision_.response_headers.emplace_back("Set-Cookie", std::move(c));
  auth_cookies_.clear();
}

void Exchange::add_affinity_cookie() {
  const auto& a = target_->policy->affinity;
  char value[17] = {};
  write_hex(value, endpoint_->endpoint.hash);
  auto text = fmt::format("{}={}; Path={}; HttpOnly", a.name, value, a.path.empty() ? (route_->regex ? "/" : std::string_view(route_->path)) : std::string_view(a.path));
  if (!a.domain.empty()) text += "; Domain=" + a.domain;
  if (a.max_age_seconds) text += fmt::format("; Max-Age={}", *a.max_age_seconds);
  else if (a.expires_seconds) text += fmt::format("; Max-Age={}", *a.expires_seconds);
  if (!a.same_site.empty()) text += "; SameSite=" + a.same_site;
  if (a.secure || https_) text += "; Secure";
  decision_.response_headers.emplace_back("Set-Cookie", std::move(text));
}

void Exchange::reply_status(unsigned status, std::string_view why) {
  reply({status, {}, fmt::format("{} {}\n", status, http::reason_phrase(status))}, why);
}

void Exchange::reply(Reply r, std::string_view why) {
  // Literals and members of this object: alive until the log line is written.
  note_ = why.data();
  status_ = r.status;
  response_started_ = true;
  if (!auth_cookies_.empty()) add_auth_cookies();
  for (auto& h : decision_.response_headers) r.headers.push_back(std::move(h));
  count_response(r.body.size());
  client_->send_reply(r);
  if (!finished_) finish();
}

void Exchange::detach_backend() {
  if (auto* b = std::exchange(backend_, nullptr)) b->cancel();
}

void Exchange::finish() {
  if (finished_) return;
  finished_ = true;
  detach_backend();
  if (auto* call = std::exchange(asking_, nullptr)) call->forget();
  if (auto* call = std::exchange(mirror_, nullptr)) call->leave(request_complete_ || !route_->target.policy->mirror.body);
  if (limit_key_ != 0) worker_.limiter().leave(limit_key_);
  const auto micros = std::max<std::int64_t>(worker_.reactor().now_us() - started_us_, 0);
  if (route_) {
    auto& c = route_->stats->of(worker_.number());
    c.by_class[std::min(status_ / 100, 5u)].add();
    c.bytes_in.add(bytes_in_);
    c.bytes_out.add(bytes_out_);
    const double seconds = static_cast<double>(micros) / 1e6;
    std::size_t i = 0;
    while (i < kLatencyBounds.size() && seconds > kLatencyBounds[i]) ++i;
    c.latency[i].add();
    c.latency_micros.add(static_cast<std::uint64_t>(micros));
  }
  if (worker_.options().access_log != AccessLog::off && !own_) {
    AccessRecord r;
    r.peer = peer_;
    r.request = &request_;
    r.http_version = http_version_;
    r.status = status_;
    r.bytes_in = bytes_in_;
    r.bytes_out = bytes_out_;
    r.micros = micros;
    r.route = route_;
    r.upstream = target_ && target_->upstream ? target_->upstream.get() : nullptr;
    r.endpoint = endpoint_ ? &endpoint_->endpoint.address : nullptr;
    r.tries = tries_;
    r.request_id = request_id_;
    r.note = note_;
    worker_.log_access(format_access(worker_.options().access_log, r, worker_.wall_ms()));
  }
  auto* client = std::exchange(client_, nullptr);
  worker_.release_table(table_);
  table_ = nullptr;
  worker_.give_back(this);
  client->exchange_done();
}

}  // namespace fairlead::ingress
