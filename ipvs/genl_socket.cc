#include "ipvs/genl_socket.h"

#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

namespace fairlead::ipvs {
namespace {

using netlink::Bytes;
using netlink::MessageView;
using Steady = std::chrono::steady_clock;

constexpr std::size_t kBufferBytes = 64 * 1024;    // the kernel fills a dump's datagrams up to the reader's buffer, 32 KiB at most
constexpr int kQueueBytes = 212'992;               // the system's default; more needs its leave
constexpr std::size_t kMaxBatchBytes = 64 * 1024;  // below the default send buffer (net.core.wmem_default), which counts overhead too
constexpr std::size_t kMaxDumpMessages = 4u << 20;
constexpr int kMaxDumpAttempts = 8;

// libnl keeps its own numbers, of which several errnos become one. Those that a caller acts on are told apart here.
int errno_of(int nl_error) {
  switch (std::abs(nl_error)) {
    case NLE_NOMEM: return ENOBUFS;  // receiving: the queue was full
    case NLE_AGAIN: return EAGAIN;
    case NLE_INTR:
    case NLE_DUMP_INTR: return EINTR;
    case NLE_OBJ_NOTFOUND: return ENOENT;
    case NLE_PERM:
    case NLE_NOACCESS: return EPERM;
    case NLE_BUSY: return EBUSY;
    case NLE_BAD_SOCK: return EBADF;
    case NLE_MSG_TRUNC:
    case NLE_MSG_TOOSHORT: return EMSGSIZE;
    case NLE_PROTO_MISMATCH:
    case NLE_OPNOTSUPP: return EOPNOTSUPP;
    default: return EIO;
  }
}

Failure fail_nl(int nl_error, std::string_view what, std::string_view step) {
  return fail_errno(errno_of(nl_error), "{}: {} ({})", what, step, nl_geterror(nl_error));
}

MessageView view_of(nlmsghdr* h) {
  return {*h, {static_cast<const std::uint8_t*>(nlmsg_data(h)), static_cast<std::size_t>(nlmsg_datalen(h))}};
}

// What the kernel refused, with its own words if it sent some.
netlink::Ack refusal(nlmsghdr* h) {
  auto ack = netlink::parse_ack(view_of(h));
  return ack ? std::move(*ack) : netlink::Ack{EBADMSG, ack.error().message, {}};
}

// What one exchange waits for. The callbacks are C functions without exceptions; each hands over to the exchange.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual bool ours(std::uint32_t sequence) const = 0;
  virtual void message(const MessageView&) {}
  virtual void answer(std::uint32_t sequence, const netlink::Ack& ack) = 0;
  virtual void finished(int /*error*/) {}
  virtual void interrupted() {}
  virtual bool done() const = 0;
};

// One receive: every message of a datagram goes to the exchange.
class Callbacks {
 public:
  explicit Callbacks(Exchange& e) : cb_(nl_cb_alloc(NL_CB_CUSTOM)) {
    if (!cb_) return;
    nl_cb_set(cb_, NL_CB_SEQ_CHECK, NL_CB_CUSTOM, [](nl_msg* m, void* x) -> int {
      const auto* from = nlmsg_get_src(m);  // only the kernel is believed, and only answers to this exchange count
      return from->nl_pid == 0 && of(x).ours(nlmsg_hdr(m)->nlmsg_seq) ? NL_OK : NL_SKIP;
    }, &e);
    nl_cb_set(cb_, NL_CB_VALID, NL_CB_CUSTOM, [](nl_msg* m, void* x) -> int {
      of(x).message(view_of(nlmsg_hdr(m)));
      return NL_OK;
    }, &e);
    nl_cb_set(cb_, NL_CB_ACK, NL_CB_CUSTOM, [](nl_msg* m, void* x) -> int {
      of(x).answer(nlmsg_hdr(m)->nlmsg_seq, {});
      return NL_OK;
    }, &e);
    nl_cb_set(cb_, NL_CB_FINISH, NL_CB_CUSTOM, [](nl_msg* m, void* x) -> int {
      int error = 0;  // a dump can end with an error in its last message
      if (nlmsg_datalen(nlmsg_hdr(m)) >= static_cast<int>(sizeof error)) std::memcpy(&error, nlmsg_data(nlmsg_hdr(m)), sizeof error);
      of(x).finished(error < 0 ? -error : 0);
      return NL_OK;
    }, &e);
    nl_cb_set(cb_, NL_CB_DUMP_INTR, NL_CB_CUSTOM, [](nl_msg*, void* x) -> int {
      of(x).interrupted();
      return NL_OK;
    }, &e);
    nl_cb_err(cb_, NL_CB_CUSTOM, [](sockaddr_nl*, nlmsgerr* error, void* x) -> int {
      auto* h = reinterpret_cast<nlmsghdr*>(reinterpret_cast<std::uint8_t*>(error) - NLMSG_HDRLEN);
      of(x).answer(h->nlmsg_seq, refusal(h));
      return NL_SKIP;
    }, &e);
  }
  ~Callbacks() { nl_cb_put(cb_); }
  Callbacks(const Callbacks&) = delete;
  Callbacks& operator=(const Callbacks&) = delete;
  nl_cb* get() const { return cb_; }

