// Blocking sockets for tests: scripted backends in threads and clients that send and read exactly what a test says.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/ip.h"

namespace fairlead::ingress {

// One end of a TCP connection; every read gives up after 20 s.
class Stream {
 public:
  explicit Stream(int fd);
  static Stream to(const SocketAddress& address);
  bool send(std::string_view bytes);
  // Up to and with `mark`; what follows stays for the next read. Empty: the end came first.
  std::string until(std::string_view mark);
  std::string exactly(std::size_t n);
  std::string rest();  // until the other side closes
  // A head and the body that it announces (length or chunked, as on the wire).
  std::string message(bool head_only = false);
  bool closed();  // the other side closes without another byte
  void close() { fd_.reset(); }
  void reset();
  int fd() const { return fd_.get(); }

 private:
  bool more();
  Fd fd_;
  std::string buffer_;
};

// Calls `serve` for each connection, each in a thread of its own. Make it before whatever connects to it: it ends by waiting for
// its connections to end.
class Backends {
 public:
  using Serve = std::function<void(Stream)>;
  explicit Backends(Serve serve, const char* address = "127.0.0.1");
  ~Backends();
  const SocketAddress& address() const { return address_; }
  int port() const { return address_.port; }
  int connections() const { return connections_; }

 private:
  Serve serve_;
  Fd listener_;
  SocketAddress address_;
  std::atomic<int> connections_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// Answers each request with what `answer` makes of it, on a kept connection.
Backends::Serve answering(std::function<std::string(const std::string& request)> answer);
std::string ok(const std::string& body, const std::string& headers = "");

}  // namespace fairlead::ingress
