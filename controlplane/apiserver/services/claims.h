// Where the store keeps what a Service holds: one key for each cluster address and each node port, written and deleted in the
// transaction that writes the Service, so that two API servers on one store cannot hand out the same one.
//
//   <prefix>/ipaddresses/10.96.0.10           an IPAddress object (networking.k8s.io/v1), as kube-apiserver writes it
//   <prefix>/fairlead/nodeports/30080         "namespace/name"; docs/decisions/0008-service-claims.md says why it is ours
//
// Pure; thread safe. Source of the first: KEP-1880, kubernetes pkg/registry/core/service/ipallocator.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/random.h"
#include "controlplane/apiserver/resource.h"
#include "kube/api.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::apiserver::services {

struct Owner {
  std::string ns;
  std::string name;
  std::string text() const { return ns + "/" + name; }
  bool operator==(const Owner&) const = default;
};

// What a spec holds.
std::set<IpAddress> addresses_of(const corev1::ServiceSpec& spec);
std::set<std::int32_t> ports_of(const corev1::ServiceSpec& spec);

class ClaimKeys {
 public:
  explicit ClaimKeys(const std::string& prefix) : addresses_(prefix + "/ipaddresses/"), ports_(prefix + "/fairlead/nodeports/") {}
  const std::string& addresses() const { return addresses_; }  // what their keys begin with
  const std::string& ports() const { return ports_; }
  std::string of(const IpAddress& ip) const { return addresses_ + ip.to_string(); }
  std::string of(std::int32_t port) const { return ports_ + std::to_string(port); }
  // Unset when the key is none of that sort.
  std::optional<IpAddress> address(const std::string& key) const;
  std::optional<std::int32_t> port(const std::string& key) const;

  Claim claim(const IpAddress& ip, const Owner& owner, WallTime now, Random& random) const;
  Claim claim(std::int32_t port, const Owner& owner) const;
  // The Service that holds a claim; unset when it is held for something else, or cannot be read.
  std::optional<Owner> owner(const etcd::KeyValue& claim) const;
  // The time an address claim was made, as it says itself; the epoch for others.
  WallTime made_at(const etcd::KeyValue& claim) const;

 private:
  std::string addresses_;
  std::string ports_;
};

}  // namespace fairlead::apiserver::services
