#include "controlplane/controllers/namespace_controller.h"

#include <fmt/ranges.h>

#include <map>

#include "base/log.h"
#include "controlplane/controllers/garbage_controller.h"
#include "kube/custom.h"
#include "kube/object.h"

namespace fairlead::controllers {
namespace {

constexpr std::chrono::milliseconds look_again{1'000};
constexpr int parallel_calls = 16;

void set_condition(corev1::NamespaceStatus& s, const std::string& type, bool bad, const std::string& bad_reason,
                   const std::string& good_reason, const std::string& message, WallTime now) {
  auto* c = find_condition(*s.mutable_conditions(), type);
  const std::string status = bad ? "True" : "False";
  if (!c) {
    c = s.add_conditions();
    c->set_type(type);
  }
  if (c->status() != status) *c->mutable_lasttransitiontime() = to_time(now);
  c->set_status(status);
  c->set_reason(bad ? bad_reason : good_reason);
  c->set_message(message);
}

std::string remaining_text(const NamespaceContent& content) {
  std::vector<std::string> parts;
  for (const auto& l : content.left) parts.push_back(fmt::format("{} has {} resource instances", l.resource, l.objects));
  return fmt::format("Some resources are remaining: {}", fmt::join(parts, ", "));
}

std::string finalizers_text(const NamespaceContent& content) {
  std::map<std::string, int> count;
  for (const auto& l : content.left) {
    for (const auto& f : l.finalizers) ++count[f];
  }
  if (count.empty()) return {};
  std::vector<std::string> parts;
  for (const auto& [f, n] : count) parts.push_back(fmt::format("{} in {} resource instances", f, n));
  return fmt::format("Some content in the namespace has finalizers remaining: {}", fmt::join(parts, ", "));
}

}  // namespace

corev1::NamespaceStatus namespace_status(const corev1::NamespaceStatus& before, const NamespaceContent& content, WallTime now) {
  corev1::NamespaceStatus s = before;
  s.set_phase("Terminating");
  set_condition(s, "NamespaceDeletionDiscoveryFailure", false, "DiscoveryFailed", "ResourcesDiscovered",
                "All resources successfully discovered", now);
  set_condition(s, "NamespaceDeletionGroupVersionParsingFailure", false, "GroupVersionParsingFailed", "ParsedGroupVersions",
                "All legacy kube types successfully parsed", now);
  std::string failure = "All content successfully deleted, may be waiting on finalization";
  if (!content.errors.empty()) failure = fmt::format("Failed to delete all resource types, {} remaining: {}", content.errors.size(), fmt::join(content.errors, ", "));
  else if (content.waiting_for_pods) failure = "Waiting for pods to be deleted before deleting other resources";
  set_condition(s, "NamespaceDeletionContentFailure", !content.errors.empty(), "ContentDeletionFailed", "ContentDeleted", failure, now);
  const std::string remaining = content.left.empty() ? "All content successfully removed" : remaining_text(content);
  set_condition(s, "NamespaceContentRemaining", !content.left.empty(), "SomeResourcesRemain", "ContentRemoved", remaining, now);
  const std::string finalizers = finalizers_text(content);
  set_condition(s, "NamespaceFinalizersRemaining", !finalizers.empty(), "SomeFinalizersRemain", "ContentHasNoFinalizers",
                finalizers.empty() ? "All content-preserving finalizers finished" : finalizers, now);
  return s;
}

NamespaceController::NamespaceController(const Context& context)
    : QueueController(context, "namespace-controller", 10), namespaces_(ctx_.stores.namespaces()) {
  namespaces_.on_change([this](const kube::Change<corev1::Namespace>& c) {
    if (c.after && is_deleting(c.after->metadata())) queue_.add(c.key);
  });
  // The last object of a namespace to go is what a waiting pass waits for.
  for (const kube::Kind* kind : collectable_kinds()) {
    if (!kind->namespaced()) continue;
    ctx_.stores.informers.get(*kind)->on_change([this](const kube::InformerCore::RawChange& c) {
      if (c.after) return;
      const std::string& ns = kube::meta_of(*c.before).namespace_();
      const auto owner = namespaces_.get(ns);
      if (owner && is_deleting(owner->metadata())) queue_.add(ns);
    });
  }
}

Task<Result<kube::Next>> NamespaceController::reconcile(std::string name) {
  const NamespacePtr ns = namespaces_.get(name);
  if (!ns || !is_deleting(ns->metadata())) co_return kube::Next{};
  if (!has(ns->spec().finalizers(), namespace_finalizer)) co_return kube::Next{};
  const NamespaceContent content = co_await empty(name);
  if (content.empty()) {
    FL_CO_CHECK(co_await finalize(ns));
    co_return kube::Next{};
  }
  FL_CO_CHECK(co_await write_status(ns, namespace_status(ns->status(), content, ctx_.clock.wall())));
  if (!content.errors.empty())
    co_return fail(ErrorCode::unavailable, "namespace {}: {}", name, fmt::join(content.errors, ", "));
  co_return kube::Next{look_again};
}

Task<NamespaceContent> NamespaceController::empty(std::string ns) {
  NamespaceContent content;
  const auto note = [&](const kube::Kind& kind, const Result<>& r) {
    if (!r) content.errors.push_back(fmt::format("{}: {}", kind.group_resource(), r.error().message));
  };
  const kube::Kind& pods = kube::kind_of<corev1::Pod>();
  auto first = co_await empty_kind(pods, ns, content);
  note(pods, first);
  // Pods may still need their Secrets and ConfigMaps while they end.
  if (!content.empty()) {
    content.waiting_for_pods = true;
    co_return content;
  }
  for (const kube::Kind* kind : collectable_kinds()) {
    if (!kind->namespaced() || kind == &pods) continue;
    auto r = co_await empty_kind(*kind, ns, content);
    note(*kind, r);
  }
  auto custom = co_await empty_custom_kinds(ns, content);
  note(kube::definition_kind(), custom);
  co_return content;
}

// The objects of CustomResourceDefinitions, which come and go: asked for anew each time.
Task<Result<>> NamespaceController::empty_custom_kinds(std::string ns, NamespaceContent& content) {
  const kube::ListOptions newest;
  auto listed = co_await ctx_.client->list_of(kube::definition_kind(), "", newest);
  if (!listed) {
    if (listed.error().code == ErrorCode::not_found) co_return Result<>{};  // not served here
    co_return fail(std::move(listed).error());
  }
  Result<> outcome;
  for (const auto& definition : listed->items) {
    const auto kind = kube::defined_kind(static_cast<const kube::CustomObject&>(*definition));
    if (!kind || !kind->namespaced()) continue;
    auto r = co_await empty_kind(*kind, ns, content);
    if (!r && outcome) outcome = std::move(r);
  }
  co_return outcome;
}

// Deletes all objects of a kind; what is there afterwards is noted in `content`.
Task<Result<>> NamespaceController::empty_kind(const kube::Kind& kind, std::string ns, NamespaceContent& content) {
  const kube::ListOptions newest;
  auto listed = co_await ctx_.client->list_of(kind, ns, newest);
  if (!listed) {
    if (listed.error().code == ErrorCode::not_found) co_return Result<>{};  // not served here
    co_return fail(std::move(listed).error());
  }
  if (listed->items.empty()) co_return Result<>{};
  std::vector<std::function<Task<Result<>>()>> tasks;
  for (const auto& object : listed->items) {
    const metav1::ObjectMeta& meta = kube::meta_of(*object);
    if (is_deleting(meta)) continue;
    kube::DeleteOptions options;
    options.uid = meta.uid();
    options.propagation_policy = "Background";
    tasks.push_back([this, &kind, ns, name = meta.name(), options] { return ctx_.client->delete_object(kind, ns, name, options); });
  }
  auto results = co_await run_all(ctx_.client->executor(), std::move(tasks), parallel_calls);
  Result<> outcome;
  for (auto& r : results) {
    if (!r && !is_gone(r.error()) && outcome) outcome = std::move(r);
  }
  auto again = co_await ctx_.client->list_of(kind, ns, newest);
  if (!again) co_return fail(std::move(again).error());
  if (!again->items.empty()) {
    NamespaceContent::Left left{kind.group_resource(), static_cast<int>(again->items.size()), {}};
    for (const auto& object : again->items) {
      for (const auto& f : kube::meta_of(*object).finalizers()) left.finalizers.push_back(f);
    }
    content.left.push_back(std::move(left));
  }
  co_return outcome;
}

Task<Result<>> NamespaceController::write_status(NamespacePtr ns, corev1::NamespaceStatus status) {
  const NamespacePtr current = namespaces_.get(ns->metadata().name());
  if (!current || semantically_equal(status, current->status())) co_return Result<>{};
  corev1::Namespace next = *current;
  *next.mutable_status() = std::move(status);
  auto r = co_await ctx_.client->update<corev1::Namespace>(std::move(next), "status");
  if (r) namespaces_.wrote(*r);
  else if (r.error().code != ErrorCode::not_found) co_return fail(std::move(r).error());
  co_return Result<>{};
}

Task<Result<>> NamespaceController::finalize(NamespacePtr ns) {
  const NamespacePtr current = namespaces_.get(ns->metadata().name());
  if (!current) co_return Result<>{};
  corev1::Namespace next = *current;
  next.mutable_spec()->clear_finalizers();
  for (const auto& f : current->spec().finalizers()) {
    if (f != namespace_finalizer) next.mutable_spec()->add_finalizers(f);
  }
  auto r = co_await ctx_.client->update<corev1::Namespace>(std::move(next), "finalize");
  if (r) namespaces_.wrote(*r);
  else if (r.error().code != ErrorCode::not_found) co_return fail(std::move(r).error());
  log::info("namespace {} is empty and finalized", ns->metadata().name());
  co_return Result<>{};
}

}  // namespace fairlead::controllers
