#include "cni/nat/nat.h"

#include <algorithm>
#include <cerrno>

#include "nftables/kernel_netlink.h"

namespace fairlead::cni {
namespace {

constexpr Family kFamilies[] = {Family::v4, Family::v6};

CniError refused(const Error& e, std::string_view what) {
  if (e.sys_errno == EOPNOTSUPP || e.sys_errno == EPROTONOSUPPORT)
    return {Code::unsupported_kernel, fmt::format("{}: this kernel lacks nftables NAT, maps or interval sets of several keys (Linux 5.6 or later)", what), ""};
  return from_error(e, Code::kernel).with(what);
}

}  // namespace

CniResult<Nat> Nat::open() {
  CNI_TRY(auto kernel, lift(nftables::open_kernel(), Code::kernel));
  return Nat(std::move(kernel));
}

CniResult<> Nat::add_family(Family f, const NatElements& e) {
  // The table is there in all cases but the first; EEXIST on making it means that another plugin was faster.
  for (int attempt = 0; attempt < 3; ++attempt) {
    const auto added = kernel_->commit(add_elements(f, e));
    if (added) return {};
    if (added.error().sys_errno == EEXIST) return cni_fail(Code::port_taken, "a host port of this pod is in use by another one");
    if (added.error().sys_errno != ENOENT) return cni_fail(refused(added.error(), "add host ports and masquerading"));
    nftables::Batch all = add_table(f);
    nftables::Batch elements = add_elements(f, e);
    std::move(elements.ops.begin(), elements.ops.end(), std::back_inserter(all.ops));
    const auto made = kernel_->commit(all);
    if (made) return {};
    if (made.error().sys_errno != EEXIST) return cni_fail(refused(made.error(), fmt::format("set up table {}", kPodTable)));
  }
  return cni_fail(Code::kernel, "the table {} is there only in part; delete it: nft delete table {} {}", kPodTable, f == Family::v4 ? "ip" : "ip6", kPodTable);
}

CniResult<> Nat::add(const PodNat& nat) {
  for (const Family f : kFamilies) {
    const auto e = nat_elements(f, nat);
    if (e.empty()) continue;
    auto done = add_family(f, e);
    if (done) continue;
    if (f == Family::v6) (void)remove(nat);
    return done;
  }
  return {};
}

CniResult<NatElements> Nat::ours(Family f, const PodNat& nat) {
  const NatElements wanted = nat_elements(f, nat);
  NatElements out;
  for (const auto& [set, member] : nat_sets(f))
    for (const auto& w : wanted.*member) {
      CNI_TRY(const auto there, lift(kernel_->find(f, kPodTable, *set, w), Code::kernel));
      if (!there) continue;
      // The other sets' elements begin or end with the pod's own address: nobody else has them while it is leased.
      const bool mine = !set->is_map() || std::any_of(nat.pods.begin(), nat.pods.end(), [&](const NatAddress& p) { return p.ip.family() == f && leads_to(*there, p.ip); });
      if (mine) (out.*member).push_back(w);
    }
  return out;
}

CniResult<> Nat::remove(const PodNat& nat) {
  for (const Family f : kFamilies) {
    CNI_TRY(const auto mine, ours(f, nat));
    if (mine.empty()) continue;
    const auto done = kernel_->commit(delete_elements(f, mine));
    if (!done && done.error().sys_errno != ENOENT) return cni_fail(refused(done.error(), "remove host ports and masquerading"));
  }
  return {};
}

CniResult<bool> Nat::present(const PodNat& nat) {
  for (const Family f : kFamilies) {
    CNI_TRY(const auto mine, ours(f, nat));
    if (mine.size() != nat_elements(f, nat).size()) return false;
  }
  return true;
}

}  // namespace fairlead::cni
