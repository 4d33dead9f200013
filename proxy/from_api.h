// API objects -> the compact values of service.h. Total: a malformed part is left out and reported by name, the rest of the
// object counts. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kube/api.h"
#include "proxy/planner.h"
#include "proxy/service.h"

namespace k8s::io::api::core::v1 {
class Service;
class Node;
}  // namespace k8s::io::api::core::v1
namespace k8s::io::api::discovery::v1 {
class EndpointSlice;
}
namespace k8s::io::api::networking::v1 {
class ServiceCIDR;
}

namespace fairlead::proxy {

inline constexpr std::string_view kServiceProxyNameLabel = "service.kubernetes.io/service-proxy-name";
inline constexpr std::string_view kHeadlessLabel = "service.kubernetes.io/headless";
inline constexpr std::string_view kServiceNameLabel = "kubernetes.io/service-name";
inline constexpr std::string_view kZoneLabel = "topology.kubernetes.io/zone";
inline constexpr std::string_view kBalanceAnnotation = "fairlead.io/balance";
inline constexpr std::string_view kWeightsAnnotation = "fairlead.io/weights";

struct ReadOptions {
  bool external_ips = true;  // false: spec.externalIPs is ignored (feature gate AllowServiceExternalIPs)
};

using Problems = std::vector<std::string>;  // "spec.ports[1].port: 0 is not a port"

// nullopt: not a service for a proxy (headless, ExternalName, another proxy's).
std::optional<Service> read_service(const corev1::Service& in, const ReadOptions& options, Problems& problems);

struct ReadSlice {
  ServiceKey service;
  Slice slice;
};
std::optional<ReadSlice> read_slice(const discoveryv1::EndpointSlice& in, Problems& problems);

NodeFacts read_node(const corev1::Node& in);
std::vector<Prefix> read_pod_cidrs(const corev1::Node& in);
std::vector<Prefix> read_service_cidr(const networkingv1::ServiceCIDR& in);

// As lenient as the API once was: leading zeros in IPv4 and IPv4-mapped IPv6 are understood.
Result<IpAddress> parse_ip_leniently(std::string_view text);
Result<Prefix> parse_prefix_leniently(std::string_view text);  // host bits may be set; spaces around are ignored

}  // namespace fairlead::proxy
