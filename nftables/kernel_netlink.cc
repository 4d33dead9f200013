#include "nftables/kernel_netlink.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>

#include "base/fd.h"
#include "base/log.h"
#include "nftables/text.h"
#include "nftables/wire.h"

namespace fairlead::nftables {
namespace {

constexpr int kAttempts = 8;
constexpr std::size_t kReceiveBytes = 64u << 10;
constexpr int kQueueBytes = 4 << 20;
constexpr std::size_t kLargeBatch = 1000;  // objects, from which listening to it ourselves costs more than it is worth

bool transient(int err) { return err == EBUSY || err == ENOBUFS || err == EINTR || err == EAGAIN || err == ENOMEM || err == ERESTART; }

void back_off(int attempt) { std::this_thread::sleep_for(std::chrono::milliseconds(1 << attempt)); }

// Privileged processes may go beyond the system's limit; others get what they can.
void set_buffer(int fd, int force, int plain, int bytes) {
  if (::setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) < 0) ::setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

std::uint8_t nf_family(Family f) { return f == Family::v4 ? NFPROTO_IPV4 : NFPROTO_IPV6; }

class Socket {
 public:
  static Result<Socket> open() {
    Socket s;
    s.fd_ = Fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    if (!s.fd_) return fail_errno(errno, "open a netfilter netlink socket");
    sockaddr_nl a{};
    a.nl_family = AF_NETLINK;
    if (::bind(s.fd_.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) < 0) return fail_errno(errno, "bind the netlink socket");
    socklen_t n = sizeof a;
    if (::getsockname(s.fd_.get(), reinterpret_cast<sockaddr*>(&a), &n) < 0) return fail_errno(errno, "getsockname");
    s.port_ = a.nl_pid;
    set_buffer(s.fd_.get(), SO_RCVBUFFORCE, SO_RCVBUF, kQueueBytes);
    return s;
  }
  int fd() const { return fd_.get(); }
  std::uint32_t port() const { return port_; }

  // A message to the kernel is handled before sendmsg() returns: the answers are then in our queue.
  int send(std::span<const std::uint8_t> bytes) {
    if (bytes.size() > send_bytes_) {
      send_bytes_ = bytes.size() + bytes.size() / 4 + (64u << 10);
      set_buffer(fd_.get(), SO_SNDBUFFORCE, SO_SNDBUF, static_cast<int>(send_bytes_));
    }
    sockaddr_nl to{};
    to.nl_family = AF_NETLINK;
    const auto n = ::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
    return n < 0 ? errno : 0;
  }

  // What is in the queue now: a datagram's length, or -1 and errno. Only the kernel is believed.
  ssize_t receive(std::span<std::uint8_t> into) {
    for (;;) {
      sockaddr_nl from{};
      socklen_t length = sizeof from;
      const auto n = ::recvfrom(fd_.get(), into.data(), into.size(), MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 || from.nl_pid == 0) return n;
    }
  }

