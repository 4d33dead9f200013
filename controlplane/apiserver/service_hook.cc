#include "controlplane/apiserver/service_hook.h"

#include <mutex>
#include <set>

#include "base/log.h"
#include "controlplane/apiserver/validation/service.h"
#include "lb/ip_allocator.h"
#include "lb/port_allocator.h"

namespace fairlead::apiserver {
namespace {

using field::ErrorList;
using field::Path;

// All that services have taken.
struct Pools {
  std::mutex mutex;
  std::vector<lb::IpAllocator> ranges;  // one per family
  lb::PortAllocator ports;
  Pools(const std::vector<Prefix>& cidrs, lb::PortRange range, Random& random) : ports(range, random) {
    for (const auto& c : cidrs) ranges.emplace_back(c, lb::IpAllocator::for_services(c), random);
  }
  lb::IpAllocator* range_of(Family f) {
    for (auto& r : ranges)
      if (r.range().family() == f) return &r;
    return nullptr;
  }
  void release(const IpAddress& ip) {
    if (auto* r = range_of(ip.family())) r->release(ip);
  }
};

// What one write takes and, once it has succeeded, gives back.
class ServiceReservation final : public Reservation {
 public:
  explicit ServiceReservation(std::shared_ptr<Pools> pools) : pools_(std::move(pools)) {}
  ~ServiceReservation() override { give_back(taken_ips_, taken_ports_); }
  void commit() override {
    taken_ips_.clear();
    taken_ports_.clear();
    give_back(freed_ips_, freed_ports_);
  }

  bool take_ip(const IpAddress& ip, const Path& at, ErrorList& errors) {
    std::lock_guard lock(pools_->mutex);
    auto* range = pools_->range_of(ip.family());
    const auto taken = range ? range->take(ip) : Result<>(fail(ErrorCode::invalid_argument, "no range of that family"));
    if (!taken) {
      errors.invalid_json(at, "[" + field::quote(ip.to_string()) + "]", failure("IP", ip.to_string(), taken.error()));
      return false;
    }
    taken_ips_.push_back(ip);
    return true;
  }
  std::optional<IpAddress> take_any_ip(Family family, const Path& at, ErrorList& errors) {
    std::lock_guard lock(pools_->mutex);
    auto* range = pools_->range_of(family);
    const auto ip = range ? range->take_any() : Result<IpAddress>(fail(ErrorCode::resource_exhausted, "no range of that family"));
    if (!ip) {
      errors.add({field::Type::internal, at.text(), "", fmt::format("failed to allocate a service IP: {}", ip.error().message)});
      return std::nullopt;
    }
    taken_ips_.push_back(*ip);
    return *ip;
  }
  bool take_port(std::int32_t port, const Path& at, ErrorList& errors) {
    std::lock_guard lock(pools_->mutex);
    if (const auto taken = pools_->ports.take(port); !taken) {
      errors.invalid(at, port, taken.error().message);
      return false;
    }
    taken_ports_.push_back(port);
    return true;
  }
  std::int32_t take_any_port(const Path& at, ErrorList& errors) {
    std::lock_guard lock(pools_->mutex);
    const auto port = pools_->ports.take_any();
    if (!port) {
      errors.add({field::Type::internal, at.text(), "", fmt::format("failed to allocate a nodePort: {}", port.error().message)});
      return 0;
    }
    taken_ports_.push_back(*port);
    return *port;
  }
  void free_ip(const IpAddress& ip) { freed_ips_.push_back(ip); }
  void free_port(std::int32_t port) { freed_ports_.push_back(port); }

 private:
  static std::string failure(const char* what, const std::string& value, const Error& e) {
    return fmt::format("failed to allocate {} {}: {}", what, value, e.message);
  }
  void give_back(std::vector<IpAddress>& ips, std::vector<std::int32_t>& ports) {
    std::lock_guard lock(pools_->mutex);
    for (const auto& ip : ips) pools_->release(ip);
    for (const auto p : ports) pools_->ports.release(p);
    ips.clear();
    ports.clear();
  }
  std::shared_ptr<Pools> pools_;
  std::vector<IpAddress> taken_ips_, freed_ips_;
  std::vector<std::int32_t> taken_ports_, freed_ports_;
};

std::set<IpAddress> ips_of(const corev1::ServiceSpec& s) {
  std::set<IpAddress> out;
  for (const auto& text : s.clusterips())
    if (const auto ip = IpAddress::parse(text)) out.insert(*ip);
  if (const auto ip = IpAddress::parse(s.clusterip())) out.insert(*ip);
  return out;
}

std::set<std::int32_t> ports_of(const corev1::ServiceSpec& s) {
  std::set<std::int32_t> out;
  for (const auto& p : s.ports())
    if (p.nodeport() != 0) out.insert(p.nodeport());
  if (s.healthchecknodeport() != 0) out.insert(s.healthchecknodeport());
  return out;
}

class ServiceHook final : public WriteHook {
 public:
  explicit ServiceHook(std::shared_ptr<Pools> pools) : pools_(std::move(pools)) {}

  void create(Message& object, std::unique_ptr<Reservation>& out, ErrorList& errors) override {
    auto reservation = std::make_unique<ServiceReservation>(pools_);
    reserve(*static_cast<corev1::Service&>(object).mutable_spec(), corev1::ServiceSpec(), *reservation, errors);
    out = std::move(reservation);
  }
  void update(Message& now, const Message& before, std::unique_ptr<Reservation>& out, ErrorList& errors) override {
    auto reservation = std::make_unique<ServiceReservation>(pools_);
    reserve(*static_cast<corev1::Service&>(now).mutable_spec(), static_cast<const corev1::Service&>(before).spec(), *reservation, errors);
    out = std::move(reservation);
  }
  void removed(const Message& object) override {
    const auto& spec = static_cast<const corev1::Service&>(object).spec();
    std::lock_guard lock(pools_->mutex);
    for (const auto& ip : ips_of(spec)) pools_->release(ip);
    for (const auto p : ports_of(spec)) pools_->ports.release(p);
  }

