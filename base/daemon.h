// The life of a daemon: an io_context with some threads, signals, readiness, orderly end.
//
//   int run_proxy(int argc, char** argv) {
//     ...
//     return run_daemon({.name = "fairlead-proxy"}, [&](Daemon& d) { return serve_proxy(d, config); });
//   }
//   Task<Result<>> serve_proxy(Daemon& d, Config config) {
//     FL_CO_TRY(auto server, http::serve(d.executor(), ...));
//     d.ready("listening on " + server->address().to_string());
//     co_await d.stop_requested();        // SIGINT or SIGTERM
//     co_await server->stop();
//     co_return Result<>{};
//   }
//
// The body runs on one strand (d.executor()); it ends the daemon by returning: 0 for success, 1 for an error, which is
// logged. The first SIGINT or SIGTERM asks the body to stop; a second one, or the passing of stop_timeout, exits at once
// with 128 + signal. SIGPIPE is ignored. ready() prints one line on stdout and, under systemd (NOTIFY_SOCKET), says READY=1;
// WATCHDOG=1 follows in time when a watchdog is set.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/asio.h"

namespace fairlead {

struct DaemonOptions {
  std::string name = "fairlead";
  int threads = 1;
  std::chrono::milliseconds stop_timeout{30'000};
};

class Daemon {
 public:
  virtual ~Daemon() = default;
  virtual net::any_io_executor executor() const = 0;  // the body's strand
  virtual net::io_context& context() = 0;             // for work that may run on all threads (http::serve)
  virtual void ready(const std::string& what) = 0;
  virtual Task<> stop_requested() = 0;
  virtual bool stopping() const = 0;
  virtual void request_stop() = 0;  // as if SIGTERM had come; from any thread
};

int run_daemon(const DaemonOptions& options, std::function<Task<Result<>>(Daemon&)> body);

// Sends "READY=1" and the like to NOTIFY_SOCKET. False when there is none, or it did not take the message.
bool notify_service_manager(std::string_view message);

}  // namespace fairlead
