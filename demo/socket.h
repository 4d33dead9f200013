// Socket addresses as text and listening sockets: what the server, the client and the probe share.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <string>
#include <vector>

namespace fairlead::demo {

struct Endpoint {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  std::string to_string() const;  // IPv4-mapped addresses in their IPv4 form
};

// A non-blocking socket bound to the port on all addresses of both families (IPv4 alone where IPv6 is switched off).
// -1 with errno on failure. type is SOCK_STREAM (listening) or SOCK_DGRAM.
int bind_all(int type, unsigned short port);

struct Url {
  std::string scheme;  // "http", "udp" or "tcp"
  std::string host;
  unsigned short port = 0;
  std::string path;
};
bool parse_url(const std::string& text, Url& out);

// Numeric addresses, names from /etc/hosts, then DNS through /etc/resolv.conf with its search list. Empty: not found.
std::vector<Endpoint> resolve(const std::string& host, unsigned short port);

// A connected stream socket, or -1 with errno (ETIMEDOUT when the time is over).
int connect_to(const Endpoint& to, std::chrono::milliseconds timeout);
// Waits for events on fd until the deadline; false when it passed.
bool wait_for(int fd, short events, std::chrono::steady_clock::time_point deadline);

}  // namespace fairlead::demo
