// The constant part of the IPVS dataplane: which sets there are, what the rules say, how a scheduler is set up. Pure functions of the
// family and of the plan's global part; nothing here grows with the number of services.
//
// Where a new connection meets what:
//
//   mangle PREROUTING, OUTPUT   KUBE-PROXY-FIREWALL   source ranges; policies Local without an endpoint here   -> DROP
//   nat    PREROUTING, OUTPUT   KUBE-SERVICES         what must be masqueraded gets the mark
//   filter INPUT                KUBE-NODE-PORT        health check ports are let in
//   filter INPUT, OUTPUT        KUBE-IPVS-FILTER      bound addresses: ports without endpoints            -> REJECT
//   (IPVS in INPUT or OUTPUT)                         virtual server -> real server
//   filter FORWARD, OUTPUT      KUBE-IPVS-OUT-FILTER  service addresses that nobody has                   -> DROP
//   filter FORWARD              KUBE-FORWARD          replies pass even if the host forwards nothing else
//   nat    POSTROUTING          KUBE-POSTROUTING      masquerade
//
// In OUTPUT IPVS comes before the filter table, hence the restrictions are in mangle. Why iptables and ipset and not nftables:
// docs/decisions/0005-ipvs-helper-rules.md. Names are kube-proxy's where the thing means the same, so that its state is adopted and other
// programs find what they look for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ipvs/model.h"
#include "proxy/plan.h"

namespace fairlead::ipvs {

inline constexpr std::string_view kLinkName = "kube-ipvs0";

const SetSpec& set_of(SetId id, Family family);  // lives for ever

Rules rules_for(Family family, const proxy::GlobalPlan& global);

// Chains and sets that kube-proxy's ipvs mode has and we do not. They are removed when we take over.
bool is_proxy_chain(std::string_view name);  // ours or kube-proxy's
bool is_proxy_set(std::string_view name, Family family);

// The scheduler and flags for a service port; `configured` is the one for all.
struct Scheduling {
  std::string scheduler;
  std::uint32_t flags = 0;
};
Scheduling scheduling_for(const proxy::PortPlan& port, const std::string& configured);
// Whether a real server with weight 0 does no harm to new clients: not so where the choice is fixed beforehand.
bool drains(std::string_view scheduler, Protocol protocol);

}  // namespace fairlead::ipvs
