#include "ipvs/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "ipvs/layout.h"
#include "ipvs/text.h"

namespace fairlead::ipvs {
namespace {

using proxy::Decision;
using proxy::Packet;

constexpr int kMostSteps = 10'000;
constexpr int kDeepest = 64;  // chains within chains

std::vector<std::string> words_of(std::string_view rule) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rule.size();) {
    const auto end = std::min(rule.find(' ', i), rule.size());
    if (end > i) out.emplace_back(rule.substr(i, end - i));
    i = end + 1;
  }
  return out;
}

enum class Fate { pass, drop, reject, masquerade };

// One packet on its way through the hooks.
class Walk {
 public:
  Walk(const State& s, const Packet& p, std::vector<std::string>& path) : state_(s), packet_(p), path_(path) {}

  // The rules of one built-in chain, from the first to the last, until one decides.
  Result<Fate> hook(std::string_view table, std::string_view chain) {
    const auto t = state_.rules.find(std::string(table));
    if (t == state_.rules.end()) return Fate::pass;
    const auto h = t->second.hooks.find(std::string(chain));
    if (h == t->second.hooks.end()) return Fate::pass;
    FL_TRY(const auto decided, rules(t->second, chain, h->second));
    return decided.value_or(Fate::pass);
  }
  std::uint32_t mark = 0;
  bool loop_back_counts = true;  // whether a packet from an endpoint to itself is seen as such

 private:
  using Decided = std::optional<Fate>;  // nullopt: go on behind the chain

  Result<Decided> rules(const RuleTable& table, std::string_view chain, const std::vector<std::string>& list) {
    for (const auto& text : list) {
      if (++steps_ > kMostSteps) return fail(ErrorCode::resource_exhausted, "the rules loop");
      FL_TRY_CTX(const auto target, evaluate(text), "chain {}: \"{}\"", chain, text);
      if (target.empty()) continue;
      if (target.front() == "RETURN") return Decided{};
      path_.push_back(fmt::format("chain {}: {}", chain, text));
      if (target.front() == "ACCEPT") return Decided{Fate::pass};
      if (target.front() == "DROP") return Decided{Fate::drop};
      if (target.front() == "REJECT") return Decided{Fate::reject};
      if (target.front() == "MASQUERADE") return Decided{Fate::masquerade};
      if (target.front() == "MARK") {
        FL_CHECK(set_mark(target));
        continue;
      }
      const auto next = table.chains.find(target.front());
      if (next == table.chains.end()) return fail(ErrorCode::not_found, "chain {} is missing", target.front());
      if (++depth_ > kDeepest) return fail(ErrorCode::resource_exhausted, "the rules loop");
      FL_TRY(const auto decided, rules(table, next->first, next->second));
      --depth_;
      if (decided) return decided;
    }
    return Decided{};
  }

