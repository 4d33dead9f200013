#include "lb/bgp/connection.h"

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>

namespace fairlead::lb::bgp {
namespace {

constexpr std::size_t kMostWaiting = 1u << 20;
constexpr std::chrono::seconds kLinger{1};

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address address_of(const IpAddress& ip, Port port) {
  Address a;
  if (ip.is_v4()) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(a.storage);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, ip.bytes().data(), 4);
    a.length = sizeof v4;
  } else {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(a.storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&v6.sin6_addr, ip.bytes().data(), 16);
    a.length = sizeof v6;
  }
  return a;
}

Result<> set_option(int fd, int level, int name, int value, const char* what) {
  if (::setsockopt(fd, level, name, &value, sizeof value) != 0) return fail_errno(errno, "{}", what);
  return {};
}

Result<> set_options(int fd, const PeerConfig& c) {
  const bool v4 = c.address.is_v4();
  FL_CHECK(set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"));
  // Network control, as routers mark BGP.
  FL_CHECK(v4 ? set_option(fd, IPPROTO_IP, IP_TOS, IPTOS_PREC_INTERNETCONTROL, "IP_TOS") : set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, IPTOS_PREC_INTERNETCONTROL, "IPV6_TCLASS"));
  const bool other_as = c.asn_rule == AsnRule::external || (c.asn_rule == AsnRule::exactly && c.peer_asn != c.my_asn);
  const int ttl = other_as && !c.multihop ? 1 : 255;
  FL_CHECK(v4 ? set_option(fd, IPPROTO_IP, IP_TTL, ttl, "IP_TTL") : set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl, "IPV6_UNICAST_HOPS"));
  // A router that takes nothing any more looks alive while it sends: what is not acknowledged within the hold time ends it.
  const auto hold = c.hold_time.count() > 0 ? c.hold_time : std::chrono::seconds(240);
  return set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(hold.count() * 1000), "TCP_USER_TIMEOUT");
}

Result<Fd> make_socket(const PeerConfig& c) {
  Fd fd(::socket(c.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  FL_CHECK(set_options(fd.get(), c));
  if (!c.password.empty()) FL_CHECK(set_key(fd.get(), c.address, c.password));
  if (!c.vrf.empty() && ::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, c.vrf.c_str(), static_cast<socklen_t>(c.vrf.size())) != 0) return fail_errno(errno, "vrf {}", c.vrf);
  if (c.source) {
    const auto from = address_of(*c.source, 0);
    if (::bind(fd.get(), from.get(), from.length) != 0) return fail_errno(errno, "sourceAddress {}", c.source->to_string());
  }
  return fd;
}

}  // namespace

Result<> set_key(int socket, const IpAddress& router, const std::string& password) {
  tcp_md5sig key{};
  const auto to = address_of(router, 0);
  std::memcpy(&key.tcpm_addr, &to.storage, sizeof key.tcpm_addr);
  key.tcpm_keylen = static_cast<std::uint16_t>(std::min<std::size_t>(password.size(), TCP_MD5SIG_MAXKEYLEN));
  std::memcpy(key.tcpm_key, password.data(), key.tcpm_keylen);
  if (::setsockopt(socket, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof key) != 0) {
    // To remove what is not there is no error.
    if (password.empty() && errno == ENOENT) return {};
    return fail_errno(errno, "TCP MD5 key for {}", router.to_string());
  }
  return {};
}

