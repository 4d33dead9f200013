// What pods need of nf_tables, as values: host ports and masquerading. One table per family (ip, ip6) named "fairlead-pods"
// for all pods of the host; a pod is a few set elements in it, so adding one is one small transaction whatever number there
// are. Pure.
//
//   map by-address   address . proto . port -> pod . port    host ports bound to one address
//   map by-port      proto . port -> pod . port              host ports on every local address
//   map localhost    proto . port -> pod . port              (IPv6) host ports on ::1, of routed pods
//   set self         pod . pod                               reaches itself by its own host port: masquerade
//   set hairpin      source . pod                            whose answers would not come back through the host: masquerade
//   set inside       pod . destination                       of its own network: keeps its source
//   set masquerade   pod                                     everything else it sends leaves with the host's address
//
//   prerouting, output   destination is local -> chain ports: dnat by the maps; ::1 by its own map alone
//   postrouting          translated and in self or hairpin: masquerade; from 127.0.0.0/8 or ::1: masquerade
//                        inside: return; multicast: return; masquerade: masquerade
//   raw                  127.0.0.0/8 from the wire: drop (IPv4; it is what makes route_localnet safe, CVE-2020-8558)
//
// Interval sets of two parts (hairpin, inside) cost the kernel time in proportion to their elements when one is taken out:
// 10 ms and more at 1,000 pods. So they hold what needs an interval, and a routed pod's host port does without.
//
// Answers to 127.0.0.1 and [::1] come back over the pod's link, which needs a word to the kernel: LocalhostPorts (plan.h). For
// IPv6 no guard is needed: the kernel itself drops what comes from the wire with ::1 on either end. For the same reason a pod on
// a bridge has no [::1]: where br_netfilter runs, the answer has ::1 on it before the kernel looks.
#pragma once

#include <string>
#include <vector>

#include "cni/capabilities.h"
#include "nftables/model.h"

namespace fairlead::cni {

inline constexpr const char* kPodTable = "fairlead-pods";

// An address of a pod, and who is around it.
struct NatAddress {
  IpAddress ip;
  Prefix neighbours;   // reach the pod without passing the host: a bridge's subnet; the pod alone when it is routed
  Prefix network;      // destinations to which its source is kept when it is masqueraded
  auto operator<=>(const NatAddress&) const = default;
};

// What one attachment wants, as it is recorded for DEL.
struct PodNat {
  std::vector<PortMapping> mappings;
  bool masquerade = false;
  std::vector<NatAddress> pods;
  bool empty() const { return pods.empty() || (mappings.empty() && !masquerade); }
  bool operator==(const PodNat&) const = default;
};

struct NatElements {
  std::vector<nftables::Element> by_address, by_port, localhost, self, hairpin, inside, masquerade;
  bool empty() const { return by_address.empty() && by_port.empty() && localhost.empty() && self.empty() && hairpin.empty() && inside.empty() && masquerade.empty(); }
  std::size_t size() const { return by_address.size() + by_port.size() + localhost.size() + self.size() + hairpin.size() + inside.size() + masquerade.size(); }
};
NatElements nat_elements(Family family, const PodNat& nat);

// The sets with the elements that go into them, in a fixed order.
using SetElements = std::pair<const nftables::Set*, std::vector<nftables::Element> NatElements::*>;
std::vector<SetElements> nat_sets(Family f);

nftables::Batch add_table(Family f);                                   // everything but elements; fails when it is there
nftables::Batch add_elements(Family f, const NatElements& e);
nftables::Batch delete_elements(Family f, const NatElements& e);
// An element of a port map leads to this pod.
bool leads_to(const nftables::Element& e, const IpAddress& pod);

}  // namespace fairlead::cni
