#include "controlplane/scheduler/resources.h"

#include <algorithm>

#include "kube/quantity.h"

namespace fairlead::scheduler {
namespace {

constexpr std::int64_t default_milli_cpu = 100;
constexpr std::int64_t default_memory = 200ll << 20;

Result<Resources> container_request(const corev1::Container& c, bool with_defaults) {
  FL_TRY_CTX(Resources r, to_resources(c.resources().requests()), "container {}", c.name());
  if (with_defaults && !c.resources().requests().contains("cpu")) r.milli_cpu = default_milli_cpu;
  if (with_defaults && !c.resources().requests().contains("memory")) r.memory = default_memory;
  return r;
}

Result<Resources> request_of(const corev1::Pod& pod, bool with_defaults) {
  Resources running;   // containers and sidecars, all at once
  Resources sidecars;  // those started so far
  Resources init_peak;
  for (const auto& c : pod.spec().containers()) {
    FL_TRY(const Resources r, container_request(c, with_defaults));
    running += r;
  }
  for (const auto& c : pod.spec().initcontainers()) {
    FL_TRY(Resources r, container_request(c, with_defaults));
    if (c.restartpolicy() == "Always") {
      running += r;
      sidecars += r;
      r = sidecars;
    } else {
      r += sidecars;
    }
    init_peak = element_max(init_peak, r);
  }
  Resources total = element_max(running, init_peak);
  // Requests at the level of the pod stand for the whole pod.
  const auto& whole = pod.spec().resources().requests();
  FL_TRY_CTX(const Resources pod_level, to_resources(whole), "pod resources");
  if (whole.contains("cpu")) total.milli_cpu = pod_level.milli_cpu;
  if (whole.contains("memory")) total.memory = pod_level.memory;
  for (const auto& [name, amount] : pod_level.scalar) total.scalar[name] = amount;
  FL_TRY_CTX(const Resources overhead, to_resources(pod.spec().overhead()), "pod overhead");
  total += overhead;
  return total;
}

}  // namespace

Resources& Resources::operator+=(const Resources& o) {
  milli_cpu += o.milli_cpu;
  memory += o.memory;
  ephemeral_storage += o.ephemeral_storage;
  for (const auto& [name, amount] : o.scalar) scalar[name] += amount;
  return *this;
}

Resources& Resources::operator-=(const Resources& o) {
  milli_cpu -= o.milli_cpu;
  memory -= o.memory;
  ephemeral_storage -= o.ephemeral_storage;
  for (const auto& [name, amount] : o.scalar) {
    const auto it = scalar.find(name);
    if (it == scalar.end()) continue;
    it->second -= amount;
    if (it->second == 0) scalar.erase(it);
  }
  return *this;
}

Resources element_max(const Resources& a, const Resources& b) {
  Resources r = a;
  r.milli_cpu = std::max(a.milli_cpu, b.milli_cpu);
  r.memory = std::max(a.memory, b.memory);
  r.ephemeral_storage = std::max(a.ephemeral_storage, b.ephemeral_storage);
  for (const auto& [name, amount] : b.scalar) r.scalar[name] = std::max(r.scalar[name], amount);
  return r;
}

Result<Resources> to_resources(const QuantityMap& quantities) {
  Resources r;
  for (const auto& [name, quantity] : quantities) {
    FL_TRY_CTX(const kube::Quantity q, kube::Quantity::parse(quantity.string()), "{}", name);
    if (name == "cpu") r.milli_cpu = q.milli();
    else if (name == "memory") r.memory = q.value();
    else if (name == "ephemeral-storage") r.ephemeral_storage = q.value();
    else if (name != "pods" && q.value() != 0) r.scalar[name] = q.value();
  }
  return r;
}

Result<Resources> pod_request(const corev1::Pod& pod) { return request_of(pod, false); }
Result<Resources> pod_scoring_request(const corev1::Pod& pod) { return request_of(pod, true); }

}  // namespace fairlead::scheduler
