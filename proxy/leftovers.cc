#include "proxy/leftovers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "base/process.h"
#include "nftables/kernel_netlink.h"

namespace fairlead::proxy {
namespace {

bool is_ours_to_remove(const std::string& chain) {
  static constexpr std::array<std::string_view, 8> exact{"KUBE-SERVICES",         "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS",
                                                         "KUBE-POSTROUTING",      "KUBE-MARK-MASQ",         "KUBE-FORWARD",
                                                         "KUBE-PROXY-FIREWALL",   "KUBE-PROXY-CANARY"};
  static constexpr std::array<std::string_view, 11> prefixes{"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-",
                                                             "KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL",
                                                             "KUBE-IPVS-", "KUBE-MARK-DROP"};
  return std::find(exact.begin(), exact.end(), chain) != exact.end() ||
         std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view p) { return chain.starts_with(p); });
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

void remove_iptables(const std::string& tool, std::vector<std::string>& problems) {
  for (const std::string table : {"nat", "filter", "mangle"}) {
    const auto saved = run_command({.argv = {tool + "-save", "-t", table}});
    if (!saved || !saved->status.ok()) continue;  // not installed, or that table does not exist: nothing of it is there
    const auto input = iptables_cleanup_input(saved->stdout_text);
    if (input.empty()) continue;
    const auto done = run_command({.argv = {tool + "-restore", "--noflush", "-w", "5"}}, input);
    if (!done) problems.push_back(fmt::format("{} table {}: {}", tool, table, done.error().message));
    else if (!done->status.ok()) problems.push_back(fmt::format("{} table {}: {}", tool, table, done->stderr_text));
  }
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

std::string iptables_cleanup_input(const std::string& saved) {
  std::istringstream lines(saved);
  std::string table, rules;
  std::vector<std::string> chains;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('*')) table = line.substr(1);
    if (line.starts_with(':')) {
      const auto name = line.substr(1, line.find(' ') - 1);
      if (is_ours_to_remove(name)) chains.push_back(name);
      continue;
    }
    if (!line.starts_with("-A ")) continue;
    // Jumps from chains that stay into chains that go.
    std::istringstream words(line);
    std::string word, from, target;
    words >> word >> from;
    for (std::string w; words >> w;)
      if (w == "-j" || w == "-g") words >> target;
    if (!is_ours_to_remove(from) && is_ours_to_remove(target)) rules += "-D" + line.substr(2) + "\n";
  }
  if (chains.empty() && rules.empty()) return {};
  std::string out = "*" + table + "\n" + rules;
  for (const auto& c : chains) out += ":" + c + " - [0:0]\n";  // with --noflush: this one is flushed
  for (const auto& c : chains) out += "-X " + c + "\n";
  return out + "COMMIT\n";
}

std::vector<std::string> remove_kube_proxy_leftovers() {
  std::vector<std::string> problems;
  remove_nftables(problems);
  for (const std::string tool : {"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"}) remove_iptables(tool, problems);
  remove_ipvs(problems);
  return problems;
}

}  // namespace fairlead::proxy
