#include "demo/socket.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netinet/in.h>
#include <poll.h>
#include <resolv.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace fairlead::demo {
namespace {

Endpoint endpoint_v4(const in_addr& address, unsigned short port) {
  Endpoint e;
  auto* in = reinterpret_cast<sockaddr_in*>(&e.storage);
  in->sin_family = AF_INET;
  in->sin_port = htons(port);
  in->sin_addr = address;
  e.size = sizeof *in;
  return e;
}

Endpoint endpoint_v6(const in6_addr& address, unsigned short port) {
  Endpoint e;
  auto* in = reinterpret_cast<sockaddr_in6*>(&e.storage);
  in->sin6_family = AF_INET6;
  in->sin6_port = htons(port);
  in->sin6_addr = address;
  e.size = sizeof *in;
  return e;
}

bool numeric(const std::string& host, unsigned short port, std::vector<Endpoint>& out) {
  in_addr v4{};
  in6_addr v6{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    out.push_back(endpoint_v4(v4, port));
    return true;
  }
  if (::inet_pton(AF_INET6, host.c_str(), &v6) == 1) {
    out.push_back(endpoint_v6(v6, port));
    return true;
  }
  return false;
}

void from_hosts_file(const std::string& host, unsigned short port, std::vector<Endpoint>& out) {
  FILE* file = std::fopen("/etc/hosts", "re");
  if (!file) return;
  char line[1024];
  while (std::fgets(line, sizeof line, file)) {
    if (char* comment = std::strchr(line, '#')) *comment = '\0';
    char* rest = nullptr;
    const char* address = ::strtok_r(line, " \t\r\n", &rest);
    if (!address) continue;
    while (const char* name = ::strtok_r(nullptr, " \t\r\n", &rest))
      if (::strcasecmp(name, host.c_str()) == 0) {
        numeric(address, port, out);
        break;
      }
  }
  std::fclose(file);
}

// The C library's own resolver routines: unlike getaddrinfo they need no shared libraries in a static program.
void from_dns(const std::string& host, unsigned short port, int type, std::vector<Endpoint>& out) {
  struct __res_state state {};
  if (::res_ninit(&state) != 0) return;
  unsigned char answer[4096];
  const int size = ::res_nsearch(&state, host.c_str(), ns_c_in, type, answer, sizeof answer);
  ns_msg message;
  if (size > 0 && ::ns_initparse(answer, std::min<int>(size, sizeof answer), &message) == 0) {
    for (int i = 0; i < ns_msg_count(message, ns_s_an); ++i) {
      ns_rr record;
      if (::ns_parserr(&message, ns_s_an, i, &record) != 0 || ns_rr_type(record) != type) continue;
      if (type == ns_t_a && ns_rr_rdlen(record) == 4) {
        in_addr address;
        std::memcpy(&address, ns_rr_rdata(record), 4);
        out.push_back(endpoint_v4(address, port));
      } else if (type == ns_t_aaaa && ns_rr_rdlen(record) == 16) {
        in6_addr address;
        std::memcpy(&address, ns_rr_rdata(record), 16);
        out.push_back(endpoint_v6(address, port));
      }
    }
  }
  ::res_nclose(&state);
}

int bind_family(int family, int type, const Endpoint& to) {
  const int fd = ::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int on = 1, off = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  // Replies of a datagram socket must leave from the address that was reached: the kernel tells which.
  if (type == SOCK_DGRAM && family == AF_INET) ::setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
  if (type == SOCK_DGRAM && family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  if (::bind(fd, to.get(), to.size) == 0 && (type != SOCK_STREAM || ::listen(fd, 4096) == 0)) return fd;
  const int error = errno;
  ::close(fd);
  errno = error;
  return -1;
}

}  // namespace

std::string Endpoint::to_string() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&storage);
    ::inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(in->sin_port));
  }
  if (storage.ss_family != AF_INET6) return "";
  const auto* in = reinterpret_cast<const sockaddr_in6*>(&storage);
  const std::string port = ":" + std::to_string(ntohs(in->sin6_port));
  if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) {
    ::inet_ntop(AF_INET, in->sin6_addr.s6_addr + 12, text, sizeof text);
    return text + port;
  }
  ::inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
  return "[" + std::string(text) + "]" + port;
}

int bind_all(int type, unsigned short port) {
  const int fd = bind_family(AF_INET6, type, endpoint_v6(in6addr_any, port));
  if (fd >= 0 || errno == EADDRINUSE || errno == EACCES) return fd;
  return bind_family(AF_INET, type, endpoint_v4(in_addr{htonl(INADDR_ANY)}, port));
}

bool parse_url(const std::string& text, Url& out) {
  const auto scheme_end = text.find("://");
  if (scheme_end == std::string::npos) return false;
  out.scheme = text.substr(0, scheme_end);
  if (out.scheme != "http" && out.scheme != "udp" && out.scheme != "tcp") return false;
  std::string rest = text.substr(scheme_end + 3);
  const auto slash = rest.find_first_of("/?");
  out.path = slash == std::string::npos ? "/" : rest.substr(slash);
  if (out.path[0] == '?') out.path = "/" + out.path;
  rest.resize(std::min(rest.size(), slash));
  std::string port = out.scheme == "http" ? "80" : "";
  const auto bracket = rest.rfind(']');
  const auto colon = rest.rfind(':');
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
    port = rest.substr(colon + 1);
    rest.resize(colon);
  }
  if (rest.size() >= 2 && rest.front() == '[' && rest.back() == ']') rest = rest.substr(1, rest.size() - 2);
  out.host = rest;
  char* end = nullptr;
  const unsigned long number = std::strtoul(port.c_str(), &end, 10);
  if (rest.empty() || port.empty() || *end != '\0' || number == 0 || number > 65535) return false;
  out.port = static_cast<unsigned short>(number);
  for (const char c : out.path)
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f) return false;
  return true;
}

std::vector<Endpoint> resolve(const std::string& host, unsigned short port) {
  std::vector<Endpoint> out;
  if (numeric(host, port, out)) return out;
  from_hosts_file(host, port, out);
  if (out.empty()) from_dns(host, port, ns_t_a, out);
  if (out.empty()) from_dns(host, port, ns_t_aaaa, out);
  return out;
}

bool wait_for(int fd, short events, std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd p{fd, events, 0};
    const int n = ::poll(&p, 1, left > 0 ? static_cast<int>(left) : 0);
    if (n > 0) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

int connect_to(const Endpoint& to, std::chrono::milliseconds timeout) {
  const int fd = ::socket(to.get()->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int error = 0;
  if (::connect(fd, to.get(), to.size) != 0) {
    error = errno;
    if (error == EINPROGRESS) {
      socklen_t size = sizeof error;
      if (!wait_for(fd, POLLOUT, std::chrono::steady_clock::now() + timeout))
        error = ETIMEDOUT;
      else if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    }
  }
  if (error == 0) return fd;
  ::close(fd);
  errno = error;
  return -1;
}

}  // namespace fairlead::demo