 private:
  static Exchange& of(void* x) { return *static_cast<Exchange*>(x); }
  nl_cb* cb_;
};

class Single final : public Exchange {
 public:
  Single(std::uint32_t sequence, std::string_view what, const GenlSocket::OnReply& on_reply) : sequence_(sequence), what_(what), on_reply_(on_reply) {}
  bool ours(std::uint32_t sequence) const override { return sequence == sequence_; }
  void message(const MessageView& m) override {
    if (on_reply_ && outcome) outcome = on_reply_(m);
  }
  void answer(std::uint32_t, const netlink::Ack& ack) override {
    if (ack.error) outcome = fail(netlink::ack_error(ack, what_));
    done_ = true;
  }
  bool done() const override { return done_; }
  Result<> outcome;

 private:
  std::uint32_t sequence_;
  std::string_view what_;
  const GenlSocket::OnReply& on_reply_;
  bool done_ = false;
};

class Several final : public Exchange {
 public:
  Several(std::uint32_t first, std::span<Result<>> results, std::string_view what)
      : first_(first), results_(results), what_(what), answered_(results.size()), open_(results.size()) {}
  bool ours(std::uint32_t sequence) const override { return sequence - first_ < results_.size(); }
  void answer(std::uint32_t sequence, const netlink::Ack& ack) override {
    const std::size_t which = sequence - first_;
    if (answered_[which]) return;
    answered_[which] = true;
    --open_;
    if (ack.error) results_[which] = fail(netlink::ack_error(ack, what_));
  }
  bool done() const override { return open_ == 0; }
  void missing(const Error& e) {
    for (std::size_t i = 0; i < results_.size(); ++i)
      if (!answered_[i]) results_[i] = fail(e);
  }

 private:
  std::uint32_t first_;
  std::span<Result<>> results_;
  std::string_view what_;
  std::vector<bool> answered_;
  std::size_t open_;
};

class Dump final : public Exchange {
 public:
  Dump(std::uint32_t sequence, std::string_view what, const GenlSocket::OnReply& on_item) : sequence_(sequence), what_(what), on_item_(on_item) {}
  bool ours(std::uint32_t sequence) const override { return sequence == sequence_; }
  void message(const MessageView& m) override {
    if (!outcome || changed) return;
    if (++count_ > kMaxDumpMessages) outcome = fail(ErrorCode::resource_exhausted, "{}: more than {} entries", what_, kMaxDumpMessages);
    else outcome = on_item_(m);
  }
  void answer(std::uint32_t, const netlink::Ack& ack) override {
    if (ack.error && outcome) outcome = fail(netlink::ack_error(ack, what_));
    done_ = true;
  }
  void finished(int error) override {
    if (error && outcome) outcome = fail_errno(error, "{}", what_);
    done_ = true;
  }
  void interrupted() override { changed = true; }
  bool done() const override { return done_ || !outcome; }
  Result<> outcome;
  bool changed = false;

