#include "iptables/rule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/text.h"

namespace fairlead::iptables {
namespace {

constexpr double kCertain = 2147483648.0;  // 2^31: the resolution of the statistic match
constexpr std::array<std::pair<std::string_view, std::uint8_t>, 7> kStates{
    {{"INVALID", invalid}, {"NEW", fresh}, {"RELATED", related}, {"ESTABLISHED", established}, {"UNTRACKED", untracked}, {"SNAT", snat}, {"DNAT", dnat}}};

std::string_view whole_mask(Family f) { return f == Family::v4 ? "255.255.255.255" : "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"; }
std::string_view reject_with(Family f) { return f == Family::v4 ? "icmp-port-unreachable" : "icmp6-port-unreachable"; }

// As iptables-save quotes: only what is more than one plain word.
std::string quoted(std::string_view text) {
  std::string out(text.substr(0, 255));
  bool plain = !out.empty();
  for (char& c : out) {
    const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    plain = plain && word;
    if (c < ' ' || c > '~' || c == '"' || c == '\'' || c == '\\') c = '?';
  }
  return plain ? out : '"' + out + '"';
}

class Writer {
 public:
  Writer(const Rule& r, Family f) : r_(r), family_(f) {}

  std::string run() {
    if (r_.source) address("-s", *r_.source);
    if (r_.destination) address("-d", *r_.destination);
    if (r_.in_interface) add("{}-i {}", bang(r_.in_interface->negated), r_.in_interface->name);
    if (r_.protocol) {
      const auto name = lower(fairlead::to_string(*r_.protocol));
      add("-p {}", name);
      if (r_.port) add("-m {} --dport {}", name, r_.port);
    }
    if (r_.source_local) add("-m addrtype --src-type LOCAL");
    if (r_.destination_local) add("-m addrtype --dst-type LOCAL");
    if (r_.mark) add("-m mark {}--mark {:#x}/{:#x}", bang(r_.mark->negated), r_.mark->bits, r_.mark->bits);
    if (r_.states) add("-m conntrack {}--ctstate {}", bang(r_.states->negated), states());
    if (r_.probability) add("-m statistic --mode random --probability {:.11f}", r_.probability / kCertain);
    if (r_.recent) recent(*r_.recent);
    if (!r_.comment.empty()) add("-m comment --comment {}", quoted(r_.comment));
    target();
    return std::move(out_);
  }

 private:
  template <typename... A>
  void add(fmt::format_string<A...> f, A&&... a) {
    if (!out_.empty()) out_ += ' ';
    fmt::format_to(std::back_inserter(out_), f, std::forward<A>(a)...);
  }
  static std::string_view bang(bool negated) { return negated ? "! " : ""; }
  void address(std::string_view flag, const Rule::Address& a) {
    if (a.prefix.length() > 0 || a.negated) add("{}{} {}", bang(a.negated), flag, a.prefix.to_string());
  }
  std::string states() const {
    std::string out;
    for (const auto& [name, bit] : kStates)
      if (r_.states->bits & bit) out += (out.empty() ? "" : ",") + std::string(name);
    return out;
  }
  void recent(const Rule::Recent& r) {
    if (r.seconds) add("-m recent --rcheck --seconds {} --reap --name {} --mask {} --rsource", r.seconds, r.name, whole_mask(family_));
    else add("-m recent --set --name {} --mask {} --rsource", r.name, whole_mask(family_));
  }
  void target() {
    const auto& t = r_.target;
    switch (t.kind) {
      case Target::Kind::none: return;
      case Target::Kind::jump: return add("-j {}", t.chain);
      case Target::Kind::go_to: return add("-g {}", t.chain);
      case Target::Kind::back: return add("-j RETURN");
      case Target::Kind::accept: return add("-j ACCEPT");
      case Target::Kind::drop: return add("-j DROP");
      case Target::Kind::reject: return add("-j REJECT --reject-with {}", reject_with(family_));
      case Target::Kind::reset: return add("-j REJECT --reject-with tcp-reset");
      case Target::Kind::dnat: return add("-j DNAT --to-destination {}", t.to.to_string());
      case Target::Kind::mark_or: return add("-j MARK --set-xmark {0:#x}/{0:#x}", t.mark);
      case Target::Kind::mark_xor: return add("-j MARK --set-xmark {:#x}/0x0", t.mark);
      case Target::Kind::masquerade: return add("-j MASQUERADE --random-fully");
    }
  }
  const Rule& r_;
  Family family_;
  std::string out_;
};

Result<std::vector<std::string>> split(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false, in_quotes = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_quotes && c == '\\' && i + 1 < text.size()) {
      word += text[++i];
    } else if (c == '"') {
      in_quotes = !in_quotes;
      in_word = true;
    } else if (c == ' ' && !in_quotes) {
      if (in_word) words.push_back(std::exchange(word, {}));
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (in_quotes) return fail(ErrorCode::invalid_argument, "an open quote");
  if (in_word) words.push_back(std::move(word));
  return words;
}

template <typename T>
Result<T> number(std::string_view text, int base = 10) {
  T v{};
  if (text.starts_with("0x")) text.remove_prefix(2), base = 16;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), v, base);
  if (r.ec != std::errc{} || r.ptr != text.data() + text.size()) return fail(ErrorCode::invalid_argument, "{} is not a number", text);
  return v;
}

