// Names of chains, as kube-proxy has them, so that people and tools that know those find ours: a prefix that says what the
// chain does and 16 characters of a hash. Pure.
// Source: pkg/proxy/iptables/proxier.go of Kubernetes 1.36: base32 of the SHA-256 of "namespace/name:port" + protocol (+ "ip:port").
#pragma once

#include <string>
#include <string_view>

#include "base/ip.h"
#include "iptables/model.h"

namespace fairlead::iptables {

inline constexpr std::string_view kServices = "KUBE-SERVICES", kNodePorts = "KUBE-NODEPORTS", kExternalServices = "KUBE-EXTERNAL-SERVICES",
                                  kExternalNodePorts = "KUBE-EXTERNAL-NODEPORTS", kClusterIps = "KUBE-CLUSTER-IPS", kFirewall = "KUBE-PROXY-FIREWALL",
                                  kForward = "KUBE-FORWARD", kPostrouting = "KUBE-POSTROUTING", kMarkMasq = "KUBE-MARK-MASQ",
                                  kMarkMasqForeign = "KUBE-MARK-MASQ-NOT-LOCAL", kRefuse = "KUBE-REFUSE", kCanary = "KUBE-PROXY-CANARY",
                                  kCount = "KUBE-PROXY-COUNT",  // empty
                                  // Shared with the kubelet: rules are added where they are missing, nothing is removed.
                                  kMartians = "KUBE-FIREWALL";

// One service port: "namespace/name:port" or "namespace/name".
std::string port_name(std::string_view service, std::string_view port);

// cluster: KUBE-SVC-, to an endpoint of the cluster; local: KUBE-SVL-, to one of this node; external: KUBE-EXT-, the policy for clients
// from outside; sources: KUBE-FW-, loadBalancerSourceRanges.
enum class ChainKind { cluster, local, external, sources };
std::string chain_name(ChainKind kind, std::string_view port_name, Protocol protocol);
std::string endpoint_chain_name(std::string_view port_name, Protocol protocol, const SocketAddress& endpoint);

// Chains that are wholly the service proxy's: ours, or kube-proxy's in iptables mode, which are the same by intention; and
// what either left in ipvs mode.
bool is_ours(Table table, std::string_view chain);

}  // namespace fairlead::iptables
