// Connections, packets and bytes per service and endpoint over the life of this process. The kernel's counters start at zero
// whenever a rule or element is written again; here they only grow. Packets and bytes are there where the dataplane sees every
// packet (IPVS) or where flows are accounted for (flow_account.h); otherwise they stay zero. Pure.
#pragma once

#include <array>
#include <boost/json/array.hpp>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "proxy/dataplane.h"

namespace fairlead::proxy {

class TrafficTotals {
 public:
  // Takes in a reading; rows of the same frontend and endpoint add up. What is not in it has gone.
  void update(const std::vector<Traffic>& reading);
  std::vector<Traffic> totals() const;
  // fairlead_proxy_service_{connections,packets,bytes}_total{namespace,service,port,protocol}, and fairlead_proxy_endpoint_... with
  // {...,endpoint}, each while there are at most `limit` of them. What nobody counts is left out.
  std::string metrics_text(std::size_t limit) const;
  boost::json::array to_json() const;
  std::size_t size() const { return entries_.size(); }

 private:
  using Id = std::tuple<ServiceKey, std::string, Protocol, SocketAddress, SocketAddress>;
  using Counts = std::array<std::uint64_t, 3>;  // connections, packets, bytes
  struct Entry {
    Counts now{}, last{}, total{};
    bool seen = false;
  };
  std::map<Id, Entry> entries_;
};

}  // namespace fairlead::proxy
