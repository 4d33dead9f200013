// SocketAddress to and from the kernel's form.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "base/ip.h"

namespace fairlead::ingress {

struct KernelAddress {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

inline KernelAddress to_sockaddr(const SocketAddress& a) {
  KernelAddress out;
  if (a.ip.is_v4()) {
    auto& in = reinterpret_cast<sockaddr_in&>(out.storage);
    in.sin_family = AF_INET;
    in.sin_port = htons(a.port);
    std::memcpy(&in.sin_addr, a.ip.bytes().data(), 4);
    out.size = sizeof(in);
  } else {
    auto& in = reinterpret_cast<sockaddr_in6&>(out.storage);
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(a.port);
    std::memcpy(&in.sin6_addr, a.ip.bytes().data(), 16);
    out.size = sizeof(in);
  }
  return out;
}

// IPv4 clients of a dual-stack listener show as mapped addresses; they are IPv4 here.
inline SocketAddress from_sockaddr(const KernelAddress& k) {
  if (k.storage.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(k.storage);
    return {IpAddress::v4(ntohl(in.sin_addr.s_addr)), ntohs(in.sin_port)};
  }
  const auto& in = reinterpret_cast<const sockaddr_in6&>(k.storage);
  const auto* b = in.sin6_addr.s6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) return {IpAddress::v4(b[12], b[13], b[14], b[15]), ntohs(in.sin6_port)};
  return {IpAddress::v6(std::span<const std::uint8_t, 16>(b, 16)), ntohs(in.sin6_port)};
}

}  // namespace fairlead::ingress
