// AddressWatch: tells when addresses of the node come or go, or somebody takes the dummy link or its addresses away. IPVS and ipset announce
// nothing; these two things the kernel does announce. A thread of its own listens; it ends with the object.
// Errors: of opening the socket. Source: rtnetlink(7).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/message.h"

namespace fairlead::ipvs {

// What is known of the node's addresses. Pure.
class AddressBook {
 public:
  // `own_port`: of the socket that binds our addresses; what it does is no news.
  AddressBook(std::string link, std::uint32_t own_port) : link_(std::move(link)), own_port_(own_port) {}
  // True if the message says something new. Takes part in the first listing too.
  bool learn(const netlink::MessageView& m);

 private:
  std::string link_;
  std::uint32_t own_port_;
  std::optional<std::uint32_t> index_;  // of the dummy link
  std::set<std::pair<std::uint32_t, IpAddress>> addresses_;
};

class AddressWatch {
 public:
  // In the network namespace behind the descriptor. `handler` is called on the watch's thread.
  static Result<std::unique_ptr<AddressWatch>> start(int netns_fd, std::string link, std::uint32_t own_port, std::function<void()> handler);
  virtual ~AddressWatch() = default;
};

}  // namespace fairlead::ipvs
