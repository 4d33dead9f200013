#include "cni/agent/agent.h"

#include "base/log.h"
#include "cni/agent/node_facts.h"
#include "cni/agent/sweeper.h"
#include "kube/informer.h"

namespace fairlead::cni {
namespace {

constexpr std::chrono::milliseconds kFirstRetry{500};

class Agent {
 public:
  Agent(std::shared_ptr<kube::Client> client, AgentOptions options)
      : options_(std::move(options)), timer_(client->executor()), nodes_(kube::make_informer<corev1::Node>(client)) {}

  Task<Result<>> run() {
    nodes_->on_change([this](const kube::Change<corev1::Node>&) { wake(); });
    nodes_->on_synced([this] { wake(); });
    nodes_->start();
    // Not wait_synced(): the apiserver may be away for long, and a stop must be heard meanwhile.
    while (!nodes_->has_synced() && !stopping_) co_await wait(options_.resync);
    while (!stopping_) {
      dirty_ = false;
      const auto next = pass();
      if (!dirty_ && !stopping_) co_await wait(next);
      // A node that joins changes its object several times within moments.
      if (dirty_ && !stopping_) {
        dirty_ = false;
        co_await wait(options_.settle);
      }
    }
    co_await nodes_->stop();
    co_return Result<>{};
  }

  void stop() {
    stopping_ = true;
    timer_.cancel();
  }

 private:
  void wake() {
    dirty_ = true;
    timer_.cancel();
  }

  Task<> wait(std::chrono::milliseconds d) {
    timer_.expires_after(d);
    co_await timer_.async_wait(use_result);
  }

  // Returns how long to wait for the next one when nothing happens.
  std::chrono::milliseconds pass() {
    std::optional<NodeFacts> self;
    std::vector<NodeFacts> peers;
    std::vector<std::string> problems;
    nodes_->for_each([&](const std::shared_ptr<const corev1::Node>& n) {
      ReadNode read = node_facts(*n);
      if (!read.problem.empty()) problems.push_back(read.problem);
      if (read.facts.name == options_.node_name)
        self = std::move(read.facts);
      else
        peers.push_back(std::move(read.facts));
    });
    if (!self) {
      // Gone, or not registered yet. What is set up stays: a node object that is made again gets its pods' network back.
      report({fmt::format("there is no Node {} yet", options_.node_name)});
      return options_.resync;
    }
    auto done = reconcile_network(options_, *self, peers);
    if (!done) {
      report({done.error().message});
      return retry();
    }
    problems.insert(problems.end(), done->problems.begin(), done->problems.end());
    if (done->changes > 0) log::info("network: {} changes, {} other nodes", done->changes, peers.size());
    report(problems);
    if (!problems.empty()) return retry();
    backoff_ = kFirstRetry;
    return options_.resync;
  }

  std::chrono::milliseconds retry() {
    const auto d = backoff_;
    backoff_ = std::min(backoff_ * 2, options_.resync);
    return d;
  }

  // Each problem once, when it appears, and a line when all are gone.
  void report(const std::vector<std::string>& problems) {
    if (problems == problems_) return;
    for (const auto& p : problems)
      if (std::find(problems_.begin(), problems_.end(), p) == problems_.end()) log::warn("{}", p);
    if (problems.empty()) log::info("network: everything is in place");
    problems_ = problems;
  }

  AgentOptions options_;
  net::steady_timer timer_;
  std::shared_ptr<kube::Informer<corev1::Node>> nodes_;
  bool dirty_ = false;
  bool stopping_ = false;
  std::chrono::milliseconds backoff_ = kFirstRetry;
  std::vector<std::string> problems_;
};

Task<> stop_when_asked(Daemon& daemon, std::weak_ptr<Agent> agent) {
  co_await daemon.stop_requested();
  if (const auto a = agent.lock()) a->stop();
}

}  // namespace

Task<Result<>> run_agent(Daemon& daemon, std::shared_ptr<kube::Client> client, AgentOptions options) {
  // Without it the plugins delete their links themselves: slower, and just as good.
  auto sweeper = LinkSweeper::start();
  if (!sweeper) log::warn("pods' links are deleted by the CNI plugin itself: {}", sweeper.error().message);
  const auto agent = std::make_shared<Agent>(std::move(client), std::move(options));
  net::co_spawn(daemon.executor(), stop_when_asked(daemon, agent), net::detached);
  auto result = co_await agent->run();
  co_return result;
}

}  // namespace fairlead::cni
