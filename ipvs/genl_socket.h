// GenlSocket: a socket to one family of generic netlink, by libnl: many requests to a datagram with an answer for each, dumps that are
// repeated when the table changed meanwhile, a deadline on every wait.
//
// Who owns it: one thread at a time; not thread safe. It belongs for life to the network namespace of the thread that called open().
// Errors: the kernel's errno decides the code, its extended text is in the message. not_found from open(): this kernel has no such
// family, and cannot load it. ENOBUFS (resource_exhausted): answers were lost, and nobody knows which requests took effect.
// Sources: libnl's netlink/netlink.h and netlink/genl/ctrl.h, Documentation/userspace-api/netlink/intro.rst.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "netlink/message.h"

namespace fairlead::ipvs {

class GenlSocket {
 public:
  static Result<GenlSocket> open(const std::string& family, std::chrono::milliseconds timeout = std::chrono::seconds(5));
  GenlSocket(GenlSocket&&) noexcept;
  GenlSocket& operator=(GenlSocket&&) noexcept;
  ~GenlSocket();

  std::uint16_t type() const;  // the family's message type, given out when its module was loaded
  int fd() const;

  using OnReply = std::function<Result<>(const netlink::MessageView&)>;
  // Sends one request (flags REQUEST|ACK are added) and waits for its acknowledgement; replies before it go to on_reply.
  Result<> request(netlink::Bytes message, std::string_view what, const OnReply& on_reply = {});
  // Sends all in as few datagrams as fit; one result per request, in order. ENOBUFS as a result: the answer was lost, the request may
  // have been carried out.
  std::vector<Result<>> request_all(std::vector<netlink::Bytes> messages, std::string_view what);
  // Hands each message of a dump to on_item. on_begin is called before each attempt, to forget what came.
  Result<> dump(netlink::Bytes message, std::string_view what, const std::function<void()>& on_begin, const OnReply& on_item);

 private:
  struct Impl;
  explicit GenlSocket(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::ipvs
