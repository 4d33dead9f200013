#include "ingress/command/command.h"

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <set>

#include "base/daemon.h"
#include "base/http/health.h"
#include "base/http/server.h"
#include "base/log.h"
#include "ingress/command/manifests.h"
#include "ingress/command/settings.h"
#include "ingress/runtime/router.h"
#include "ingress/runtime/tls.h"

namespace fairlead::ingress {
namespace {

int failed(const Error& e) {
  std::fprintf(stderr, "fairlead: %s\n", e.message.c_str());
  return e.code == ErrorCode::invalid_argument ? 2 : 1;
}

// Connections are descriptors, twice.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// The router of one process: objects in, a table out to the workers; what is wrong is said once.
class Service {
 public:
  Service(CompileOptions options, metrics::Registry& registry)
      : compiler_(std::move(options)), reloads_(registry.counter("fairlead_ingress_reloads_total", "Times the route table was made anew.")),
        registry_(registry) {}

  std::shared_ptr<const RouteTable> compile(const Objects& objects, Diagnostics problems) {
    auto made = compiler_.compile(objects);
    problems.insert(problems.end(), made.diagnostics.begin(), made.diagnostics.end());
    report(problems);
    reloads_.inc();
    return made.table;
  }

 private:
  void report(const Diagnostics& diagnostics) {
    std::set<std::string> now;
    std::map<std::string, int> by_reason;
    for (const auto& d : diagnostics) {
      auto text = d.text();
      ++by_reason[d.reason];
      if (!said_.contains(text)) log::at(d.severity == Severity::error ? log::Level::error : d.severity == Severity::warning ? log::Level::warn : log::Level::info, "{}", text);
      now.insert(std::move(text));
    }
    for (const auto& [reason, n] : reasons_)
      if (!by_reason.contains(reason)) by_reason[reason] = 0;
    for (const auto& [reason, n] : by_reason) registry_.gauge("fairlead_ingress_diagnostics", "What is wrong with objects, by reason.", {{"reason", reason}}).set(n);
    reasons_ = std::move(by_reason);
    said_ = std::move(now);
  }

  Compiler compiler_;
  metrics::Counter& reloads_;
  metrics::Registry& registry_;
  std::set<std::string> said_;
  std::map<std::string, int> reasons_;
};

// /metrics is the registry's text followed by the router's own.
http::Handler with_router_metrics(http::Health& health, const Router& router) {
  return [&health, &router](http::Request request) -> Task<http::Response> {
    const bool metrics = request.target.starts_with("/metrics");
    auto answer = health.handle(request);
    if (!answer) {
      http::Response none;
      none.status = 404;
      co_return none;
    }
    if (metrics && answer->status == 200) answer->body += router.metrics_text();
    co_return std::move(*answer);
  };
}

Task<> drain(fairlead::Daemon& daemon, Router& router, const Settings& settings) {
  (void)daemon;
  for (unsigned i = 0; i < settings.shutdown_delay_seconds * 10; ++i) co_await sleep_for(std::chrono::milliseconds(100));
  log::info("leaving; {} connections are open", router.connections());
  router.drain();
  for (unsigned i = 0; i < settings.shutdown_seconds * 20 && !router.ended(); ++i) co_await sleep_for(std::chrono::milliseconds(50));
  if (!router.ended()) log::warn("{} connections are cut after {} s", router.connections(), settings.shutdown_seconds);
}

Task<Result<>> serve(fairlead::Daemon& daemon, Settings settings) {
  const unsigned threads = thread_count(settings);
  metrics::Registry registry;
  auto options = compile_options(settings, threads);
  FL_CO_TRY(options.fallback_certificate, make_fallback_certificate());
  FL_CO_TRY(auto worker, worker_options(settings));
  Service service(std::move(options), registry);
  Manifests manifests(settings.manifests);
  Diagnostics problems;
  FL_CO_TRY(const auto objects, manifests.load(true, problems));
  FL_CO_TRY(auto router, Router::start(worker, threads, service.compile(objects, {})));
  std::atomic<bool> leaving{false};
  http::Health health(&registry);
  health.add_ready("serving", [&]() -> Result<> {
    if (leaving) return fail(ErrorCode::failed_precondition, "shutting down");
    return {};
  });
  std::unique_ptr<http::Server> health_server;
  if (!settings.health_listen.empty()) {
    http::ServerOptions health_options;
    FL_CO_TRY_CTX(health_options.listen, SocketAddress::parse(settings.health_listen), "--health-listen");
    FL_CO_TRY_CTX(health_server, http::serve(daemon.executor(), health_options, with_router_metrics(health, *router)), "--health-listen");
  }
  const std::function<void()> reload = [&] {
    Diagnostics wrong;
    auto next = manifests.load(false, wrong);
    if (next) router->set_table(service.compile(*next, std::move(wrong)));
  };
  const std::function<void(std::exception_ptr, Result<>)> watch_ended = [&](std::exception_ptr, Result<> r) {
    if (!r && !leaving) log::error("watching manifests: {}; changes are not seen any more", r.error().message);
  };
  net::co_spawn(daemon.executor(), watch_files(settings.manifests, reload), watch_ended);
  std::string where;
  for (const auto& a : router->bound()) where += (where.empty() ? "" : ", ") + a.to_string();
  daemon.ready("listening on " + where);
  co_await daemon.stop_requested();
  leaving = true;
  co_await drain(daemon, *router, settings);
  if (health_server) co_await health_server->stop();
  co_return Result<>{};
}

}  // namespace

int run_ingress(int argc, char** argv) {
  CLI::App app{"HTTP router: Ingress objects to connections", argv[0]};
  Settings settings;
  add_flags(app, settings);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  const auto level = log::parse_level(settings.log_level);
  if (!level) return failed(level.error());
  log::init({"ingress", *level, false});
  raise_descriptor_limit();
  DaemonOptions options;
  options.name = "fairlead-ingress";
  options.stop_timeout = std::chrono::seconds(settings.shutdown_seconds + settings.shutdown_delay_seconds + 10);
  return run_daemon(options, [&](fairlead::Daemon& d) { return serve(d, settings); });
}

}  // namespace fairlead::ingress
