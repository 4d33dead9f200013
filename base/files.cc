#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "base/fd.h"
#include "base/scope_guard.h"

namespace fairlead {

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open {}", path);
  std::string out;
  char buf[16384];
  for (;;) {
    ssize_t n = ::read(fd.get(), buf, sizeof buf);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read {}", path);
    if (n == 0) return out;
    if (out.size() + static_cast<std::size_t>(n) > max_bytes)
      return fail(ErrorCode::resource_exhausted, "read {}: larger than {} bytes", path, max_bytes);
    out.append(buf, static_cast<std::size_t>(n));
  }
}

static Result<> write_all(int fd, std::string_view s, const std::string& path) {
  while (!s.empty()) {
    ssize_t n = ::write(fd, s.data(), s.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write {}", path);
    s.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<> write_file_atomic(const std::string& path, std::string_view content, unsigned mode) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::string tmp = path + ".XXXXXX";
  Fd fd(::mkostemp(tmp.data(), O_CLOEXEC));
  if (!fd) return fail_errno(errno, "create {}", tmp);
  auto undo = on_exit([&] { ::unlink(tmp.c_str()); });
  if (::fchmod(fd.get(), mode) != 0) return fail_errno(errno, "chmod {}", tmp);
  FL_CHECK(write_all(fd.get(), content, tmp));
  if (::fsync(fd.get()) != 0) return fail_errno(errno, "fsync {}", tmp);
  if (::rename(tmp.c_str(), path.c_str()) != 0) return fail_errno(errno, "rename to {}", path);
  undo.dismiss();
  Fd dir(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir || ::fsync(dir.get()) != 0) return fail_errno(errno, "fsync {}", folder.string());
  return {};
}

Result<> make_dirs(const std::string& path, unsigned mode) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), mode) != 0 && errno != EEXIST) return fail_errno(errno, "mkdir {}", part);
    if (at != std::string::npos) ++at;
  }
  return {};
}

bool path_exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace fairlead
