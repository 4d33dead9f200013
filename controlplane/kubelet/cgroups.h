// The cgroup that holds all containers of a pod: made before the sandbox, limited by the pod's QoS, removed after the last
// container. Works on cgroup v1 (each controller its own tree), the hybrid of v1 and v2, and v2 alone.
//
// Errors: removal of a cgroup that is still busy is tried again by the caller.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace fairlead::kubelet {

// What a pod may use, from its containers' resources; 0: no limit.
struct CgroupLimits {
  std::int64_t cpu_shares = 2;
  std::int64_t cpu_quota = 0;  // microseconds per 100 ms
  std::int64_t memory_bytes = 0;
};

class Cgroups {
 public:
  // root is where cgroup file systems are mounted.
  explicit Cgroups(std::string root = "/sys/fs/cgroup");
  bool unified() const { return unified_; }
  // path is absolute within the cgroup trees; empty does nothing.
  Result<> create(const std::string& path, const CgroupLimits& limits);
  Result<> remove(const std::string& path);  // with the empty cgroups below it; absent is success

 private:
  std::vector<std::string> trees() const;  // mounted hierarchies
  std::string root_;
  bool unified_ = false;
};

}  // namespace fairlead::kubelet
