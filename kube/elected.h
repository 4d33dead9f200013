// What daemons share of which one in a cluster may work (scheduler, controller manager, load balancer controller): flags for
// the API and for leader election, and running a component as long as this process is the leader.
//
//   int run_scheduler(int argc, char** argv) {
//     kube::ElectedFlags flags;
//     kube::declare(app, flags, "kube-scheduler");
//     ...
//     return kube::run_elected("fairlead-scheduler", flags, [](std::shared_ptr<kube::Client> c) -> Result<kube::Component> {...});
//   }
//
// There, losing the Lease ends the process with an error, as upstream does: the supervisor starts it again, with nothing in
// memory that might be out of date. A process that has more to do than the component uses run_whenever_elected(): the
// component is stopped and forgotten, and a new one is started when the Lease is won again.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/daemon.h"
#include "base/event.h"
#include "kube/client.h"
#include "kube/leader_election.h"

namespace CLI {
class App;
}

namespace fairlead::kube {

struct ElectedFlags {
  std::string kubeconfig;      // empty: the service account of the pod we run in
  bool leader_elect = true;
  std::string lease_namespace = "kube-system";
  std::string lease_name;
  std::string lease_duration = "15s";
  std::string renew_deadline = "10s";
  std::string retry_period = "2s";
  std::string log_level = "info";
  bool log_json = false;
};
void declare(CLI::App& app, ElectedFlags& flags, const std::string& lease_name);

// The running component; stop() is awaited before it is destroyed.
struct Component {
  std::function<Task<>()> stop;
};
using StartComponent = std::function<Result<Component>(std::shared_ptr<Client>)>;
// Starts the component whenever the Lease is won and stops it when it is lost, until `stop` happens. Ends early only with the
// error of a start. On the client's executor, which `stop` belongs to as well.
Task<Result<>> run_whenever_elected(std::shared_ptr<Client> client, LeaderElectionOptions options, StartComponent start, std::shared_ptr<Event> stop);
// Unique among all candidates: the host's name and something random.
std::string candidate_identity();
// Connects, waits for leadership if asked to, starts, runs until a signal. The return value is the exit code.
int run_elected(const std::string& name, ElectedFlags flags, StartComponent start);

}  // namespace fairlead::kube
