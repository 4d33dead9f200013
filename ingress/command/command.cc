#include "ingress/command/command.h"

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <set>

#include "base/daemon.h"
#include "base/http/health.h"
#include "base/http/server.h"
#include "base/log.h"
#include "ingress/command/api_source.h"
#include "ingress/command/check.h"
#include "ingress/command/manifests.h"
#include "ingress/command/names.h"
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

  Compiled compile(const Objects& objects, Diagnostics problems) {
    auto made = compiler_.compile(objects);
    problems.insert(problems.end(), made.diagnostics.begin(), made.diagnostics.end());
    report(problems);
    reloads_.inc();
    return made;
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

// What the health server tells; outlives it.
struct Facts {
  metrics::Registry registry;
  std::unique_ptr<Router> router;
  bool leaving = false;
};

// /metrics is the registry's text followed by the router's own.
http::Handler with_router_metrics(http::Health& health, const Facts& facts) {
  return [&health, &facts](http::Request request) -> Task<http::Response> {
    const bool metrics = request.target.starts_with("/metrics");
    auto answer = health.handle(request);
    if (!answer) {
      http::Response none;
      none.status = 404;
      co_return none;
    }
    if (metrics && answer->status == 200 && facts.router) answer->body += facts.router->metrics_text();
    co_return std::move(*answer);
  };
}

Task<> drain(Facts& facts, const Settings& settings) {
  facts.leaving = true;
  auto& router = *facts.router;
  for (unsigned i = 0; i < settings.shutdown_delay_seconds * 10; ++i) co_await sleep_for(std::chrono::milliseconds(100));
  log::info("leaving; {} connections are open", router.connections());
  router.drain();
  for (unsigned i = 0; i < settings.shutdown_seconds * 20 && !router.ended(); ++i) co_await sleep_for(std::chrono::milliseconds(50));
  if (!router.ended()) log::warn("{} connections are cut after {} s", router.connections(), settings.shutdown_seconds);
}

std::string listening(const Router& router) {
  std::string where;
  for (const auto& a : router.bound()) where += (where.empty() ? "" : ", ") + a.to_string();
  return "listening on " + where;
}

struct Prepared {
  WorkerOptions worker;
  unsigned threads = 1;
};

Task<Result<>> serve_manifests(fairlead::Daemon& daemon, const Settings& settings, Prepared prepared, Service& service, Facts& facts) {
  auto manifests = std::make_shared<Manifests>(settings.manifests);
  Diagnostics problems;
  FL_CO_TRY(const auto objects, manifests->load(true, problems));
  const auto first = service.compile(objects, {});
  FL_CO_TRY(facts.router, Router::start(prepared.worker, prepared.threads, first.table));
  auto names = std::make_shared<std::shared_ptr<Names>>();
  const std::function<void()> reload = [manifests, names, &service, &facts] {
    Diagnostics wrong;
    auto next = manifests->load(false, wrong);
    if (!next) return;
    next->names = (*names)->found();
    const auto made = service.compile(*next, std::move(wrong));
    facts.router->set_table(made.table);
    (*names)->follow(made.names);
  };
  *names = std::make_shared<Names>(daemon.executor(), NamesOptions{}, reload);
  (*names)->follow(first.names);
  const std::function<void(std::exception_ptr, Result<>)> watch_ended = [&facts](std::exception_ptr, Result<> r) {
    if (!r && !facts.leaving) log::error("watching manifests: {}; changes are not seen any more", r.error().message);
  };
  net::co_spawn(daemon.executor(), watch_files(settings.manifests, reload), watch_ended);
  daemon.ready(listening(*facts.router));
  co_await daemon.stop_requested();
  co_await drain(facts, settings);
  (*names)->stop();
  names->reset();
  co_return Result<>{};
}

// True: `f` came to hold; false: the daemon is to stop.
Task<bool> wait_for(fairlead::Daemon& daemon, std::function<bool()> f) {
  while (!f()) {
    if (daemon.stopping()) co_return false;
    co_await sleep_for(std::chrono::milliseconds(5));
  }
  co_return true;
}

Task<Result<>> serve_api(fairlead::Daemon& daemon, const Settings& settings, Prepared prepared, Service& service, Facts& facts) {
  auto rest = settings.kubeconfig.empty() ? kube::in_cluster_config() : kube::load_kubeconfig(settings.kubeconfig);
  if (!rest) co_return fail(std::move(rest).error().with("{}", settings.kubeconfig.empty() ? "no --manifests, no --kubeconfig, and not in a pod" : "--kubeconfig"));
  FL_CO_TRY(auto client, kube::make_client(daemon.executor(), *rest, "fairlead-ingress"));
  ApiSourceOptions options;
  options.status_addresses = settings.status_addresses;
  options.publish_service = settings.publish_service;
  ApiSource source(client, options);
  std::shared_ptr<Names> names;
  const std::function<void()> resolved = [&] { source.set_names(names->found()); };
  names = std::make_shared<Names>(daemon.executor(), NamesOptions{}, resolved);
  std::shared_ptr<const RouteTable> first;
  const std::function<void()> apply = [&] {
    auto made = service.compile(source.objects(), {});
    source.follow(made);
    names->follow(made.names);
    // Before what is named has been looked for, its absence says nothing.
    if (!facts.router && !source.named_known()) return;
    source.publish(made);
    if (facts.router) facts.router->set_table(made.table);
    else first = std::move(made.table);
  };
  const std::function<void(std::exception_ptr)> started = [&](std::exception_ptr) {
    apply();
  };
  const std::function<bool()> ready = [&] { return first != nullptr; };
  log::info("api {}", rest->server);
  net::co_spawn(daemon.executor(), source.start(apply), started);
  const bool go_on = co_await wait_for(daemon, ready);
  Result<> result;
  if (go_on) {
    auto router = Router::start(prepared.worker, prepared.threads, first);
    if (router) {
      facts.router = std::move(*router);
      apply();
      daemon.ready(listening(*facts.router));
      co_await daemon.stop_requested();
      co_await drain(facts, settings);
    } else {
      result = fail(std::move(router).error());
    }
  }
  names->stop();
  co_await source.stop();
  co_return result;
}

Task<Result<>> serve(fairlead::Daemon& daemon, Settings settings) {
  Prepared prepared;
  prepared.threads = thread_count(settings);
  auto facts = std::make_unique<Facts>();
  auto options = compile_options(settings, prepared.threads);
  FL_CO_TRY(options.fallback_certificate, make_fallback_certificate());
  FL_CO_TRY(prepared.worker, worker_options(settings));
  Service service(std::move(options), facts->registry);
  http::Health health(&facts->registry);
  health.add_ready("serving", [&f = *facts]() -> Result<> {
    if (!f.router) return fail(ErrorCode::failed_precondition, "no route table yet");
    if (f.leaving) return fail(ErrorCode::failed_precondition, "shutting down");
    return {};
  });
  std::unique_ptr<http::Server> health_server;
  if (!settings.health_listen.empty()) {
    http::ServerOptions health_options;
    FL_CO_TRY_CTX(health_options.listen, SocketAddress::parse(settings.health_listen), "--health-listen");
    FL_CO_TRY_CTX(health_server, http::serve(daemon.executor(), health_options, with_router_metrics(health, *facts)), "--health-listen");
  }
  Result<> result;
  if (settings.manifests.empty()) result = co_await serve_api(daemon, settings, prepared, service, *facts);
  else result = co_await serve_manifests(daemon, settings, prepared, service, *facts);
  if (health_server) co_await health_server->stop();
  co_return result;
}

}  // namespace

int run_ingress(int argc, char** argv) {
  CLI::App app{"HTTP router: Ingress objects to connections", argv[0]};
  Settings settings;
  add_flags(app, settings);
  CheckOptions check;
  auto* check_command = app.add_subcommand("check", "compile manifests and tell what the router makes of them");
  check_command->add_option("-f,--filename", check.files, "files or folders")->required();
  check_command->add_option("--expect", check.expectations, "\"[METHOD] URL [HEADER: VALUE; ...] => NAMESPACE/SERVICE:PORT\" or \"... => STATUS [LOCATION]\"");
  check_command->add_option("--request", check.requests, "the same without the arrow: tell where it goes");
  check_command->add_flag("--strict", check.strict)->description("warnings count as errors");
  app.require_subcommand(0, 1);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (*check_command) return run_check(check, settings);
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
