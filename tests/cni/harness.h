// What the kernel tests of the plugin share: a call of the plugin in a host namespace, and a datagram between two namespaces.
#pragma once

#include <atomic>
#include <string>
#include <thread>

#include "base/fd.h"
#include "cni/plugin.h"
#include "netlink/netns.h"

namespace fairlead::cni {

std::string path_of(const netlink::NetNs& ns);   // a path that opens the namespace, for CNI_NETNS

struct PluginCall {
  int host_fd = -1;
  std::string id, netns, conf;
  std::string ifname = "eth0";
  std::string args;
  std::string path = "/opt/cni/bin";
  Services services = real_services();
  Outcome run(const std::string& verb) const;
};

Attachment attachment_of(const std::string& out);
// The configuration of the first plugin of a list, as libcni passes it on.
std::string plugin_conf(const std::string& conflist);

// What is left of any pod on the host: links, routes, elements of tables, leases, records, files. Empty when all is gone; a
// bridge and a VLAN's gateway are shared and stay.
std::string leftovers(const netlink::NetNs& host, const std::string& data_dir, const std::string& network, const std::string& hosts_dir);

// One datagram there and back; the address the server saw, or what went wrong. `to_port` may differ from where the server listens.
std::string exchange(const netlink::NetNs& client, const netlink::NetNs& server, const IpAddress& ip, std::uint16_t to_port = 9000,
                     const IpAddress* server_ip = nullptr, std::uint16_t server_port = 9000);

// The same over TCP.
std::string tcp_exchange(const netlink::NetNs& client, const IpAddress& ip, std::uint16_t port, const netlink::NetNs& server, const IpAddress& server_ip,
                         std::uint16_t server_port);

// A UDP client that keeps its source port, and what it gets back from whom.
class UdpFlow {
 public:
  UdpFlow(const netlink::NetNs& client, const IpAddress& ip, std::uint16_t port, int wait_ms = 300);
  // Sends once and returns the answer's text, "nothing" after the wait.
  std::string ask();

 private:
  Fd socket_;
};
// Answers every datagram with its name until destroyed.
class UdpServer {
 public:
  UdpServer(const netlink::NetNs& ns, const IpAddress& ip, std::uint16_t port, std::string name);
  ~UdpServer();

 private:
  Fd socket_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace fairlead::cni
