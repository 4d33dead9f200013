#include "netlink/netns.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/files.h"
#include "base/scope_guard.h"

namespace fairlead::netlink {
namespace {

constexpr const char* kThreadNs = "/proc/thread-self/ns/net";

Result<> set_loopback_up() {
  Fd s(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!s) return fail_errno(errno, "open socket for loopback");
  ifreq r{};
  std::strcpy(r.ifr_name, "lo");
  if (::ioctl(s.get(), SIOCGIFFLAGS, &r) != 0) return fail_errno(errno, "read loopback flags");
  r.ifr_flags |= IFF_UP;
  if (::ioctl(s.get(), SIOCSIFFLAGS, &r) != 0) return fail_errno(errno, "set loopback up");
  return {};
}

// Runs on a thread that ends afterwards: its namespace is the new one. `keep` is called in there.
template <typename F>
Result<> in_new_netns(F keep) {
  Result<> outcome;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) != 0) {
      outcome = fail_errno(errno, "create network namespace");
      return;
    }
    outcome = set_loopback_up();
    if (outcome) outcome = keep();
  }).join();
  return outcome;
}

Result<> check_name(const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos || name.size() > 255)
    return fail(ErrorCode::invalid_argument, "\"{}\" is not a name for a network namespace", name);
  return {};
}

}  // namespace

Result<NetNs> NetNs::adopt(Fd fd) {
  if (::ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET)
    return fail(ErrorCode::invalid_argument, "not a network namespace");
  return NetNs(std::move(fd));
}

Result<NetNs> NetNs::current() { return open(kThreadNs); }

Result<NetNs> NetNs::open(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open network namespace {}", path);
  FL_TRY_CTX(NetNs ns, adopt(std::move(fd)), "{}", path);
  return ns;
}

Result<NetNs> NetNs::of_pid(pid_t pid) { return open(fmt::format("/proc/{}/ns/net", pid)); }

Result<NetNs> NetNs::create() {
  Fd fd;
  FL_CHECK(in_new_netns([&]() -> Result<> {
    fd = Fd(::open(kThreadNs, O_RDONLY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, "open {}", kThreadNs);
    return {};
  }));
  return NetNs(std::move(fd));
}

Result<NetNsId> NetNs::id() const {
  struct stat s;
  if (::fstat(fd_.get(), &s) != 0) return fail_errno(errno, "stat network namespace");
  return NetNsId{s.st_dev, s.st_ino};
}

Result<NetNs> create_named_netns(const std::string& folder, const std::string& name) {
  FL_CHECK(check_name(name));
  FL_CHECK(make_dirs(folder));
  const std::string path = folder + "/" + name;
  Fd file(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0));
  if (!file) return fail_errno(errno, "create network namespace {}", path);
  file.reset();
  auto undo = on_exit([&] { ::unlink(path.c_str()); });
  FL_CHECK(in_new_netns([&]() -> Result<> {
    if (::mount(kThreadNs, path.c_str(), "none", MS_BIND, nullptr) != 0) return fail_errno(errno, "mount network namespace {}", path);
    return {};
  }));
  auto ns = NetNs::open(path);
  if (!ns) {
    ::umount2(path.c_str(), MNT_DETACH);
    return ns;
  }
  undo.dismiss();
  return ns;
}

Result<> delete_named_netns(const std::string& folder, const std::string& name) {
  FL_CHECK(check_name(name));
  const std::string path = folder + "/" + name;
  // EINVAL: the file is there and nothing is mounted on it (a creation that was interrupted).
  if (::umount2(path.c_str(), MNT_DETACH) != 0 && errno != EINVAL && errno != ENOENT)
    return fail_errno(errno, "unmount network namespace {}", path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove network namespace {}", path);
  return {};
}

Result<std::vector<std::string>> list_named_netns(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ec;
  for (std::filesystem::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    if (auto ns = NetNs::open(it->path().string())) names.push_back(it->path().filename().string());
  if (ec && ec != std::errc::no_such_file_or_directory) return fail_errno(ec.value(), "list {}", folder);
  std::sort(names.begin(), names.end());
  return names;
}

Result<> run_in_netns(int netns_fd, const std::function<void()>& work) {
  int error = 0;
  std::thread([&] {
    if (::setns(netns_fd, CLONE_NEWNET) != 0)
      error = errno;
    else
      work();
  }).join();
  if (error != 0) return fail_errno(error, "enter network namespace");
  return {};
}

}  // namespace fairlead::netlink
