#include "tests/proxy/world_net.h"

#include <fmt/format.h>

#include <cerrno>
#include <set>

namespace fairlead::proxy::testing {

using testnet::Namespace;

WorldNet::WorldNet() {
  testnet::connect(node, "lan", "192.168.7.1/24 fd07::1/64", clients, "eth0",
                   "192.168.7.100/24 192.168.7.101/24 fd07::100/64 fd07::101/64");
  const auto pod = [&](const Namespace& ns, const std::string& link, const std::string& v4, const std::string& v6) {
    testnet::connect(node, link, "", ns, "eth0", v4 + "/32 " + v6 + "/128");
    // The gateway's address has link scope, so that masquerading picks the node's own.
    (void)node.sh(fmt::format("ip addr add 169.254.1.1/32 dev {0} scope link; ip addr add fe80::1/64 dev {0} nodad\n"
                              "ip route add {1}/32 dev {0}; ip -6 route add {2}/128 dev {0}",
                              link, v4, v6));
    (void)ns.sh("ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0\n"
                "ip -6 route add default via fe80::1 dev eth0");
  };
  pod(here2, "pod2", "10.244.0.2", "fd44::2");
  pod(here3, "pod3", "10.244.0.3", "fd44::3");
  testnet::connect(node, "there", "10.9.0.1/24 fd09::1/64", there, "eth0",
                   "10.9.0.2/24 fd09::2/64 10.244.1.2/32 10.244.1.3/32 fd44:1::2/128");
  (void)node.sh("ip route add 10.244.1.0/24 via 10.9.0.2; ip -6 route add fd44:1::/64 via fd09::2\n"
                "ip route add default via 192.168.7.100; ip -6 route add default via fd07::100");
  (void)there.sh("ip route add default via 10.9.0.1; ip -6 route add default via fd09::1");
  (void)clients.sh("ip route add default via 192.168.7.1; ip -6 route add default via fd07::1");
  const auto serve = [&](const Namespace& ns, std::initializer_list<const char*> ips) {
    for (const auto* one : ips) {
      servers_.push_back(std::make_unique<testnet::Server>(ns, Protocol::tcp, SocketAddress{ip(one), 8080}));
      servers_.push_back(std::make_unique<testnet::Server>(ns, Protocol::udp, SocketAddress{ip(one), 5353}));
    }
  };
  serve(here2, {"10.244.0.2", "fd44::2"});
  serve(here3, {"10.244.0.3", "fd44::3"});
  serve(there, {"10.244.1.2", "10.244.1.3", "fd44:1::2"});
}

const Namespace& WorldNet::sender(const Packet& p) const {
  if (p.in_interface.empty()) return node;
  if (p.source == ip("10.244.0.2") || p.source == ip("fd44::2")) return here2;
  if (p.source == ip("10.244.0.3") || p.source == ip("fd44::3")) return here3;
  return clients;
}

std::string WorldNet::play(const PacketRow& row) const {
  using V = Decision::Verdict;
  const auto& from = sender(row.packet);
  const auto* source = row.packet.in_interface.empty() ? nullptr : &row.packet.source;
  const SocketAddress to{row.packet.destination, row.packet.port};
  // Enough that missing one of four endpoints by chance has odds of 1 in 10 million.
  const int tries = row.expect.verdict == V::endpoints ? (row.expect.endpoints.size() > 1 ? 64 : 8) : 2;
  // Silence is silence after a while; an answer may take as long as a busy machine needs.
  const auto patience = row.expect.verdict == V::drop ? std::chrono::milliseconds(400) : std::chrono::milliseconds(10'000);
  std::set<SocketAddress> seen;
  for (int i = 0; i < tries; ++i) {
    const auto answer = testnet::ask(from, row.packet.protocol, to, source, patience);
    if (row.expect.verdict != V::endpoints) {
      const int want = row.expect.verdict == V::reject ? ECONNREFUSED : ETIMEDOUT;
      if (answer) return fmt::format("answered by {}", answer->server.to_string());
      if (answer.error().sys_errno != want) return answer.error().message;
      continue;
    }
    if (!answer) return fmt::format("try {}: {}", i, answer.error().message);
    seen.insert(answer->server);
    const bool masqueraded = answer->client.ip != row.packet.source;
    // The host's own packets may leave with another of its addresses; that is not for the dataplane to say.
    if (!row.packet.in_interface.empty() && masqueraded != row.expect.masquerades(answer->server, row.packet))
      return fmt::format("{} saw the client as {}", answer->server.to_string(), answer->client.to_string());
  }
  if (row.expect.verdict != V::endpoints) return {};
  if (row.expect.affinity) {
    if (seen.size() != 1) return fmt::format("{} endpoints answered one sticky client", seen.size());
    for (const auto& e : row.expect.endpoints)
      if (e == *seen.begin()) return {};
    return fmt::format("{} answered", seen.begin()->to_string());
  }
  for (const auto& e : row.expect.endpoints)
    if (!seen.contains(e)) return fmt::format("{} never answered", e.to_string());
  if (seen.size() != row.expect.endpoints.size()) return fmt::format("{} endpoints answered", seen.size());
  return {};
}

}  // namespace fairlead::proxy::testing
