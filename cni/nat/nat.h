// Putting a pod's host ports and masquerading into the kernel and taking them out, each in one nf_tables transaction per
// family, and forgetting UDP connections that would go on bypassing them. Works on the calling thread's network namespace.
#pragma once

#include <memory>

#include "cni/error.h"
#include "cni/nat/layout.h"
#include "nftables/kernel.h"

namespace fairlead::cni {

class Nat {
 public:
  static CniResult<Nat> open();
  explicit Nat(std::unique_ptr<nftables::Kernel> kernel) : kernel_(std::move(kernel)) {}
  // Code::port_taken when a host port is in use; then nothing was added.
  CniResult<> add(const PodNat& nat);
  // Ports only while they lead to this pod: by now they may belong to somebody else. Nothing there is no error.
  CniResult<> remove(const PodNat& nat);
  CniResult<bool> present(const PodNat& nat);  // all of it
  // Of the connection. The kernel makes whoever closes the last copy of it after remove() wait for grace periods.
  int descriptor() const { return kernel_->descriptor(); }

 private:
  CniResult<> add_family(Family f, const NatElements& e);
  CniResult<NatElements> ours(Family f, const PodNat& nat);
  std::unique_ptr<nftables::Kernel> kernel_;
};

// Removes UDP entries of the connection tracker whose original destination is a mapped host port: a client that keeps
// sending from one port would be sent on by the old entry, past the new (or the removed) mapping, for as long as it sends.
CniResult<std::size_t> flush_udp(const std::vector<PortMapping>& mappings);

}  // namespace fairlead::cni
