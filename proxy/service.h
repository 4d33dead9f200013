// What the proxy keeps of a Service and of an EndpointSlice: compact, immutable, comparable values. The API objects are
// dropped once they were read (from_api.h), because 30,000 services with 10 endpoints each must fit in a small process.
// Owner: the change trackers hold them by shared_ptr<const T>; any thread may read them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"

namespace fairlead::proxy {

// "namespace/name" of a Service. The unit of change: whatever happens to a Service or to its endpoints, the service is
// planned again as a whole.
using ServiceKey = std::string;
inline std::string_view namespace_of(std::string_view key) { return key.substr(0, key.find('/')); }
inline std::string_view name_of(std::string_view key) { return key.substr(key.find('/') + 1); }

// A string that very many values share (node names, zones): 4 bytes, equal if and only if the text is equal. The pool
// lives as long as the process; it is meant for small vocabularies. Thread safe.
class Atom {
 public:
  Atom() = default;  // ""
  explicit Atom(std::string_view text);
  const std::string& str() const;
  bool empty() const { return id_ == 0; }
  bool operator==(const Atom&) const = default;

 private:
  std::uint32_t id_ = 0;
};

enum class TrafficPolicy : std::uint8_t { cluster, local };

// How an endpoint is chosen among several. The annotation fairlead.io/balance on a Service selects it.
enum class Balance : std::uint8_t {
  random,  // each new connection at random; by weight where weights are given
  maglev,  // consistent hash of the client's address: losing one of n endpoints moves about 1/n of the clients
};
std::string_view to_string(Balance b);

struct ServicePort {
  std::string name;
  Protocol protocol = Protocol::tcp;
  Port port = 0;
  Port node_port = 0;
  bool operator==(const ServicePort&) const = default;
};

struct Service {
  ServiceKey key;
  std::vector<ServicePort> ports;
  std::vector<IpAddress> cluster_ips;  // one or two, of different families
  std::vector<IpAddress> external_ips;
  std::vector<IpAddress> load_balancer_vips;  // status.loadBalancer.ingress with ipMode VIP
  std::vector<Prefix> source_ranges;          // loadBalancerSourceRanges of both families, sorted
  bool restricted_v4 = false;                 // clients of load balancer VIPs must be in source_ranges
  bool restricted_v6 = false;
  TrafficPolicy internal_policy = TrafficPolicy::cluster;
  TrafficPolicy external_policy = TrafficPolicy::cluster;
  std::uint32_t affinity_seconds = 0;  // ClientIP session affinity; 0: none
  Port health_check_node_port = 0;
  Balance balance = Balance::random;
  std::vector<std::pair<std::string, std::uint16_t>> weights;  // fairlead.io/weights: target (pod name or IP) -> weight
  bool operator==(const Service&) const = default;
};

// One address of a slice with what decides whether it may be used.
struct Endpoint {
  IpAddress ip;
  bool ready = true;
  bool serving = true;
  bool terminating = false;
  Atom node;
  Atom zone_hints;  // zone names joined by '\n'
  Atom node_hints;  // node names joined by '\n'
  std::uint32_t target = 0;  // target_hash() of the name of the pod behind it, to find its weight
  bool operator==(const Endpoint&) const = default;
};
std::uint32_t target_hash(std::string_view name);
bool names(const Atom& joined, std::string_view one);  // is `one` in a '\n'-joined list

struct EndpointPort {
  std::string name;
  Protocol protocol = Protocol::tcp;
  Port port = 0;
  bool operator==(const EndpointPort&) const = default;
};

struct Slice {
  std::string name;
  Family family = Family::v4;
  std::vector<EndpointPort> ports;
  std::vector<Endpoint> endpoints;
  bool operator==(const Slice&) const = default;
};

// All slices of one service, sorted by name. Copying it copies pointers.
struct ServiceEndpoints {
  std::vector<std::shared_ptr<const Slice>> slices;
  bool operator==(const ServiceEndpoints& o) const;
};

}  // namespace fairlead::proxy
