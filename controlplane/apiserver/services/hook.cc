#include "controlplane/apiserver/services/hook.h"

#include "controlplane/apiserver/services/pools.h"
#include "controlplane/apiserver/validation/service.h"

namespace fairlead::apiserver::services {
namespace {

using field::ErrorList;
using field::Path;

// An update may exchange all of them, and etcd takes 128 operations in one transaction.
constexpr std::size_t kMaxClaims = 60;

class ServiceReservation final : public Reservation {
 public:
  ServiceReservation(std::shared_ptr<Pools> pools, Contention* contention, Owner owner, const Clock& clock, Random& random)
      : pools_(std::move(pools)), contention_(contention), owner_(std::move(owner)), clock_(clock), random_(random) {}
  ~ServiceReservation() override {
    for (const auto& c : taken_) pools_->release(c.key);
  }

  const std::vector<Claim>& taken() const override { return taken_; }
  const std::vector<std::string>& freed() const override { return freed_; }
  bool owns(const etcd::KeyValue& claim) const override { return pools_->keys().owner(claim) == owner_; }
  void refused(const std::string& key) override {
    if (contention_) contention_->refused.insert(key);
  }
  void commit(etcd::Revision revision) override {
    for (const auto& c : taken_) pools_->release_after(c.key, revision);
    taken_.clear();
  }

  bool take_ip(const IpAddress& ip, const Path& at, ErrorList& errors) {
    const auto held = refused_before(ip) ? Result<>(fail(ErrorCode::already_exists, "{}", lb::kAddressTaken)) : pools_->hold(ip);
    if (!held) {
      errors.invalid_json(at, "[" + field::quote(ip.to_string()) + "]",
                          fmt::format("failed to allocate IP {}: {}", ip.to_string(), held.error().message));
      return false;
    }
    taken_.push_back(pools_->keys().claim(ip, owner_, clock_.wall(), random_));
    return true;
  }
  std::optional<IpAddress> take_any_ip(Family family, const Path& at, ErrorList& errors) {
    const auto ip = pools_->hold_any(family, contention_->refused);
    if (!ip) {
      contention_->exhausted = true;
      errors.add({field::Type::internal, at.text(), "", fmt::format("failed to allocate a service IP: {}", ip.error().message)});
      return std::nullopt;
    }
    taken_.push_back(pools_->keys().claim(*ip, owner_, clock_.wall(), random_));
    return *ip;
  }
  bool take_port(std::int32_t port, const Path& at, ErrorList& errors) {
    const auto held = refused_before(port) ? Result<>(fail(ErrorCode::already_exists, "{}", lb::kPortTaken)) : pools_->hold(port);
    if (!held) {
      errors.invalid(at, port, held.error().message);
      return false;
    }
    taken_.push_back(pools_->keys().claim(port, owner_));
    return true;
  }
  std::int32_t take_any_port(const Path& at, ErrorList& errors) {
    const auto port = pools_->hold_any_port(contention_->refused);
    if (!port) {
      contention_->exhausted = true;
      errors.add({field::Type::internal, at.text(), "", fmt::format("failed to allocate a nodePort: {}", port.error().message)});
      return 0;
    }
    taken_.push_back(pools_->keys().claim(*port, owner_));
    return *port;
  }
  template <typename T>
  void free(const T& ip_or_port) {
    freed_.push_back(pools_->keys().of(ip_or_port));
  }

 private:
  template <typename T>
  bool refused_before(const T& ip_or_port) const {
    return contention_->refused.count(pools_->keys().of(ip_or_port)) > 0;
  }
  const std::shared_ptr<Pools> pools_;
  Contention* const contention_;  // null: nothing is taken
  const Owner owner_;
  const Clock& clock_;
  Random& random_;
  std::vector<Claim> taken_;
  std::vector<std::string> freed_;
};

class ServiceHook final : public WriteHook {
 public:
  ServiceHook(std::shared_ptr<Pools> pools, const Clock& clock, Random& random) : pools_(std::move(pools)), clock_(clock), random_(random) {}

  std::unique_ptr<Reservation> create(Message& object, Contention& contention, ErrorList& errors) override {
    auto r = reservation(object, &contention);
    reserve(*static_cast<corev1::Service&>(object).mutable_spec(), corev1::ServiceSpec(), *r, errors);
    return r;
  }
  std::unique_ptr<Reservation> update(Message& now, const Message& before, Contention& contention, ErrorList& errors) override {
    auto r = reservation(now, &contention);
    reserve(*static_cast<corev1::Service&>(now).mutable_spec(), static_cast<const corev1::Service&>(before).spec(), *r, errors);
    return r;
  }
  std::unique_ptr<Reservation> remove(const Message& object) override {
    const auto& spec = static_cast<const corev1::Service&>(object).spec();
    auto r = reservation(object, nullptr);
    for (const auto& ip : addresses_of(spec)) r->free(ip);
    for (const auto p : ports_of(spec)) r->free(p);
    return r;
  }

 private:
  std::unique_ptr<ServiceReservation> reservation(const Message& object, Contention* contention) {
    const auto& m = meta_of(object);
    return std::make_unique<ServiceReservation>(pools_, contention, Owner{m.namespace_(), m.name()}, clock_, random_);
  }

  // Takes what `spec` names and `before` had not, fills in what is open, and notes what is no longer used.
  static void reserve(corev1::ServiceSpec& spec, const corev1::ServiceSpec& before, ServiceReservation& r, ErrorList& errors) {
    const auto old_ips = addresses_of(before);
    const auto old_ports = ports_of(before);
    if (needs_cluster_ip(spec) && !is_headless(spec)) reserve_ips(spec, old_ips, r, errors);
    if (errors.empty()) reserve_ports(spec, old_ports, r, errors);
    const auto new_ips = addresses_of(spec);
    const auto new_ports = ports_of(spec);
    for (const auto& ip : old_ips)
      if (!new_ips.count(ip)) r.free(ip);
    for (const auto p : old_ports)
      if (!new_ports.count(p)) r.free(p);
    if (new_ports.size() > kMaxClaims) errors.too_many(Path("spec").child("ports"), new_ports.size(), kMaxClaims);
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

  const std::shared_ptr<Pools> pools_;
  const Clock& clock_;
  Random& random_;
};

}  // namespace

void attach_hook(Core& core) {
  const auto& o = core.options;
  auto pools = std::make_shared<Pools>(ClaimKeys(o.storage_prefix), o.service_cidrs, lb::PortRange{o.node_port_first, o.node_port_last}, core.random);
  core.feeder->observe({pools->keys().addresses(), pools->keys().ports()}, *pools);
  core.pools = pools;
  core.service_hook = std::make_unique<ServiceHook>(std::move(pools), core.clock, core.random);
  for (auto& r : core.resources.all())
    if (r->kind->group.empty() && r->kind->kind == "Service") r->hook = core.service_hook.get();
}

}  // namespace fairlead::apiserver::services
