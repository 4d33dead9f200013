#include "proxy/leftovers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "base/process.h"
#include "iptables/family_sync.h"
#include "iptables/kernel_process.h"
#include "iptables/names.h"
#include "nftables/kernel_netlink.h"

namespace fairlead::proxy {
namespace {

// Those of iptables mode have the same names as ours; these are of ipvs mode.
bool is_chain_to_remove(iptables::Table table, std::string_view chain) {
  static constexpr std::array<std::string_view, 4> prefixes{"KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-"};
  return iptables::is_ours(table, chain) || std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view p) { return chain.starts_with(p); });
}

void remove_nftables(std::vector<std::string>& problems) {
  auto kernel = nftables::open_kernel();
  if (!kernel) return;
  for (const Family f : {Family::v4, Family::v6}) {
    const auto found = (*kernel)->list(f, "kube-proxy");
    if (!found || !*found) continue;
    nftables::Batch batch{f, "kube-proxy", {nftables::op::DeleteTable{}}};
    if (auto done = (*kernel)->commit(batch); !done) problems.push_back("table kube-proxy: " + done.error().message);
  }
}

void remove_iptables(iptables::Backend backend, std::vector<std::string>& problems) {
  if (!iptables::look_at(backend).service_proxy) return;
  auto kernel = iptables::open_kernel(backend);
  if (!kernel) return problems.push_back(kernel.error().message);
  for (const Family f : {Family::v4, Family::v6})
    if (auto done = iptables::remove_chains(**kernel, f, is_chain_to_remove); !done)
      problems.push_back(fmt::format("iptables-{} {}: {}", iptables::to_string(backend), fairlead::to_string(f), done.error().message));
}

void remove_ipvs(std::vector<std::string>& problems) {
  const auto link = run_command({.argv = {"ip", "link", "show", "kube-ipvs0"}});
  if (!link || !link->status.ok()) return;  // never was in ipvs mode
  if (const auto flushed = run_command({.argv = {"ipvsadm", "--clear"}}); flushed && !flushed->status.ok())
    problems.push_back("ipvsadm --clear: " + flushed->stderr_text);
  if (const auto gone = run_command({.argv = {"ip", "link", "delete", "kube-ipvs0"}}); !gone || !gone->status.ok())
    problems.push_back("kube-ipvs0 could not be deleted");
  const auto sets = run_command({.argv = {"ipset", "list", "-name"}});
  if (!sets || !sets->status.ok()) return;
  std::istringstream lines(sets->stdout_text);
  for (std::string name; std::getline(lines, name);)
    if (name.starts_with("KUBE-"))
      if (const auto gone = run_command({.argv = {"ipset", "destroy", name}}); !gone || !gone->status.ok())
        problems.push_back(fmt::format("ipset {} could not be destroyed", name));
}

}  // namespace

std::vector<std::string> remove_kube_proxy_leftovers() {
  std::vector<std::string> problems;
  remove_nftables(problems);
  for (const auto backend : {iptables::Backend::nft, iptables::Backend::legacy}) remove_iptables(backend, problems);
  remove_ipvs(problems);
  return problems;
}

}  // namespace fairlead::proxy
