#include "tests/cni/harness.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/json/serialize.hpp>
#include <boost/json/object.hpp>

#include <filesystem>

#include "base/fd.h"
#include "cni/nat/layout.h"
#include "netlink/rt_socket.h"
#include "nftables/kernel_netlink.h"

namespace fairlead::cni {

using netlink::NetNs;

std::string path_of(const NetNs& ns) { return fmt::format("/proc/{}/fd/{}", getpid(), ns.fd()); }

Outcome PluginCall::run(const std::string& verb) const {
  const Environment environment = [&](const std::string& name) -> std::optional<std::string> {
    if (name == "CNI_COMMAND") return verb;
    if (name == "CNI_CONTAINERID") return id;
    if (name == "CNI_NETNS") return netns;
    if (name == "CNI_IFNAME") return ifname;
    if (name == "CNI_PATH") return path;
    if (name == "CNI_ARGS" && !args.empty()) return args;
    return std::nullopt;
  };
  Outcome outcome;
  EXPECT_TRUE(netlink::run_in_netns(host_fd, [&] { outcome = run_plugin(services, environment, conf); }));
  return outcome;
}

Attachment attachment_of(const std::string& out) {
  const auto doc = parse_json(out);
  EXPECT_TRUE(doc.has_value()) << out;
  if (!doc) return {};
  auto a = parse_attachment(Field(*doc));
  EXPECT_TRUE(a.has_value()) << out;
  return a ? *a : Attachment{};
}

std::string plugin_conf(const std::string& conflist) {
  const auto doc = parse_json(conflist);
  EXPECT_TRUE(doc.has_value()) << conflist;
  auto plugin = doc->at("plugins").as_array().at(0).as_object();
  plugin["cniVersion"] = doc->at("cniVersion");
  plugin["name"] = doc->at("name");
  return boost::json::serialize(plugin);
}

namespace {

struct Socket {
  sockaddr_storage address{};
  socklen_t length = 0;
};

Socket socket_address(const IpAddress& ip, std::uint16_t port) {
  Socket s;
  if (ip.is_v4()) {
    auto& a = reinterpret_cast<sockaddr_in&>(s.address);
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    std::copy(ip.bytes().begin(), ip.bytes().end(), reinterpret_cast<std::uint8_t*>(&a.sin_addr));
    s.length = sizeof a;
  } else {
    auto& a = reinterpret_cast<sockaddr_in6&>(s.address);
    a.sin6_family = AF_INET6;
    a.sin6_port = htons(port);
    std::copy(ip.bytes().begin(), ip.bytes().end(), reinterpret_cast<std::uint8_t*>(&a.sin6_addr));
    s.length = sizeof a;
  }
  return s;
}

IpAddress ip_of(const sockaddr_storage& s) {
  const auto* bytes = s.ss_family == AF_INET ? reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in&>(s).sin_addr)
                                             : reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in6&>(s).sin6_addr);
  return *IpAddress::from_bytes({bytes, s.ss_family == AF_INET ? 4u : 16u});
}

Fd socket_in(const NetNs& ns, int family, int type, int wait_ms = 1000) {
  int fd = -1;
  EXPECT_TRUE(netlink::run_in_netns(ns.fd(), [&] { fd = ::socket(family, type | SOCK_CLOEXEC, 0); }));
  const timeval wait{.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);  // connect() too
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  return Fd(fd);
}

// Longer than a lost neighbour solicitation takes to be repeated.
Fd udp_in(const NetNs& ns, int family) { return socket_in(ns, family, SOCK_DGRAM, 3000); }

}  // namespace

std::string leftovers(const NetNs& host, const std::string& data_dir, const std::string& network, const std::string& hosts_dir) {
  std::string out;
  auto rt = *netlink::RtSocket::open_in(host.fd());
  const auto links = rt.links();
  const auto routes = rt.routes({.protocol = netlink::kRouteProtocol});
  for (const auto& l : *links)
    if (l.name != "lo" && l.kind != "bridge") out += "link " + l.name + "; ";
  for (const auto& r : *routes) out += "route " + r.to_string() + "; ";
  std::error_code ec;
  for (std::filesystem::directory_iterator it(hosts_dir, ec), end; !ec && it != end; it.increment(ec)) out += "file " + it->path().string() + "; ";
  EXPECT_TRUE(netlink::run_in_netns(host.fd(), [&] {
    auto kernel = nftables::open_kernel();
    for (const Family f : {Family::v4, Family::v6}) {
      const auto table = (*kernel)->list(f, kPodTable);
      ASSERT_TRUE(table.has_value());
      if (*table)
        for (const auto& [name, set] : (*table)->sets)
          if (!set.elements.empty()) out += fmt::format("{} elements of {}; ", set.elements.size(), name);
    }
    auto store = LeaseStore::open_existing(data_dir, network, *current_scope());
    if (!store || !*store) return;
    const auto records = (*store)->read([](LeaseBook& b) { return lift(b.recorded(), Code::io_failure); });
    ASSERT_TRUE(records.has_value());
    for (const auto& o : *records) out += "record of " + o.container_id + "; ";
    const auto all = (*store)->all();
    ASSERT_TRUE(all.has_value());
    for (const auto& l : *all)
      if (!l.released) out += "lease " + l.ip.to_string() + "; ";
  }));
  return out;
}

