// A small network of namespaces for tests of dataplanes with real packets. Nothing here outlives the object: namespaces are
// anonymous, servers are threads of the test process.
//
//   Namespace node, client;
//   connect(node, "eth0", "192.168.7.1/24", client, "eth0", "192.168.7.100/24");
//   TcpServer s(pod, {ip, 8080});                       // answers "<its own address> <the client's address as it sees it>"
//   auto a = tcp_ask(client, {vip, 80});                // a->server, a->client, or the errno of connect()
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/fd.h"
#include "base/ip.h"
#include "base/result.h"

namespace fairlead::testnet {

bool available();  // root, and allowed to make network namespaces

class Namespace {
 public:
  Namespace();  // with lo up and forwarding on
  // Runs f on a thread that lives in the namespace, and waits for it. Sockets and children made there belong to it.
  void in(const std::function<void()>& f) const;
  // Runs shell commands there; prints and returns what they said when one fails.
  Result<std::string> sh(const std::string& commands) const;
  int fd() const { return fd_.get(); }

 private:
  Fd fd_;
};

// A veth pair; addresses may be several, separated by spaces; an empty one leaves the end without.
void connect(const Namespace& a, const std::string& name_a, const std::string& addresses_a, const Namespace& b,
             const std::string& name_b, const std::string& addresses_b);

struct Answer {
  SocketAddress server;  // who answered
  SocketAddress client;  // whom it saw
};

// Sends, per question, one line back. TCP: on connect. UDP: per datagram.
class Server {
 public:
  Server(const Namespace& where, Protocol protocol, const SocketAddress& listen);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  void run();
  Protocol protocol_;
  SocketAddress address_;
  Fd socket_, stop_;
  std::thread thread_;
};

// The error's sys_errno is ECONNREFUSED, ETIMEDOUT and so on. `source`: bind to it first.
Result<Answer> ask(const Namespace& from, Protocol protocol, const SocketAddress& to, const IpAddress* source = nullptr,
                   std::chrono::milliseconds timeout = std::chrono::milliseconds(400));

}  // namespace fairlead::testnet
