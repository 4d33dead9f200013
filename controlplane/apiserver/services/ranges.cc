#include "controlplane/apiserver/services/ranges.h"

#include <algorithm>

#include "base/log.h"
#include "controlplane/apiserver/bootstrap.h"
#include "controlplane/apiserver/services/pools.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::apiserver::services {
namespace {

using networkingv1::ServiceCIDR;

constexpr char kDefault[] = "kubernetes";
constexpr char kFinalizer[] = "networking.k8s.io/service-cidr-finalizer";
constexpr char kReady[] = "Ready";
constexpr auto kLookAgain = std::chrono::seconds(10);
// Until other servers have seen that no address may be taken from it any more.
constexpr auto kPatience = std::chrono::seconds(10);

const Resource& ranges_of(const Core& core) { return *core.resources.find("networking.k8s.io", "v1", "servicecidrs"); }

std::vector<Prefix> prefixes_of(const ServiceCIDR& c) {
  std::vector<Prefix> out;
  for (const auto& text : c.spec().cidrs())
    if (const auto p = Prefix::parse(text)) out.push_back(*p);
  return out;
}

bool set_ready(ServiceCIDR& c, bool ready, WallTime now) {
  const std::string status = ready ? "True" : "False";
  const std::string reason = ready ? "NetworksReady" : "Terminating";
  const std::string message =
      ready ? (c.metadata().name() == kDefault ? "Kubernetes default Service CIDR is ready" : "Kubernetes Service CIDR is ready")
            : "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
  auto& conditions = *c.mutable_status()->mutable_conditions();
  auto it = std::find_if(conditions.begin(), conditions.end(), [](const auto& x) { return x.type() == kReady; });
  auto& condition = it == conditions.end() ? *conditions.Add() : *it;
  if (condition.status() == status && condition.message() == message) return false;
  if (condition.status() != status) *condition.mutable_lasttransitiontime() = to_time(now);
  condition.set_type(kReady);
  condition.set_status(status);
  condition.set_reason(reason);
  condition.set_message(message);
  return true;
}

bool set_finalizer(ServiceCIDR& c, bool present) {
  auto& list = *c.mutable_metadata()->mutable_finalizers();
  const auto it = std::find(list.begin(), list.end(), kFinalizer);
  if ((it != list.end()) == present) return false;
  if (present)
    list.Add(kFinalizer);
  else
    list.erase(it);
  return true;
}

using Change = std::function<bool(ServiceCIDR&)>;  // false: nothing to write

Task<> write(Core& core, std::string name, Registry::Part part, Change change) {
  const Registry::Edit edit = [change](const Message* current) -> ApiResult<Registry::Object> {
    auto next = clone(*current);
    (void)change(static_cast<ServiceCIDR&>(*next));
    return next;
  };
  auto done = co_await core.registry->update(ranges_of(core), "", name, part, edit, as_apiserver());
  if (!done && done.error().reason != "NotFound") log::warn("service range {}: {}", name, done.error().message);
}

// Whether an address is taken that lies in `range` and in none of `others`.
bool still_used(const Core& core, const std::vector<Prefix>& range, const std::vector<Prefix>& others) {
  const auto* addresses = core.resources.find("networking.k8s.io", "v1", "ipaddresses");
  const auto all = Selection::make(*addresses, "", "", {}, {});
  const auto in = [](const std::vector<Prefix>& list, const IpAddress& ip) {
    return std::any_of(list.begin(), list.end(), [&](const Prefix& p) { return p.contains(ip); });
  };
  for (const auto& e : addresses->cache->list(*all).items) {
    const auto ip = IpAddress::parse(e->name);
    if (ip && in(range, *ip) && !in(others, *ip)) return true;
  }
  return false;
}

// One round: allocators follow the objects, and the objects say what became of them.
Task<> settle(Core& core) {
  const auto& resource = ranges_of(core);
  const auto all = Selection::make(resource, "", "", {}, {});
  std::vector<std::shared_ptr<ServiceCIDR>> live, leaving;
  bool default_there = false;
  for (const auto& e : resource.cache->list(*all).items) {
    std::shared_ptr<ServiceCIDR> c(static_cast<ServiceCIDR*>(decode_entry(resource, *e).release()));
    default_there = default_there || e->name == kDefault;
    (c->metadata().has_deletiontimestamp() ? leaving : live).push_back(std::move(c));
  }
  // The default one first: its addresses are what people expect.
  std::stable_partition(live.begin(), live.end(), [](const auto& c) { return c->metadata().name() == kDefault; });
  std::vector<Prefix> usable;
  for (const auto& c : live)
    for (const auto& p : prefixes_of(*c)) usable.push_back(p);
  if (!default_there) usable.insert(usable.begin(), core.options.service_cidrs.begin(), core.options.service_cidrs.end());
  core.pools->set_ranges(usable);

  const auto now = core.clock.wall();
  for (const auto& c : live) {
    const auto name = c->metadata().name();
    const Change finalizer = [](ServiceCIDR& x) { return set_finalizer(x, true); };
    const Change ready = [now](ServiceCIDR& x) { return set_ready(x, true, now); };
    auto probe = *c;
    if (finalizer(probe)) co_await write(core, name, Registry::Part::main, finalizer);
    if (ready(probe)) co_await write(core, name, Registry::Part::status, ready);
  }
  for (const auto& c : leaving) {
    const auto name = c->metadata().name();
    const Change waiting = [now](ServiceCIDR& x) { return set_ready(x, false, now); };
    const Change go = [](ServiceCIDR& x) { return set_finalizer(x, false); };
    auto probe = *c;
    if (waiting(probe)) co_await write(core, name, Registry::Part::status, waiting);
    const bool patient = now - from_time(c->metadata().deletiontimestamp()) < kPatience;
    if (!patient && !still_used(core, prefixes_of(*c), usable)) co_await write(core, name, Registry::Part::main, go);
  }
  if (default_there) co_return;
  auto made = co_await ensure_default_range(core);
  if (!made) log::warn("service ranges: {}", made.error().message);
}

}  // namespace

Task<Result<>> ensure_default_range(Core& core) {
  auto range = std::make_unique<ServiceCIDR>();
  range->mutable_metadata()->set_name(kDefault);
  for (const auto& p : core.options.service_cidrs) range->mutable_spec()->add_cidrs(p.to_string());
  auto made = co_await create_missing(core, ranges_of(core), "", std::move(range));
  co_return made;
}

Task<> keep_ranges(Core& core) {
  const auto& resource = ranges_of(core);
  const auto executor = co_await net::this_coro::executor;
  while (!core.stopping) {
    WatchCache::WatchSpec spec{*Selection::make(resource, "", "", {}, {}), 0, true};
    auto watcher = resource.cache->watch(executor, std::move(spec));
    bool followed = watcher.has_value();
    while (followed && !core.stopping) {
      co_await settle(core);
      co_await (*watcher)->wait_until(std::chrono::steady_clock::now() + kLookAgain);
      followed = !(*watcher)->drain().closed;
    }
    if (core.stopping) co_return;
    auto slept = co_await sleep_for(std::chrono::milliseconds(100));
    if (!slept) co_return;
  }
}

}  // namespace fairlead::apiserver::services
