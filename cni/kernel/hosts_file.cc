// The file that tells resolvers the pod's aliases.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/files.h"
#include "cni/kernel/netlink_kernel.h"

namespace fairlead::cni {
namespace {

// A name that can be found again after a kill, and that readers of the folder (dnsmasq) pass over.
std::string unfinished(const std::string& path) {
  const auto at = path.rfind('/') + 1;
  return path.substr(0, at) + "." + path.substr(at);
}

}  // namespace

CniResult<> NetlinkKernel::apply_one(const WriteHosts& s) {
  CNI_CHECK(lift(make_dirs(s.path.substr(0, s.path.rfind('/'))), Code::io_failure));
  const std::string file = unfinished(s.path);
  const auto failed = [](const std::string& what) { return cni_fail(Code::io_failure, "{}: {}", what, std::strerror(errno)); };
  const Fd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return failed("create " + file);
  if (::write(fd.get(), s.text.data(), s.text.size()) != static_cast<ssize_t>(s.text.size())) return failed("write " + file);
  if (::rename(file.c_str(), s.path.c_str()) != 0) return failed("rename " + file);
  return {};
}

CniResult<> NetlinkKernel::remove_hosts(const WriteHosts& s) {
  for (const std::string& file : {s.path, unfinished(s.path)})
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) return cni_fail(Code::io_failure, "remove {}: {}", file, std::strerror(errno));
  return {};
}

}  // namespace fairlead::cni
