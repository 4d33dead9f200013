// The PROXY protocol's header, versions 1 and 2, that a load balancer writes in front of a connection to say who is on its other
// side. Strict: a header is complete and well formed, or the connection is none. No I/O: bytes in, at any cut. Pure.
// Source: HAProxy, doc/proxy-protocol.txt (2.1, 2.2).
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "base/ip.h"

namespace fairlead::ingress {

// The longest header that is accepted; a version 1 line ends after 107 bytes.
inline constexpr std::size_t kMostProxyHeader = 4096;

struct ProxyHeader {
  enum class State { incomplete, good, bad } state = State::incomplete;
  std::size_t size = 0;  // of the header, when it is good
  // Both or none: the balancer speaks for itself (a health check), or the family is one that has no addresses here.
  std::optional<SocketAddress> source, destination;
  const char* why = "";  // it is bad
};

ProxyHeader parse_proxy_header(std::string_view bytes);

}  // namespace fairlead::ingress
