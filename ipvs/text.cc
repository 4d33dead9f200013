#include "ipvs/text.h"

#include <fmt/format.h>

#include "ipvs/layout.h"

namespace fairlead::ipvs {
namespace {

std::string lower(Protocol p) {
  switch (p) {
    case Protocol::tcp: return "tcp";
    case Protocol::udp: return "udp";
    case Protocol::sctp: return "sctp";
  }
  return "?";
}

std::string describe(const VirtualServer& v) {
  std::string out = fmt::format("{} -s {}", to_text(v.key), v.scheduler);
  if (v.flags & flag::persistent) out += fmt::format(" -p {}", v.persistence_seconds);
  if (v.flags & flag::scheduler_1) out += fmt::format(" -b flag-1{}", v.flags & flag::scheduler_2 ? ",flag-2" : "");
  else if (v.flags & flag::scheduler_2) out += " -b flag-2";
  return out;
}
std::string describe(const ServerKey& k, const RealServer& r) {
  return fmt::format("{} -r {} -m -w {}", to_text(k), r.address.to_string(), r.weight);
}

struct OpText {
  std::string operator()(const op::EnsureLink&) const { return fmt::format("ip link add {} type dummy", kLinkName); }
  std::string operator()(const op::DeleteLink&) const { return fmt::format("ip link delete {}", kLinkName); }
  std::string operator()(const op::CreateSet& o) const { return "ipset create " + to_text(o.set); }
  std::string operator()(const op::DestroySet& o) const { return "ipset destroy " + o.name; }
  std::string operator()(const op::AddEntry& o) const { return fmt::format("ipset add {} {}", o.set.name, to_text(o.set.type, o.entry)); }
  std::string operator()(const op::DeleteEntry& o) const { return fmt::format("ipset del {} {}", o.set.name, to_text(o.set.type, o.entry)); }
  std::string operator()(const op::AddServer& o) const { return "ipvsadm -A " + describe(o.server); }
  std::string operator()(const op::EditServer& o) const { return "ipvsadm -E " + describe(o.server); }
  std::string operator()(const op::DeleteServer& o) const { return "ipvsadm -D " + to_text(o.key); }
  std::string operator()(const op::AddReal& o) const { return "ipvsadm -a " + describe(o.key, o.real); }
  std::string operator()(const op::EditReal& o) const { return "ipvsadm -e " + describe(o.key, o.real); }
  std::string operator()(const op::DeleteReal& o) const { return fmt::format("ipvsadm -d {} -r {}", to_text(o.key), o.address.to_string()); }
  std::string operator()(const op::Bind& o) const { return fmt::format("ip addr add {}/{} dev {}", o.ip.to_string(), o.ip.bits(), kLinkName); }
  std::string operator()(const op::Unbind& o) const { return fmt::format("ip addr del {}/{} dev {}", o.ip.to_string(), o.ip.bits(), kLinkName); }
  std::string operator()(const op::WriteRules& o) const {
    auto text = restore_input(o);
    if (!text.empty()) text.pop_back();
    return text;
  }
  std::string operator()(const op::SetTimeouts& o) const {
    return fmt::format("ipvsadm --set {} {} {}", o.timeouts.tcp, o.timeouts.tcp_fin, o.timeouts.udp);
  }
};

}  // namespace

std::string_view to_string(SetType t) {
  switch (t) {
    case SetType::ip: return "hash:ip";
    case SetType::ip_port: return "hash:ip,port";
    case SetType::ip_port_ip: return "hash:ip,port,ip";
    case SetType::ip_port_net: return "hash:ip,port,net";
    case SetType::port: return "bitmap:port";
  }
  return "?";
}

std::string to_text(const ServerKey& k) {
  if (k.protocol == Protocol::sctp) return "--sctp-service " + k.address.to_string();
  return fmt::format("-{} {}", k.protocol == Protocol::udp ? 'u' : 't', k.address.to_string());
}

std::string to_text(const SetSpec& s) {
  if (s.type == SetType::port) return fmt::format("{} {} range 0-65535", s.name, to_string(s.type));
  return fmt::format("{} {} family {} maxelem {}", s.name, to_string(s.type), s.family == Family::v4 ? "inet" : "inet6", s.most_elements);
}

std::string to_text(SetType type, const Entry& e) {
  const auto ip_port = [&] { return fmt::format("{},{}:{}", e.ip.to_string(), lower(e.protocol), e.port); };
  switch (type) {
    case SetType::ip: return e.ip.to_string();
    case SetType::ip_port: return ip_port();
    case SetType::ip_port_ip: return ip_port() + "," + e.net.address().to_string();
    case SetType::ip_port_net: return ip_port() + "," + e.net.to_string();
    case SetType::port: return std::to_string(e.port);
  }
  return "?";
}

std::string to_text(const Op& op) { return std::visit(OpText{}, op); }

std::string restore_input(const op::WriteRules& w) {
  std::string out = "*" + w.table + "\n";
  for (const auto& [name, rules] : w.chains) out += fmt::format(":{} - [0:0]\n", name);
  for (const auto& name : w.delete_chains) out += fmt::format(":{} - [0:0]\n", name);
  for (const auto& [chain, rule] : w.remove_hooks) out += fmt::format("-D {} {}\n", chain, rule);
  for (const auto& [name, rules] : w.chains)
    for (const auto& r : rules) out += fmt::format("-A {} {}\n", name, r);
  for (const auto& [chain, rule] : w.insert_hooks) out += fmt::format("-I {} {}\n", chain, rule);
  for (const auto& name : w.delete_chains) out += fmt::format("-X {}\n", name);
  return out + "COMMIT\n";
}

std::string to_text(const State& s) {
  std::string out;
  for (const auto& [name, set] : s.sets) {
    out += "create " + to_text(set.spec) + "\n";
    for (const auto& e : set.entries) out += fmt::format("add {} {}\n", name, to_text(set.spec.type, e));
  }
  for (const auto& [table, t] : s.rules) {
    out += "*" + table + "\n";
    for (const auto& [name, rules] : t.chains) out += fmt::format(":{}\n", name);
    for (const auto* part : {&t.hooks, &t.chains})
      for (const auto& [name, rules] : *part)
        for (const auto& r : rules) out += fmt::format("-A {} {}\n", name, r);
  }
  for (const auto& [key, server] : s.servers) {
    out += "-A " + describe(server.server) + "\n";
    for (const auto& r : server.real) out += "-a " + describe(key, r) + "\n";
  }
  if (s.link) out += fmt::format("link {}\n", kLinkName);
  for (const auto& ip : s.bound) out += fmt::format("addr {}/{}\n", ip.to_string(), ip.bits());
  return out;
}

}  // namespace fairlead::ipvs
