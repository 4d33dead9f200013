#include "controlplane/apiserver/services/claims.h"

#include <charconv>

#include "kube/codec.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::apiserver::services {
namespace {

constexpr char kFamilyLabel[] = "ipaddress.kubernetes.io/ip-family";
constexpr char kManagerLabel[] = "ipaddress.kubernetes.io/managed-by";
constexpr char kManager[] = "ipallocator.k8s.io";

std::optional<Owner> parse_owner(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  return Owner{text.substr(0, slash), text.substr(slash + 1)};
}

}  // namespace

std::set<IpAddress> addresses_of(const corev1::ServiceSpec& s) {
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

std::optional<IpAddress> ClaimKeys::address(const std::string& key) const {
  if (!key.starts_with(addresses_)) return std::nullopt;
  const auto ip = IpAddress::parse(key.substr(addresses_.size()));
  return ip ? std::optional(*ip) : std::nullopt;
}

std::optional<std::int32_t> ClaimKeys::port(const std::string& key) const {
  if (!key.starts_with(ports_)) return std::nullopt;
  std::int32_t n = 0;
  const auto* end = key.data() + key.size();
  const auto [stop, ec] = std::from_chars(key.data() + ports_.size(), end, n);
  return ec == std::errc() && stop == end ? std::optional(n) : std::nullopt;
}

Claim ClaimKeys::claim(const IpAddress& ip, const Owner& owner, WallTime now, Random& random) const {
  networkingv1::IPAddress object;
  auto& m = *object.mutable_metadata();
  m.set_name(ip.to_string());
  m.set_uid(random_uuid(random));
  *m.mutable_creationtimestamp() = to_time(now);
  (*m.mutable_labels())[kFamilyLabel] = ip.is_v4() ? "IPv4" : "IPv6";
  (*m.mutable_labels())[kManagerLabel] = kManager;
  auto& parent = *object.mutable_spec()->mutable_parentref();
  parent.set_resource("services");
  parent.set_namespace_(owner.ns);
  parent.set_name(owner.name);
  return {of(ip), kube::to_protobuf(object)};
}

Claim ClaimKeys::claim(std::int32_t port, const Owner& owner) const { return {of(port), owner.text()}; }

std::optional<Owner> ClaimKeys::owner(const etcd::KeyValue& claim) const {
  if (claim.key.starts_with(ports_)) return parse_owner(claim.value);
  networkingv1::IPAddress object;
  if (!kube::from_protobuf(claim.value, object)) return std::nullopt;
  const auto& parent = object.spec().parentref();
  const auto manager = object.metadata().labels().find(kManagerLabel);
  if (manager == object.metadata().labels().end() || manager->second != kManager) return std::nullopt;
  if (!parent.group().empty() || parent.resource() != "services") return std::nullopt;
  return Owner{parent.namespace_(), parent.name()};
}

WallTime ClaimKeys::made_at(const etcd::KeyValue& claim) const {
  networkingv1::IPAddress object;
  if (!claim.key.starts_with(addresses_) || !kube::from_protobuf(claim.value, object)) return {};
  return from_time(object.metadata().creationtimestamp());
}

}  // namespace fairlead::apiserver::services
