// What the IPVS dataplane keeps in the kernel, as values: virtual servers with their real servers, the sets and the constant
// rules around them, the addresses that make the node accept packets for virtual servers. Everything in this folder speaks
// these types: render makes them, diff compares them, text prints them, trace interprets them, kernel_netlink and
// kernel_fake carry the operations out.
//
// Values, no shared state. Addresses and ports in host terms; times in seconds. Sources: linux/ip_vs.h,
// linux/netfilter/ipset/ip_set.h, Documentation/networking/ipvs-sysctl.rst.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ip.h"

namespace fairlead::ipvs {

// ---- IPVS

struct ServerKey {
  Protocol protocol = Protocol::tcp;
  SocketAddress address;
  auto operator<=>(const ServerKey&) const = default;
};

namespace flag {  // of a virtual server
inline constexpr std::uint32_t persistent = 0x1;
inline constexpr std::uint32_t hashed = 0x2;          // set by the kernel; never part of a value here
inline constexpr std::uint32_t scheduler_1 = 0x8;     // sh, mh: another real server where the hashed one takes nothing
inline constexpr std::uint32_t scheduler_2 = 0x10;    // sh, mh: the source port is hashed too
}  // namespace flag

struct VirtualServer {
  ServerKey key;
  std::string scheduler;
  std::uint32_t flags = 0;
  std::uint32_t persistence_seconds = 0;  // with flag::persistent: how long a client keeps its real server
  bool operator==(const VirtualServer&) const = default;
};

struct RealServer {
  SocketAddress address;
  std::uint32_t weight = 1;      // 0: gets no new connections
  std::uint64_t connections = 0;  // observed: open ones and those about to be forgotten; not part of the comparison
  bool operator==(const RealServer& o) const { return address == o.address && weight == o.weight; }
};

struct Server {
  VirtualServer server;
  std::vector<RealServer> real;  // sorted by address, which is unique
  bool operator==(const Server&) const = default;
};

struct Timeouts {  // seconds; 0 leaves the kernel's
  std::uint32_t tcp = 0, tcp_fin = 0, udp = 0;
  bool any() const { return tcp || tcp_fin || udp; }
  bool operator==(const Timeouts&) const = default;
};

// ---- sets

enum class SetType : std::uint8_t { ip, ip_port, ip_port_ip, ip_port_net, port };
std::string_view to_string(SetType t);  // "hash:ip,port", as the kernel calls it

enum class SetId : std::uint8_t {
  cluster_ip,      // frontends of kind ClusterIP
  external,        // other frontends with external policy Cluster
  external_local,  // other frontends with external policy Local
  drop,            // internal policy Local, no endpoint here: ignored
  drop_external,   // external policy Local, no endpoint here: ignored, except from this node
  restricted,      // load balancer frontends that take only clients in `ranges`
  ranges,          // frontend and the address blocks that may use it
  bound,           // addresses that are on the dummy link
  loop_back,       // endpoints of this node, twice: packets from one to itself
  health_check,    // ports of health check servers
  count_,
};
inline constexpr std::size_t kSetCount = static_cast<std::size_t>(SetId::count_);

struct SetSpec {
  std::string name;
  SetType type = SetType::ip;
  Family family = Family::v4;
  std::uint32_t most_elements = 0;  // 0: what the type allows
  // A bitmap of ports belongs to no family.
  bool same_shape(const SetSpec& o) const { return type == o.type && (family == o.family || type == SetType::port); }
  bool operator==(const SetSpec&) const = default;
};

struct Entry {
  IpAddress ip;
  Protocol protocol = Protocol::tcp;
  Port port = 0;
  Prefix net;  // third part of ip_port_net; a single address of ip_port_ip
  auto operator<=>(const Entry&) const = default;
};

struct SetEntry {
  SetId set = SetId::cluster_ip;
  Entry entry;
  auto operator<=>(const SetEntry&) const = default;
};

struct SetContents {
  SetSpec spec;
  std::set<Entry> entries;
};

// ---- rules

// Rules of one table in iptables' own words, without "-A CHAIN". Chains are those that belong to the service proxy; hooks are the
// rules of built-in chains that lead into them.
struct RuleTable {
  std::map<std::string, std::vector<std::string>> chains;
  std::map<std::string, std::vector<std::string>> hooks;
  bool operator==(const RuleTable&) const = default;
};
using Rules = std::map<std::string, RuleTable>;  // "mangle", "nat", "filter"

// ---- everything of one family

struct State {
  Family family = Family::v4;
  bool link = false;               // the dummy link exists
  std::set<IpAddress> bound;       // addresses on it
  std::map<ServerKey, Server> servers;
  std::map<std::string, SetContents, std::less<>> sets;  // by name
  Rules rules;
  Timeouts timeouts;
  std::vector<IpAddress> node_addresses;  // sorted: of the node's other links, without loopback and link-local ones
};

// ---- changes

namespace op {
struct EnsureLink {};
struct DeleteLink {};
struct CreateSet {
  SetSpec set;
};
struct DestroySet {
  std::string name;
};
struct AddEntry {  // one that is there already is no error
  SetSpec set;
  Entry entry;
};
struct DeleteEntry {  // one that has gone is no error
  SetSpec set;
  Entry entry;
};
struct AddServer {
  VirtualServer server;
};
struct EditServer {
  VirtualServer server;
};
struct DeleteServer {  // with its real servers
  ServerKey key;
};
struct AddReal {
  ServerKey key;
  RealServer real;
};
struct EditReal {
  ServerKey key;
  RealServer real;
};
struct DeleteReal {
  ServerKey key;
  SocketAddress address;
};
struct Bind {  // one that is there already is no error
  IpAddress ip;
};
struct Unbind {  // one that has gone is no error
  IpAddress ip;
};
struct WriteRules {  // atomic within the table
  std::string table;
  std::map<std::string, std::vector<std::string>> chains;        // made, or emptied, and filled
  std::vector<std::pair<std::string, std::string>> remove_hooks;  // built-in chain, rule
  std::vector<std::pair<std::string, std::string>> insert_hooks;  // at its top; the last one ends up first
  std::vector<std::string> delete_chains;
};
struct SetTimeouts {
  Timeouts timeouts;
};
}  // namespace op
using Op = std::variant<op::EnsureLink, op::DeleteLink, op::CreateSet, op::DestroySet, op::AddEntry, op::DeleteEntry, op::AddServer,
                        op::EditServer, op::DeleteServer, op::AddReal, op::EditReal, op::DeleteReal, op::Bind, op::Unbind,
                        op::WriteRules, op::SetTimeouts>;

}  // namespace fairlead::ipvs
