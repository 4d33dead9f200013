#include "controlplane/kubelet/cgroups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/fd.h"
#include "base/files.h"

namespace fairlead::kubelet {
namespace {

namespace fs = std::filesystem;

Result<> write_value(const std::string& file, const std::string& value) {
  Fd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open {}", file);
  if (::write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
    return fail_errno(errno, "write {} to {}", value, file);
  return {};
}

// Deepest first; a cgroup's own files vanish with it.
Result<> remove_tree(const std::string& folder) {
  std::error_code ec;
  std::vector<std::string> children;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    if (it->is_directory(ec) && !it->is_symlink(ec)) children.push_back(it->path().string());
  for (const std::string& child : children) FL_CHECK(remove_tree(child));
  if (::rmdir(folder.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove cgroup {}", folder);
  return {};
}

}  // namespace

Cgroups::Cgroups(std::string root) : root_(std::move(root)), unified_(path_exists(root_ + "/cgroup.controllers")) {}

std::vector<std::string> Cgroups::trees() const {
  if (unified_) return {root_};
  std::vector<std::string> out;
  std::error_code ec;
  for (fs::directory_iterator it(root_, ec), end; !ec && it != end; it.increment(ec)) {
    // "cpu" and "cpuacct" are links to one tree.
    if (!it->is_directory(ec) || it->is_symlink(ec)) continue;
    if (path_exists(it->path().string() + "/cgroup.procs")) out.push_back(it->path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<> Cgroups::create(const std::string& path, const CgroupLimits& limits) {
  if (path.empty()) return {};
  for (const std::string& tree : trees()) {
    const std::string name = fs::path(tree).filename().string();
    const bool cpu = name == "cpu" || name.find("cpu,") != std::string::npos || name.find(",cpu") != std::string::npos;
    if (!unified_ && !cpu && name != "memory") continue;  // the runtime makes the others as it needs them
    const std::string folder = tree + path;
    FL_CHECK(make_dirs(folder));
    if (unified_) {
      // weight 1..10000 over the range of shares 2..262144
      const std::int64_t weight = 1 + (std::clamp<std::int64_t>(limits.cpu_shares, 2, 262144) - 2) * 9999 / 262142;
      if (path_exists(folder + "/cpu.weight")) FL_CHECK(write_value(folder + "/cpu.weight", std::to_string(weight)));
      if (limits.cpu_quota > 0 && path_exists(folder + "/cpu.max"))
        FL_CHECK(write_value(folder + "/cpu.max", fmt::format("{} 100000", limits.cpu_quota)));
      if (limits.memory_bytes > 0 && path_exists(folder + "/memory.max"))
        FL_CHECK(write_value(folder + "/memory.max", std::to_string(limits.memory_bytes)));
      continue;
    }
    if (cpu) {
      FL_CHECK(write_value(folder + "/cpu.shares", std::to_string(limits.cpu_shares)));
      if (limits.cpu_quota > 0) {
        FL_CHECK(write_value(folder + "/cpu.cfs_period_us", "100000"));
        FL_CHECK(write_value(folder + "/cpu.cfs_quota_us", std::to_string(limits.cpu_quota)));
      }
    } else if (limits.memory_bytes > 0) {
      FL_CHECK(write_value(folder + "/memory.limit_in_bytes", std::to_string(limits.memory_bytes)));
    }
  }
  return {};
}

Result<> Cgroups::remove(const std::string& path) {
  if (path.empty() || path == "/" || path.find("..") != std::string::npos) return {};
  for (const std::string& tree : trees())
    if (path_exists(tree + path)) FL_CHECK(remove_tree(tree + path));
  return {};
}

}  // namespace fairlead::kubelet
