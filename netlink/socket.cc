#include "netlink/socket.h"

#include <libmnl/libmnl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>

#include "netlink/netns.h"

namespace fairlead::netlink {
namespace {

// The kernel fills a dump's datagrams up to the reader's buffer, 32 KiB at most; single link messages can be larger.
constexpr std::size_t kBufferBytes = 64 * 1024;
// Stays below the default send buffer (net.core.wmem_default, 212,992), which counts overhead too.
constexpr std::size_t kMaxBatchBytes = 64 * 1024;
constexpr int kMaxDumpAttempts = 8;

void set_sequence(Bytes& m, std::uint32_t sequence) {
  auto* h = reinterpret_cast<nlmsghdr*>(m.data());
  h->nlmsg_seq = sequence;
}

void add_flags(Bytes& m, std::uint16_t flags) {
  auto* h = reinterpret_cast<nlmsghdr*>(m.data());
  h->nlmsg_flags |= flags;
}

}  // namespace

void Socket::Close::operator()(mnl_socket* s) const { mnl_socket_close(s); }

Result<Socket> Socket::open(int protocol, std::chrono::milliseconds timeout) {
  Socket s;
  s.timeout_ = timeout;
  s.socket_.reset(mnl_socket_open2(protocol, SOCK_CLOEXEC));
  if (!s.socket_) return fail_errno(errno, "open netlink socket {}", protocol);
  if (mnl_socket_bind(s.socket_.get(), 0, MNL_SOCKET_AUTOPID) != 0) return fail_errno(errno, "bind netlink socket {}", protocol);
  const int on = 1;
  // Error texts, and acks that do not echo the request. Strict checking makes the kernel refuse or obey a dump's filters
  // instead of ignoring them. All exist since 4.20; a kernel without one still works.
  ::setsockopt(s.fd(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  ::setsockopt(s.fd(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  if (protocol == NETLINK_ROUTE) ::setsockopt(s.fd(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  s.buffer_.resize(kBufferBytes);
  return s;
}

Result<Socket> Socket::open_in(int netns_fd, int protocol, std::chrono::milliseconds timeout) {
  return in_netns(netns_fd, [&] { return open(protocol, timeout); });
}

int Socket::fd() const { return mnl_socket_get_fd(socket_.get()); }
std::uint32_t Socket::port_id() const { return mnl_socket_get_portid(socket_.get()); }

Result<> Socket::send(ByteView bytes, std::string_view what) {
  for (;;) {
    const ssize_t n = mnl_socket_sendto(socket_.get(), bytes.data(), bytes.size());
    if (n == static_cast<ssize_t>(bytes.size())) return {};
    if (n >= 0) return fail(ErrorCode::internal, "{}: netlink took {} of {} bytes", what, n, bytes.size());
    if (errno != EINTR) return fail_errno(errno, "{}: send", what);
  }
}

Result<> Socket::wait_readable(std::chrono::steady_clock::time_point until, std::string_view what) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd p{.fd = fd(), .events = POLLIN, .revents = 0};
    const int n = ::poll(&p, 1, static_cast<int>(std::max<std::int64_t>(0, left.count())));
    if (n > 0) return {};
    if (n < 0 && errno != EINTR) return fail_errno(errno, "{}: poll", what);
    if (n == 0) return fail(ErrorCode::timeout, "{}: no answer from the kernel within {} ms", what, timeout_.count());
  }
}

Result<std::vector<MessageView>> Socket::read_datagram(std::string_view what) {
  for (;;) {
    sockaddr_nl from{};
    iovec part{.iov_base = buffer_.data(), .iov_len = kBufferBytes};
    msghdr m{};
    m.msg_name = &from;
    m.msg_namelen = sizeof from;
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    const ssize_t n = ::recvmsg(fd(), &m, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "{}: receive", what);
    if (from.nl_pid != 0) continue;  // only the kernel is believed
    if (m.msg_flags & MSG_TRUNC) return fail(ErrorCode::internal, "{}: netlink message larger than {} bytes", what, kBufferBytes);
    return split_messages({buffer_.data(), static_cast<std::size_t>(n)});
  }
}

Result<> Socket::request(Bytes message, std::string_view what, const OnReply& on_reply) {
  const std::uint32_t sequence = ++sequence_;
  set_sequence(message, sequence);
  add_flags(message, NLM_F_REQUEST | NLM_F_ACK);
  FL_CHECK(send(message, what));
  const auto until = std::chrono::steady_clock::now() + timeout_;
  Result<> outcome;
  for (;;) {
    FL_CHECK(wait_readable(until, what));
    const auto messages = read_datagram(what);
    if (!messages) {
      drain();  // the kernel reports the next loss only once the queue was empty
      return fail(messages.error());
    }
    for (const MessageView& m : *messages) {
      if (m.header.nlmsg_seq != sequence) continue;  // an answer to a request that timed out earlier
      if (m.header.nlmsg_type != NLMSG_ERROR) {
        if (on_reply && outcome && m.header.nlmsg_type >= NLMSG_MIN_TYPE) outcome = on_reply(m);
        continue;
      }
      FL_TRY(const auto ack, parse_ack(m));
      if (ack.error != 0) return fail(ack_error(ack, what));
      return outcome;
    }
  }
}

// The answers to one datagram of requests, each asked for by its sequence number.
struct Socket::Answers {
  std::uint32_t base;
  std::span<Result<>> results;
  std::vector<bool> come = std::vector<bool>(results.size());
  std::size_t open = results.size();

  void take(const MessageView& m, std::string_view what) {
    const std::uint32_t which = m.header.nlmsg_seq - base;
    if (m.header.nlmsg_type != NLMSG_ERROR || which >= results.size() || come[which]) return;
    come[which] = true;
    --open;
    const auto ack = parse_ack(m);
    if (!ack) results[which] = fail(ack.error());
    else if (ack->error != 0) results[which] = fail(ack_error(*ack, what));
  }
  void missing(const Error& e) {
    for (std::size_t i = 0; i < results.size(); ++i)
      if (!come[i]) results[i] = fail(e);
  }
};

Result<> Socket::await(Answers& answers, std::string_view what) {
  std::optional<Error> lost;
  const auto until = std::chrono::steady_clock::now() + timeout_;
  while (answers.open > 0) {
    if (!lost) FL_CHECK(wait_readable(until, what));
    const auto replies = read_datagram(what);
    if (replies) {
      for (const MessageView& m : *replies) answers.take(m, what);
      continue;
    }
    // The kernel has worked on the requests before send() returned: what did not fit is lost, what did stands in the queue.
    if (replies.error().sys_errno == ENOBUFS) lost = replies.error();
    else if (lost && replies.error().sys_errno == EAGAIN) return fail(std::move(*lost));
    else return fail(replies.error());
  }
  return {};
}

std::vector<Result<>> Socket::request_all(std::vector<Bytes> messages, std::string_view what) {
  std::vector<Result<>> results(messages.size());
  for (std::size_t first = 0; first < messages.size();) {
    // One datagram's worth: acks must fit the receive buffer, hence also a bound on the count.
    Bytes batch;
    std::size_t last = first;
    const std::uint32_t base = sequence_ + 1;
    while (last < messages.size() && last - first < most_at_once_ && (last == first || batch.size() + messages[last].size() <= kMaxBatchBytes)) {
      set_sequence(messages[last], ++sequence_);
      add_flags(messages[last], NLM_F_REQUEST | NLM_F_ACK);
      batch.insert(batch.end(), messages[last].begin(), messages[last].end());
      ++last;
    }
    Answers answers{base, std::span(results).subspan(first, last - first)};
    auto done = send(batch, what);
    if (done) done = await(answers, what);
    if (!done) {
      answers.missing(done.error());
      // Answers that did not fit cost their requests, not the others: those go in smaller portions, from now on.
      if (done.error().sys_errno != ENOBUFS) {
        for (std::size_t i = last; i < results.size(); ++i) results[i] = fail(done.error());
        return results;
      }
      most_at_once_ = std::max<std::size_t>(1, most_at_once_ / 4);
    }
    first = last;
  }
  return results;
}

Result<Socket::DumpEnd> Socket::dump_once(Bytes& message, std::string_view what, const OnReply& on_item) {
  const std::uint32_t sequence = ++sequence_;
  set_sequence(message, sequence);
  add_flags(message, NLM_F_REQUEST | NLM_F_DUMP);
  FL_CHECK(send(message, what));
  bool interrupted = false;
  std::size_t count = 0;
  for (;;) {
    FL_CHECK(wait_readable(std::chrono::steady_clock::now() + timeout_, what));
    FL_TRY(const auto messages, read_datagram(what));
    for (const MessageView& m : messages) {
      if (m.header.nlmsg_seq != sequence) continue;
      interrupted |= (m.header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (m.header.nlmsg_type == NLMSG_ERROR) {
        FL_TRY(const auto ack, parse_ack(m));
        if (ack.error != 0) return fail(ack_error(ack, what));
        continue;
      }
      if (m.header.nlmsg_type == NLMSG_DONE) {
        // A dump can end with an error in its last message.
        std::int32_t status = 0;
        if (m.payload.size() >= sizeof status) std::memcpy(&status, m.payload.data(), sizeof status);
        if (status < 0) return fail_errno(-status, "{}", what);
        return interrupted ? DumpEnd::interrupted : DumpEnd::complete;
      }
      if (m.header.nlmsg_type < NLMSG_MIN_TYPE) continue;
      if (++count > kMaxDumpMessages) return fail(ErrorCode::resource_exhausted, "{}: more than {} entries", what, kMaxDumpMessages);
      if (!interrupted) FL_CHECK(on_item(m));
    }
  }
}

Result<> Socket::dump(Bytes message, std::string_view what, const std::function<void()>& on_begin, const OnReply& on_item) {
  for (int attempt = 0; attempt < kMaxDumpAttempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1 << (attempt - 1)));  // whoever changes it may be done then
    if (on_begin) on_begin();
    auto end = dump_once(message, what, on_item);
    if (!end) {
      drain();
      if (end.error().sys_errno == EINTR) continue;
      return fail(std::move(end).error());
    }
    if (*end == DumpEnd::complete) return {};
  }
  return fail(ErrorCode::unavailable, "{}: the table kept changing during {} attempts to list it", what, kMaxDumpAttempts);
}

// After a failed dump the rest of it is still on its way; the next request must not wait behind it.
void Socket::drain() {
  while (::recv(fd(), buffer_.data(), kBufferBytes, MSG_DONTWAIT) > 0) {
  }
}

Result<> Socket::subscribe(unsigned group) {
  int g = static_cast<int>(group);
  if (mnl_socket_setsockopt(socket_.get(), NETLINK_ADD_MEMBERSHIP, &g, sizeof g) != 0)
    return fail_errno(errno, "subscribe to netlink group {}", group);
  return {};
}

Result<std::vector<MessageView>> Socket::receive(std::chrono::milliseconds wait) {
  pollfd p{.fd = fd(), .events = POLLIN, .revents = 0};
  const int n = ::poll(&p, 1, static_cast<int>(wait.count()));
  if (n < 0 && errno != EINTR) return fail_errno(errno, "poll netlink socket");
  if (n <= 0) return std::vector<MessageView>{};
  return read_datagram("netlink notification");
}

}  // namespace fairlead::netlink
