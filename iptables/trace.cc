#include "iptables/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "iptables/names.h"
#include "iptables/rule.h"

namespace fairlead::iptables {
namespace {

using proxy::Decision;
using proxy::Packet;
using K = Target::Kind;
using Verdict = Decision::Verdict;

constexpr int kMostSteps = 2'000'000;
constexpr int kDeepest = 16;
constexpr std::size_t kMostChoices = 20'000;
constexpr double kCertain = 2147483648.0;

// Chains as values, parsed once.
class Program {
 public:
  explicit Program(const Listings& listings) : listings_(listings) {}

  Result<const std::vector<Rule>*> chain(Table t, const std::string& name, Family family) {
    const auto [it, fresh] = parsed_[static_cast<std::size_t>(t)].try_emplace(name);
    if (!fresh) return &it->second;
    const auto table = listings_.find(t);
    const auto* listed = table == listings_.end() ? nullptr : table->second.find(name);
    if (!listed) return fail(ErrorCode::not_found, "chain {} is missing from table {}", name, to_string(t));
    const bool ours = is_ours(t, name);
    for (const auto text : listed->rules) {
      if (!ours && !is_ours(t, target_of(text))) continue;
      auto rule = parse_rule(text, family);
      if (!rule) return fail(ErrorCode::unimplemented, "{} chain {}: {}: {}", to_string(t), name, text, rule.error().message);
      it->second.push_back(std::move(*rule));
    }
    return &it->second;
  }

 private:
  const Listings& listings_;
  std::array<std::unordered_map<std::string, std::vector<Rule>>, kTables.size()> parsed_;
};

struct Outcome {
  Verdict verdict = Verdict::pass;
  SocketAddress to;
  bool masquerade = false;  // whoever the endpoint is
  bool hairpin = false;     // because the endpoint is the client
  bool sticky = false;
  double chance = 1;
};

// One walk of one packet. `choices` says for each random match in turn whether it matches; further ones do, and are added.
class Walk {
 public:
  Walk(Program& program, const Packet& packet, std::vector<bool>& choices, std::vector<std::string>* path)
      : program_(program), packet_(packet), family_(packet.destination.family()), choices_(choices), path_(path), to_{packet.destination, packet.port} {}

  Result<Outcome> run() {
    const bool own = packet_.in_interface.empty();
    FL_TRY(End end, walk(Table::nat, own ? "OUTPUT" : "PREROUTING"));
    if (end == End::drop || end == End::reject) return fail(ErrorCode::unimplemented, "the nat table refuses packets");
    FL_TRY(end, walk(Table::filter, own ? "OUTPUT" : !translated_ && packet_.destination_is_local_address ? "INPUT" : "FORWARD"));
    if (end == End::drop) outcome_.verdict = Verdict::drop;
    else if (end == End::reject) outcome_.verdict = Verdict::reject;
    else if (translated_) outcome_.verdict = Verdict::endpoints;
    outcome_.to = to_;
    if (outcome_.verdict != Verdict::endpoints) return outcome_;
    after_routing_ = true;
    FL_TRY(end, walk(Table::nat, "POSTROUTING"));
    outcome_.masquerade = end == End::masquerade && marked_by_policy_;
    outcome_.hairpin = end == End::masquerade;
    return outcome_;
  }

 private:
  enum class End { none, accept, drop, reject, dnat, masquerade };

  Result<End> walk(Table t, const std::string& name) {
    if (++depth_ > kDeepest) return fail(ErrorCode::resource_exhausted, "chain {}: the rules nest too deeply", name);
    FL_TRY(const auto* rules, program_.chain(t, name, family_));
    const bool endpoint = name.starts_with("KUBE-SEP-");
    inside_endpoint_ += endpoint;
    End end = End::none;
    for (const auto& r : *rules) {
      if (++steps_ > kMostSteps) return fail(ErrorCode::resource_exhausted, "the rules take too many steps");
      if (!matches(r)) continue;
      const auto kind = r.target.kind;
      if (path_ && kind != K::back && kind != K::none) path_->push_back(fmt::format("{} {}: {}", to_string(t), name, to_text(r, family_)));
      if (kind == K::back) break;
      if (kind == K::jump || kind == K::go_to) {
        FL_TRY(end, walk(t, r.target.chain));
        if (end != End::none || kind == K::go_to) break;
        continue;
      }
      end = carry_out(r);
      if (end != End::none) break;
    }
    inside_endpoint_ -= endpoint;
    --depth_;
    return end;
  }

