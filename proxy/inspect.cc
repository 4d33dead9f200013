#include "proxy/inspect.h"

#include <fmt/format.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <chrono>
#include <cstdio>
#include <thread>

#include "base/http/client.h"
#include "base/log.h"
#include "kube/client.h"
#include "netlink/route.h"
#include "netlink/socket.h"
#include "proxy/api_access.h"
#include "proxy/manifests.h"
#include "proxy/servers.h"

namespace fairlead::proxy {
namespace {

int failed(const Error& e) {
  std::fprintf(stderr, "fairlead: %s\n", e.message.c_str());
  return e.code == ErrorCode::invalid_argument ? 2 : 1;
}

void print(const std::string& s) { std::fwrite(s.data(), 1, s.size(), stdout); }

template <typename T>
Result<T> run_task(net::io_context& io, std::function<Task<Result<T>>()> f) {
  Result<T> out = fail(ErrorCode::internal, "did not finish");
  net::co_spawn(
      io, [&]() -> Task<> { out = co_await f(); }, net::detached);
  io.run();
  io.restart();
  return out;
}

}  // namespace

int show_plan(const PlanOptions& options, const Config& config, const Dataplane& dataplane) {
  ClusterState cluster;
  cluster.facts.ipv6 = true;
  if (auto done = read_manifests(options.files, options.node, config, cluster); !done) return failed(done.error());
  const auto plan = cluster.plan(config);
  for (const auto& p : cluster.problems) std::fprintf(stderr, "warning: %s\n", p.c_str());
  if (options.plan) print(to_text(plan));
  if (options.plan && options.rules) print("\n");
  if (options.rules) print(dataplane.render_text(plan));
  return 0;
}

int verify(const Config& config, Dataplane& dataplane) {
  auto rest = find_api(config);
  if (!rest) return failed(rest.error());
  auto node = find_node_name(config);
  if (!node) return failed(node.error());
  net::io_context io(1);
  auto client = kube::make_client(io.get_executor(), *rest, "fairlead-proxy-verify");
  if (!client) return failed(client.error());
  ClusterState cluster;
  cluster.facts.ipv6 = kernel_has_ipv6();
  // The cluster may change between our reading of it and of the kernel; what differs twice is drift.
  std::vector<Drift> drift;
  for (int attempt = 0; attempt < 2; ++attempt) {
    cluster = ClusterState{};
    cluster.facts.ipv6 = kernel_has_ipv6();
    auto read = run_task<int>(io, [&]() -> Task<Result<int>> {
      auto done = co_await read_cluster(*client, *node, config, cluster);
      if (!done) co_return fail(std::move(done).error());
      co_return 0;
    });
    if (!read) return failed(read.error());
    auto found = dataplane.verify(cluster.plan(config));
    if (!found) return failed(found.error());
    drift = std::move(*found);
    if (drift.empty()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  if (drift.empty()) {
    print(fmt::format("{}: the kernel holds what it should for {} services\n", dataplane.name(), cluster.state.service_count()));
    return 0;
  }
  print(fmt::format("{}: {} differences; these steps would put them right:\n", dataplane.name(), drift.size()));
  for (const auto& d : drift) print(d + "\n");
  return 1;
}

namespace {

struct TopRow {
  std::string service, port, endpoint;
  double connections = 0, packets = 0, bytes = 0, rate = 0;
};
struct TopReading {
  std::vector<TopRow> rows;
  std::string note;  // what is not counted, and why
};

Result<TopReading> read_traffic(net::io_context& io, const std::string& address) {
  FL_TRY(auto client, http::make_client(io.get_executor(), {.base_url = "http://" + address}));
  auto answer = run_task<http::ClientResponse>(io, [client]() -> Task<Result<http::ClientResponse>> {
    http::Request r;
    r.target = "/traffic";
    co_return co_await client->request(std::move(r), std::chrono::seconds(10));
  });
  if (!answer) return fail(std::move(answer).error().with("is the proxy running, and is {} its metrics address?", address));
  if (answer->status != 200) return fail(ErrorCode::unavailable, "{}/traffic: HTTP {}", address, answer->status);
  boost::system::error_code ec;
  const auto v = boost::json::parse(answer->body, ec);
  const auto* all = ec || !v.is_object() ? nullptr : v.as_object().if_contains("traffic");
  if (!all || !all->is_array()) return fail(ErrorCode::data_loss, "{}/traffic: not the expected JSON", address);
  TopReading out;
  if (const auto* note = v.as_object().if_contains("note"); note && note->is_string()) out.note = note->as_string();
  auto& rows = out.rows;
  for (const auto& one : all->as_array()) {
    if (!one.is_object()) continue;
    const auto text = [&](const char* key) {
      const auto* s = one.as_object().if_contains(key);
      return s && s->is_string() ? std::string(s->as_string()) : std::string();
    };
    TopRow row{text("service"), text("port"), text("endpoint")};
    if (row.port.empty()) row.port = text("protocol");
    const auto number = [&](const char* key) {
      const auto* n = one.as_object().if_contains(key);
      return n && n->is_number() ? n->to_number<double>() : 0.0;
    };
    row.connections = number("connections");
    row.packets = number("packets");
    row.bytes = number("bytes");
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const TopRow& r) {
      return r.service == row.service && r.port == row.port && r.endpoint == row.endpoint;
    });
    if (same != rows.end()) {
      same->connections += row.connections;
      same->packets += row.packets;
      same->bytes += row.bytes;
    } else {
      rows.push_back(std::move(row));
    }
  }
  return out;
}

}  // namespace

int top(const TopOptions& options) {
  net::io_context io(1);
  std::vector<TopRow> before;
  for (bool first = true;; first = false) {
    auto reading = read_traffic(io, options.address);
    if (!reading) return failed(reading.error());
    auto& rows = reading->rows;
    std::map<std::tuple<std::string, std::string, std::string>, double> old;
    for (const auto& b : before) old[{b.service, b.port, b.endpoint}] = b.connections;
    for (auto& r : rows) {
      const auto it = old.find({r.service, r.port, r.endpoint});
      r.rate = first || it == old.end() ? 0 : std::max(0.0, (r.connections - it->second) / options.interval_seconds);
    }
    before = rows;
    std::sort(rows.begin(), rows.end(), [](const TopRow& a, const TopRow& b) {
      return std::tie(b.rate, b.connections, a.service, a.port, a.endpoint) < std::tie(a.rate, a.connections, b.service, b.port, b.endpoint);
    });
    std::string out = options.once ? "" : "\033[H\033[2J";
    // Packets and bytes only where they are counted.
    const bool all = reading->note.empty();
    out += fmt::format("{:<40} {:<12} {:<28} {:>12} {:>10}{}\n", "SERVICE", "PORT", "ENDPOINT", "CONNECTIONS", "PER SECOND",
                       all ? fmt::format(" {:>12} {:>14}", "PACKETS", "BYTES") : "");
    for (std::size_t i = 0; i < rows.size() && i < static_cast<std::size_t>(options.lines); ++i) {
      const auto& r = rows[i];
      out += fmt::format("{:<40} {:<12} {:<28} {:>12.0f} {:>10.1f}{}\n", r.service, r.port, r.endpoint.empty() ? "(all)" : r.endpoint, r.connections, r.rate,
                         all ? fmt::format(" {:>12.0f} {:>14.0f}", r.packets, r.bytes) : "");
    }
    if (!reading->note.empty()) out += "(" + reading->note + ")\n";
    print(out);
    std::fflush(stdout);
    if (options.once) return 0;
    std::this_thread::sleep_for(std::chrono::seconds(options.interval_seconds));
  }
}

Result<Packet> parse_packet(const TraceOptions& o, const std::vector<IpAddress>& local) {
  Packet p;
  std::string to = o.destination;
  if (const auto slash = to.rfind('/'); slash != std::string::npos) {
    FL_TRY_CTX(p.protocol, parse_protocol(to.substr(slash + 1)), "DST");
    to.resize(slash);
  }
  if (auto ip = IpAddress::parse(to)) {
    p.destination = *ip;
    p.port = 80;
  } else {
    FL_TRY_CTX(const auto a, SocketAddress::parse(to), "DST");
    p.destination = a.ip;
    p.port = a.port;
  }
  const auto is_local = [&](const IpAddress& ip) { return std::find(local.begin(), local.end(), ip) != local.end(); };
  if (o.source == "host") {
    const auto it = std::find_if(local.begin(), local.end(), [&](const IpAddress& ip) {
      return ip.family() == p.destination.family() && !ip.is_loopback() && !ip.is_link_local();
    });
    p.source = it == local.end() ? (p.destination.is_v4() ? IpAddress::v4(127, 0, 0, 1) : *IpAddress::parse("::1")) : *it;
  } else {
    FL_TRY_CTX(p.source, IpAddress::parse(o.source), "SRC");
  }
  if (p.source.family() != p.destination.family())
    return fail(ErrorCode::invalid_argument, "SRC and DST: {} and {} are of different families", p.source.to_string(), p.destination.to_string());
  p.source_is_local_address = is_local(p.source);
  p.destination_is_local_address = is_local(p.destination);
  p.in_interface = o.interface;
  return p;
}

// The interface on which packets from an address come in, as far as routing tells.
static std::string interface_towards(const IpAddress& ip) {
  auto socket = netlink::Socket::open(NETLINK_ROUTE);
  if (!socket) return {};
  std::string name;
  [[maybe_unused]] const auto done =
      socket->request(netlink::build_get_route(ip), "route", [&](const netlink::MessageView& m) -> Result<> {
        if (auto parsed = m.as<rtmsg>())
          if (const auto link = parsed->second.u32(RTA_OIF)) {
            char buffer[IF_NAMESIZE];
            if (::if_indextoname(*link, buffer)) name = buffer;
          }
        return {};
      });
  return name;
}

int trace(const TraceOptions& options, Dataplane& dataplane) {
  auto packet = parse_packet(options, local_addresses());
  if (!packet) return failed(packet.error());
  if (!packet->source_is_local_address && packet->in_interface.empty()) {
    packet->in_interface = interface_towards(packet->source);
    if (packet->in_interface.empty()) packet->in_interface = "?";
  }
  auto decision = dataplane.trace(*packet);
  if (!decision) return failed(decision.error());
  print(fmt::format("{} -> {}/{}, {}\n", packet->source.to_string(), SocketAddress{packet->destination, packet->port}.to_string(),
                    fairlead::to_string(packet->protocol),
                    packet->in_interface.empty() ? "sent by this host" : "coming in on " + packet->in_interface));
  print(to_text(*decision));
  if (decision->verdict == Decision::Verdict::endpoints) {
    if (decision->masquerade) print("the endpoint sees an address of this node (masqueraded)\n");
    else print(fmt::format("the endpoint sees {}{}\n", packet->source.to_string(),
                           std::any_of(decision->endpoints.begin(), decision->endpoints.end(),
                                       [&](const SocketAddress& e) { return e.ip == packet->source; })
                               ? ", except when the client reaches itself: then an address of this node"
                               : ""));
  }
  return 0;
}

}  // namespace fairlead::proxy
