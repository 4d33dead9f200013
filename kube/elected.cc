#include "kube/elected.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/duration.h"
#include "base/event.h"
#include "base/log.h"
#include "base/random.h"
#include "base/version.h"
#include "kube/leader_election.h"

namespace fairlead::kube {
namespace {

std::string identity() {
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  return std::string(host) + "_" + random_uuid(SystemRandom::get());
}

Result<LeaderElectionOptions> election(const ElectedFlags& f) {
  LeaderElectionOptions o;
  o.ns = f.lease_namespace;
  o.name = f.lease_name;
  o.identity = identity();
  FL_TRY_CTX(o.lease_duration, parse_period(f.lease_duration), "--leader-elect-lease-duration");
  FL_TRY_CTX(o.renew_deadline, parse_period(f.renew_deadline), "--leader-elect-renew-deadline");
  FL_TRY_CTX(o.retry_period, parse_period(f.retry_period), "--leader-elect-retry-period");
  return o;
}

// Wakes the body when leadership was won or lost.
struct Leadership {
  Event won, lost;
  explicit Leadership(net::any_io_executor e) : won(e), lost(e) {}
};

Task<Result<>> serve(Daemon& daemon, std::string name, ElectedFlags flags, StartComponent start) {
  auto config = flags.kubeconfig.empty() ? in_cluster_config() : load_kubeconfig(flags.kubeconfig);
  if (!config) co_return fail(std::move(config).error().with("--kubeconfig {}", flags.kubeconfig));
  FL_CO_TRY(const auto client, make_client(daemon.executor(), *config, name + "/" + std::string(kVersion)));
  const auto leadership = std::make_shared<Leadership>(daemon.executor());
  std::unique_ptr<LeaderElector> elector;
  if (flags.leader_elect) {
    FL_CO_TRY(const LeaderElectionOptions options, election(flags));
    LeaderCallbacks callbacks;
    callbacks.started = [leadership] { leadership->won.set(); };
    callbacks.stopped = [leadership, &daemon] {
      leadership->lost.set();
      daemon.request_stop();
    };
    elector = std::make_unique<LeaderElector>(client, options, std::move(callbacks));
    FL_CO_CHECK(elector->start());
    daemon.ready("candidate for " + flags.lease_namespace + "/" + flags.lease_name);
    // A signal while we wait for the Lease ends us too.
    net::co_spawn(
        daemon.executor(),
        [](Daemon& d, std::shared_ptr<Leadership> l) -> Task<> {
          co_await d.stop_requested();
          l->won.set();
        }(daemon, leadership),
        net::detached);
    co_await leadership->won.wait();
  }
  Result<> outcome;
  if (!daemon.stopping()) {
    auto component = start(client);
    if (component) {
      if (!flags.leader_elect) daemon.ready("running");
      log::info("{} leads", name);
      co_await daemon.stop_requested();
      co_await component->stop();
    } else {
      outcome = fail(std::move(component).error());
    }
  }
  if (outcome && leadership->lost.happened()) outcome = fail(ErrorCode::unavailable, "the Lease {}/{} was lost", flags.lease_namespace, flags.lease_name);
  if (elector) co_await elector->stop();
  co_return outcome;
}

}  // namespace

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