class Reader {
 public:
  Reader(std::vector<std::string> words, Family f) : words_(std::move(words)), family_(f) {}

  Result<Rule> run() {
    while (at_ < words_.size()) {
      negated_ = words_[at_] == "!";
      if (negated_) ++at_;
      FL_TRY(const std::string flag, word("an option"));
      FL_CHECK_CTX(option(flag), "{}", flag);
      if (negated_) return fail(ErrorCode::unimplemented, "! {}", flag);
    }
    if (rule_.recent && (rule_.recent->seconds > 0) != checks_recent_) return fail(ErrorCode::unimplemented, "not how we use the recent match");
    if (rule_.target.kind == Target::Kind::masquerade && !random_fully_) return fail(ErrorCode::unimplemented, "MASQUERADE without --random-fully");
    return std::move(rule_);
  }

 private:
  Result<std::string> word(std::string_view what) {
    if (at_ >= words_.size()) return fail(ErrorCode::invalid_argument, "{} is missing", what);
    return words_[at_++];
  }
  bool take_negation() { return std::exchange(negated_, false); }

  Result<> option(const std::string& flag) {
    FL_TRY(const std::string value, flag == "--set" || flag == "--rcheck" || flag == "--reap" || flag == "--rsource" || flag == "--random-fully"
                                        ? Result<std::string>(std::string())
                                        : word("its value"));
    // Names of ours are plain words.
    if (flag != "--comment" && value.find_first_of(" \"'\\!") != std::string::npos) return fail(ErrorCode::unimplemented, "{}", value);
    if (flag == "-s" || flag == "-d") return address(flag == "-s" ? rule_.source : rule_.destination, value);
    if (flag == "-i") return rule_.in_interface = Rule::Interface{value, take_negation()}, Result<>{};
    if (flag == "-p") {
      FL_TRY(rule_.protocol, parse_protocol(value));
      return {};
    }
    if (flag == "-m") return {};  // its options say it
    if (flag == "--dport") {
      FL_TRY(rule_.port, parse_port(value));
      return {};
    }
    if (flag == "--src-type" || flag == "--dst-type") {
      if (value != "LOCAL") return fail(ErrorCode::unimplemented, "address type {}", value);
      (flag == "--src-type" ? rule_.source_local : rule_.destination_local) = true;
      return {};
    }
    if (flag == "--comment") return rule_.comment = value, Result<>{};
    if (flag == "--mark") return mark_match(value);
    if (flag == "--ctstate") return states(value);
    if (flag == "--mode") return value == "random" ? Result<>{} : Result<>(fail(ErrorCode::unimplemented, "mode {}", value));
    if (flag == "--probability") return probability(value);
    if (flag == "--set" || flag == "--rcheck" || flag == "--seconds" || flag == "--reap" || flag == "--name" || flag == "--mask" || flag == "--rsource")
      return recent(flag, value);
    if (flag == "-j" || flag == "-g") return target(flag, value);
    if (flag == "--to-destination" && rule_.target.kind == Target::Kind::dnat) {
      FL_TRY(rule_.target.to, SocketAddress::parse(value));
      return {};
    }
    if (flag == "--reject-with" && rule_.target.kind == Target::Kind::reject && value == "tcp-reset") return rule_.then(Target::Kind::reset), Result<>{};
    if (flag == "--reject-with" && rule_.target.kind == Target::Kind::reject)
      return value == reject_with(family_) ? Result<>{} : Result<>(fail(ErrorCode::unimplemented, "{}", value));
    if (flag == "--random-fully" && rule_.target.kind == Target::Kind::masquerade) return random_fully_ = true, Result<>{};
    if (flag == "--set-xmark" || flag == "--or-mark" || flag == "--xor-mark") return mark_target(flag, value);
    return fail(ErrorCode::unimplemented, "not an option of our rules");
  }