 private:
  Fd fd_;
  std::uint32_t port_ = 0;
  std::size_t send_bytes_ = 0;
};

// Tells about other processes' changes to our tables. Its socket drops, in the kernel, what our own writer caused.
class Watcher {
 public:
  static Result<std::unique_ptr<Watcher>> start(std::uint32_t own_port, std::string table, std::function<void()> handler) {
    FL_TRY(auto socket, Socket::open());
    auto w = std::unique_ptr<Watcher>(new Watcher(std::move(socket), std::move(table), std::move(handler)));
    w->stop_ = Fd(::eventfd(0, EFD_CLOEXEC));
    if (!w->stop_) return fail_errno(errno, "eventfd");
    // nlmsghdr.nlmsg_pid of a notification is the port of the socket that asked for the change.
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(nlmsghdr, nlmsg_pid)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(own_port), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    const sock_fprog program{sizeof code / sizeof code[0], code};
    if (::setsockopt(w->socket_.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
      return fail_errno(errno, "attach a filter to the nf_tables listener");
    const int group = NFNLGRP_NFTABLES;
    if (::setsockopt(w->socket_.fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
      return fail_errno(errno, "listen to nf_tables changes");
    w->thread_ = std::thread([raw = w.get()] { raw->run(); });
    return w;
  }
  // While nobody listens, the kernel does not describe every element of a transaction.
  void listen(bool on) {
    const int group = NFNLGRP_NFTABLES;
    ::setsockopt(socket_.fd(), SOL_NETLINK, on ? NETLINK_ADD_MEMBERSHIP : NETLINK_DROP_MEMBERSHIP, &group, sizeof group);
  }
  void tell() const { handler_(); }
  ~Watcher() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(stop_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
  }

 private:
  Watcher(Socket s, std::string table, std::function<void()> handler)
      : socket_(std::move(s)), table_(std::move(table)), handler_(std::move(handler)) {}

  void run() {
    std::vector<std::uint8_t> buffer(kReceiveBytes);
    while (true) {
      pollfd p[2] = {{socket_.fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      if (::poll(p, 2, -1) < 0 && errno != EINTR) return;
      if (p[1].revents) return;
      const auto n = socket_.receive(buffer);
      if (n < 0 && errno == EAGAIN) continue;
      if (n < 0) {
        const int error = errno;
        handler_();  // something was lost: it may have been about us
        if (error == ENOBUFS) continue;
        log::warn("nftables: changes by others are not heard any more: {}", std::strerror(error));
        return;
      }
      if (concerns_us({buffer.data(), static_cast<std::size_t>(n)})) handler_();
    }
  }
  bool concerns_us(std::span<const std::uint8_t> in) const {
    while (auto m = wire::next_message(in)) {
      if (m->header.type >> 8 != NFNL_SUBSYS_NFTABLES || m->payload.size() < sizeof(nfgenmsg)) continue;
      if (wire::table_of(static_cast<std::uint8_t>(m->header.type), m->payload.subspan(sizeof(nfgenmsg))) == table_) return true;
    }
    return false;
  }

  Socket socket_;
  std::string table_;
  std::function<void()> handler_;
  Fd stop_;
  std::thread thread_;
};

class NetlinkKernel final : public Kernel {
 public:
  explicit NetlinkKernel(Socket s) : socket_(std::move(s)), buffer_(kReceiveBytes) {}

  Result<CommitReport> commit(const Batch& batch) override {
    if (batch.empty()) return CommitReport{};
    if (!watcher_ || batch.objects() < kLargeBatch) return send_batch(batch);
    FL_TRY(const auto before, generation());
    watcher_->listen(false);
    auto done = send_batch(batch);
    watcher_->listen(true);
    const auto after = generation();
    // Anybody's transaction in between may have been about us.
    if (!after || *after - before > 1) watcher_->tell();
    return done;
  }

  int descriptor() const override { return socket_.fd(); }

  Result<CommitReport> send_batch(const Batch& batch) {
    CommitReport report;
    for (int attempt = 0;; ++attempt) {
      const auto encoded = wire::encode(batch, seq_);
      seq_ += static_cast<std::uint32_t>(encoded.op_of.size()) + 2;
      FL_TRY(const auto before, generation());
      int err = socket_.send(encoded.bytes);
      std::optional<std::size_t> culprit;
      if (!err) {
        const auto outcome = read_outcome(encoded);
        if (outcome.acknowledged && !outcome.err) return report;
        err = outcome.err;
        culprit = outcome.op;
        if (!err) {
          // No answer at all: our queue overflowed. The generation tells whether the batch went through.
          FL_TRY(const auto after, generation());
          if (after != before)
            return fail(ErrorCode::data_loss, "nf_tables: the answer to a transaction was lost; its outcome is unknown");
          err = ENOBUFS;
        }
      }
      if (transient(err) && attempt + 1 < kAttempts) {
        ++report.retries;
        back_off(attempt);
        continue;
      }
      return fail_errno(err, "nf_tables: {}", culprit ? describe(batch, *culprit) : fmt::format("transaction of {} objects", batch.objects()));
    }
  }

  Result<std::optional<Table>> list(Family family, std::string_view name) override {
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      FL_TRY(const auto before, generation());
      FL_TRY(auto table, list_once(family, std::string(name)));
      FL_TRY(const auto after, generation());
      if (before == after) return table;
      back_off(attempt);
    }
    return fail(ErrorCode::unavailable, "nf_tables: table {} changes faster than it can be listed", name);
  }

  Result<std::vector<CountedElement>> elements(Family family, std::string_view table, const Set& set) override {
    std::vector<CountedElement> out;
    FL_CHECK(dump_elements(family, std::string(table), set.name, [&](wire::ElementsMessage& m) {
      for (std::size_t i = 0; i < m.elements.size(); ++i)
        out.push_back({m.elements[i], m.counts[i].packets, m.counts[i].bytes});
    }));
    return out;
  }

  Result<std::optional<Element>> find(Family family, std::string_view table, const Set& set, const Element& key) override {
    wire::Writer w;
    w.begin(NFT_MSG_GETSETELEM, 0, 0, nf_family(family));
    wire::put_element_query(w, table, set, key);
    w.end();
    std::optional<Element> found;
    auto done = request(w, false, [&](wire::Message& m) {
      if (auto* answer = std::get_if<wire::ElementsMessage>(&m); answer && !answer->elements.empty()) found = std::move(answer->elements[0]);
    });
    if (!done && done.error().sys_errno != ENOENT) return fail(std::move(done).error());
    return found;
  }

  Result<std::uint32_t> generation() override {
    wire::Writer w;
    w.begin(NFT_MSG_GETGEN, 0, seq_, AF_UNSPEC);
    w.end();
    std::uint32_t id = 0;
    FL_CHECK(request(w, false, [&](wire::Message& m) {
      if (const auto* g = std::get_if<wire::GenerationMessage>(&m)) id = g->id;
    }));
    return id;
  }

  Result<> watch(std::string table, std::function<void()> handler) override {
    watcher_.reset();
    if (!handler) return {};
    FL_TRY(watcher_, Watcher::start(socket_.port(), std::move(table), std::move(handler)));
    return {};
  }

 private:
  struct Outcome {
    bool acknowledged = false;
    int err = 0;
    std::optional<std::size_t> op;
  };

  Outcome read_outcome(const wire::EncodedBatch& b) {
    Outcome o;
    while (true) {
      const auto n = socket_.receive(buffer_);
      if (n < 0 && errno == ENOBUFS) continue;  // what was lost shows as a missing acknowledgement
      if (n < 0) return o;
      std::span<const std::uint8_t> in(buffer_.data(), static_cast<std::size_t>(n));
      while (auto m = wire::next_message(in)) {
        if (m->header.type != NLMSG_ERROR || m->payload.size() < sizeof(std::int32_t)) continue;
        std::int32_t code;
        std::memcpy(&code, m->payload.data(), sizeof code);
        if (m->header.seq < b.first_seq || m->header.seq > b.ack_seq + 1) continue;
        if (code == 0) {
          o.acknowledged |= m->header.seq == b.ack_seq;
        } else if (!o.err) {
          o.err = -code;
          const auto i = m->header.seq - b.first_seq;
          if (i >= 1 && i <= b.op_of.size()) o.op = b.op_of[i - 1];
        }
      }
    }
  }

  // Sends one request and hands every message of the answer on. A dump that was disturbed is asked for again: the handler
  // then sees some messages twice, unless `restart` clears what it had.
  template <typename F>
  Result<> request(const wire::Writer& prepared, bool dump, F handle, std::function<void()> restart = {}) {
    for (int attempt = 0;; ++attempt) {
      wire::Writer w = prepared;
      const std::uint32_t seq = seq_++;
      std::memcpy(w.bytes().data() + offsetof(nlmsghdr, nlmsg_seq), &seq, sizeof seq);
      if (const int err = socket_.send(w.bytes())) {
        if (transient(err) && attempt + 1 < kAttempts) {
          back_off(attempt);
          continue;
        }
        return fail_errno(err, "nf_tables: send a request");
      }
      const int err = read_answer(seq, dump, handle);
      if (!err) return {};
      if (!transient(err) || attempt + 1 >= kAttempts) return fail_errno(err, "nf_tables: read an answer");
      if (restart) restart();
      back_off(attempt);
    }
  }

  template <typename F>
  int read_answer(std::uint32_t seq, bool dump, F& handle) {
    bool interrupted = false;
    while (true) {
      const auto n = socket_.receive(buffer_);
      // After a loss the queue is emptied first, as only then the kernel reports the next one. An empty queue means that the answer, or its
      // rest, was lost too: a dump goes on when something is read.
      if (n < 0 && errno == ENOBUFS) continue;
      if (n < 0) return errno == EAGAIN ? ENOBUFS : errno;
      std::span<const std::uint8_t> in(buffer_.data(), static_cast<std::size_t>(n));
      while (auto m = wire::next_message(in)) {
        if (m->header.seq != seq) continue;
        interrupted |= (m->header.flags & NLM_F_DUMP_INTR) != 0;
        if (m->header.type == NLMSG_DONE) return interrupted ? EINTR : 0;
        if (m->header.type == NLMSG_ERROR) {
          std::int32_t code = 0;
          if (m->payload.size() >= sizeof code) std::memcpy(&code, m->payload.data(), sizeof code);
          return -code;
        }
        if (m->header.type >> 8 != NFNL_SUBSYS_NFTABLES || m->payload.size() < sizeof(nfgenmsg)) continue;
        auto message = wire::decode(static_cast<std::uint8_t>(m->header.type), m->payload[0] == NFPROTO_IPV6 ? Family::v6 : Family::v4,
                                    m->payload.subspan(sizeof(nfgenmsg)));
        if (message) handle(*message);
        if (!dump) return 0;
      }
    }
  }

  template <typename F>
  Result<> dump_elements(Family family, const std::string& table, const std::string& set, F handle,
                         std::function<void()> restart = {}) {
    wire::Writer w;
    w.begin(NFT_MSG_GETSETELEM, NLM_F_DUMP, 0, nf_family(family));
    w.put_string(NFTA_SET_ELEM_LIST_TABLE, table);
    w.put_string(NFTA_SET_ELEM_LIST_SET, set);
    w.end();
    return request(w, true, [&](wire::Message& m) {
      if (auto* e = std::get_if<wire::ElementsMessage>(&m)) handle(*e);
    }, std::move(restart));
  }

  // Dumps all objects of a type in one table, cleanly from the start if it is disturbed.
  Result<std::vector<wire::Message>> dump(std::uint16_t type, std::uint16_t table_attr, Family family, const std::string& table) {
    wire::Writer w;
    w.begin(type, NLM_F_DUMP, 0, nf_family(family));
    if (table_attr) w.put_string(table_attr, table);
    w.end();
    std::vector<wire::Message> out;
    FL_CHECK(request(w, true, [&](wire::Message& m) { out.push_back(std::move(m)); }, [&] { out.clear(); }));
    return out;
  }

  Result<std::optional<Table>> list_once(Family family, const std::string& name) {
    Table t;
    t.family = family;
    t.name = name;
    FL_TRY_CTX(auto tables, dump(NFT_MSG_GETTABLE, 0, family, name), "list tables");
    bool found = false;
    for (auto& m : tables)
      if (auto* one = std::get_if<wire::TableMessage>(&m); one && one->name == name) {
        found = true;
        t.comment = one->comment;
      }
    if (!found) return std::optional<Table>{};
    FL_TRY_CTX(auto chains, dump(NFT_MSG_GETCHAIN, 0, family, name), "list chains");
    for (auto& m : chains)
      if (auto* c = std::get_if<wire::ChainMessage>(&m); c && c->table == name) t.chains[c->chain.name] = std::move(c->chain);
    FL_TRY_CTX(auto rules, dump(NFT_MSG_GETRULE, NFTA_RULE_TABLE, family, name), "list rules");
    for (auto& m : rules)
      if (auto* r = std::get_if<wire::RuleMessage>(&m); r && r->table == name)
        if (const auto chain = t.chains.find(r->chain); chain != t.chains.end()) chain->second.rules.push_back(std::move(r->rule));
    FL_TRY_CTX(auto sets, dump(NFT_MSG_GETSET, NFTA_SET_TABLE, family, name), "list sets");
    for (auto& m : sets)
      if (auto* s = std::get_if<wire::SetMessage>(&m); s && s->table == name) {
        auto& contents = t.sets[s->set.name];
        contents.set = std::move(s->set);
        if (contents.set.dynamic) continue;
        FL_CHECK_CTX(dump_elements(family, name, contents.set.name,
                                   [&](wire::ElementsMessage& e) {
                                     for (auto& one : e.elements) contents.elements.emplace(one.key, one);
                                   },
                                   [&] { contents.elements.clear(); }),
                     "list the elements of {}", contents.set.name);
      }
    return std::optional<Table>(std::move(t));
  }

  Socket socket_;
  std::vector<std::uint8_t> buffer_;
  std::uint32_t seq_ = 1;
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace

Result<std::unique_ptr<Kernel>> open_kernel() {
  FL_TRY(auto socket, Socket::open());
  return std::unique_ptr<Kernel>(new NetlinkKernel(std::move(socket)));
}

}  // namespace fairlead::nftables
