// PoolWatch: the pools of a source (a folder, the API), kept current. look() reads the source and says whether the pools
// changed. Diagnostics are logged when they appear, and handed out once by news(). A source that cannot be read leaves the
// pools as they are.
// It looks instead of being told, because a folder mounted from a ConfigMap changes by exchanging a link.
// Not thread safe: the owner guards it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lb/pool_source.h"

namespace fairlead::lb {

class PoolWatch {
 public:
  explicit PoolWatch(std::unique_ptr<PoolSource> source) : source_(std::move(source)) {}
  Result<> start();  // fails when a folder cannot be read
  Task<> stop() { return source_->stop(); }
  bool look();
  bool known() const { return known_; }  // false: the source has not told yet what there is
  const PoolSet& pools() const { return read_.set; }
  bool stale() const { return unreadable_ || read_.stale(); }  // something of the source is not in force
  // Diagnostics that were not there at the last call, with the object of the API that they are about.
  std::vector<std::pair<corev1::ObjectReference, Diagnostic>> news();

 private:
  void take(std::vector<PoolText> texts);

  std::unique_ptr<PoolSource> source_;
  std::vector<PoolText> texts_;
  PoolsRead read_;
  std::vector<Diagnostic> told_;
  bool known_ = false;
  bool unreadable_ = false;
};

}  // namespace fairlead::lb
