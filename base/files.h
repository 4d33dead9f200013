// Whole-file helpers for configuration, keys and state. write_file_atomic() writes beside the target, fsyncs file and
// folder, and renames: a reader sees the old or the new content, also after a crash.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead {

inline constexpr std::size_t kMaxFileBytes = 64u << 20;

Result<std::string> read_file(const std::string& path, std::size_t max_bytes = kMaxFileBytes);
Result<> write_file_atomic(const std::string& path, std::string_view content, unsigned mode = 0644);
Result<> make_dirs(const std::string& path, unsigned mode = 0755);
bool path_exists(const std::string& path);

}  // namespace fairlead
