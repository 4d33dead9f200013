#include "proxy/traffic.h"

#include <fmt/format.h>

#include <boost/json/object.hpp>

namespace fairlead::proxy {

namespace {
constexpr std::array<std::string_view, 3> kWhat{"connections", "packets", "bytes"};
constexpr std::array<std::string_view, 3> kServiceHelp{"Connections to a service that were given an endpoint or refused", "Packets to and from a service",
                                                       "Bytes to and from a service"};
constexpr std::array<std::string_view, 3> kEndpointHelp{"Connections sent to an endpoint", "Packets to and from an endpoint", "Bytes to and from an endpoint"};
}  // namespace

void TrafficTotals::update(const std::vector<Traffic>& reading) {
  for (auto& [id, e] : entries_) e.seen = false, e.now = {};
  for (const auto& t : reading) {
    auto& e = entries_[{t.service, t.port_name, t.protocol, t.frontend, t.backend}];
    e.now[0] += t.connections, e.now[1] += t.packets, e.now[2] += t.bytes;
    e.seen = true;
  }
  std::erase_if(entries_, [](const auto& x) { return !x.second.seen; });
  for (auto& [id, e] : entries_) {
    for (std::size_t i = 0; i < e.now.size(); ++i) e.total[i] += e.now[i] >= e.last[i] ? e.now[i] - e.last[i] : e.now[i];  // less than before: it began again
    e.last = e.now;
  }
}

std::vector<Traffic> TrafficTotals::totals() const {
  std::vector<Traffic> out;
  out.reserve(entries_.size());
  for (const auto& [id, e] : entries_) {
    const auto& [service, port, protocol, frontend, backend] = id;
    out.push_back({service, port, protocol, frontend, backend, e.total[0], e.total[1], e.total[2]});
  }
  return out;
}

std::string TrafficTotals::metrics_text(std::size_t limit) const {
  using PortId = std::tuple<ServiceKey, std::string, Protocol>;
  std::map<PortId, Counts> services;
  std::map<std::pair<PortId, SocketAddress>, Counts> endpoints;
  Counts all{};
  const auto add = [&all](Counts& to, const Counts& n) {
    for (std::size_t i = 0; i < n.size(); ++i) to[i] += n[i], all[i] += n[i];
  };
  for (const auto& [id, e] : entries_) {
    const auto& [service, port, protocol, frontend, backend] = id;
    if (backend.port == 0) add(services[{service, port, protocol}], e.total);
    else add(endpoints[{{service, port, protocol}, backend}], e.total);
  }
  const auto labels = [](const PortId& p) {
    const auto& [service, port, protocol] = p;
    return fmt::format("namespace=\"{}\",service=\"{}\",port=\"{}\",protocol=\"{}\"", namespace_of(service), name_of(service), port,
                       fairlead::to_string(protocol));
  };
  std::string out;
  for (std::size_t i = 0; i < kWhat.size(); ++i) {
    if (i > 0 && all[i] == 0) continue;
    const auto begin = [&](std::string_view of, std::string_view help) {
      out += fmt::format("# HELP fairlead_proxy_{0}_{1}_total {2}\n# TYPE fairlead_proxy_{0}_{1}_total counter\n", of, kWhat[i], help);
    };
    if (services.size() <= limit) {
      begin("service", kServiceHelp[i]);
      for (const auto& [p, n] : services) out += fmt::format("fairlead_proxy_service_{}_total{{{}}} {}\n", kWhat[i], labels(p), n[i]);
    }
    if (services.size() + endpoints.size() <= limit) {
      begin("endpoint", kEndpointHelp[i]);
      for (const auto& [p, n] : endpoints)
        out += fmt::format("fairlead_proxy_endpoint_{}_total{{{},endpoint=\"{}\"}} {}\n", kWhat[i], labels(p.first), p.second.to_string(), n[i]);
    }
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
                          {"connections", t.connections},
                          {"packets", t.packets},
                          {"bytes", t.bytes}};
    if (t.backend.port) o["endpoint"] = t.backend.to_string();
    out.push_back(std::move(o));
  }
  return out;
}

}  // namespace fairlead::proxy