  Result<> address(std::optional<Rule::Address>& into, const std::string& value) {
    if (value.find('/') != std::string::npos) {
      FL_TRY(const auto p, Prefix::parse(value));
      into = Rule::Address{p, take_negation()};
      return {};
    }
    FL_TRY(const auto ip, IpAddress::parse(value));
    into = Rule::Address{Prefix(ip, ip.bits()), take_negation()};
    return {};
  }
  Result<std::pair<std::uint32_t, std::uint32_t>> value_and_mask(const std::string& text) {
    const auto slash = text.find('/');
    FL_TRY(const auto value, number<std::uint32_t>(text.substr(0, slash)));
    if (slash == std::string::npos) return std::pair{value, ~std::uint32_t{0}};
    FL_TRY(const auto mask, number<std::uint32_t>(text.substr(slash + 1)));
    return std::pair{value, mask};
  }
  Result<> mark_match(const std::string& text) {
    FL_TRY(const auto m, value_and_mask(text));
    if (m.first != m.second) return fail(ErrorCode::unimplemented, "value and mask differ");
    rule_.mark = Rule::Mark{m.first, take_negation()};
    return {};
  }
  Result<> mark_target(const std::string& flag, const std::string& text) {
    FL_TRY(const auto m, value_and_mask(text));
    const bool is_or = flag == "--or-mark" || (flag == "--set-xmark" && m.first == m.second);
    const bool is_xor = flag == "--xor-mark" || (flag == "--set-xmark" && m.second == 0);
    if (rule_.target.kind != Target::Kind::mark_or || (!is_or && !is_xor)) return fail(ErrorCode::unimplemented, "{}", text);
    rule_.set_mark(is_or ? Target::Kind::mark_or : Target::Kind::mark_xor, m.first);
    return {};
  }
  Result<> states(std::string_view value) {
    Rule::States s{0, take_negation()};
    for (std::size_t i = 0; i <= value.size();) {
      const auto end = std::min(value.find(',', i), value.size());
      const auto* it = std::find_if(kStates.begin(), kStates.end(), [&](const auto& k) { return k.first == value.substr(i, end - i); });
      if (it == kStates.end()) return fail(ErrorCode::unimplemented, "state {}", value);
      s.bits = static_cast<std::uint8_t>(s.bits | it->second);
      i = end + 1;
    }
    rule_.states = s;
    return {};
  }
  Result<> probability(const std::string& value) {
    double p = 0;
    const auto r = std::from_chars(value.data(), value.data() + value.size(), p);
    if (r.ec != std::errc{} || !(p > 0 && p <= 1)) return fail(ErrorCode::invalid_argument, "{}", value);
    rule_.probability = static_cast<std::uint32_t>(std::lround(p * kCertain));
    return rule_.probability ? Result<>{} : Result<>(fail(ErrorCode::unimplemented, "{} is never", value));
  }
  Result<> recent(const std::string& flag, const std::string& value) {
    if (!rule_.recent) rule_.recent.emplace();
    checks_recent_ |= flag == "--rcheck";
    if (flag == "--name") rule_.recent->name = value;
    if (flag == "--seconds") {
      FL_TRY(rule_.recent->seconds, number<std::uint32_t>(value));
    }
    if (flag == "--mask" && value != whole_mask(family_)) return fail(ErrorCode::unimplemented, "{}", value);
    return {};
  }
  Result<> target(const std::string& flag, const std::string& value) {
    static constexpr std::array<std::pair<std::string_view, Target::Kind>, 7> kinds{{{"RETURN", Target::Kind::back},
                                                                                     {"ACCEPT", Target::Kind::accept},
                                                                                     {"DROP", Target::Kind::drop},
                                                                                     {"REJECT", Target::Kind::reject},
                                                                                     {"DNAT", Target::Kind::dnat},
                                                                                     {"MARK", Target::Kind::mark_or},
                                                                                     {"MASQUERADE", Target::Kind::masquerade}}};
    const auto* it = std::find_if(kinds.begin(), kinds.end(), [&](const auto& k) { return k.first == value; });
    if (it != kinds.end()) rule_.then(it->second);
    else rule_.then(flag == "-g" ? Target::Kind::go_to : Target::Kind::jump, value);
    return {};
  }

  std::vector<std::string> words_;
  Family family_;
  std::size_t at_ = 0;
  bool negated_ = false, random_fully_ = false, checks_recent_ = false;
  Rule rule_;
};

}  // namespace

Rule& Rule::by_chance(std::uint64_t share, std::uint64_t total) {
  probability = share >= total ? 0
                               : static_cast<std::uint32_t>(std::max<long>(
                                     1, std::lround(static_cast<double>(share) / static_cast<double>(total) * kCertain)));
  return *this;
}

std::string to_text(const Rule& rule, Family family) { return Writer(rule, family).run(); }

Result<Rule> parse_rule(std::string_view text, Family family) {
  FL_TRY(auto words, split(text));
  return Reader(std::move(words), family).run();
}

std::string canonical(std::string_view text, Family family) {
  const auto rule = parse_rule(text, family);
  return rule ? to_text(*rule, family) : std::string(text);
}

}  // namespace fairlead::iptables
