// Connections per service and endpoint over the life of this process. The kernel's counters start at zero whenever an element
// is written again; here they only grow. Pure.
#pragma once

#include <boost/json/array.hpp>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "proxy/dataplane.h"

namespace fairlead::proxy {

class TrafficTotals {
 public:
  // Takes in a reading. What is not in it has gone.
  void update(const std::vector<Traffic>& reading);
  std::vector<Traffic> totals() const;
  // fairlead_proxy_connections_total{service,port,protocol}, and with {...,endpoint} while there are at most `limit` series.
  std::string metrics_text(std::size_t limit) const;
  boost::json::array to_json() const;
  std::size_t size() const { return entries_.size(); }

 private:
  using Id = std::tuple<ServiceKey, std::string, Protocol, SocketAddress, SocketAddress>;
  struct Entry {
    std::uint64_t last = 0, total = 0;
    bool seen = false;
  };
  std::map<Id, Entry> entries_;
};

}  // namespace fairlead::proxy
