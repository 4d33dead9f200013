#include <fmt/format.h>

#include <algorithm>

#include "lb/status.h"

namespace fairlead::lb {
namespace {

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> width;
  for (const auto& r : rows) {
    width.resize(std::max(width.size(), r.size()));
    for (std::size_t i = 0; i < r.size(); ++i) width[i] = std::max(width[i], r[i].size());
  }
  std::string out;
  for (const auto& r : rows) {
    std::string line;
    for (std::size_t i = 0; i < r.size(); ++i) line += i + 1 < r.size() ? fmt::format("{:<{}}   ", r[i], width[i]) : r[i];
    out += line + "\n";
  }
  return out;
}

std::string pools_part(const StatusFacts& f, const ReconcileOptions& o) {
  std::vector<std::vector<std::string>> rows{{"POOL", "ADDRESSES", "USED", "TOTAL", "AUTO ASSIGN"}};
  for (const auto& p : f.pools.set.pools) {
    std::set<IpAddress> used;
    for (const auto& s : f.services)
      for (const auto& ip : s.status)
        if (is_ours(s, o) && p.contains(ip)) used.insert(ip);
    std::string ranges;
    for (const auto& r : p.ranges) ranges += (ranges.empty() ? "" : ",") + r.to_string();
    const auto total = p.size();
    rows.push_back({p.name, ranges, std::to_string(used.size()), total >> 63 ? "many" : std::to_string(total), p.auto_assign ? "yes" : "no"});
  }
  return rows.size() == 1 ? "There are no pools.\n" : table(rows);
}

// "worker-1, BGP: worker-1 worker-2".
std::string announcers(const StatusFacts& f, const std::string& key) {
  std::string out;
  if (const auto node = f.announced.find(key); node != f.announced.end()) out = node->second;
  if (const auto nodes = f.routed.find(key); nodes != f.routed.end() && !nodes->second.empty()) {
    out += out.empty() ? "BGP:" : ", BGP:";
    for (const auto& n : nodes->second) out += " " + n;
  }
  return out.empty() ? "<unknown>" : out;
}

std::string services_part(const StatusFacts& f, const ReconcileOptions& o) {
  std::vector<std::vector<std::string>> rows{{"SERVICE", "ADDRESS", "POOL", "ANNOUNCED FROM"}};
  for (const auto& s : f.services) {
    if (!is_ours(s, o)) continue;
    if (s.status.empty()) rows.push_back({s.key, "<pending>", "", ""});
    for (const auto& ip : s.status) {
      const auto* pool = f.pools.set.pool_of(ip);
      rows.push_back({s.key, ip.to_string(), pool ? pool->name : "<none>", announcers(f, s.key + " " + ip.to_string())});
    }
  }
  return rows.size() == 1 ? "There are no services of type LoadBalancer.\n" : table(rows);
}

std::string sessions_part(const StatusFacts& f) {
  if (f.sessions.empty()) return f.pools.set.peers.empty() ? "" : "No speaker tells of BGP sessions.\n\n";
  std::vector<std::vector<std::string>> rows{{"NODE", "BGP PEER", "ROUTER", "SESSION", "ANNOUNCED", "LAST ERROR"}};
  for (const auto& [r, stale] : f.sessions)
    rows.push_back({r.node, r.peer, r.router, stale ? "<unknown>" : r.state, stale ? "" : std::to_string(r.announced), stale ? "the node's speaker is silent" : r.last_error});
  return table(rows) + "\n";
}

}  // namespace

std::string status_text(const StatusFacts& f, const ReconcileOptions& o) {
  std::string out = pools_part(f, o) + "\n" + services_part(f, o) + "\n" + sessions_part(f);
  out += f.leader.empty() ? "Controller: none has the Lease\n" : "Controller: " + f.leader + "\n";
  if (!f.pools.diagnostics.empty()) out += "\n";
  for (const auto& d : f.pools.diagnostics) out += fmt::format("{}: {}\n", d.refused ? "refused" : "note", d.to_string());
  return out;
}

}  // namespace fairlead::lb
