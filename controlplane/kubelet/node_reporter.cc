#include "controlplane/kubelet/node_reporter.h"

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "base/log.h"
#include "kube/codec.h"

namespace fairlead::kubelet {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kQuickFirst{5}, kQuickMax{100};  // while the node is not ready
constexpr seconds kLookPeriod{2};
constexpr seconds kImagesPeriod{10};
constexpr seconds kReportPeriod{300};
constexpr seconds kLeaseRenewal{10};
constexpr int kLeaseDuration = 40;
constexpr milliseconds kRetryFirst{50}, kRetryMax{5'000};
constexpr milliseconds kStopPoll{5};

void set_now(metav1::MicroTime* out, WallTime now) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count();
  out->set_seconds(us / 1'000'000);
  out->set_nanos(static_cast<std::int32_t>(us % 1'000'000 * 1000));
}

}  // namespace

std::string node_status_patch(const corev1::NodeStatus& from, const corev1::NodeStatus& to) {
  const json::value before = kube::to_json_value(from), after = kube::to_json_value(to);
  json::object changes;
  for (const auto& [key, value] : after.as_object()) {
    const json::value* old = before.as_object().if_contains(key);
    if (!old || *old != value) changes[key] = value;
  }
  if (before.as_object().contains("images") && !after.as_object().contains("images")) changes["images"] = nullptr;
  return changes.empty() ? std::string() : json::serialize(json::object{{"status", std::move(changes)}});
}

NodeReporter::NodeReporter(NodeReporterOptions options)
    : options_(std::move(options)),
      wakeup_(options_.client->executor()),
      lease_wakeup_(options_.client->executor()),
      registered_(options_.client->executor()) {}

void NodeReporter::start() {
  loops_ = 2;
  const auto ended = [this](std::exception_ptr) { --loops_; };
  net::co_spawn(options_.client->executor(), run(), ended);
  net::co_spawn(options_.client->executor(), lease_loop(), ended);
}

Task<> NodeReporter::stop() {
  stopping_ = true;
  registered_.set();
  wakeup_.notify();
  lease_wakeup_.notify();
  while (loops_ > 0) co_await sleep_for(kStopPoll);
}

Task<> NodeReporter::run() {
  milliseconds retry = kRetryFirst;
  while (!stopping_) {
    auto r = co_await register_node();
    if (r) break;
    log::warn("register node {}: {}", options_.settings->node_name, r.error().message);
    co_await wakeup_.wait(retry);
    retry = std::min(retry * 2, kRetryMax);
  }
  registered_.set();
  milliseconds quick = kQuickFirst;
  retry = kRetryFirst;
  while (!stopping_) {
    co_await look();
    auto r = co_await report();
    if (!r) {
      log::warn("report status of node {}: {}", options_.settings->node_name, r.error().message);
      if (r.error().code == ErrorCode::not_found) (void)co_await register_node();
      co_await wakeup_.wait(retry);
      retry = std::min(retry * 2, kRetryMax);
      continue;
    }
    retry = kRetryFirst;
    if (ready_) {
      quick = kQuickFirst;
      co_await wakeup_.wait(kLookPeriod);
    } else {
      co_await wakeup_.wait(quick);
      quick = std::min(quick * 2, kQuickMax);
    }
  }
}

// Creates the object, or adopts the one that is there: our labels are set on it, its taints stay as they are.
Task<Result<>> NodeReporter::register_node() {
  const corev1::Node wanted = make_node(*options_.settings, options_.machine, options_.identity);
  auto made = co_await options_.client->create<corev1::Node>(wanted);
  if (made) {
    log::info("registered node {}", options_.settings->node_name);
    node_ = std::move(*made);
    co_return Result<>{};
  }
  if (made.error().code != ErrorCode::already_exists) co_return fail(std::move(made).error());
  auto old = co_await options_.client->get<corev1::Node>("", options_.settings->node_name);
  if (!old) co_return fail(std::move(old).error());
  json::object labels;
  for (const auto& [k, v] : wanted.metadata().labels()) {
    const auto it = old->metadata().labels().find(k);
    if (it == old->metadata().labels().end() || it->second != v) labels[k] = v;
  }
  if (!labels.empty()) {
    const std::string body = json::serialize(json::object{{"metadata", json::object{{"labels", std::move(labels)}}}});
    auto patched = co_await options_.client->patch<corev1::Node>("", options_.settings->node_name, kube::PatchType::merge, body);
    if (!patched) co_return fail(std::move(patched).error());
    old = std::move(patched);
  }
  node_ = std::move(*old);
  reported_ = node_.status();
  co_return Result<>{};
}

