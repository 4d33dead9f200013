// A small apiserver in memory for tests of the client: CRUD, list with pages, watch with resourceVersions, bookmarks and
// initial events, in protobuf or JSON as the client asks; and every misbehaviour that a test wants to script.
// Threads: one executor.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event.h"
#include "base/http/server.h"
#include "kube/codec.h"
#include "kube/kinds.h"

namespace fairlead::kube::test {

class FakeApiserver {
 public:
  explicit FakeApiserver(net::any_io_executor executor, std::optional<http::TlsOptions> tls = {}, SocketAddress listen = {IpAddress::v4(127, 0, 0, 1), 0});
  ~FakeApiserver();

  std::string url() const;
  Task<> stop();  // closes the port
  void start();   // again on the same port

  // ---- state
  void put(const Message& object);  // create or update, with an event
  void remove(const Kind& kind, const std::string& key);
  void compact();                 // forgets all events: watches from older versions get 410
  void drop_watches();            // cuts all streams in the middle
  void finish_watches();          // ends all streams cleanly
  void bookmark();                // tells every watch where it is
  void resend(std::size_t last);  // the last n events once more to every watch
  std::uint64_t version() const { return version_; }
  std::map<std::string, std::shared_ptr<Message>> objects(const Kind& kind) const;

  // ---- behaviour
  bool watch_list = true;       // understands sendInitialEvents
  bool protobuf = true;         // else answers and accepts JSON only
  bool gone_in_stream = false;  // 410 as an ERROR event instead of an HTTP status
  // Sees every request first; an answer given here is sent instead.
  std::function<std::optional<http::Response>(const http::Request&)> intercept;
  // What was asked, "GET /api/v1/configmaps?limit=500".
  std::vector<std::string> requests;
  std::vector<std::string> authorizations;

 private:
  struct LoggedEvent {
    std::uint64_t version;
    std::string type;
    const Kind* kind;
    std::shared_ptr<Message> object;
  };
  struct Parsed {
    const Kind* kind = nullptr;
    std::string ns, name, subresource;
    http::Target target;
  };
  struct Watcher {
    std::deque<LoggedEvent> queue;
    std::shared_ptr<net::steady_timer> wake;
    const Kind* kind = nullptr;
    std::string ns;
    bool cut = false, finish = false;
  };

  Task<http::Response> handle(http::Request request);
  static std::optional<Parsed> parse(const std::string& target);
  http::Response list(const Parsed& p, bool proto);
  http::Response watch(const Parsed& p, bool proto);
  http::Response write(const Parsed& p, const http::Request& request, bool proto);
  http::Response erase(const Parsed& p, bool proto);
  http::Response object_response(unsigned status, const Message& object, bool proto) const;
  static Task<Result<>> pump(std::shared_ptr<Watcher> w, bool proto, bool gone, http::BodyWriter& out);
  void log_event(std::string type, const Kind& kind, std::shared_ptr<Message> object);
  LoggedEvent bookmark_event(const Kind& kind, bool initial_end) const;

  net::any_io_executor executor_;
  http::ServerOptions options_;
  std::unique_ptr<http::Server> server_;
  std::map<std::string, std::map<std::string, std::shared_ptr<Message>>> objects_;  // by resource, by key
  std::vector<LoggedEvent> log_;
  std::uint64_t version_ = 100;
  std::uint64_t compacted_ = 0;
  std::vector<std::weak_ptr<Watcher>> watchers_;
};

http::Response status_response(unsigned code, const std::string& reason, const std::string& message, bool proto = false);
std::string watch_frame(const std::string& type, const Message& object, bool proto);

}  // namespace fairlead::kube::test
