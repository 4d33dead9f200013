// Exchange: one request on its way from a client to a backend and the answer on its way back. It knows the route, decides,
// picks an endpoint, tries again where that is safe, and keeps both sides from running ahead of each other. Downstream is the
// client's side (an HTTP/1.1 connection or an HTTP/2 stream), BackendStream the other one.
//
// Thread: its worker's; pooled by the worker, so that a request allocates nothing once the pool is warm. All text of the request
// is slices of head_, which the exchange owns.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ingress/core/gate.h"
#include "ingress/core/route_table.h"
#include "ingress/http1/head.h"
#include "ingress/runtime/upstream.h"

namespace fairlead::ingress {

class AuthCall;
class Exchange;
class MirrorCall;
class Worker;
struct TableHolder;
struct AuthVerdict;
struct ClientIdentity;  // ingress/core/client_certificate.h

// Bytes that may wait for one side before the other is told to pause.
inline constexpr std::size_t kHighWater = 256 << 10;
inline constexpr std::size_t kReplayBytes = 64 << 10;

class Downstream {
 public:
  virtual ~Downstream() = default;
  // The answer's head with the first bytes of its body. `end`: that was all of it.
  virtual void send_head(const ResponseHead& head, const HeaderList& added, std::string_view first, bool end) = 0;
  virtual void send_data(std::string_view data, bool end, std::string_view trailers) = 0;
  virtual void send_informational(const ResponseHead& head) = 0;
  virtual void send_reply(const Reply& reply) = 0;
  // From here on bytes go through as they are.
  virtual void start_tunnel(const ResponseHead& head, const HeaderList& added, std::string_view first) = 0;
  virtual void abort_response() = 0;  // it cannot be completed; the client must notice
  virtual void exchange_done() = 0;   // forget the exchange; response complete or aborted
  virtual void pause_request() = 0;
  virtual void resume_request() = 0;
  virtual std::size_t backlog() const = 0;
};

class BackendStream {
 public:
  virtual ~BackendStream() = default;
  virtual void start(Exchange& exchange) = 0;  // sends the request; may fail from within
  virtual bool reused() const = 0;             // on a connection that has served others
  virtual void send_body(std::string_view data, bool end, std::string_view trailers) = 0;
  virtual void send_raw(std::string_view data) = 0;  // tunnels
  virtual void pause_response() = 0;
  virtual void resume_response() = 0;
  virtual void cancel() = 0;  // the exchange goes on without it
  virtual std::size_t backlog() const = 0;
};

// Who is on the other end of a client connection; outlives its exchanges.
struct Peer {
  IpAddress address;
  Port port = 0;
  Port local_port = 0;
  bool https = false;
  std::string server_name;  // of TLS, lower case
  std::shared_ptr<const ClientIdentity> identity;  // null: no certificate was asked for
  std::string headers;      // X-Real-IP and so on, made once
};

// `refused`: the backend says that it has not looked at the request.
enum class BackendFailure : std::uint8_t { connect, connect_timeout, refused, broken, read_timeout, invalid };

class Exchange {
 public:
  explicit Exchange(Worker& worker) : worker_(worker) {}

  // ---- by the client's side
  void begin(Downstream& client, Peer& peer, std::string_view head_bytes, unsigned http_version);
  // A request of the router's own; `target` null: as `head` is routed. `table`: the one to use.
  void begin_own(Downstream& client, Peer& peer, TableHolder* table, std::string_view head, const Target* target, bool https);
  void on_verdict(AuthVerdict verdict);
  void request_body(std::string_view data, bool end, std::string_view trailers = {});
  void tunnel_data(std::string_view data);
  void client_drained();
  void client_gone();
  // The request could not be read to its end.
  void request_failed(unsigned status, const char* why);
  const RequestHead& request() const { return request_; }
  bool request_complete() const { return request_complete_; }
  bool response_started() const { return response_started_; }
  bool tunnel() const { return tunnel_; }
  const Policy* policy() const { return target_ ? target_->policy.get() : nullptr; }

  // ---- by the backend's side
  const std::string& request_text() const { return text_; }
  std::string_view replay() const { return replay_; }
  bool replay_ended() const { return request_complete_; }
  std::string_view request_trailers() const { return request_trailers_; }
  ResponseHead& response() { return response_; }
  void on_informational();
  void on_head(std::string_view first, bool end, std::string_view trailers);
  void on_data(std::string_view data, bool end, std::string_view trailers);
  void on_upgraded(std::string_view first);
  void on_tunnel_data(std::string_view data);
  void on_tunnel_closed();
  void on_failed(BackendFailure failure, std::string_view why);
  void backend_drained();

 private:
  friend class Worker;
  void reset();
  void route();
  bool check_client(const ClientAuth& auth);
  void ask();
  void mirror();
  bool replaced(const Field& f) const;
  Asker asker() const;
  void forward();
  bool check_limits();
  bool check_password_cached();
  void write_request();
  void write_forwarded_headers();
  void try_backend();
  bool may_try_again(BackendFailure failure) const;
  void again_or_fail(BackendFailure failure);
  bool retry_for_status();
  void write_client_certificate();
  void choose_request_id();
  void set_response_headers();
  void add_auth_cookies();
  void reply(Reply r, std::string_view why);
  void reply_status(unsigned status, std::string_view why);
  void add_affinity_cookie();
  void count_response(std::size_t bytes) { bytes_out_ += bytes; }
  void finish();
  void detach_backend();

  Worker& worker_;
  Downstream* client_ = nullptr;
  Peer* peer_ = nullptr;
  TableHolder* table_ = nullptr;
  unsigned http_version_ = 11;
  std::int64_t started_us_ = 0;

  std::string head_;
  RequestHead request_;
  std::string host_buffer_, path_buffer_;
  std::string_view host_, path_;
  const Route* route_ = nullptr;
  const Target* target_ = nullptr;
  Decision decision_;
  bool https_ = false;
  bool own_ = false;  // nobody's but the router's
  const ClientAuth* client_auth_ = nullptr;
  AuthCall* asking_ = nullptr;
  MirrorCall* mirror_ = nullptr;
  std::string verdict_key_;
  std::vector<std::string> auth_cookies_;

  std::string text_;    // the head to the backend
  std::string replay_;  // body so far, while a retry could need it
  bool replayable_ = true;
  std::string request_trailers_;
  bool request_complete_ = false;
  std::uint64_t bytes_in_ = 0, bytes_out_ = 0;
  char request_id_[33] = {};

  UpstreamState* upstream_ = nullptr;
  std::shared_ptr<EndpointState> endpoint_;
  BackendStream* backend_ = nullptr;
  bool fresh_connection_ = true;
  std::vector<std::uint64_t> avoid_;
  unsigned tries_ = 0, informational_ = 0;
  bool pinned_ = false;
  std::uint64_t limit_key_ = 0;  // concurrent requests are counted there; 0: not

  ResponseHead response_;
  unsigned status_ = 0;
  bool response_started_ = false;
  bool tunnel_ = false;
  bool client_paused_ = false, backend_paused_ = false;
  bool finished_ = true;
  const char* note_ = "";
};

}  // namespace fairlead::ingress
