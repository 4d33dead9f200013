// Socket: one netlink socket of any protocol, blocking, with acknowledgements, extended error texts and dumps.
//
// Who owns it: one thread at a time; it is not thread safe. It belongs for life to the network namespace of the thread
// that opened it, so a socket opened with open_in() keeps talking to that namespace from anywhere.
// Errors: the kernel's errno decides the code (not_found, already_exists, permission_denied ...), its extended
// acknowledgement text is in the message. No answer within the timeout: timeout. ENOBUFS on a subscribed socket:
// resource_exhausted, after which the reader has to list again, because notifications were lost.
// Sources: Documentation/userspace-api/netlink/intro.rst, net/netlink/af_netlink.c.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "netlink/message.h"

struct mnl_socket;

namespace fairlead::netlink {

inline constexpr std::size_t kMaxDumpMessages = 4u << 20;  // a full routing table fits; a runaway dump does not

class Socket {
 public:
  // protocol: NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_GENERIC ...
  static Result<Socket> open(int protocol, std::chrono::milliseconds timeout = std::chrono::seconds(5));
  // The same in the namespace behind this descriptor.
  static Result<Socket> open_in(int netns_fd, int protocol, std::chrono::milliseconds timeout = std::chrono::seconds(5));
  Socket(Socket&&) noexcept = default;
  Socket& operator=(Socket&&) noexcept = default;

  // Sends one request (flags REQUEST|ACK are added) and waits for its acknowledgement; replies before it go to on_reply.
  using OnReply = std::function<Result<>(const MessageView&)>;
  Result<> request(Bytes message, std::string_view what, const OnReply& on_reply = {});
  // Sends all requests in as few datagrams as fit and collects one result per request, in order. The kernel works on
  // each of them whether or not an earlier one failed. ENOBUFS as a result: the answer was lost, the request may have been carried out.
  std::vector<Result<>> request_all(std::vector<Bytes> messages, std::string_view what);
  // Sends a dump request and hands each message to on_item. When the kernel says that the table changed meanwhile
  // (NLM_F_DUMP_INTR) the dump is repeated from the start: on_begin is called before each attempt, to forget what came.
  Result<> dump(Bytes message, std::string_view what, const std::function<void()>& on_begin, const OnReply& on_item);

  // Notifications (RTNLGRP_LINK, ...). After subscribing, use a socket for notifications only.
  Result<> subscribe(unsigned group);
  // The messages of the next datagram; empty when none came within the wait (0: do not wait). Views are valid until the next call.
  Result<std::vector<MessageView>> receive(std::chrono::milliseconds wait);

  int fd() const;
  std::uint32_t port_id() const;
  void set_timeout(std::chrono::milliseconds t) { timeout_ = t; }

 private:
  struct Close {
    void operator()(mnl_socket* s) const;
  };
  Socket() = default;
  Result<> send(ByteView bytes, std::string_view what);
  Result<> wait_readable(std::chrono::steady_clock::time_point until, std::string_view what);
  Result<std::vector<MessageView>> read_datagram(std::string_view what);
  void drain();
  struct Answers;
  Result<> await(Answers& answers, std::string_view what);
  enum class DumpEnd { complete, interrupted };
  Result<DumpEnd> dump_once(Bytes& message, std::string_view what, const OnReply& on_item);

  std::unique_ptr<mnl_socket, Close> socket_;
  std::vector<std::uint8_t> buffer_;
  std::uint32_t sequence_ = 0;
  std::size_t most_at_once_ = 128;  // requests to a datagram; fewer once their answers did not fit
  std::chrono::milliseconds timeout_{5000};
};

}  // namespace fairlead::netlink