 private:
  // Takes what `spec` names and `before` had not, fills in what is open, and notes what is no longer used.
  static void reserve(corev1::ServiceSpec& spec, const corev1::ServiceSpec& before, ServiceReservation& r, ErrorList& errors) {
    const auto old_ips = ips_of(before);
    const auto old_ports = ports_of(before);
    if (needs_cluster_ip(spec) && !is_headless(spec)) reserve_ips(spec, old_ips, r, errors);
    if (errors.empty()) reserve_ports(spec, old_ports, r, errors);
    const auto new_ips = ips_of(spec);
    const auto new_ports = ports_of(spec);
    for (const auto& ip : old_ips)
      if (!new_ips.count(ip)) r.free_ip(ip);
    for (const auto p : old_ports)
      if (!new_ports.count(p)) r.free_port(p);
  }

  static void reserve_ips(corev1::ServiceSpec& spec, const std::set<IpAddress>& old, ServiceReservation& r, ErrorList& errors) {
    const auto at = Path("spec").child("clusterIPs");
    for (int i = 0; i < spec.clusterips_size(); ++i) {
      const auto ip = IpAddress::parse(spec.clusterips(i));
      if (ip && !old.count(*ip) && !r.take_ip(*ip, at, errors)) return;
    }
    for (int i = spec.clusterips_size(); i < spec.ipfamilies_size(); ++i) {
      const auto ip = r.take_any_ip(spec.ipfamilies(i) == "IPv4" ? Family::v4 : Family::v6, at, errors);
      if (!ip) return;
      spec.add_clusterips(ip->to_string());
    }
    if (spec.clusterips_size() > 0) spec.set_clusterip(spec.clusterips(0));
  }

  static void reserve_ports(corev1::ServiceSpec& spec, const std::set<std::int32_t>& old, ServiceReservation& r, ErrorList& errors) {
    std::set<std::int32_t> held = old;  // by this service: one number may serve several protocols
    const auto ports = Path("spec").child("ports");
    if (needs_node_port(spec) || spec.type() == "LoadBalancer") {
      for (int i = 0; i < spec.ports_size(); ++i) {
        const auto wanted = spec.ports(i).nodeport();
        if (wanted == 0 || held.count(wanted)) continue;
        if (!r.take_port(wanted, ports.index(i).child("nodePort"), errors)) return;
        held.insert(wanted);
      }
    }
    if (needs_node_port(spec)) {
      for (int i = 0; i < spec.ports_size(); ++i) {
        auto& p = *spec.mutable_ports(i);
        if (p.nodeport() != 0) continue;
        // The same port over another protocol gets the same number where it can.
        for (const auto& other : spec.ports())
          if (other.port() == p.port() && other.protocol() != p.protocol() && other.nodeport() != 0 && !used_by(spec, other.nodeport(), p.protocol()))
            p.set_nodeport(other.nodeport());
        if (p.nodeport() != 0) continue;
        const auto port = r.take_any_port(ports.index(i).child("nodePort"), errors);
        if (port == 0) return;
        p.set_nodeport(port);
        held.insert(port);
      }
    }
    if (!needs_health_port(spec)) return;
    const auto at = Path("spec").child("healthCheckNodePort");
    if (spec.healthchecknodeport() == 0)
      spec.set_healthchecknodeport(r.take_any_port(at, errors));
    else if (!held.count(spec.healthchecknodeport()))
      r.take_port(spec.healthchecknodeport(), at, errors);
  }

  static bool used_by(const corev1::ServiceSpec& spec, std::int32_t node_port, const std::string& protocol) {
    for (const auto& p : spec.ports())
      if (p.nodeport() == node_port && p.protocol() == protocol) return true;
    return false;
  }

  std::shared_ptr<Pools> pools_;
};

}  // namespace

Result<> load_service_hook(Core& core) {
  const auto& o = core.options;
  auto pools = std::make_shared<Pools>(o.service_cidrs, lb::PortRange{o.node_port_first, o.node_port_last}, core.random);
  Resource* services = nullptr;
  for (auto& r : core.resources.all())
    if (r->kind->group.empty() && r->kind->kind == "Service") services = r.get();
  FL_TRY(const auto everything, Selection::make(*services, "", "", {}, {}));
  for (const auto& e : services->cache->list(everything).items) {
    const auto object = decode_entry(*services, *e);
    const auto& spec = static_cast<const corev1::Service&>(*object).spec();
    for (const auto& ip : ips_of(spec)) {
      auto* range = pools->range_of(ip.family());
      const auto taken = range ? range->take(ip) : Result<>(fail(ErrorCode::invalid_argument, "no range of that family"));
      if (!taken) log::warn("service {}/{}: clusterIP {}: {}", e->ns, e->name, ip.to_string(), taken.error().message);
    }
    for (const auto p : ports_of(spec))
      if (const auto taken = pools->ports.take(p); !taken) log::warn("service {}/{}: nodePort {}: {}", e->ns, e->name, p, taken.error().message);
  }
  static_assert(std::is_base_of_v<WriteHook, ServiceHook>);
  core.service_hook = std::make_unique<ServiceHook>(std::move(pools));
  services->hook = core.service_hook.get();
  return {};
}

}  // namespace fairlead::apiserver