Task<> NodeReporter::look() {
  const SteadyTime now = options_.clock->steady();
  const NodeHealth machine = read_health(options_.settings->root_dir);
  NodeHealth h = health_;
  h.available_memory_bytes = machine.available_memory_bytes;
  h.free_storage = machine.free_storage;
  h.free_inodes = machine.free_inodes;
  h.free_pids = machine.free_pids;
  auto conditions = co_await options_.runtime->conditions();
  if (conditions) {
    if (!h.runtime_answers || h.version.name.empty()) {
      auto version = co_await options_.runtime->version();
      if (version) h.version = std::move(*version);
    }
    h.runtime_answers = true;
    h.runtime = std::move(*conditions);
    h.runtime_error.clear();
    if (images_at_ == SteadyTime{} || now - images_at_ >= kImagesPeriod) {
      auto images = co_await options_.runtime->list_images();
      if (images) images_ = std::move(*images);
      images_at_ = now;
    }
  } else {
    h.runtime_answers = false;
    h.runtime_error = conditions.error().message;
  }
  health_ = std::move(h);
}

Task<Result<>> NodeReporter::report() {
  const corev1::NodeStatus next = make_node_status(*options_.settings, options_.machine, options_.identity, health_, images_,
                                                   reported_, options_.clock->wall());
  const bool was_ready = ready_;
  const bool ready = health_.runtime_answers && health_.runtime.runtime_ready && health_.runtime.network_ready;
  const SteadyTime now = options_.clock->steady();
  if (reported_at_ != SteadyTime{} && !node_status_changed(reported_, next) && now - reported_at_ < kReportPeriod)
    co_return Result<>{};
  std::string body = node_status_patch(reported_, next);
  auto r = co_await options_.client->patch<corev1::Node>("", options_.settings->node_name, kube::PatchType::strategic,
                                                         std::move(body), "status");
  if (!r) co_return fail(std::move(r).error());
  node_ = std::move(*r);
  reported_ = next;
  reported_at_ = now;
  ready_ = ready;
  if (ready && !was_ready) {
    log::info("node {} is ready", options_.settings->node_name);
    if (options_.event)
      options_.event("Normal", "NodeReady", fmt::format("Node {} status is now: NodeReady", options_.settings->node_name));
  } else if (!ready && was_ready) {
    log::warn("node {} is not ready any more", options_.settings->node_name);
    if (options_.event)
      options_.event("Normal", "NodeNotReady", fmt::format("Node {} status is now: NodeNotReady", options_.settings->node_name));
  }
  if (node_.spec().podcidr() != pod_cidr_ && !node_.spec().podcidr().empty()) {
    auto told = co_await options_.runtime->set_pod_cidr(node_.spec().podcidr());
    if (told) pod_cidr_ = node_.spec().podcidr();
  }
  co_return Result<>{};
}

// ---- lease

Task<> NodeReporter::lease_loop() {
  co_await registered_.wait();
  milliseconds retry = kRetryFirst;
  while (!stopping_) {
    auto r = co_await renew_lease();
    if (r) {
      retry = kRetryFirst;
      co_await lease_wakeup_.wait(kLeaseRenewal);
      continue;
    }
    // The namespace of leases appears a moment after a new control plane.
    if (retry > kQuickMax) log::warn("renew lease of node {}: {}", options_.settings->node_name, r.error().message);
    co_await lease_wakeup_.wait(retry);
    retry = std::min(retry * 2, kRetryMax);
  }
}

Task<Result<>> NodeReporter::renew_lease() {
  constexpr const char* kNamespace = "kube-node-lease";
  const WallTime now = options_.clock->wall();
  if (lease_.metadata().resourceversion().empty()) {
    auto old = co_await options_.client->get<coordinationv1::Lease>(kNamespace, options_.settings->node_name);
    if (old) {
      lease_ = std::move(*old);
    } else if (old.error().code != ErrorCode::not_found) {
      co_return fail(std::move(old).error());
    }
  }
  const bool fresh = lease_.metadata().resourceversion().empty();
  coordinationv1::Lease next = lease_;
  next.mutable_metadata()->set_name(options_.settings->node_name);
  next.mutable_metadata()->set_namespace_(kNamespace);
  if (next.metadata().ownerreferences_size() == 0 && !node_.metadata().uid().empty()) {
    auto* owner = next.mutable_metadata()->add_ownerreferences();
    owner->set_apiversion("v1");
    owner->set_kind("Node");
    owner->set_name(options_.settings->node_name);
    owner->set_uid(node_.metadata().uid());
  }
  next.mutable_spec()->set_holderidentity(options_.settings->node_name);
  next.mutable_spec()->set_leasedurationseconds(kLeaseDuration);
  set_now(next.mutable_spec()->mutable_renewtime(), now);
  Result<coordinationv1::Lease> r;
  if (fresh)
    r = co_await options_.client->create<coordinationv1::Lease>(next);
  else
    r = co_await options_.client->update<coordinationv1::Lease>(next);
  lease_.Clear();  // read again after a failure
  if (!r) co_return fail(std::move(r).error());
  lease_ = std::move(*r);
  co_return Result<>{};
}

}  // namespace fairlead::kubelet
