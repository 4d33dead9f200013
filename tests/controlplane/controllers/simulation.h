// A cluster in one thread: all controllers and the scheduler against a FakeClient, and node agents that pretend: they report
// their nodes, run pods after a moment, and end them when told to.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

#include "controlplane/controllers/controllers.h"
#include "controlplane/scheduler/scheduler.h"
#include "kube/informer.h"
#include "tests/controlplane/fake_client.h"

namespace fairlead::controllers {

// One node's agent.
class FakeAgent {
 public:
  struct Behaviour {
    std::chrono::milliseconds start{5};   // from assigned to ready
    std::chrono::milliseconds end{5};     // from deleted to gone
    bool ready = true;                    // pods become ready
    bool leases = true;                   // renews its Lease
  };
  FakeAgent(std::shared_ptr<kube::Client> client, std::string node, int number);
  void start();
  Task<> stop();
  std::shared_ptr<Behaviour> behaviour = std::make_shared<Behaviour>();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

struct Simulation {
  net::io_context io;
  SeededRandom random;
  std::shared_ptr<test::FakeClient> client;
  std::vector<std::unique_ptr<FakeAgent>> agents;
  std::unique_ptr<ControllerManager> manager;
  std::unique_ptr<scheduler::Scheduler> scheduler;
  Options options;
  bool stopped = false;

  explicit Simulation(std::uint64_t seed = 1) : random(seed), client(std::make_shared<test::FakeClient>(io.get_executor(), random)) {
    options.random = &random;
    options.allocate_node_cidrs = true;
    options.cluster_cidrs = {Prefix::parse("10.244.0.0/16").value()};
    options.root_ca_pem = "CA";
  }
  ~Simulation() { stop(); }
  void start(int nodes);
  void stop();  // also done at the end
  // Runs until the condition holds; false after the limit.
  bool until(const std::function<bool()>& condition, std::chrono::milliseconds limit = std::chrono::seconds(20));
  void run_for(std::chrono::milliseconds time);

  // What is there.
  int pods(const std::function<bool(const corev1::Pod&)>& f = [](const corev1::Pod&) { return true; }) const;
  int ready_pods() const;
  std::multiset<std::string> ready_endpoints(const std::string& service) const;  // pod names
};

}  // namespace fairlead::controllers
