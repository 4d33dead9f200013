// The messages of IPVS (generic netlink, wire_ipvs.cc by libnl) and of ipset (nfnetlink, wire_set.cc) as bytes: builders and total
// parsers. Pure: golden tests compare the bytes, the fuzz target feeds the parsers anything.
//
// Sources: linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c, linux/netfilter/ipset/ip_set.h, net/netfilter/ipset/ip_set_core.c,
// linux/genetlink.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ipvs/kernel.h"
#include "ipvs/model.h"
#include "netlink/message.h"

namespace fairlead::ipvs::wire {

using netlink::Bytes;
using netlink::MessageView;

// ---- IPVS; `type` is that of its family (GenlSocket::type)

enum class Verb : std::uint8_t { add, edit, remove };
Bytes build_server(std::uint16_t type, Verb verb, const VirtualServer& v);
Bytes build_real(std::uint16_t type, Verb verb, const ServerKey& key, const RealServer& r);
Bytes build_set_timeouts(std::uint16_t type, const Timeouts& t);
Bytes build_dump_servers(std::uint16_t type);
Bytes build_dump_real(std::uint16_t type, const ServerKey& key);
Bytes build_get_timeouts(std::uint16_t type);

struct Counted {
  std::uint64_t connections = 0, packets = 0, bytes = 0;
};
struct SeenServer {
  VirtualServer server;
  Counted counted;
};
// Nothing: a virtual server by firewall mark, or of a protocol that services do not have; or not such a message.
std::optional<SeenServer> parse_server(const MessageView& m);
struct SeenReal {
  RealServer real;
  Counted counted;
};
std::optional<SeenReal> parse_real(const MessageView& m);
std::optional<Timeouts> parse_timeouts(const MessageView& m);

// ---- ipset

Bytes build_create_set(const SetSpec& s);
Bytes build_destroy_set(std::string_view name);
Bytes build_entry(bool add, const SetSpec& s, const Entry& e);
Bytes build_dump_sets();                       // names and shapes
Bytes build_dump_set(std::string_view name);   // with entries

struct SeenSet {
  std::string name;
  std::string type;                  // the kernel's word; empty in messages that go on with a set
  std::optional<SetSpec> spec;       // of a type that we use
  std::vector<Entry> entries;        // of this message
};
// `spec`: of the set that is dumped, as the entries do not say what they are.
std::optional<SeenSet> parse_set(const MessageView& m, const SetSpec* spec);

}  // namespace fairlead::ipvs::wire
