#include "lab/readiness.h"

#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "kube/api.h"
#include "kube/client.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "lab/state.h"

namespace fairlead::lab {
namespace {

using namespace std::chrono_literals;

bool is_ready(const corev1::Node& node) {
  for (const auto& c : node.status().conditions())
    if (c.type() == "Ready") return c.status() == "True";
  return false;
}

// Runs one coroutine to its end on the context.
template <typename T>
Result<T> run_now(net::io_context& io, Task<Result<T>> task, std::chrono::milliseconds timeout) {
  std::optional<Result<T>> out;
  net::co_spawn(io, std::move(task), [&](std::exception_ptr, Result<T> r) { out = std::move(r); });
  io.restart();
  const auto until = SystemClock::get().steady() + timeout;
  while (!out && SystemClock::get().steady() < until) io.run_one_for(10ms);
  if (!out) return fail(ErrorCode::timeout, "no answer within {} ms", timeout.count());
  return std::move(*out);
}

class Watcher {
 public:
  explicit Watcher(const Plan& plan) : plan_(plan) {}

  Result<> connect() {
    if (client_) return {};
    FL_TRY(const auto config, kube::load_kubeconfig(plan_.admin_kubeconfig()));
    FL_TRY(client_, kube::make_client(io_.get_executor(), config, "fairlead-lab"));
    return {};
  }

  Result<> create(networkingv1::IngressClass object, std::chrono::milliseconds timeout) {
    FL_CHECK(connect());
    const auto made = run_now(io_, client_->create(std::move(object)), timeout);
    if (!made && made.error().code != ErrorCode::already_exists) return fail(made.error());
    return {};
  }

  Result<ClusterView> look(std::chrono::milliseconds timeout) {
    FL_CHECK(connect());
    FL_TRY(const auto nodes, run_now(io_, client_->list<corev1::Node>(""), timeout));
    ClusterView v;
    for (const auto& n : nodes) v.ready[n.metadata().name()] = is_ready(n);
    return v;
  }

 private:
  const Plan& plan_;
  net::io_context io_{1};
  std::shared_ptr<kube::Client> client_;
};

// For a timeout: what is not running, and where to read why.
std::string diagnosis(const Plan& plan, const ClusterView& view) {
  std::string out;
  for (const auto& n : plan.nodes) {
    const auto it = view.ready.find(n.name);
    if (it != view.ready.end() && it->second) continue;
    out += fmt::format("\n  {}: {}", n.name, it == view.ready.end() ? "not registered" : "registered, not Ready");
    const auto components = load_node_status(n);
    if (!components) continue;
    for (const auto& c : *components)
      if (c.restarts > 0) out += fmt::format("\n    {} ended {} times ({}); see {}", c.name, c.restarts, c.last_exit, plan.log_file(n, c.name));
  }
  return out;
}

}  // namespace

Result<ClusterView> look(const Plan& plan, std::chrono::milliseconds timeout) { return Watcher(plan).look(timeout); }

Result<> install_ingress_class(const Plan& plan, std::chrono::milliseconds timeout) {
  networkingv1::IngressClass c;
  c.mutable_metadata()->set_name("fairlead");
  (*c.mutable_metadata()->mutable_annotations())["ingressclass.kubernetes.io/is-default-class"] = "true";
  c.mutable_spec()->set_controller("fairlead.dev/ingress");
  FL_CHECK_CTX(Watcher(plan).create(std::move(c), timeout), "create IngressClass fairlead");
  return {};
}

Result<> wait_ready(const Plan& plan, std::chrono::milliseconds timeout, const Progress& progress) {
  const auto start = SystemClock::get().steady();
  const auto elapsed = [&] { return std::chrono::duration<double>(SystemClock::get().steady() - start).count(); };
  Watcher watcher(plan);
  ClusterView last;
  bool answered = false;
  Error last_error{ErrorCode::timeout, "the API server did not answer", 0};
  while (SystemClock::get().steady() - start < timeout) {
    if (progress.interrupted()) return fail(ErrorCode::cancelled, "interrupted");
    auto view = watcher.look(1'000ms);
    if (!view) {
      last_error = view.error();
    } else {
      if (!std::exchange(answered, true)) progress.say(fmt::format("control plane answers ({:.1f} s)", elapsed()));
      for (const auto& [name, ready] : view->ready)
        if (ready && !last.ready[name]) progress.say(fmt::format("node {} is Ready ({:.1f} s)", name, elapsed()));
      last = *view;
      bool all = true;
      for (const auto& n : plan.nodes) all = all && last.ready.count(n.name) != 0 && last.ready[n.name];
      if (all) return {};
    }
    std::this_thread::sleep_for(20ms);
  }
  if (!answered) {
    last_error.message += diagnosis(plan, last);
    return fail(std::move(last_error).with("the API server at {} does not answer", plan.server_url()));
  }
  return fail(ErrorCode::timeout, "not all nodes became Ready within {} s:{}", timeout.count() / 1000, diagnosis(plan, last));
}

}  // namespace fairlead::lab
