// A daemon for daemon_test: serves its health, and ends as its argument says.
#include <cstring>

#include "base/daemon.h"
#include "base/http/health.h"

namespace fairlead {
namespace {

Task<Result<>> body(Daemon& d, std::string how) {
  if (how == "fail") co_return fail(ErrorCode::invalid_argument, "no such flag");
  if (how == "throw") throw std::runtime_error("thrown");
  metrics::Registry registry;
  http::Health health(&registry);
  http::ServerOptions options;
  options.listen = {IpAddress::v4(127, 0, 0, 1), 0};
  FL_CO_TRY(const auto server, http::serve(d.context().get_executor(), options, health.handler()));
  d.ready(server->address().to_string());
  if (how == "return") co_return Result<>{};
  co_await d.stop_requested();
  if (how == "hang") {
    const auto r = co_await sleep_for(std::chrono::hours(1));
    (void)r;
  }
  co_await server->stop();
  co_return Result<>{};
}

}  // namespace
}  // namespace fairlead

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "";
  return fairlead::run_daemon(
      {.name = "test", .threads = 2, .stop_timeout = std::chrono::milliseconds(how == "hang" ? 300 : 30'000)},
      [how](fairlead::Daemon& d) { return fairlead::body(d, how); });
}
