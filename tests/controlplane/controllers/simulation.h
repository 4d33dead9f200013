// A cluster in one thread: all controllers and the scheduler against a FakeClient, and node agents that pretend: they report
// their nodes, run pods after a moment, and end them when told to.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

#include "controlplane/controllers/controllers.h"
#include "controlplane/scheduler/scheduler.h"
#include "kube/proto/discovery/v1.pb.h"
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
  std::shared_ptr<test::FakeClient> fake;   // null: a real apiserver
  std::shared_ptr<kube::Client> client;
  std::vector<std::unique_ptr<FakeAgent>> agents;
  std::unique_ptr<ControllerManager> manager;
  std::unique_ptr<scheduler::Scheduler> scheduler;
  Options options;
  bool stopped = false;

  explicit Simulation(std::uint64_t seed = 1) : random(seed), fake(std::make_shared<test::FakeClient>(io.get_executor(), random)), client(fake) {
    tune();
  }
  explicit Simulation(const kube::RestConfig& config) : random(1), client(kube::make_client(io.get_executor(), config, "simulation/1").value()) {
    tune();
  }
  ~Simulation() { stop(); }
  void start(int nodes);
  void stop();  // also done at the end
  // Runs until the condition holds; false after the limit.
  bool until(const std::function<bool()>& condition, std::chrono::milliseconds limit = std::chrono::seconds(20));
  void run_for(std::chrono::milliseconds time);
  // Runs one call to its end. Not from within a coroutine.
  template <typename T>
  Result<T> call(Task<Result<T>> task) {
    std::optional<Result<T>> out;
    net::co_spawn(io, std::move(task), [&](std::exception_ptr, Result<T> r) { out = std::move(r); });
    EXPECT_TRUE(until([&] { return out.has_value(); })) << "a call that does not end";
    return std::move(*out);
  }

  // What is there.
  template <typename T>
  std::vector<T> all(const std::string& ns = {}) {
    if (fake) return fake->all<T>(ns);
    return call(client->list<T>(ns)).value();
  }
  template <typename T>
  std::optional<T> find(const std::string& ns, const std::string& name) {
    if (fake) return fake->find<T>(ns, name);
    auto r = call(client->get<T>(ns, name));
    if (!r) return std::nullopt;
    return std::move(*r);
  }
  template <typename T>
  T put(T object) {
    if (fake) return fake->put(std::move(object));
    auto r = call(client->create<T>(std::move(object)));
    EXPECT_TRUE(r) << r.error().message;
    return std::move(*r);
  }
  // f changes the object; subresource "status" when it changes the status.
  template <typename T, typename F>
  void edit(const std::string& ns, const std::string& name, F f, const std::string& subresource = {}) {
    if (fake) return fake->edit<T>(ns, name, f);
    for (int i = 0; i < 20; ++i) {
      auto object = call(client->get<T>(ns, name)).value();
      f(object);
      auto r = call(client->update<T>(std::move(object), subresource));
      if (r) return;
      ASSERT_EQ(r.error().code, ErrorCode::conflict) << r.error().message;
    }
    FAIL() << "conflict upon conflict";
  }
  Result<> remove(const kube::Kind& kind, const std::string& ns, const std::string& name, const std::string& policy);
  int pods(const std::function<bool(const corev1::Pod&)>& f = [](const corev1::Pod&) { return true; });
  int ready_pods();
  std::multiset<std::string> ready_endpoints(const std::string& service);  // pod names

 private:
  void tune() {
    options.random = &random;
    options.allocate_node_cidrs = true;
    options.cluster_cidrs = {Prefix::parse("10.244.0.0/16").value()};
    options.root_ca_pem = "CA";
  }
};

// The life of a Deployment of ten with its Service: scaled down and up, rolled, deleted; nothing is left. Within it a rolling
// update keeps its promises. `calm`: nothing is made to fail, so nothing may be done twice.
void life_of_a_deployment(Simulation& s, bool calm);

}  // namespace fairlead::controllers
