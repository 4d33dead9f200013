// RecentLog: the newest transactions, in memory. It holds everything that is not in the log table yet, and some more for
// watches. Revisions have no gaps, so a lookup is an index into a queue. Thread safe; the writer appends, the flusher trims.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "controlplane/etcd/record.h"

namespace fairlead::etcd {

class RecentLog {
 public:
  // The transaction that made revision `main`, or nothing when it is older than what is kept.
  std::shared_ptr<const Txn> find(Revision main) const {
    std::shared_lock lock(mutex_);
    if (txns_.empty() || main < txns_.front()->main || main > txns_.back()->main) return nullptr;
    return txns_[static_cast<std::size_t>(main - txns_.front()->main)];
  }
  void append(std::shared_ptr<const Txn> txn) {
    std::unique_lock lock(mutex_);
    bytes_ += txn->bytes();
    txns_.push_back(std::move(txn));
  }
  // Drops transactions up to `through`, oldest first, until at most `keep_bytes` are held.
  void trim(Revision through, std::size_t keep_bytes) {
    std::deque<std::shared_ptr<const Txn>> gone;  // freed outside the lock
    std::unique_lock lock(mutex_);
    while (!txns_.empty() && txns_.front()->main <= through && bytes_ > keep_bytes) {
      bytes_ -= txns_.front()->bytes();
      gone.push_back(std::move(txns_.front()));
      txns_.pop_front();
    }
    lock.unlock();
  }
  std::size_t bytes() const {
    std::shared_lock lock(mutex_);
    return bytes_;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::deque<std::shared_ptr<const Txn>> txns_;
  std::size_t bytes_ = 0;
};

}  // namespace fairlead::etcd
