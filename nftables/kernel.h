// Kernel: the port to nf_tables. kernel_netlink.h is the real one, kernel_fake.h an honest imitation in memory.
//
// commit() is atomic: after an error nothing of the batch is in effect, except where the error says that the outcome is
// unknown (ErrorCode::data_loss); then the caller must list() before it goes on. Transient refusals (EBUSY, ENOBUFS, EINTR,
// EAGAIN, ENOMEM) are retried inside. Threads: one at a time, except that the watch handler is called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "nftables/model.h"

namespace fairlead::nftables {

struct CommitReport {
  std::size_t retries = 0;
};

struct CountedElement {
  Element element;
  std::uint64_t packets = 0, bytes = 0;
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual Result<CommitReport> commit(const Batch& batch) = 0;
  // A consistent copy of a table; nullopt: there is none. Elements of dynamic sets are left out.
  virtual Result<std::optional<Table>> list(Family family, std::string_view table) = 0;
  virtual Result<std::vector<CountedElement>> elements(Family family, std::string_view table, const Set& set) = 0;
  // The element with this key (in an interval set: exactly this range); nullopt: there is none, or no such set or table.
  virtual Result<std::optional<Element>> find(Family family, std::string_view table, const Set& set, const Element& key) = 0;
  // Grows with every committed transaction in this network namespace, whoever made it.
  virtual Result<std::uint32_t> generation() = 0;
  // Of the connection; -1: there is none. Closing the last copy of it after a removal waits for the kernel's grace periods.
  virtual int descriptor() const { return -1; }
  // Calls `handler` whenever somebody else changes a table of that name. An empty handler ends it.
  virtual Result<> watch(std::string table, std::function<void()> handler) = 0;
};

}  // namespace fairlead::nftables
