// What kube-proxy leaves behind when it is stopped, in each of its modes: its nf_tables tables, its iptables chains, its IPVS
// services with their dummy interface and sets. Removed by --cleanup. The iptables tools are used where they are installed,
// because chains of iptables-legacy can be reached by nothing else.
// Source: pkg/proxy/{nftables,iptables,ipvs}/cleanup.go of Kubernetes 1.36.
#pragma once

#include <string>
#include <vector>

namespace fairlead::proxy {

// Returns what could not be removed, in words. Nothing there is no problem.
std::vector<std::string> remove_kube_proxy_leftovers();

// The input for iptables-restore that removes kube-proxy's chains from a table, given what iptables-save printed of it.
// Empty: nothing of it is there. Pure. KUBE-FIREWALL stays, as the kubelet uses it too.
std::string iptables_cleanup_input(const std::string& saved);

}  // namespace fairlead::proxy