std::string exchange(const NetNs& client, const NetNs& server, const IpAddress& ip, std::uint16_t to_port, const IpAddress* server_ip, std::uint16_t server_port) {
  const Socket to = socket_address(ip, to_port), at = socket_address(server_ip ? *server_ip : ip, server_port);
  const Fd listener = udp_in(server, at.address.ss_family), asker = udp_in(client, to.address.ss_family);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at.address), at.length) != 0) return fmt::format("bind: {}", std::strerror(errno));
  char buffer[64];
  if (::sendto(asker.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to.address), to.length) != 1) return fmt::format("send: {}", std::strerror(errno));
  sockaddr_storage from{};
  socklen_t from_length = sizeof from;
  if (::recvfrom(listener.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &from_length) != 1) return "nothing arrived";
  ::sendto(listener.get(), "y", 1, 0, reinterpret_cast<sockaddr*>(&from), from_length);
  sockaddr_storage answer_from{};
  socklen_t answer_length = sizeof answer_from;
  if (::recvfrom(asker.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&answer_from), &answer_length) != 1) return "no answer";
  if (ip_of(answer_from) != ip) return "answer from " + ip_of(answer_from).to_string();
  return ip_of(from).to_string();
}

std::string tcp_exchange(const NetNs& client, const IpAddress& ip, std::uint16_t port, const NetNs& server, const IpAddress& server_ip, std::uint16_t server_port) {
  const Socket to = socket_address(ip, port), at = socket_address(server_ip, server_port);
  const Fd listener = socket_in(server, at.address.ss_family, SOCK_STREAM), asker = socket_in(client, to.address.ss_family, SOCK_STREAM, 400);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at.address), at.length) != 0) return fmt::format("bind: {}", std::strerror(errno));
  if (::listen(listener.get(), 4) != 0) return fmt::format("listen: {}", std::strerror(errno));
  if (::connect(asker.get(), reinterpret_cast<const sockaddr*>(&to.address), to.length) != 0) return fmt::format("connect: {}", std::strerror(errno));
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  const Fd accepted(::accept(listener.get(), reinterpret_cast<sockaddr*>(&from), &length));
  if (!accepted) return "connected to somebody else";
  char buffer[4];
  if (::send(asker.get(), "x", 1, MSG_NOSIGNAL) != 1 || ::recv(accepted.get(), buffer, 1, 0) != 1) return "no data";
  return ip_of(from).to_string();
}

UdpFlow::UdpFlow(const NetNs& client, const IpAddress& ip, std::uint16_t port, int wait_ms) {
  const Socket to = socket_address(ip, port);
  socket_ = socket_in(client, to.address.ss_family, SOCK_DGRAM, wait_ms);
  EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&to.address), to.length), 0);
}

std::string UdpFlow::ask() {
  char buffer[64];
  if (::send(socket_.get(), "x", 1, 0) != 1) return "nothing";
  const ssize_t n = ::recv(socket_.get(), buffer, sizeof buffer, 0);
  return n < 0 ? "nothing" : std::string(buffer, static_cast<std::size_t>(n));
}

UdpServer::UdpServer(const NetNs& ns, const IpAddress& ip, std::uint16_t port, std::string name) {
  const Socket at = socket_address(ip, port);
  socket_ = socket_in(ns, at.address.ss_family, SOCK_DGRAM, 20);
  EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&at.address), at.length), 0) << std::strerror(errno);
  thread_ = std::thread([this, name] {
    while (!stop_) {
      char buffer[64];
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      if (::recvfrom(socket_.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length) > 0)
        ::sendto(socket_.get(), name.data(), name.size(), 0, reinterpret_cast<sockaddr*>(&from), length);
    }
  });
}

UdpServer::~UdpServer() {
  stop_ = true;
  thread_.join();
}

}  // namespace fairlead::cni
