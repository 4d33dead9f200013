// Network namespaces: create, open, enter, delete.
//
// A namespace belongs to a thread, not to a process, and any coroutine or pool thread may run anyone's code next. So no
// function here changes the caller's namespace: in_netns() runs the work on a thread made for it, which ends afterwards.
// What the work opened (sockets above all) stays bound to that namespace and may be used from any thread.
// Traps: inside the work, /proc/self is the main thread; say /proc/thread-self/net. /proc/sys/net follows the calling
// thread. Details in README.md.
//
//   FL_TRY(NetNs ns, NetNs::open("/run/netns/blue"));
//   FL_TRY(auto socket, in_netns(ns.fd(), [] { return RtSocket::open(); }));
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace fairlead::netlink {

inline constexpr const char* kNetNsFolder = "/run/netns";  // where iproute2 looks

// Device and inode of the namespace file: two descriptors with equal ids are the same namespace.
struct NetNsId {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool operator==(const NetNsId&) const = default;
};

class NetNs {
 public:
  static Result<NetNs> current();                        // the calling thread's
  static Result<NetNs> open(const std::string& path);    // invalid_argument when the file is no network namespace
  static Result<NetNs> of_pid(pid_t pid);
  static Result<NetNs> adopt(Fd fd);
  // A new namespace that lives as long as a descriptor of it, or a process in it. Loopback is up.
  static Result<NetNs> create();

  int fd() const { return fd_.get(); }
  Result<NetNsId> id() const;

 private:
  explicit NetNs(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

// Namespaces with a name: a file under `folder` on which the namespace is bind mounted, as iproute2 does it, so that
// `ip netns exec NAME` works for kNetNsFolder. Loopback is up. already_exists when the name is taken.
Result<NetNs> create_named_netns(const std::string& folder, const std::string& name);
// Unmounts and removes the name; a missing one is no error. The namespace itself ends with its last user.
Result<> delete_named_netns(const std::string& folder, const std::string& name);
Result<std::vector<std::string>> list_named_netns(const std::string& folder);

// Runs the work on a thread of its own that has entered the namespace, and waits for it. Costs about 30 us.
Result<> run_in_netns(int netns_fd, const std::function<void()>& work);

// The same, for work that returns a Result<T>; that result is returned.
template <typename F>
auto in_netns(int netns_fd, F&& f) -> std::invoke_result_t<F> {
  using R = std::invoke_result_t<F>;
  std::unique_ptr<R> out;
  if (auto entered = run_in_netns(netns_fd, [&] { out.reset(new R(f())); }); !entered) return R(fail(std::move(entered).error()));
  return std::move(*out);
}

}  // namespace fairlead::netlink
