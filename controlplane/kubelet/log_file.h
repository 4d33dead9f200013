// Container logs as the runtime writes them: one file per attempt, lines of the form
//   2026-01-02T03:04:05.000000006Z stdout F text
// where F ends a line and P is a part of a longer one. Parsing is pure; reading works backwards from the end in blocks, so
// that `tail` of a large file is cheap. Source: the CRI logging format.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace fairlead::kubelet {

struct LogLine {
  std::string_view timestamp;  // as written, RFC 3339 with nanoseconds
  std::string_view stream;     // "stdout" or "stderr"
  bool partial = false;
  std::string_view text;  // without the newline
};
// One line without its newline. nullopt: not of this form.
std::optional<LogLine> parse_log_line(std::string_view line);
// Nanoseconds since the epoch; nullopt when malformed.
std::optional<std::int64_t> parse_log_time(std::string_view timestamp);

// The last bytes of a file.
Result<std::string> read_file_end(const std::string& path, std::size_t max_bytes);
// The text of the last lines of a log, at most so many bytes; for termination messages.
Result<std::string> last_log_text(const std::string& path, int lines, std::size_t max_bytes);

}  // namespace fairlead::kubelet