 private:
  std::uint32_t sequence_;
  std::string_view what_;
  const GenlSocket::OnReply& on_item_;
  std::size_t count_ = 0;
  bool done_ = false;
};

}  // namespace

struct GenlSocket::Impl {
  struct Free {
    void operator()(nl_sock* s) const { nl_socket_free(s); }
  };
  std::unique_ptr<nl_sock, Free> sock;
  std::chrono::milliseconds timeout{};
  std::uint16_t type = 0;
  std::size_t most_at_once = 128;  // requests to a datagram; fewer once their answers did not fit

  int fd() const { return nl_socket_get_fd(sock.get()); }

  // Gives the message the next sequence number.
  std::uint32_t prepare(Bytes& message, std::uint16_t flags) const {
    auto* h = reinterpret_cast<nlmsghdr*>(message.data());
    h->nlmsg_flags |= flags;
    h->nlmsg_seq = nl_socket_use_seq(sock.get());
    h->nlmsg_pid = nl_socket_get_local_port(sock.get());
    return h->nlmsg_seq;
  }

  Result<> send(Bytes& bytes, std::string_view what) const {
    for (;;) {
      const int n = nl_sendto(sock.get(), bytes.data(), bytes.size());
      if (n == static_cast<int>(bytes.size())) return {};
      if (n >= 0) return fail(ErrorCode::internal, "{}: netlink took {} of {} bytes", what, n, bytes.size());
      if (n != -NLE_INTR) return fail_nl(n, what, "send");
    }
  }

  // Receives until the exchange has what it waits for. With `progress` every datagram starts the deadline anew.
  Result<> receive(Exchange& e, std::string_view what, bool progress) const {
    const Callbacks callbacks(e);
    if (!callbacks.get()) return fail_errno(ENOMEM, "{}", what);
    auto until = Steady::now() + timeout;
    int lost = 0;
    while (!e.done()) {
      const auto left = lost ? std::chrono::milliseconds(0) : std::chrono::ceil<std::chrono::milliseconds>(until - Steady::now());
      pollfd p{.fd = fd(), .events = POLLIN, .revents = 0};
      const int ready = ::poll(&p, 1, static_cast<int>(std::max<std::int64_t>(0, left.count())));
      if (ready < 0 && errno != EINTR) return fail_errno(errno, "{}: poll", what);
      if (ready < 0) continue;
      // The kernel has worked on the requests before send() returned: what did not fit is lost, what did stands in the queue.
      if (ready == 0 && lost) return fail_nl(lost, what, "receive");
      if (ready == 0) return fail(ErrorCode::timeout, "{}: no answer from the kernel within {} ms", what, timeout.count());
      const int n = nl_recvmsgs_report(sock.get(), callbacks.get());
      if (n == -NLE_NOMEM) lost = n;
      else if (n < 0 && n != -NLE_AGAIN && n != -NLE_INTR && n != -NLE_DUMP_INTR) return fail_nl(n, what, "receive");
      if (progress) until = Steady::now() + timeout;
    }
    return {};
  }

  // After a failed dump the rest of it is still on its way; the next request must not wait behind it.
  void drain() const {
    std::uint8_t byte;
    while (::recv(fd(), &byte, sizeof byte, MSG_DONTWAIT | MSG_TRUNC) > 0) {
    }
  }
};

GenlSocket::GenlSocket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GenlSocket::GenlSocket(GenlSocket&&) noexcept = default;
GenlSocket& GenlSocket::operator=(GenlSocket&&) noexcept = default;
GenlSocket::~GenlSocket() = default;

