// Texts that the node agent writes: the CNI network list for the runtime, and the nftables rules for traffic that leaves
// the cluster. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/ip.h"

namespace fairlead::cni {

struct ConflistOptions {
  std::string network_name = "fairlead";
  std::string wiring = "routed";
  std::uint32_t mtu = 0;
  std::vector<Prefix> pod_cidrs;
  std::string data_dir;   // empty: the plugin's default
};
std::string render_conflist(const ConflistOptions& o);

inline constexpr const char* kMasqueradeTable = "fairlead-cni";
// Replaces the whole table in one transaction. Source in pod_cidrs and destination outside of cluster_cidrs: masquerade.
std::string render_masquerade(const std::vector<Prefix>& pod_cidrs, const std::vector<Prefix>& cluster_cidrs);
std::string render_masquerade_removal();
// The name of an empty chain in the table that tells which rules it holds, so that a fresh process can see whether they are
// the wanted ones.
std::string masquerade_mark(const std::vector<Prefix>& pod_cidrs, const std::vector<Prefix>& cluster_cidrs);

}  // namespace fairlead::cni
