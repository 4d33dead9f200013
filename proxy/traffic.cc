#include "proxy/traffic.h"

#include <fmt/format.h>

#include <boost/json/object.hpp>

namespace fairlead::proxy {

void TrafficTotals::update(const std::vector<Traffic>& reading) {
  for (auto& [id, e] : entries_) e.seen = false;
  for (const auto& t : reading) {
    auto& e = entries_[{t.service, t.port_name, t.protocol, t.frontend, t.backend}];
    e.total += t.connections >= e.last ? t.connections - e.last : t.connections;  // less than before: it began again
    e.last = t.connections;
    e.seen = true;
  }
  std::erase_if(entries_, [](const auto& x) { return !x.second.seen; });
}

std::vector<Traffic> TrafficTotals::totals() const {
  std::vector<Traffic> out;
  out.reserve(entries_.size());
  for (const auto& [id, e] : entries_) {
    const auto& [service, port, protocol, frontend, backend] = id;
    out.push_back({service, port, protocol, frontend, backend, e.total, 0, 0});
  }
  return out;
}

std::string TrafficTotals::metrics_text(std::size_t limit) const {
  using PortId = std::tuple<ServiceKey, std::string, Protocol>;
  std::map<PortId, std::uint64_t> services;
  std::map<std::pair<PortId, SocketAddress>, std::uint64_t> endpoints;
  for (const auto& [id, e] : entries_) {
    const auto& [service, port, protocol, frontend, backend] = id;
    if (backend.port == 0) services[{service, port, protocol}] += e.total;
    else endpoints[{{service, port, protocol}, backend}] += e.total;
  }
  const auto labels = [](const PortId& p) {
    const auto& [service, port, protocol] = p;
    return fmt::format("namespace=\"{}\",service=\"{}\",port=\"{}\",protocol=\"{}\"", namespace_of(service), name_of(service), port,
                       fairlead::to_string(protocol));
  };
  std::string out;
  if (services.size() <= limit) {
    out += "# HELP fairlead_proxy_service_connections_total Connections to a service that were given an endpoint or refused\n"
           "# TYPE fairlead_proxy_service_connections_total counter\n";
    for (const auto& [p, n] : services) out += fmt::format("fairlead_proxy_service_connections_total{{{}}} {}\n", labels(p), n);
  }
  if (services.size() + endpoints.size() <= limit) {
    out += "# HELP fairlead_proxy_endpoint_connections_total Connections sent to an endpoint\n"
           "# TYPE fairlead_proxy_endpoint_connections_total counter\n";
    for (const auto& [p, n] : endpoints)
      out += fmt::format("fairlead_proxy_endpoint_connections_total{{{},endpoint=\"{}\"}} {}\n", labels(p.first), p.second.to_string(), n);
  }
  return out;
}

boost::json::array TrafficTotals::to_json() const {
  boost::json::array out;
  for (const auto& t : totals()) {
    boost::json::object o{{"service", t.service},
                          {"port", t.port_name},
                          {"protocol", fairlead::to_string(t.protocol)},
                          {"frontend", t.frontend.to_string()},
                          {"connections", t.connections}};
    if (t.backend.port) o["endpoint"] = t.backend.to_string();
    out.push_back(std::move(o));
  }
  return out;
}

}  // namespace fairlead::proxy
