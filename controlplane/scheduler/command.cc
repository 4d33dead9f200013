#include "controlplane/scheduler/command.h"

#include <CLI/CLI.hpp>

#include "controlplane/scheduler/scheduler.h"
#include "kube/elected.h"

namespace fairlead::scheduler {

int run_scheduler(int argc, char** argv) {
  CLI::App app{"The scheduler of Fairlead: gives pods their nodes.", "fairlead scheduler"};
  kube::ElectedFlags common;
  Options options;
  kube::declare(app, common, "kube-scheduler");
  app.add_option("--scheduler-name", options.scheduler_name, "the spec.schedulerName that is ours")->capture_default_str();
  app.add_option("--max-bindings", options.max_bindings, "bindings under way at the same time")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return kube::run_elected("fairlead-scheduler", common, [options](std::shared_ptr<kube::Client> client) -> Result<kube::Component> {
    FL_TRY(auto started, start(std::move(client), options));
    std::shared_ptr<Scheduler> running = std::move(started);
    return kube::Component{[running] { return running->stop(); }};
  });
}

}  // namespace fairlead::scheduler
