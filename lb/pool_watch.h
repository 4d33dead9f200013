// PoolWatch: the pools of a folder, kept current. look() reads the folder and says whether the pools changed. Diagnostics are
// logged when they appear. A folder that cannot be read leaves the pools as they are.
// It looks instead of being told, because a folder mounted from a ConfigMap changes by exchanging a link.
// Not thread safe: the owner guards it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lb/pools.h"

namespace fairlead::lb {

class PoolWatch {
 public:
  explicit PoolWatch(std::string dir) : dir_(std::move(dir)) {}
  Result<> read_first();  // fails when the folder cannot be read
  bool look();
  const PoolSet& pools() const { return read_.set; }
  bool stale() const { return unreadable_ || read_.stale(); }  // something of the folder is not in force

 private:
  void take(std::vector<PoolText> texts);

  std::string dir_;
  std::vector<PoolText> texts_;
  PoolsRead read_;
  bool unreadable_ = false;
};

}  // namespace fairlead::lb