  static Result<std::pair<std::uint32_t, std::uint32_t>> value_and_mask(const std::string& text) {
    std::uint32_t v[2] = {0, 0xffffffff};
    const auto slash = text.find('/');
    const std::string_view parts[2] = {std::string_view(text).substr(0, slash),
                                       slash == std::string::npos ? std::string_view() : std::string_view(text).substr(slash + 1)};
    for (int i = 0; i < 2; ++i) {
      if (parts[i].empty()) continue;
      const bool hex = parts[i].starts_with("0x");
      const auto digits = hex ? parts[i].substr(2) : parts[i];
      const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), v[i], hex ? 16 : 10);
      if (ec != std::errc() || end != digits.data() + digits.size()) return fail(ErrorCode::unimplemented, "\"{}\" is not a mark", text);
    }
    return std::pair{v[0], v[1]};
  }

  Result<> set_mark(const std::vector<std::string>& target) {
    if (target.size() != 3 || target[1] != "--set-xmark") return fail(ErrorCode::unimplemented, "a MARK target that is not ours");
    FL_TRY(const auto v, value_and_mask(target[2]));
    mark = (mark & ~v.second) ^ v.first;
    return {};
  }

  // The target with its options if the rule applies to the packet; else nothing.
  Result<std::vector<std::string>> evaluate(const std::string& text) {
    const auto w = words_of(text);
    bool applies = true, negate = false;
    for (std::size_t i = 0; i < w.size();) {
      const auto need = [&](std::size_t n) -> Result<> {
        if (i + n >= w.size()) return fail(ErrorCode::unimplemented, "an option without its value");
        return {};
      };
      const auto matched = [&](bool yes) {
        applies = applies && yes != negate;
        negate = false;
      };
      if (w[i] == "!") {
        negate = true;
        ++i;
      } else if (w[i] == "-m") {  // names an extension; its options follow
        FL_CHECK(need(1));
        i += 2;
      } else if (w[i] == "-j") {
        FL_CHECK(need(1));
        if (!applies) return std::vector<std::string>{};
        return std::vector<std::string>(w.begin() + static_cast<std::ptrdiff_t>(i) + 1, w.end());
      } else if (w[i] == "--match-set") {
        FL_CHECK(need(2));
        FL_TRY(const bool in, in_set(w[i + 1], w[i + 2]));
        matched(in);
        i += 3;
      } else {
        FL_CHECK(need(1));
        FL_TRY(const bool yes, simple(w[i], w[i + 1]));
        matched(yes);
        i += 2;
      }
    }
    return fail(ErrorCode::unimplemented, "a rule without a target");
  }

  Result<bool> simple(const std::string& option, const std::string& value) const {
    if (option == "-s" || option == "-d") {
      const auto& ip = option == "-s" ? packet_.source : packet_.destination;
      const auto block = Prefix::parse(value);
      if (block) return block->contains(ip);
      FL_TRY(const auto one, IpAddress::parse(value));
      return one == ip;
    }
    if (option == "-i") {
      if (value.ends_with('+')) return !packet_.in_interface.empty() && packet_.in_interface.starts_with(value.substr(0, value.size() - 1));
      return packet_.in_interface == value;
    }
    if (option == "-p") {
      if (value == "icmp" || value == "ipv6-icmp") return false;
      FL_TRY(const auto p, parse_protocol(value));
      return p == packet_.protocol;
    }
    if (option == "--ctstate") return value == "NEW";
    if (option == "--src-type" && value == "LOCAL") return packet_.source_is_local_address;
    if (option == "--mark") {
      FL_TRY(const auto v, value_and_mask(value));
      return (mark & v.second) == v.first;
    }
    return fail(ErrorCode::unimplemented, "the option {} {}, which is not ours", option, value);
  }

  Result<bool> in_set(const std::string& name, const std::string& flags) const {
    const auto it = state_.sets.find(name);
    if (it == state_.sets.end()) return fail(ErrorCode::not_found, "set {} is missing", name);
    const auto& set = it->second;
    const Entry e{packet_.destination, packet_.protocol, packet_.port, {}};
    switch (set.spec.type) {
      case SetType::ip:
        if (flags != "dst") break;
        return set.entries.contains({e.ip, Protocol::tcp, 0, {}});
      case SetType::port:
        if (flags != "dst") break;
        return set.entries.contains({{}, Protocol::tcp, e.port, {}});
      case SetType::ip_port:
        if (flags != "dst,dst") break;
        return set.entries.contains(e);
      case SetType::ip_port_ip:
        if (flags != "dst,dst,src") break;
        return loop_back_counts && set.entries.contains({e.ip, e.protocol, e.port, Prefix(packet_.source, packet_.source.bits())});
      case SetType::ip_port_net:
        if (flags != "dst,dst,src") break;
        for (auto r = set.entries.lower_bound(e); r != set.entries.end() && r->ip == e.ip && r->protocol == e.protocol && r->port == e.port; ++r)
          if (r->net.contains(packet_.source)) return true;
        return false;
    }
    return fail(ErrorCode::unimplemented, "set {} looked up by {}", name, flags);
  }

  const State& state_;
  const Packet& packet_;
  std::vector<std::string>& path_;
  int steps_ = 0, depth_ = 0;
};

