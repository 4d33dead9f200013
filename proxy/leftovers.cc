#include "proxy/leftovers.h"

#include <fmt/format.h>

#include <array>

#include "iptables/family_sync.h"
#include "iptables/kernel_process.h"
#include "iptables/names.h"
#include "ipvs/dataplane.h"
#include "ipvs/layout.h"
#include "netlink/rt_socket.h"
#include "nftables/kernel_netlink.h"
#include "nftables/layout.h"

namespace fairlead::proxy {
namespace {

constexpr std::array kBackends{iptables::Backend::nft, iptables::Backend::legacy};

bool is_chain_to_remove(iptables::Table table, std::string_view chain) {
  return iptables::is_ours(table, chain) || ipvs::is_proxy_chain(chain);
}
bool is_of_iptables_alone(iptables::Table table, std::string_view chain) {
  return iptables::is_ours(table, chain) && !ipvs::is_proxy_chain(chain);
}

void remove_nftables(std::string_view table, std::vector<std::string>& problems) {
  auto kernel = nftables::open_kernel();
  if (!kernel) return;
  for (const Family f : {Family::v4, Family::v6}) {
    const auto found = (*kernel)->list(f, table);
    if (!found || !*found) continue;
    nftables::Batch batch{f, std::string(table), {nftables::op::DeleteTable{}}};
    if (auto done = (*kernel)->commit(batch); !done) problems.push_back(fmt::format("table {}: {}", table, done.error().message));
  }
}

void remove_iptables(iptables::Backend backend, const iptables::Owns& owns, std::vector<std::string>& problems) {
  if (!iptables::look_at(backend).service_proxy) return;
  auto kernel = iptables::open_kernel(backend);
  if (!kernel) return problems.push_back(kernel.error().message);
  for (const Family f : {Family::v4, Family::v6})
    if (auto done = iptables::remove_chains(**kernel, f, owns); !done)
      problems.push_back(fmt::format("iptables-{} {}: {}", iptables::to_string(backend), fairlead::to_string(f), done.error().message));
}

// kube-proxy's and ours, which have the same names.
void remove_ipvs(std::vector<std::string>& problems) {
  auto rt = netlink::RtSocket::open();
  if (!rt) return problems.push_back("ipvs: " + rt.error().message);
  if (const auto link = rt->find_link(ipvs::kLinkName); link && !*link) return;  // never was in ipvs mode
  auto dataplane = ipvs::open_installed();
  if (!dataplane) {
    if (dataplane.error().code != ErrorCode::not_found) problems.push_back("ipvs: " + dataplane.error().message);
    return;
  }
  if (auto done = (*dataplane)->remove_all_owned(); !done) problems.push_back("ipvs: " + done.error().message);
}

}  // namespace

std::vector<std::string> remove_kube_proxy_leftovers() {
  std::vector<std::string> problems;
  remove_ipvs(problems);
  remove_nftables("kube-proxy", problems);
  for (const auto backend : kBackends) remove_iptables(backend, is_chain_to_remove, problems);
  return problems;
}

std::vector<std::string> remove_before_start(std::string_view mode) {
  std::vector<std::string> problems;
  if (mode == "iptables") remove_ipvs(problems);
  return problems;
}

std::vector<std::string> remove_other_modes(std::string_view mode) {
  std::vector<std::string> problems;
  remove_nftables("kube-proxy", problems);
  if (mode == "nftables") {
    remove_ipvs(problems);
    for (const auto backend : kBackends) remove_iptables(backend, is_chain_to_remove, problems);
  } else {
    // The iptables and the ipvs mode share chains, which the new one has made its own.
    if (mode == "ipvs")
      for (const auto backend : kBackends) remove_iptables(backend, is_of_iptables_alone, problems);
    remove_nftables(nftables::kTableName, problems);
  }
  return problems;
}

}  // namespace fairlead::proxy
