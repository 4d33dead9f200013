// Wal: the write-ahead log. Records are framed, checksummed and numbered without gaps; a record counts as written once
// sync() returned. Files are filled beforehand and used again, so that one small write costs one flush of data and no
// file system metadata.
//
// Recovery: a torn end is normal after a crash and is cut off. A hole before a record that was written after the hole had
// been synced means that acknowledged data is gone: open() then fails with data_loss and names the place.
//
// Owner: the store's writer thread; release_before() and prepare() may come from another thread.
// Errors: a failed write or sync leaves the log unusable (the kernel may have dropped the pages): every later call fails.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace fairlead::etcd {

struct WalOptions {
  std::size_t segment_bytes = 16u << 20;
  std::size_t keep_spare = 2;
  // For tests: called in place of the real flush. An error is treated like a failed fdatasync.
  std::function<Result<>(int fd)> sync;
};

class Wal {
 public:
  // Replays every record with a sequence greater than `after`, in order.
  using Replay = std::function<Result<>(std::uint64_t sequence, std::string_view payload)>;
  static Result<std::unique_ptr<Wal>> open(const std::string& dir, std::uint64_t after, const Replay& replay, WalOptions options = {});

  std::uint64_t append(std::string_view payload);  // buffers; returns the sequence
  std::size_t buffered() const { return buffer_.size(); }
  Result<> sync();                                 // writes what is buffered, and flushes
  // Segments whose records all have sequences <= `through` may be used again.
  void release_through(std::uint64_t through);
  // Makes the next segment ready, so that the writer need not wait for it.
  Result<> prepare();
  std::uint64_t last_sequence() const { return next_ - 1; }

 private:
  struct Segment {
    std::uint64_t number = 0;
    std::uint64_t last = 0;  // greatest sequence in it
  };
  struct Next {
    std::uint64_t number = 0;
    Fd fd;
    std::size_t bytes = 0;
  };
  Wal(std::string dir, WalOptions options) : dir_(std::move(dir)), options_(std::move(options)) {}
  std::string path(std::uint64_t number) const;
  Result<> replay_segment(std::uint64_t number, std::uint64_t after, bool& first, const Replay& replay);
  Result<Next> make_segment(std::uint64_t number, std::size_t bytes);
  Result<> rotate(std::size_t need);
  Result<> write_frames();
  Result<> flush(int fd);

  const std::string dir_;
  const WalOptions options_;
  Fd fd_;
  std::uint64_t number_ = 0;
  std::size_t offset_ = 0, capacity_ = 0;
  std::uint64_t next_ = 1;    // sequence of the next record
  std::uint64_t synced_ = 0;
  std::string buffer_;        // frames not yet written; checksums are filled in when the segment is known
  std::vector<std::size_t> frames_;
  bool broken_ = false;

  std::mutex making_;         // held while the next segment is made; before mutex_
  std::mutex mutex_;          // what follows is shared with the flusher
  std::vector<Segment> full_;
  std::vector<std::string> spare_;
  std::unique_ptr<Next> prepared_;
};

}  // namespace fairlead::etcd
