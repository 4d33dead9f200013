// Host ports and masquerading. One connection to nf_tables for all of them: closing it after something was removed waits for
// the kernel's grace periods (10 ms and more), so it stays open until settle() can give it to the node agent.
#include "cni/kernel/netlink_kernel.h"

namespace fairlead::cni {

CniResult<Nat*> NetlinkKernel::nat() {
  if (!nat_) {
    CNI_TRY(auto opened, Nat::open());
    nat_.emplace(std::move(opened));
  }
  return &*nat_;
}

CniResult<bool> NetlinkKernel::nat_present(const PodNat& wanted) {
  CNI_TRY(Nat * n, nat());
  return n->present(wanted);
}

CniResult<> NetlinkKernel::apply_one(const AddNat& s) {
  CNI_TRY(Nat * n, nat());
  CNI_CHECK(n->add(s.nat));
  CNI_CHECK(flush_udp(s.nat.mappings));
  return {};
}

CniResult<> NetlinkKernel::remove_nat(const PodNat& wanted) {
  CNI_TRY(Nat * n, nat());
  CNI_CHECK(n->remove(wanted));
  CNI_CHECK(flush_udp(wanted.mappings));
  return {};
}

}  // namespace fairlead::cni
