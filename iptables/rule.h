// Rule: one iptables rule of the kinds that Fairlead writes, as a value. to_text() gives exactly what iptables-save prints of
// it, parse_rule() reads that back (in any order of matches, so that the habits of other versions of the tool do not
// look like differences). What Rule cannot express is an error of parse_rule(): then it is no rule of ours.
// Pure values. Source: iptables-extensions(8) of iptables 1.8: tcp, udp, sctp, addrtype, mark, conntrack, statistic, recent, comment;
// DNAT, MASQUERADE, MARK, REJECT.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead::iptables {

// States of a connection as the conntrack match tells them; a set of bits.
enum State : std::uint8_t { invalid = 1, fresh = 2, related = 4, established = 8, untracked = 16, snat = 32, dnat = 64 };

struct Target {
  enum class Kind : std::uint8_t { none, jump, go_to, back, accept, drop, reject, reset, dnat, mark_or, mark_xor, masquerade };
  Kind kind = Kind::none;  // reject: ICMP port unreachable; reset: for TCP, which no rate limit of ICMP holds up
  std::string chain;       // jump, go_to
  SocketAddress to;        // dnat
  std::uint32_t mark = 0;  // mark_or, mark_xor
  bool operator==(const Target&) const = default;
};

struct Rule {
  struct Address {
    Prefix prefix;
    bool negated = false;
    bool operator==(const Address&) const = default;
  };
  struct Interface {
    std::string name;  // "eth+": all that begin with eth
    bool negated = false;
    bool operator==(const Interface&) const = default;
  };
  struct States {
    std::uint8_t bits = 0;
    bool negated = false;
    bool operator==(const States&) const = default;
  };
  struct Mark {
    std::uint32_t bits = 0;  // all set, of these bits
    bool negated = false;
    bool operator==(const Mark&) const = default;
  };
  struct Recent {
    std::string name;
    std::uint32_t seconds = 0;  // check: seen within this time; 0: note the client as seen now
    bool operator==(const Recent&) const = default;
  };

  std::optional<Address> source, destination;
  std::optional<Interface> in_interface;
  std::optional<Protocol> protocol;
  Port port = 0;  // destination port; needs a protocol
  bool source_local = false, destination_local = false;  // address type LOCAL
  std::optional<Mark> mark;
  std::optional<States> states;
  std::uint32_t probability = 0;  // of 2^31; 0: always
  std::optional<Recent> recent;
  std::string comment;
  Target target;

  // Parts of a rule, for writing one in a line.
  Rule& from(const Prefix& p, bool negated = false) { return source = Address{p, negated}, *this; }
  Rule& to(const Prefix& p, bool negated = false) { return destination = Address{p, negated}, *this; }
  Rule& to(const IpAddress& ip) { return to(Prefix(ip, ip.bits())); }
  Rule& coming_in(std::string name, bool negated = false) { return in_interface = Interface{std::move(name), negated}, *this; }
  Rule& with(Protocol p, Port to_port = 0) { return protocol = p, port = to_port, *this; }
  Rule& from_local() { return source_local = true, *this; }
  Rule& to_local() { return destination_local = true, *this; }
  Rule& marked(std::uint32_t bits, bool negated = false) { return mark = Mark{bits, negated}, *this; }
  Rule& in_state(std::uint8_t bits, bool negated = false) { return states = States{bits, negated}, *this; }
  // With a chance of share/total; share == total: always.
  Rule& by_chance(std::uint64_t share, std::uint64_t total);
  Rule& saying(std::string text) { return comment = std::move(text), *this; }
  Rule& jump(std::string chain) { return then(Target::Kind::jump, std::move(chain)); }
  Rule& then(Target::Kind kind, std::string chain = {}) { return target.kind = kind, target.chain = std::move(chain), *this; }
  Rule& dnat_to(const SocketAddress& a) { return target.kind = Target::Kind::dnat, target.to = a, *this; }
  Rule& set_mark(Target::Kind kind, std::uint32_t bits) { return target.kind = kind, target.mark = bits, *this; }

  bool operator==(const Rule&) const = default;
};

// Without "-A CHAIN ". Characters in comments that iptables would have to escape become '?'.
std::string to_text(const Rule& rule, Family family);
Result<Rule> parse_rule(std::string_view text, Family family);
// The text as to_text() would write it; unchanged where parse_rule() does not know it.
std::string canonical(std::string_view text, Family family);

}  // namespace fairlead::iptables
