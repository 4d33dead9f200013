// The real kernel through the iptables tools: fixed argument lists, no shell, rules on standard input only. There are two
// iptables in a kernel, and rules of one are invisible to the other's tool: iptables-nft (rules live in nf_tables, a change costs
// what it is) and iptables-legacy (a table is read and replaced as a whole).
//
// choose_backend() finds out which one this host uses, as kube's own images do: the one that holds the kubelet's chains
// (KUBE-IPTABLES-HINT, KUBE-KUBELET-CANARY), else the one with more rules, else nft where the kernel has nf_tables.
// Source: kubernetes-sigs/iptables-wrappers; KEP-3178 (hint chain); iptables 1.8.
#pragma once

#include <memory>
#include <cstdint>
#include <optional>
#include <string_view>

#include "iptables/kernel.h"

namespace fairlead::iptables {

enum class Backend : std::uint8_t { nft, legacy };
std::string_view to_string(Backend b);                    // "nft", "legacy"
Result<std::optional<Backend>> parse_backend(std::string_view text);  // also "auto": nullopt

// Works in the network namespace of the thread that opens it, whichever thread uses it later.
// Errors: not_found if the tools are not installed, failed_precondition if the kernel refuses them.
Result<std::unique_ptr<Kernel>> open_kernel(Backend backend);

// What a backend's tool says of the calling thread's network namespace.
struct BackendEvidence {
  bool usable = false;
  bool kubelet = false;        // chains of the kubelet are there
  bool service_proxy = false;  // chains of a service proxy, in whatever mode, are there
  std::size_t rules = 0;       // rules and chains beyond the builtin ones
};
BackendEvidence look_at(Backend backend);
Backend choose_backend(const BackendEvidence& nft, const BackendEvidence& legacy);
Result<Backend> choose_backend();

}  // namespace fairlead::iptables