Result<GenlSocket> GenlSocket::open(const std::string& family, std::chrono::milliseconds timeout) {
  auto impl = std::make_unique<Impl>();
  impl->timeout = timeout;
  impl->sock.reset(nl_socket_alloc());
  if (!impl->sock) return fail_errno(ENOMEM, "generic netlink socket");
  auto* s = impl->sock.get();
  if (const int e = genl_connect(s); e < 0) return fail_nl(e, "generic netlink socket", "connect");
  nl_socket_disable_auto_ack(s);
  // A bounded read instead of a look at each datagram's size first.
  nl_socket_disable_msg_peek(s);
  if (const int e = nl_socket_set_msg_buf_size(s, kBufferBytes); e < 0) return fail_nl(e, "generic netlink socket", "buffer");
  // libnl's own queues are a quarter of the system's: the answers to one datagram would not fit.
  if (const int e = nl_socket_set_buffer_size(s, kQueueBytes, kQueueBytes); e < 0) return fail_nl(e, "generic netlink socket", "queues");
  const int on = 1;
  ::setsockopt(impl->fd(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  ::setsockopt(impl->fd(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  // libnl asks for the family with blocking reads; its deadline is the socket's.
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const timeval wait{seconds.count(), std::chrono::duration_cast<std::chrono::microseconds>(timeout - seconds).count()};
  ::setsockopt(impl->fd(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  const int type = genl_ctrl_resolve(s, family.c_str());
  if (type == -NLE_OBJ_NOTFOUND) return fail(ErrorCode::not_found, "this kernel has no {}", family);
  if (type < 0) return fail_nl(type, "look for " + family, "resolve");
  if (const int e = nl_socket_set_nonblocking(s); e < 0) return fail_nl(e, "generic netlink socket", "set non-blocking");
  impl->type = static_cast<std::uint16_t>(type);
  return GenlSocket(std::move(impl));
}

std::uint16_t GenlSocket::type() const { return impl_->type; }
int GenlSocket::fd() const { return impl_->fd(); }

Result<> GenlSocket::request(Bytes message, std::string_view what, const OnReply& on_reply) {
  Single one(impl_->prepare(message, NLM_F_REQUEST | NLM_F_ACK), what, on_reply);
  FL_CHECK(impl_->send(message, what));
  FL_CHECK(impl_->receive(one, what, false));
  return one.outcome;
}

std::vector<Result<>> GenlSocket::request_all(std::vector<Bytes> messages, std::string_view what) {
  std::vector<Result<>> results(messages.size());
  for (std::size_t first = 0; first < messages.size();) {
    Bytes batch;
    std::size_t last = first;
    std::uint32_t base = 0;
    while (last < messages.size() && last - first < impl_->most_at_once && (last == first || batch.size() + messages[last].size() <= kMaxBatchBytes)) {
      const auto sequence = impl_->prepare(messages[last], NLM_F_REQUEST | NLM_F_ACK);
      if (last == first) base = sequence;
      batch.insert(batch.end(), messages[last].begin(), messages[last].end());
      ++last;
    }
    Several several(base, std::span(results).subspan(first, last - first), what);
    auto done = impl_->send(batch, what);
    if (done) done = impl_->receive(several, what, false);
    if (!done) {
      several.missing(done.error());
      // Answers that did not fit cost their requests, not the others: those go in smaller portions, from now on.
      if (done.error().sys_errno != ENOBUFS) {
        for (std::size_t i = last; i < results.size(); ++i) results[i] = fail(done.error());
        return results;
      }
      impl_->most_at_once = std::max<std::size_t>(1, impl_->most_at_once / 4);
    }
    first = last;
  }
  return results;
}

Result<> GenlSocket::dump(Bytes message, std::string_view what, const std::function<void()>& on_begin, const OnReply& on_item) {
  for (int attempt = 0; attempt < kMaxDumpAttempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1 << (attempt - 1)));  // whoever changes it may be done then
    if (on_begin) on_begin();
    Dump dump(impl_->prepare(message, NLM_F_REQUEST | NLM_F_DUMP), what, on_item);
    FL_CHECK(impl_->send(message, what));
    auto done = impl_->receive(dump, what, true);
    if (done) done = std::move(dump.outcome);
    if (done && !dump.changed) return {};
    if (done) continue;
    impl_->drain();
    if (done.error().sys_errno != EINTR) return done;
  }
  return fail(ErrorCode::unavailable, "{}: the table kept changing during {} attempts to list it", what, kMaxDumpAttempts);
}

}  // namespace fairlead::ipvs