  bool matches(const Rule& r) {
    const auto address = [](const std::optional<Rule::Address>& a, const IpAddress& ip) { return !a || a->prefix.contains(ip) != a->negated; };
    if (!address(r.source, packet_.source) || !address(r.destination, to_.ip)) return false;
    if (r.in_interface) {
      const auto& want = r.in_interface->name;
      const auto& have = packet_.in_interface;
      const bool same = want.ends_with('+') ? have.starts_with(want.substr(0, want.size() - 1)) && !have.empty() : have == want;
      if ((after_routing_ ? false : same) == r.in_interface->negated) return false;
    }
    if (r.protocol && *r.protocol != packet_.protocol) return false;
    if (r.port && r.port != to_.port) return false;
    if (r.source_local && !packet_.source_is_local_address) return false;
    // Where an endpoint's address is a host's own, that is not known here.
    if (r.destination_local && (translated_ || !packet_.destination_is_local_address)) return false;
    if (r.mark && ((mark_ & r.mark->bits) == r.mark->bits) == r.mark->negated) return false;
    if (r.states) {
      const auto have = static_cast<std::uint8_t>(fresh | (translated_ ? dnat : 0));
      if (((r.states->bits & have) != 0) == r.states->negated) return false;
    }
    if (r.recent) outcome_.sticky = true;
    if (r.recent && r.recent->seconds) return false;
    return !r.probability || choose(r.probability / kCertain);
  }

  bool choose(double chance) {
    if (next_ == choices_.size()) choices_.push_back(true);
    const bool yes = choices_[next_++];
    outcome_.chance *= yes ? chance : 1 - chance;
    return yes;
  }

  End carry_out(const Rule& r) {
    switch (r.target.kind) {
      case K::accept: return End::accept;
      case K::drop: return End::drop;
      case K::reject:
      case K::reset: return End::reject;
      case K::masquerade: return End::masquerade;
      case K::dnat:
        to_ = r.target.to;
        translated_ = true;
        return End::dnat;
      case K::mark_or:
        mark_ |= r.target.mark;
        marked_by_policy_ |= inside_endpoint_ == 0;
        return End::none;
      case K::mark_xor: mark_ ^= r.target.mark; return End::none;
      default: return End::none;
    }
  }

  Program& program_;
  const Packet& packet_;
  const Family family_;
  std::vector<bool>& choices_;
  std::vector<std::string>* path_;
  SocketAddress to_;
  std::uint32_t mark_ = 0;
  bool translated_ = false, marked_by_policy_ = false, after_routing_ = false;
  int depth_ = 0, steps_ = 0, inside_endpoint_ = 0;
  std::size_t next_ = 0;
  Outcome outcome_;
};

// The next combination of choices to try, or false.
bool advance(std::vector<bool>& choices) {
  while (!choices.empty() && !choices.back()) choices.pop_back();
  if (choices.empty()) return false;
  choices.back() = false;
  return true;
}

}  // namespace

Result<Trace> trace(const Listings& rules, const Packet& packet) {
  Program program(rules);
  Trace out;
  auto& d = out.decision;
  bool first = true, known = false;
  std::vector<bool> choices;
  for (std::size_t tries = 0; first || advance(choices); first = false) {
    if (++tries > kMostChoices) return fail(ErrorCode::resource_exhausted, "more than {} ways to go", kMostChoices);
    FL_TRY(const auto o, Walk(program, packet, choices, first ? &d.reasons : nullptr).run());
    if (first) d.verdict = o.verdict;
    else if (d.verdict != o.verdict) return fail(ErrorCode::internal, "the rules treat the same packet in different ways");
    d.affinity |= o.sticky;
    if (o.verdict != Verdict::endpoints) continue;
    const bool itself = o.to.ip == packet.source;
    if (itself && !o.masquerade && !o.hairpin) return fail(ErrorCode::internal, "{} reaches itself without masquerading", o.to.to_string());
    if (!itself && o.hairpin && !o.masquerade) return fail(ErrorCode::internal, "{} is masqueraded as if it were the client", o.to.to_string());
    if (known && d.masquerade != o.masquerade) return fail(ErrorCode::internal, "only some endpoints are masqueraded");
    d.masquerade = o.masquerade;
    known = true;
    out.chances[o.to] += o.chance;
  }
  for (const auto& [endpoint, chance] : out.chances) d.endpoints.push_back(endpoint);
  return out;
}

}  // namespace fairlead::iptables
