#include "kube/elected.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/duration.h"
#include "base/log.h"
#include "base/random.h"
#include "base/version.h"

namespace fairlead::kube {
namespace {

Result<LeaderElectionOptions> election(const ElectedFlags& f) {
  LeaderElectionOptions o;
  o.ns = f.lease_namespace;
  o.name = f.lease_name;
  o.identity = candidate_identity();
  FL_TRY_CTX(o.lease_duration, parse_period(f.lease_duration), "--leader-elect-lease-duration");
  FL_TRY_CTX(o.renew_deadline, parse_period(f.renew_deadline), "--leader-elect-renew-deadline");
  FL_TRY_CTX(o.retry_period, parse_period(f.retry_period), "--leader-elect-retry-period");
  return o;
}

// One candidacy: won once, lost at most once. `over` comes also when there is nothing to wait for any more.
struct Term {
  Event won, over;
  explicit Term(net::any_io_executor e) : won(e), over(e) {}
};

Task<> end_with(std::shared_ptr<Event> stop, std::shared_ptr<Term> term) {
  co_await stop->wait();
  term->won.set();
  term->over.set();
}

// Waits for the Lease, runs the component, stops it when the Lease is lost or `stop` happens. True: it was lost.
Task<Result<bool>> serve_term(std::shared_ptr<Client> client, LeaderElectionOptions options, StartComponent start, std::shared_ptr<Event> stop) {
  const auto term = std::make_shared<Term>(client->executor());
  LeaderCallbacks callbacks;
  callbacks.started = [term] { term->won.set(); };
  callbacks.stopped = [term] { term->over.set(); };
  LeaderElector elector(client, options, std::move(callbacks));
  FL_CO_CHECK(elector.start());
  net::co_spawn(client->executor(), end_with(stop, term), net::detached);
  co_await term->won.wait();
  if (stop->happened()) {
    co_await elector.stop();
    co_return false;
  }
  auto component = start(client);
  if (component) {
    log::info("leads {}/{} as {}", options.ns, options.name, options.identity);
    co_await term->over.wait();
    co_await component->stop();
  }
  co_await elector.stop();
  if (!component) co_return fail(std::move(component).error());
  co_return !stop->happened();
}

Task<> follow(Daemon& daemon, std::shared_ptr<Event> stop) {
  co_await daemon.stop_requested();
  stop->set();
}

Task<Result<>> serve(Daemon& daemon, std::string name, ElectedFlags flags, StartComponent start) {
  auto config = flags.kubeconfig.empty() ? in_cluster_config() : load_kubeconfig(flags.kubeconfig);
  if (!config) co_return fail(std::move(config).error().with("--kubeconfig {}", flags.kubeconfig));
  FL_CO_TRY(const auto client, make_client(daemon.executor(), *config, name + "/" + std::string(kVersion)));
  const auto stop = std::make_shared<Event>(daemon.executor());
  net::co_spawn(daemon.executor(), follow(daemon, stop), net::detached);
  if (!flags.leader_elect) {
    FL_CO_TRY(auto component, start(client));
    daemon.ready("running");
    co_await stop->wait();
    co_await component.stop();
    co_return Result<>{};
  }
  FL_CO_TRY(const LeaderElectionOptions options, election(flags));
  daemon.ready("candidate for " + flags.lease_namespace + "/" + flags.lease_name);
  auto lost = co_await serve_term(client, options, start, stop);
  if (!lost) co_return fail(std::move(lost).error());
  if (*lost) co_return fail(ErrorCode::unavailable, "the Lease {}/{} was lost", flags.lease_namespace, flags.lease_name);
  co_return Result<>{};
}

}  // namespace

std::string candidate_identity() {
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  return std::string(host) + "_" + random_uuid(SystemRandom::get());
}

Task<Result<>> run_whenever_elected(std::shared_ptr<Client> client, LeaderElectionOptions options, StartComponent start, std::shared_ptr<Event> stop) {
  while (!stop->happened()) {
    auto lost = co_await serve_term(client, options, start, stop);
    if (!lost) co_return fail(std::move(lost).error());
    if (*lost) log::warn("the Lease {}/{} was lost: stopped, and a candidate again", options.ns, options.name);
  }
  co_return Result<>{};
}

void declare(CLI::App& app, ElectedFlags& f, const std::string& lease_name) {
  f.lease_name = lease_name;
  app.set_version_flag("--version", std::string(kVersion));
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the apiserver; default: the service account of this pod");
  app.add_flag("--leader-elect,!--no-leader-elect", f.leader_elect, "run only while holding the Lease (default true)")->capture_default_str();
  app.add_option("--leader-elect-resource-namespace", f.lease_namespace, "namespace of the Lease")->capture_default_str();
  app.add_option("--leader-elect-resource-name", f.lease_name, "name of the Lease")->capture_default_str();
  app.add_option("--leader-elect-lease-duration", f.lease_duration, "how long others wait before they take over")->capture_default_str();
  app.add_option("--leader-elect-renew-deadline", f.renew_deadline, "how long we try to renew before we give up")->capture_default_str();
  app.add_option("--leader-elect-retry-period", f.retry_period, "time between tries")->capture_default_str();
  app.add_option("--log-level", f.log_level, "debug, info, warn or error")->capture_default_str();
  app.add_flag("--log-json", f.log_json, "log lines as JSON");
}

int run_elected(const std::string& name, ElectedFlags flags, StartComponent start) {
  const auto level = log::parse_level(flags.log_level);
  if (!level) {
    std::cerr << "--log-level: " << level.error().message << "\n";
    return 2;
  }
  if (auto ok = election(flags); !ok) {
    std::cerr << ok.error().message << "\n";
    return 2;
  }
  log::init({name, *level, flags.log_json});
  DaemonOptions options;
  options.name = name;
  return run_daemon(options, [&](Daemon& d) { return serve(d, name, flags, start); });
}

}  // namespace fairlead::kube
