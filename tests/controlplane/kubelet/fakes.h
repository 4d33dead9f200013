// Stand-ins for the API in tests of the node agent: what it would write is kept, with the time, and can be looked at.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>

#include "controlplane/kubelet/agent.h"

namespace fairlead::kubelet::testing_fakes {

class FakePodApi final : public PodApi {
 public:
  struct Entry {
    std::string uid;
    corev1::PodStatus status;
    std::chrono::steady_clock::time_point at;
  };
  Task<Result<>> patch_status(std::shared_ptr<const corev1::Pod> pod, corev1::PodStatus, corev1::PodStatus to) override {
    if (unavailable > 0) {
      --unavailable;
      co_return fail(ErrorCode::unavailable, "the API is away");
    }
    if (removed(pod->metadata().uid())) co_return fail(ErrorCode::not_found, "no such pod");
    history.push_back({pod->metadata().uid(), to, std::chrono::steady_clock::now()});
    co_return Result<>{};
  }
  Task<Result<>> remove(std::shared_ptr<const corev1::Pod> pod) override {
    removals.push_back(pod->metadata().uid());
    if (on_remove) on_remove(pod->metadata().uid());
    co_return Result<>{};
  }
  const corev1::PodStatus* last(const std::string& uid) const {
    for (auto it = history.rbegin(); it != history.rend(); ++it)
      if (it->uid == uid) return &it->status;
    return nullptr;
  }
  bool removed(const std::string& uid) const { return std::find(removals.begin(), removals.end(), uid) != removals.end(); }

  std::vector<Entry> history;
  std::vector<std::string> removals;
  std::function<void(const std::string& uid)> on_remove;
  int unavailable = 0;  // so many calls fail
};

class FakeObjects final : public ObjectSource {
 public:
  Task<Result<std::shared_ptr<const corev1::ConfigMap>>> config_map(std::string, std::string ns, std::string name) override {
    const auto it = config_maps.find(ns + "/" + name);
    if (it == config_maps.end()) co_return fail(ErrorCode::not_found, "configmap \"{}\" not found", name);
    co_return it->second;
  }
  Task<Result<std::shared_ptr<const corev1::Secret>>> secret(std::string, std::string ns, std::string name) override {
    const auto it = secrets.find(ns + "/" + name);
    if (it == secrets.end()) co_return fail(ErrorCode::not_found, "secret \"{}\" not found", name);
    co_return it->second;
  }
  Task<Result<std::string>> token(std::shared_ptr<const corev1::Pod> pod, TokenRequest request) override {
    co_return "token-for-" + pod->spec().serviceaccountname() + "-" + request.audience;
  }
  Task<std::vector<std::shared_ptr<const corev1::Service>>> services(std::string) override { co_return service_list; }
  void release(const std::string& uid) override { released.push_back(uid); }
  void on_change(std::function<void(const std::string&)> h) override { changed = std::move(h); }

  std::map<std::string, std::shared_ptr<const corev1::ConfigMap>> config_maps;
  std::map<std::string, std::shared_ptr<const corev1::Secret>> secrets;
  std::vector<std::shared_ptr<const corev1::Service>> service_list;
  std::vector<std::string> released;
  std::function<void(const std::string&)> changed;
};

struct RecordedEvent {
  std::string pod, container, type, reason, message;
};

// One agent over a runtime, with fakes around it, on an event loop that the test drives.
class AgentHarness {
 public:
  AgentHarness(net::io_context& io, Settings settings, std::shared_ptr<Runtime> runtime)
      : io_(io), work_(net::make_work_guard(io)) {
    io_.restart();
    AgentOptions o;
    o.executor = io.get_executor();
    o.settings = std::move(settings);
    o.runtime = std::move(runtime);
    o.objects = objects;
    o.api = api;
    o.event = [this](const corev1::Pod& pod, const std::string& container, const char* type, const char* reason,
                     const std::string& message) {
      events.push_back({pod.metadata().name(), container, type, reason, message});
    };
    agent = std::make_unique<Agent>(std::move(o));
    api->on_remove = [this](const std::string& uid) {
      net::post(io_, [this, uid] {
        if (agent) agent->forget_pod(uid);
      });
    };
  }
  ~AgentHarness() { stop(); }

  void stop() {
    if (!agent) return;
    bool done = false;
    net::co_spawn(io_, agent->stop(), [&](std::exception_ptr) { done = true; });
    while (!done) io_.run_one();
    agent.reset();
  }
  // Runs the loop until the condition holds; false when the time is over.
  template <typename Condition>
  bool run_until(Condition condition, std::chrono::milliseconds limit = std::chrono::seconds(30)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    net::steady_timer tick(io_);
    while (!condition()) {
      if (std::chrono::steady_clock::now() >= end) return false;
      tick.expires_after(std::chrono::milliseconds(2));
      tick.async_wait([](const boost::system::error_code&) {});
      io_.run_one();
      io_.poll();
    }
    return true;
  }
  bool has_event(const std::string& reason) const {
    return std::any_of(events.begin(), events.end(), [&](const auto& e) { return e.reason == reason; });
  }

  std::shared_ptr<FakePodApi> api = std::make_shared<FakePodApi>();
  std::shared_ptr<FakeObjects> objects = std::make_shared<FakeObjects>();
  std::vector<RecordedEvent> events;
  std::unique_ptr<Agent> agent;

 private:
  net::io_context& io_;
  net::executor_work_guard<net::io_context::executor_type> work_;  // a loop without work would refuse to run
};

}  // namespace fairlead::kubelet::testing_fakes