struct Hook {
  std::string_view table, chain;
};

Decision ended(Decision d, Fate f) {
  d.verdict = f == Fate::drop ? Decision::Verdict::drop : Decision::Verdict::reject;
  return d;
}

// Whether the packet's source is rewritten on its way out to one endpoint.
Result<bool> masqueraded(const State& s, const Packet& packet, const SocketAddress& to, std::uint32_t mark, bool loop_back,
                         std::vector<std::string>& path) {
  Packet out = packet;
  out.destination = to.ip;
  out.port = to.port;
  Walk walk(s, out, path);
  walk.mark = mark;
  walk.loop_back_counts = loop_back;
  FL_TRY(const auto fate, walk.hook("nat", "POSTROUTING"));
  return fate == Fate::masquerade;
}

Result<Decision> balanced(const State& s, const Packet& packet, const Server& server, std::uint32_t mark, Decision d) {
  d.reasons.push_back(fmt::format("virtual server {}, scheduler {}", to_text(server.server.key), server.server.scheduler));
  for (const auto& r : server.real)
    if (r.weight > 0) d.endpoints.push_back(r.address);
  if (d.endpoints.empty()) {
    d.reasons.push_back("it has no real server");
    d.verdict = Decision::Verdict::reject;
    return d;
  }
  d.verdict = Decision::Verdict::endpoints;
  d.affinity = (server.server.flags & flag::persistent) != 0;
  std::vector<std::string> ignored;
  bool first = true;
  for (const auto& e : d.endpoints) {
    // Hairpin is not part of the verdict, but it must be there.
    FL_TRY(const bool marked, masqueraded(s, packet, e, mark, false, first ? d.reasons : ignored));
    FL_TRY(const bool masquerade, masqueraded(s, packet, e, mark, true, ignored));
    if (!first && marked != d.masquerade) return fail(ErrorCode::internal, "the rules treat endpoints in different ways");
    if (e.ip == packet.source && !masquerade) return fail(ErrorCode::internal, "{} would talk to itself without being masqueraded", e.to_string());
    if (e.ip != packet.source && masquerade != marked) return fail(ErrorCode::internal, "{} is masqueraded for being local", e.to_string());
    d.masquerade = marked;
    first = false;
  }
  return d;
}

}  // namespace

Result<Decision> trace(const State& s, const Packet& packet) {
  Decision d;
  Walk walk(s, packet, d.reasons);
  const bool from_host = packet.in_interface.empty();
  const std::string_view begin = from_host ? "OUTPUT" : "PREROUTING";
  for (const Hook h : {Hook{"mangle", begin}, Hook{"nat", begin}}) {
    FL_TRY(const auto fate, walk.hook(h.table, h.chain));
    if (fate != Fate::pass) return ended(std::move(d), fate);
  }
  const bool here = packet.destination_is_local_address || s.bound.contains(packet.destination);
  if (!from_host) {
    FL_TRY(const auto fate, walk.hook("filter", here ? "INPUT" : "FORWARD"));
    if (fate != Fate::pass) return ended(std::move(d), fate);
  }
  const auto server = s.servers.find({packet.protocol, {packet.destination, packet.port}});
  if (server != s.servers.end() && (here || from_host)) return balanced(s, packet, server->second, walk.mark, std::move(d));
  if (from_host) {
    FL_TRY(const auto fate, walk.hook("filter", "OUTPUT"));
    if (fate != Fate::pass) return ended(std::move(d), fate);
  }
  d.verdict = Decision::Verdict::pass;
  return d;
}

}  // namespace fairlead::ipvs
