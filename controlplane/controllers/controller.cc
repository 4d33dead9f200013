#include "controlplane/controllers/controller.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "kube/codec.h"

namespace fairlead::controllers {

QueueController::QueueController(const Context& context, std::string name, int workers)
    : ctx_(context),
      events_(context.client, {.component = name, .clock = &context.clock}),
      queue_(context.client->executor(), name, [this](std::string key) { return reconcile(std::move(key)); }),
      workers_(workers) {}

Task<> QueueController::stop() {
  events_.stop();
  co_await queue_.stop();
}

namespace {

struct Group {
  std::vector<std::function<Task<Result<>>()>> tasks;
  std::vector<Result<>> results;
  std::size_t next = 0;
  std::size_t running = 0;
  net::steady_timer done;
  Group(net::any_io_executor executor, std::vector<std::function<Task<Result<>>()>> t)
      : tasks(std::move(t)), results(tasks.size()), done(executor, SteadyTime::max()) {}
};

Task<> work(std::shared_ptr<Group> group) {
  while (group->next < group->tasks.size()) {
    const std::size_t i = group->next++;
    auto r = co_await group->tasks[i]();
    group->results[i] = std::move(r);
  }
  if (--group->running == 0) group->done.cancel();
}

}  // namespace

Task<std::vector<Result<>>> run_all(net::any_io_executor executor, std::vector<std::function<Task<Result<>>()>> tasks, int parallel) {
  const auto group = std::make_shared<Group>(executor, std::move(tasks));
  const std::size_t workers = std::min<std::size_t>(group->tasks.size(), static_cast<std::size_t>(parallel));
  if (workers == 0) co_return std::vector<Result<>>{};
  group->running = workers;
  for (std::size_t i = 0; i < workers; ++i) net::co_spawn(executor, work(group), net::detached);
  while (group->running > 0) {
    auto waited = co_await group->done.async_wait(use_result);
    (void)waited;
  }
  co_return std::move(group->results);
}

Task<SlowStart> slow_start(net::any_io_executor executor, int count, std::function<Task<Result<>>()> call) {
  constexpr int max_parallel = 32;
  SlowStart out;
  int batch = 1;
  for (int left = count; left > 0;) {
    const int n = std::min(batch, left);
    std::vector<std::function<Task<Result<>>()>> tasks(static_cast<std::size_t>(n), call);
    auto results = co_await run_all(executor, std::move(tasks), max_parallel);
    for (auto& r : results) {
      if (r) ++out.succeeded;
      else if (out.outcome) out.outcome = fail(std::move(r).error());
    }
    if (!out.outcome) break;
    left -= n;
    batch *= 2;
  }
  co_return out;
}

std::string adopt_patch(const metav1::OwnerReference& owner, const std::string& uid) {
  boost::json::array owners;
  owners.push_back(kube::to_json_value(owner));
  return boost::json::serialize(boost::json::object{{"metadata", {{"uid", uid}, {"ownerReferences", std::move(owners)}}}});
}

std::string release_patch(const std::string& owner_uid, const std::string& uid) {
  boost::json::array owners;
  owners.push_back(boost::json::object{{"$patch", "delete"}, {"uid", owner_uid}});
  return boost::json::serialize(boost::json::object{{"metadata", {{"uid", uid}, {"ownerReferences", std::move(owners)}}}});
}

bool is_gone(const Error& e) { return e.code == ErrorCode::not_found || e.code == ErrorCode::conflict; }

bool namespace_is_terminating(const Error& e) {
  return e.code == ErrorCode::permission_denied && e.message.find("is being terminated") != std::string::npos;
}

}  // namespace fairlead::controllers