Result<Fd> listen_for_routers(Family family, Port port) {
  Fd fd(::socket(family == Family::v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  FL_CHECK(set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"));
  if (family == Family::v6) FL_CHECK(set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPV6_V6ONLY"));
  const std::array<std::uint8_t, 16> any{};
  const auto at = address_of(*IpAddress::from_bytes({any.data(), family == Family::v4 ? 4u : 16u}), port);
  if (::bind(fd.get(), at.get(), at.length) != 0) return fail_errno(errno, "listen for routers on port {}", port);
  if (::listen(fd.get(), 16) != 0) return fail_errno(errno, "listen for routers on port {}", port);
  return fd;
}

Result<> Connection::open(const PeerConfig& config) {
  FL_TRY(Fd fd, make_socket(config));
  const auto to = address_of(config.address, config.port);
  if (::connect(fd.get(), to.get(), to.length) != 0 && errno != EINPROGRESS) return fail_errno(errno, "connect");
  stream_.assign(fd.release());
  wait_connected();
  return {};
}

Result<> Connection::accept(Fd fd, const PeerConfig& config) {
  FL_CHECK(set_options(fd.get(), config));
  stream_.assign(fd.release());
  read();
  return {};
}

void Connection::wait_connected() {
  stream_.async_wait(net::posix::stream_descriptor::wait_write, [self = shared_from_this()](const boost::system::error_code& ec) {
    if (ec || self->closing_) return;
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(self->stream_.native_handle(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return self->events_.connected(fail_errno(error, "connect"));
    self->read();
    self->events_.connected({});
  });
}

void Connection::read() {
  stream_.async_wait(net::posix::stream_descriptor::wait_read, [self = shared_from_this()](const boost::system::error_code& ec) {
    if (ec || self->closing_) return;
    std::array<std::uint8_t, 16'384> buffer;
    const auto n = ::recv(self->stream_.native_handle(), buffer.data(), buffer.size(), 0);
    if (n == 0) return self->broke("the router has closed the connection");
    if (n < 0 && errno != EAGAIN && errno != EINTR) return self->broke(errno_error(errno, "read").message);
    if (n > 0) self->events_.received({buffer.data(), static_cast<std::size_t>(n)});
    if (!self->closing_) self->read();
  });
}

void Connection::write(Bytes bytes) {
  if (closing_ || !stream_.is_open()) return;
  if (out_.size() + bytes.size() > kMostWaiting) return broke_later("the router does not read");
  out_.insert(out_.end(), bytes.begin(), bytes.end());
  if (!waits_to_write_) flush();
}

void Connection::flush() {
  while (!out_.empty()) {
    const auto n = ::send(stream_.native_handle(), out_.data(), out_.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) {
      const auto why = errno_error(errno, "write").message;
      out_.clear();
      return broke_later(why);
    }
    if (n < 0) break;
    out_.erase(out_.begin(), out_.begin() + n);
  }
  if (out_.empty()) {
    if (closing_) shut();
    return;
  }
  waits_to_write_ = true;
  stream_.async_wait(net::posix::stream_descriptor::wait_write, [self = shared_from_this()](const boost::system::error_code& ec) {
    self->waits_to_write_ = false;
    if (!ec && self->stream_.is_open()) self->flush();
  });
}

void Connection::broke(const std::string& why) {
  if (closing_) return shut();
  closing_ = true;
  shut();
  events_.closed(why);
}

// From the loop, not from within write(): the caller is in the middle of its own actions.
void Connection::broke_later(const std::string& why) {
  net::post(stream_.get_executor(), [self = shared_from_this(), why] { self->broke(why); });
}

void Connection::close() {
  if (closing_) return;
  closing_ = true;
  if (!stream_.is_open()) return;
  if (!waits_to_write_) flush();
  if (!stream_.is_open()) return;
  linger_.expires_after(kLinger);
  linger_.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
    if (!ec) self->shut();
  });
}

void Connection::shut() {
  linger_.cancel();
  if (!stream_.is_open()) return;
  const int fd = stream_.native_handle();
  ::shutdown(fd, SHUT_WR);
  // Unread bytes would turn the end into a reset, with which our last words get lost.
  std::array<std::uint8_t, 16'384> waste;
  while (::recv(fd, waste.data(), waste.size(), 0) > 0) continue;
  boost::system::error_code ec;
  stream_.close(ec);
}

Result<IpAddress> Connection::local_address() const {
  sockaddr_storage a{};
  socklen_t n = sizeof a;
  // native_handle() is not const in this version of Asio.
  if (::getsockname(const_cast<net::posix::stream_descriptor&>(stream_).native_handle(), reinterpret_cast<sockaddr*>(&a), &n) != 0) return fail_errno(errno, "getsockname");
  if (a.ss_family == AF_INET) return IpAddress::from_bytes({reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in&>(a).sin_addr), 4});
  return IpAddress::from_bytes({reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr), 16});
}

}  // namespace fairlead::lb::bgp
