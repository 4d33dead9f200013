// Serving a container's log: where to begin, what to print of each line, and following the file as it grows and is rotated.
// LogFormatter is pure; LogReader reads the files.
//
// Threads: the agent's executor. Reads are of the page cache and bounded per step.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/asio.h"
#include "base/fd.h"
#include "controlplane/kubelet/log_file.h"

namespace fairlead::kubelet {

struct LogOptions {
  bool follow = false;
  bool timestamps = false;
  bool previous = false;
  std::optional<std::int64_t> tail_lines;
  std::optional<std::int64_t> since_ns;  // since the epoch; from sinceSeconds or sinceTime
  std::optional<std::int64_t> limit_bytes;
  std::string stream;  // "", "All", "Stdout", "Stderr"
};
// From the query of a request. Errors name the parameter.
Result<LogOptions> parse_log_options(const std::function<std::optional<std::string>(const char*)>& query, WallTime now);

// Raw bytes of a log file in, text for the client out. Keeps the unfinished last line between calls.
class LogFormatter {
 public:
  explicit LogFormatter(LogOptions options) : options_(std::move(options)) {}
  std::string feed(std::string_view bytes);
  bool full() const { return options_.limit_bytes && sent_ >= *options_.limit_bytes; }

 private:
  void add(std::string_view raw, std::string& out);
  LogOptions options_;
  std::string rest_;
  bool begun_ = false;     // the last line printed was a part: what follows continues it
  bool skipping_ = false;  // the same of a line that is not printed
  std::int64_t sent_ = 0;
};

// The offset from which the last `lines` whole lines (parts count as one) can be read.
Result<std::int64_t> tail_offset(int fd, std::int64_t size, std::int64_t lines);

// Sends the log to write(); returns when all is sent, or with follow when ended() says that no more will come, when the
// client has gone (write fails), or when stopped() is true.
struct LogStream {
  std::string path;
  LogOptions options;
  std::function<Task<Result<>>(std::string)> write;
  std::function<bool()> ended;
  std::function<bool()> stopped;
};
Task<Result<>> stream_log(LogStream stream);

// Renames a log that has outgrown its limit and removes the oldest. Returns whether the runtime must reopen it.
Result<bool> rotate_log(const std::string& path, std::int64_t max_bytes, int max_files, WallTime now);

}  // namespace fairlead::kubelet
