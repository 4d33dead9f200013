// The lease store: one LMDB file per network, data folder and boot.
//
// Why LMDB: a lease is three records (address, owner, cursor) that must change together, look-ups by address and by owner
// must not depend on the number of leases, several plugin processes write at once, and any of them may be killed at any
// instruction. LMDB gives atomic commits, a write lock that the kernel hands on when its holder dies, and B-tree look-ups;
// a single file rewritten with fsync costs time in proportion to the leases, and one file per address (as host-local has
// it) needs a scan of all files for DEL.
//
// Why no fsync: no container survives a reboot, so no lease needs to. The file's name holds the boot id and the network
// namespace of the host; what a kill -9 of the plugin leaves is in the page cache and complete. After a power failure the
// file of the old boot, perhaps torn, is never opened again: it is removed by the first ADD of the new boot. So a reboot
// cannot leak an address, without any recovery code.
//
// Threads: one Store per process. Transactions block while another process writes (microseconds). Not for network file systems.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "cni/ipam/leases.h"

struct MDB_env;

namespace fairlead::cni {

struct StoreScope {
  std::string boot_id;         // /proc/sys/kernel/random/boot_id
  std::uint64_t netns_inode = 0;
};
CniResult<StoreScope> current_scope();
BootTime boot_time_now();

class LeaseStore {
 public:
  // Creates folder and file when they are missing. Requires: network is an identifier.
  static CniResult<LeaseStore> open(const std::string& folder, const std::string& network, const StoreScope& scope);
  // nullopt when the file is not there (nothing was ever leased): DEL must not create it.
  static CniResult<std::optional<LeaseStore>> open_existing(const std::string& folder, const std::string& network, const StoreScope& scope);

  // Runs work on a transaction; commits when it returns a value, drops everything otherwise.
  template <typename F>
  auto write(F&& work) -> std::invoke_result_t<F, LeaseBook&> {
    std::invoke_result_t<F, LeaseBook&> out = cni_fail(Code::internal, "transaction did not run");
    CNI_CHECK(transact(true, [&](LeaseBook& b) -> CniResult<> {
      out = work(b);
      if (!out) return cni_fail(out.error());
      return {};
    }));
    return out;
  }
  // The same for work that only reads.
  template <typename F>
  auto read(F&& work) -> std::invoke_result_t<F, LeaseBook&> {
    std::invoke_result_t<F, LeaseBook&> out = cni_fail(Code::internal, "transaction did not run");
    CNI_CHECK(transact(false, [&](LeaseBook& b) -> CniResult<> {
      out = work(b);
      return {};
    }));
    return out;
  }
  CniResult<std::vector<Lease>> all();
  // Keeps everybody else from attaching or detaching this container until the descriptor is closed, also by a kill. A runtime
  // that died leaves its ADD running, and the next one calls DEL: that must come after, or what the ADD does then has no owner.
  // try_again_later when somebody holds it for 10 s.
  CniResult<Fd> lock(const Owner& owner) const;
  const std::string& path() const { return path_; }

 private:
  struct Close {
    void operator()(MDB_env* e) const;
  };
  LeaseStore() = default;
  static CniResult<LeaseStore> open_path(const std::string& path);
  CniResult<> transact(bool write, const std::function<CniResult<>(LeaseBook&)>& work);
  std::unique_ptr<MDB_env, Close> env_;
  std::string path_;
};

}  // namespace fairlead::cni
