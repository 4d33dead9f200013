// ProxyState: everything the proxy knows of the cluster, fed by watch events, drained by the sync runner as plan changes.
// Keeps when the oldest unapplied endpoint change happened, for the network programming latency. Single strand.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "proxy/change_tracker.h"
#include "proxy/planner.h"
#include "proxy/service.h"

namespace fairlead::proxy {

class ProxyState {
 public:
  // nullopt: gone, or not ours.
  bool set_service(const ServiceKey& key, std::optional<Service> service);
  // `object` is the slice's own "namespace/name". nullopt: gone, or not ours. changed_at: when its cause happened.
  bool set_slice(const std::string& object, std::optional<std::pair<ServiceKey, Slice>> slice,
                 std::optional<WallTime> changed_at = {});

  // What changed since the last call, with current values. `everything`: all services, changed or not.
  std::vector<Planner::Change> take(bool everything = false);
  bool pending() const { return services_.pending() + endpoints_.pending() > 0; }
  std::size_t pending_services() const { return services_.pending(); }
  std::size_t pending_endpoints() const { return endpoints_.pending(); }
  std::size_t service_count() const { return services_.all().size(); }
  // The trigger times of the slices taken since the last call.
  std::vector<WallTime> take_trigger_times() { return std::exchange(trigger_times_, {}); }
  const ChangeTracker<Service>& services() const { return services_; }

 private:
  void put_slice(const ServiceKey& service, const std::string& name, std::shared_ptr<const Slice> slice);
  ChangeTracker<Service> services_;
  ChangeTracker<ServiceEndpoints> endpoints_;
  std::unordered_map<std::string, ServiceKey> owner_of_slice_;
  std::vector<WallTime> trigger_times_;
};

}  // namespace fairlead::proxy
