// Kernel: the port to IPVS, ipset, the dummy link and iptables of one network namespace. kernel_netlink.h is the real one,
// kernel_fake.h an honest imitation in memory.
//
// Nothing here is a transaction: commit() carries the operations out in order and stops at the first that fails for good, so
// after an error a part may be in effect and the caller must list() before it goes on. Transient refusals (EBUSY, ENOBUFS, EINTR,
// EAGAIN, ENOMEM) are retried inside. Threads: one at a time, except that the watch's handler is called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ipvs/model.h"

namespace fairlead::ipvs {

// An operation that this kernel will never carry out, though it is well formed: an endpoint that is a broadcast address here, say. The
// others of its commit have been carried out.
struct Refusal {
  Op op;
  Error error;
};

struct CommitReport {
  std::size_t retries = 0;
  std::vector<Refusal> refused;  // only additions of real servers and addresses
};

struct Counters {
  ServerKey server;
  SocketAddress real;  // unspecified: the virtual server's total
  std::uint64_t connections = 0, packets = 0, bytes = 0;  // packets and bytes: both directions
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  // Everything of the family: also virtual servers, sets and chains of kube-proxy and virtual servers of others.
  virtual Result<State> list(Family family) = 0;
  virtual Result<std::vector<RealServer>> real_servers(const ServerKey& key) = 0;  // sorted; not_found: no such server
  virtual Result<CommitReport> commit(Family family, const std::vector<Op>& ops) = 0;
  virtual Result<std::vector<Counters>> counters(Family family) = 0;
  // Whether the kernel has it or can load it.
  virtual Result<bool> has_scheduler(const std::string& name) = 0;
  // Calls `handler` when addresses of the node come or go, or somebody takes the link away. An empty handler ends it.
  virtual Result<> watch(std::function<void()> handler) = 0;
};

}  // namespace fairlead::ipvs
