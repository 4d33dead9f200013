// Stale flows. A tracked UDP flow keeps going to the endpoint it was given, even when the endpoint has gone, as long as the
// client keeps sending; so flows to a service's frontends that do not end at one of its serving endpoints are forgotten after
// a change. That includes services with no endpoint left and services that are gone: their clients must learn it. TCP and
// SCTP notice by themselves; for them it can be switched on, and then a connection to an endpoint that has gone ends at once
// instead of when the endpoint's host gives up.
//
// StaleFlows is pure: it says what is expected and judges single flows. clean() does the I/O.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "netlink/conntrack.h"
#include "proxy/planner.h"

namespace fairlead::proxy {

class StaleFlows {
 public:
  explicit StaleFlows(std::vector<Protocol> protocols = {Protocol::udp}) : protocols_(std::move(protocols)) {}

  // Takes in changes that were applied. Remembers what must be looked at.
  void changed(const std::vector<Planner::Change>& changes, const NodeFacts& node);
  bool pending() const { return !watched_.empty(); }
  bool concerns(Family family, Protocol protocol) const;
  bool stale(const netlink::Flow& flow) const;
  void done() { watched_.clear(); }

 private:
  struct Frontend {
    Protocol protocol;
    SocketAddress address;  // unspecified ip: a NodePort
    bool operator==(const Frontend&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Frontend& f) const noexcept {
      return std::hash<SocketAddress>{}(f.address) * 31 + static_cast<std::size_t>(f.protocol);
    }
  };
  using Endpoints = std::shared_ptr<const std::vector<SocketAddress>>;  // sorted
  struct Known {
    Frontend frontend;
    Endpoints serving;
  };
  std::vector<Known> facts_of(const Planner::Change& change) const;

  bool covers(Protocol p) const;
  std::vector<Protocol> protocols_;
  std::vector<IpAddress> node_ips_;
  std::unordered_map<std::string, std::vector<Known>> known_;      // by service; only services with such ports
  std::unordered_map<Frontend, Endpoints, Hash> watched_;          // to be looked at in the next cleaning
};

struct CleanupReport {
  std::size_t seen = 0, forgotten = 0;
};
// Lists the families and protocols that matter and forgets what is stale.
Result<CleanupReport> clean(netlink::Conntrack& conntrack, StaleFlows& flows);

}  // namespace fairlead::proxy
