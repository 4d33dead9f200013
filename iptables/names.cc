#include "iptables/names.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

namespace fairlead::iptables {
namespace {

// The first 16 characters of base32 are the first 10 bytes of the digest.
std::string hash(std::string_view text) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr);
  std::string out;
  unsigned bits = 0, held = 0;
  for (std::size_t i = 0; out.size() < 16; ++i) {
    bits = bits << 8 | digest[i];
    for (held += 8; held >= 5; held -= 5) out += kAlphabet[bits >> (held - 5) & 31];
  }
  return out;
}

std::string_view lower(Protocol p) {
  switch (p) {
    case Protocol::tcp: return "tcp";
    case Protocol::udp: return "udp";
    case Protocol::sctp: return "sctp";
  }
  return "?";
}

}  // namespace

std::string port_name(std::string_view service, std::string_view port) {
  return port.empty() ? std::string(service) : fmt::format("{}:{}", service, port);
}

std::string chain_name(ChainKind kind, std::string_view port_name, Protocol protocol) {
  static constexpr std::array<std::string_view, 4> prefixes{"KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-"};
  return fmt::format("{}{}", prefixes[static_cast<std::size_t>(kind)], hash(fmt::format("{}{}", port_name, lower(protocol))));
}

std::string endpoint_chain_name(std::string_view port_name, Protocol protocol, const SocketAddress& endpoint) {
  return "KUBE-SEP-" + hash(fmt::format("{}{}{}", port_name, lower(protocol), endpoint.to_string()));
}

bool is_ours(Table, std::string_view chain) {
  static constexpr std::array<std::string_view, 13> exact{kServices, kNodePorts,   kExternalServices, kExternalNodePorts, kClusterIps, kFirewall,
                                                          kForward,  kPostrouting, kMarkMasq,         kMarkMasqForeign,   kCanary, kRefuse,
                                                          kCount};
  static constexpr std::array<std::string_view, 13> prefixes{
      "KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-",
      // of ipvs modes, ours and kube-proxy's, which never run beside this one
      "KUBE-IPVS-", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-DROP-EXTERNAL", "KUBE-CLUSTER-CLIENT", "KUBE-EXTERNAL-CLIENT"};
  return std::find(exact.begin(), exact.end(), chain) != exact.end() ||
         std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view p) { return chain.starts_with(p); });
}

}  // namespace fairlead::iptables
