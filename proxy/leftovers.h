// What kube-proxy leaves behind when it is stopped, in each of its modes: its nf_tables tables, its iptables chains, its IPVS
// services with their dummy interface and sets. Removed by --cleanup. KUBE-FIREWALL stays, as the kubelet uses it too.
// Source: pkg/proxy/{nftables,iptables,ipvs}/cleanup.go of Kubernetes 1.36.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fairlead::proxy {

// Returns what could not be removed, in words. Nothing there is no problem.
std::vector<std::string> remove_kube_proxy_leftovers();
// When a node changes its mode, before anything is programmed: the ipvs mode shares chains with the iptables mode, which could not be
// told apart afterwards, and binds service addresses to the host.
std::vector<std::string> remove_before_start(std::string_view mode);
// When a node changes its mode: what another one left of Fairlead or of kube-proxy, that would get in the way. Called once the
// new rules are there, so that connections find one or the other.
std::vector<std::string> remove_other_modes(std::string_view mode);

}  // namespace fairlead::proxy
