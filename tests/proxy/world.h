// The cluster that the dataplane tests play in, once as values for the planner and once, in world_net.h, as namespaces with
// real addresses. One node, "n1" in zone "z1":
//
//   node       192.168.7.1, fd07::1          pods here   10.244.0.2, .3   fd44::2, ::3
//   clients    192.168.7.100, .101           pods there  10.244.1.2, .3   fd44:1::2, ::3   (nodes n2, n3)
#pragma once

#include <string>
#include <vector>

#include "proxy/decide.h"
#include "proxy/planner.h"

namespace fairlead::proxy::testing {

inline IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }
inline Prefix cidr(std::string_view text) { return *Prefix::parse(text); }

// Builds a Service with few words; change what differs.
Service make_service(const std::string& name, const std::string& cluster_ip, Port port = 80, Protocol protocol = Protocol::tcp);

struct Pod {
  std::string address;
  std::string node;
  bool ready = true, serving = true, terminating = false;
  std::string zone_hint = {}, node_hint = {};
};
std::shared_ptr<const ServiceEndpoints> make_endpoints(const std::vector<Pod>& pods, Port port = 8080,
                                                       Protocol protocol = Protocol::tcp, const std::string& port_name = {});

NodeFacts node_facts();
GlobalPlan global_plan();  // detects local pods by 10.244.0.0/24 and fd44::/64; NodePorts on the node's address

// Other settings than global_plan(): each way to tell pods, everything masqueraded, service addresses unknown.
struct Settings {
  std::string name;
  GlobalPlan global;
};
std::vector<Settings> other_settings();

// All services of the packet table.
Snapshot world();

struct PacketRow {
  std::string name;
  Packet packet;
  Decision expect;
  bool real = true;  // can be shown with real packets in the namespaces of world_net.h
};
std::vector<PacketRow> packet_table();

}  // namespace fairlead::proxy::testing
