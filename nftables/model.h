// The nf_tables objects that we use, as values: what the kernel holds, what we want it to hold, and the operations between
// the two. Everything in this folder speaks these types: render makes them, diff compares them, text prints them, trace
// interprets them, kernel_netlink and kernel_fake carry them out.
//
// Rules are kept as the kernel keeps them: short programs on 16 registers of 4 bytes (numbered 0 to 15 here; a long value
// occupies several in a row, and a set's concatenated key is simply such a row). That makes the comparison with the kernel
// exact; text.h turns them back into the language of nft.
//
// Values, no shared state. Source: linux/netfilter/nf_tables.h, net/netfilter/nft_*.c.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/ip.h"
#include "proxy/service.h"

namespace fairlead::nftables {

using proxy::Atom;

// A few bytes held in place: set keys, map values, constants in rules.
template <std::size_t N>
class Bytes {
 public:
  Bytes() = default;
  explicit Bytes(std::span<const std::uint8_t> b) { append(b); }
  // Appends and pads with zeros to a multiple of 4, as the parts of a concatenation are. What does not fit is an error of
  // the caller's that leaves the value unchanged.
  bool append(std::span<const std::uint8_t> b) {
    const std::size_t padded = (b.size() + 3) & ~std::size_t{3};
    if (size_ + padded > N) return false;
    std::copy(b.begin(), b.end(), data_.begin() + size_);
    size_ = static_cast<std::uint8_t>(size_ + padded);
    return true;
  }
  // Exactly these bytes, without padding: constants that are compared with part of a register.
  static Bytes raw(std::span<const std::uint8_t> b) {
    Bytes v;
    if (b.size() > N) b = b.first(N);
    std::copy(b.begin(), b.end(), v.data_.begin());
    v.size_ = static_cast<std::uint8_t>(b.size());
    return v;
  }
  void append_u32(std::uint32_t host_order) { append({reinterpret_cast<const std::uint8_t*>(&host_order), 4}); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::span<const std::uint8_t> span() const { return {data_.data(), size_}; }
  std::string_view view() const { return {reinterpret_cast<const char*>(data_.data()), size_}; }
  bool operator==(const Bytes& o) const { return view() == o.view(); }
  std::strong_ordering operator<=>(const Bytes& o) const { return view() <=> o.view(); }

 private:
  std::uint8_t size_ = 0;
  std::array<std::uint8_t, N> data_{};
};
using Key = Bytes<44>;
using Value = Bytes<40>;

// ---- verdicts

struct Verdict {
  enum class Code : std::uint8_t { none, accept, drop, jump, go_to, ret };
  Code code = Code::none;
  Atom chain;  // for jump and go_to
  bool operator==(const Verdict&) const = default;
};

// ---- sets and maps

enum class Type : std::uint8_t { ipv4_addr = 7, ipv6_addr = 8, inet_proto = 12, inet_service = 13, mark = 19, classid = 23 };
unsigned length_of(Type t);  // bytes, before padding

struct Set {
  std::string name;
  std::vector<Type> key;
  std::vector<Type> data;      // of a map to values
  bool verdict_map = false;
  bool interval = false;       // keys are ranges; needs kernel 5.6 with more than one part
  bool dynamic = false;        // filled by packets, elements time out; its elements are not ours to compare
  bool counters = false;       // each element counts the packets that found it
  std::uint32_t size = 0;      // most elements; 0: no limit
  unsigned key_length() const;
  unsigned data_length() const;
  bool is_map() const { return verdict_map || !data.empty(); }
  bool operator==(const Set&) const = default;
};

struct Element {
  Key key;
  Value value;      // of a map; in an interval set: the last key of the range
  Verdict verdict;  // of a verdict map
  std::shared_ptr<const std::string> comment;  // whose it is, for people; null: none
  std::string_view comment_text() const { return comment ? std::string_view(*comment) : std::string_view(); }
  bool operator==(const Element& o) const {
    return key == o.key && value == o.value && verdict == o.verdict && comment_text() == o.comment_text();
  }
};

// ---- rules

enum class Base : std::uint8_t { network = 1, transport = 2 };
enum class MetaKey : std::uint32_t { priority = 2, mark = 3, iifname = 6, l4proto = 16 };
enum class Cmp : std::uint32_t { eq = 0, neq = 1 };

namespace expr {
struct Payload {
  Base base;
  std::uint32_t offset, length;
  unsigned dreg;
  bool operator==(const Payload&) const = default;
};
struct Meta {
  MetaKey key;
  unsigned dreg;
  bool operator==(const Meta&) const = default;
};
struct MetaSet {
  MetaKey key;
  unsigned sreg;
  bool operator==(const MetaSet&) const = default;
};
struct CtStatus {
  unsigned dreg;
  bool operator==(const CtStatus&) const = default;
};
struct CtOriginal {  // of the connection's first packet, before any translation
  enum class Part : std::uint8_t { source, destination, destination_port };
  Part part;
  Family family;
  unsigned dreg;
  bool operator==(const CtOriginal&) const = default;
};
struct FibType {  // the type of an address: 2 is LOCAL
  bool source;    // of the source address; otherwise of the destination
  unsigned dreg;
  bool operator==(const FibType&) const = default;
};
struct Compare {
  Cmp op;
  unsigned sreg;
  Value data;
  bool prefix = false;  // data is the beginning of the value ("veth*")
  bool operator==(const Compare&) const = default;
};
struct Bitwise {  // dreg = (sreg & mask) ^ flip
  unsigned sreg, dreg;
  Value mask, flip;
  bool operator==(const Bitwise&) const = default;
};
struct Constant {
  unsigned dreg;
  Value data;
  bool operator==(const Constant&) const = default;
};
struct Return {  // ends or redirects the walk through the chains
  Verdict verdict;
  bool operator==(const Return&) const = default;
};
struct Lookup {
  std::string set;
  unsigned sreg;
  std::optional<unsigned> dreg;  // where a map's value goes
  bool verdict = false;          // a verdict map: the verdict is carried out
  bool operator==(const Lookup&) const = default;
};
struct NumGen {  // a random number below `modulus`
  unsigned dreg;
  std::uint32_t modulus;
  bool operator==(const NumGen&) const = default;
};
struct Hash {  // jhash of registers below `modulus`
  unsigned sreg, dreg;
  std::uint32_t length, modulus, seed;
  bool operator==(const Hash&) const = default;
};
struct Dnat {
  Family family;
  unsigned addr_reg, port_reg;
  bool operator==(const Dnat&) const = default;
};
struct Masquerade {
  bool fully_random;
  bool operator==(const Masquerade&) const = default;
};
struct Reject {
  bool tcp_reset;  // otherwise ICMP port unreachable
  bool operator==(const Reject&) const = default;
};
struct DynSet {
  enum class Op : std::uint32_t { add = 0, update = 1, remove = 2 };
  std::string set;
  Op op;
  unsigned key_reg;
  std::optional<unsigned> data_reg;
  std::uint64_t timeout_ms = 0;
  bool operator==(const DynSet&) const = default;
};
struct Counter {  // its numbers are not part of the value
  bool operator==(const Counter&) const { return true; }
};
struct Other {  // something the kernel showed that we never write
  std::string name;
  bool operator==(const Other&) const = default;
};
}  // namespace expr

using Expr = std::variant<expr::Payload, expr::Meta, expr::MetaSet, expr::CtStatus, expr::CtOriginal, expr::FibType, expr::Compare, expr::Bitwise,
                          expr::Constant, expr::Return, expr::Lookup, expr::NumGen, expr::Hash, expr::Dnat, expr::Masquerade,
                          expr::Reject, expr::DynSet, expr::Counter, expr::Other>;

struct Rule {
  std::vector<Expr> exprs;
  bool operator==(const Rule&) const = default;
};

struct Hook {
  enum class Point : std::uint32_t { prerouting = 0, input = 1, forward = 2, output = 3, postrouting = 4 };
  std::string type;  // "nat"
  Point point = Point::prerouting;
  std::int32_t priority = 0;
  bool operator==(const Hook&) const = default;
};

struct Chain {
  std::string name;
  std::optional<Hook> hook;
  std::vector<Rule> rules;
  bool operator==(const Chain&) const = default;
};

// ---- a whole table

struct KeyHash {
  std::size_t operator()(const Key& k) const noexcept { return std::hash<std::string_view>{}(k.view()); }
};

struct Table {
  Family family = Family::v4;
  std::string name;
  std::string comment;
  std::map<std::string, Chain, std::less<>> chains;
  struct Contents {
    Set set;
    std::unordered_map<Key, Element, KeyHash> elements;
  };
  std::map<std::string, Contents, std::less<>> sets;
};

// ---- changes

namespace op {
struct AddTable {
  std::string comment;
};
struct DeleteTable {};  // with all it holds; it must exist
struct AddChain {       // without its rules
  Chain chain;
};
struct FlushChain {
  std::string chain;
};
struct DeleteChain {  // must be empty and unreferenced
  std::string chain;
};
struct AddRule {  // at the end of the chain
  std::string chain;
  Rule rule;
};
struct AddSet {
  Set set;
};
struct AddElements {
  const Set* set;  // outlives the batch
  std::vector<Element> elements;
};
struct DeleteElements {
  const Set* set;
  std::vector<Element> elements;
};
}  // namespace op
using Op = std::variant<op::AddTable, op::DeleteTable, op::AddChain, op::FlushChain, op::DeleteChain, op::AddRule, op::AddSet,
                        op::AddElements, op::DeleteElements>;

// A transaction on one table: all of it happens, or nothing.
struct Batch {
  Family family = Family::v4;
  std::string table;
  std::vector<Op> ops;
  bool empty() const { return ops.empty(); }
  std::size_t objects() const;  // operations, counting each element
};

}  // namespace fairlead::nftables
