#include "kube/selector.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::kube {
namespace {

using Op = Requirement::Op;

bool alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }
bool lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// At most 63 of [A-Za-z0-9_.-], beginning and ending with a letter or digit.
bool name_part(std::string_view s) {
  if (s.empty() || s.size() > 63 || !alnum(s.front()) || !alnum(s.back())) return false;
  return std::all_of(s.begin(), s.end(), [](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool dns_subdomain(std::string_view s) {
  if (s.empty() || s.size() > 253) return false;
  for (std::size_t start = 0; start <= s.size();) {
    const auto end = std::min(s.find('.', start), s.size());
    const auto label = s.substr(start, end - start);
    if (label.empty() || !lower_alnum(label.front()) || !lower_alnum(label.back())) return false;
    if (!std::all_of(label.begin(), label.end(), [](char c) { return lower_alnum(c) || c == '-'; })) return false;
    start = end + 1;
  }
  return true;
}

std::optional<std::int64_t> integer(std::string_view s) {
  std::int64_t v = 0;
  if (s.starts_with('+')) s.remove_prefix(1);
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), v);
  if (error != std::errc{} || end != s.data() + s.size()) return std::nullopt;
  return v;
}

Result<Requirement> make(std::string_view key, Op op, std::vector<std::string> values) {
  if (auto why = check_label_key(key); !why.empty()) return fail(ErrorCode::invalid_argument, "key \"{}\": {}", key, why);
  const bool set = op == Op::in || op == Op::not_in;
  if (set && values.empty()) return fail(ErrorCode::invalid_argument, "key \"{}\": in and notin need at least one value", key);
  if ((op == Op::exists || op == Op::not_exists) && !values.empty()) {
    return fail(ErrorCode::invalid_argument, "key \"{}\": exists and does-not-exist take no values", key);
  }
  for (const auto& v : values) {
    if ((op == Op::gt || op == Op::lt) && !integer(v)) {
      return fail(ErrorCode::invalid_argument, "key \"{}\": > and < need an integer, not \"{}\"", key, v);
    }
    if (auto why = check_label_value(v); !why.empty())
      return fail(ErrorCode::invalid_argument, "key \"{}\", value \"{}\": {}", key, v, why);
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return Requirement{std::string(key), op, std::move(values)};
}

// Words, and the signs ( ) , ! = == != > <. Blanks only separate.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : rest_(text) {}
  std::string_view peek() {
    if (token_.data() == nullptr) token_ = scan();
    return token_;
  }
  std::string_view take() {
    const auto t = peek();
    token_ = {};
    return t;
  }
  bool accept(std::string_view sign) {
    if (peek() != sign) return false;
    take();
    return true;
  }
  bool at_word() {
    const auto t = peek();
    return !t.empty() && kSigns.find(t.front()) == std::string_view::npos;
  }

 private:
  static constexpr std::string_view kSigns = "(),!=><";
  static constexpr std::string_view kBlanks = " \t\r\n";
  std::string_view scan() {
    const auto start = std::min(rest_.find_first_not_of(kBlanks), rest_.size());
    rest_.remove_prefix(start);
    std::size_t n = std::min(rest_.find_first_of(" \t\r\n(),!=><"), rest_.size());
    if (n == 0 && !rest_.empty()) n = rest_.starts_with("==") || rest_.starts_with("!=") ? 2 : 1;
    const auto t = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return t.empty() ? std::string_view("") : t;
  }
  std::string_view rest_;
  std::string_view token_;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), lex_(text) {}

  Result<std::vector<Requirement>> run() {
    std::vector<Requirement> out;
    if (lex_.peek().empty()) return out;
    for (;;) {
      auto r = requirement();
      if (!r) return fail(std::move(r).error().with("unable to parse requirement in selector \"{}\"", text_));
      out.push_back(std::move(*r));
      if (lex_.peek().empty()) return out;
      if (!lex_.accept(",")) return unexpected("a comma or the end");
    }
  }

 private:
  Failure unexpected(std::string_view wanted) {
    const auto t = lex_.peek();
    const std::string found = t.empty() ? "the end" : fmt::format("'{}'", t);
    return fail(ErrorCode::invalid_argument, "unable to parse requirement in selector \"{}\": found {}, expected {}", text_,
                found, wanted);
  }

  Result<Requirement> requirement() {
    const bool negated = lex_.accept("!");
    if (!lex_.at_word()) return fail(ErrorCode::invalid_argument, "found '{}', expected a label key", lex_.peek());
    const auto key = lex_.take();
    if (negated) return make(key, Op::not_exists, {});
    const auto next = lex_.peek();
    if (next.empty() || next == ",") return make(key, Op::exists, {});
    const auto op = lex_.take();
    if (op == "=" || op == "==") return make(key, Op::in, {value()});
    if (op == "!=") return make(key, Op::not_in, {value()});
    if (op == ">") return make(key, Op::gt, {value()});
    if (op == "<") return make(key, Op::lt, {value()});
    if (op == "in" || op == "notin") {
      FL_TRY(auto values, value_set());
      return make(key, op == "in" ? Op::in : Op::not_in, std::move(values));
    }
    return fail(ErrorCode::invalid_argument, "found '{}', expected one of: in, notin, =, ==, !=, >, <", op);
  }

  // Nothing before a comma or the end is the empty value.
  std::string value() { return lex_.at_word() ? std::string(lex_.take()) : std::string(); }

  Result<std::vector<std::string>> value_set() {
    if (!lex_.accept("(")) return fail(ErrorCode::invalid_argument, "found '{}', expected '('", lex_.peek());
    std::vector<std::string> values;
    if (lex_.accept(")")) return values;
    for (;;) {
      values.push_back(value());
      if (lex_.accept(")")) return values;
      if (!lex_.accept(",")) return fail(ErrorCode::invalid_argument, "found '{}', expected ',' or ')'", lex_.peek());
    }
  }

  std::string_view text_;
  Lexer lex_;
};

bool matches_one(const Requirement& r, const LabelLookup& lookup) {
  const std::string* value = lookup(r.key);
  const auto listed = [&] { return std::binary_search(r.values.begin(), r.values.end(), *value); };
  switch (r.op) {
    case Op::in: return value && listed();
    case Op::not_in: return !value || !listed();
    case Op::exists: return value != nullptr;
    case Op::not_exists: return value == nullptr;
    case Op::gt:
    case Op::lt: {
      if (!value) return false;
      const auto have = integer(*value), limit = integer(r.values.front());
      return have && limit && (r.op == Op::gt ? *have > *limit : *have < *limit);
    }
  }
  return false;
}

std::string text_of(const Requirement& r) {
  const auto set = [&](std::string_view one, std::string_view many) {
    if (r.values.size() == 1) return fmt::format("{}{}{}", r.key, one, r.values.front());
    std::string out = fmt::format("{} {} (", r.key, many);
    for (std::size_t i = 0; i < r.values.size(); ++i) out += (i ? "," : "") + r.values[i];
    return out + ")";
  };
  switch (r.op) {
    case Op::in: return set("=", "in");
    case Op::not_in: return set("!=", "notin");
    case Op::exists: return r.key;
    case Op::not_exists: return "!" + r.key;
    case Op::gt: return r.key + ">" + r.values.front();
    case Op::lt: return r.key + "<" + r.values.front();
  }
  return {};
}

}  // namespace

std::string check_label_key(std::string_view key) {
  const auto slash = key.rfind('/');
  if (slash != std::string_view::npos && !dns_subdomain(key.substr(0, slash))) {
    return "the prefix before '/' must be a DNS subdomain (lower case letters, digits, '-' and '.', at most 253)";
  }
  if (name_part(slash == std::string_view::npos ? key : key.substr(slash + 1))) return {};
  return "the name must be 1 to 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit";
}

std::string check_label_value(std::string_view value) {
  if (value.empty() || name_part(value)) return {};
  return "must be empty, or at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit";
}

LabelSelector LabelSelector::nothing() {
  LabelSelector s;
  s.nothing_ = true;
  return s;
}

Result<LabelSelector> LabelSelector::parse(std::string_view text) {
  LabelSelector s;
  FL_TRY(s.requirements_, Parser(text).run());
  return s;
}

Result<LabelSelector> LabelSelector::from(const k8s::io::apimachinery::pkg::apis::meta::v1::LabelSelector& m) {
  LabelSelector s;
  for (const auto& [key, value] : m.matchlabels()) {
    FL_TRY_CTX(auto r, make(key, Op::in, {value}), "matchLabels");
    s.requirements_.push_back(std::move(r));
  }
  for (int i = 0; i < m.matchexpressions_size(); ++i) {
    const auto& e = m.matchexpressions(i);
    Op op;
    if (e.operator_() == "In") {
      op = Op::in;
    } else if (e.operator_() == "NotIn") {
      op = Op::not_in;
    } else if (e.operator_() == "Exists") {
      op = Op::exists;
    } else if (e.operator_() == "DoesNotExist") {
      op = Op::not_exists;
    } else {
      return fail(ErrorCode::invalid_argument,
                  "matchExpressions[{}].operator: \"{}\" is not one of In, NotIn, Exists, DoesNotExist", i, e.operator_());
    }
    FL_TRY_CTX(auto r, make(e.key(), op, {e.values().begin(), e.values().end()}), "matchExpressions[{}]", i);
    s.requirements_.push_back(std::move(r));
  }
  return s;
}

bool LabelSelector::matches_lookup(const LabelLookup& lookup) const {
  if (nothing_) return false;
  return std::all_of(requirements_.begin(), requirements_.end(), [&](const Requirement& r) { return matches_one(r, lookup); });
}

std::string LabelSelector::to_string() const {
  std::vector<const Requirement*> sorted;
  for (const Requirement& r : requirements_) sorted.push_back(&r);
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
  std::string out;
  for (const Requirement* r : sorted) out += (out.empty() ? "" : ",") + text_of(*r);
  return out;
}

Result<FieldSelector> FieldSelector::parse(std::string_view text) {
  FieldSelector s;
  std::size_t i = 0;
  while (i < text.size()) {
    FieldRequirement r;
    const std::size_t start = i;
    const auto sign = std::min(text.find_first_of("=!,", i), text.size());
    r.field = text.substr(i, sign - i);
    if (sign == i && sign < text.size() && text[sign] == ',') {
      ++i;
      continue;
    }
    i = sign;
    const auto rest = text.substr(i);
    const std::size_t width = rest.starts_with("==") || rest.starts_with("!=") ? 2 : rest.starts_with("=") ? 1 : 0;
    if (width == 0 || r.field.empty()) {
      const auto term = text.substr(start, text.find(',', start) - start);
      return fail(ErrorCode::invalid_argument, "invalid field selector \"{}\": can't understand \"{}\"", text, term);
    }
    r.equals = !rest.starts_with("!=");
    i += width;
    for (; i < text.size() && text[i] != ','; ++i) {
      if (text[i] == '\\') {
        if (i + 1 == text.size() || std::string_view("\\,=").find(text[i + 1]) == std::string_view::npos) {
          return fail(ErrorCode::invalid_argument,
                      "invalid field selector \"{}\": a backslash must stand before a backslash, ',' or '='", text);
        }
        ++i;
      } else if (text[i] == '=') {
        return fail(ErrorCode::invalid_argument, "invalid field selector \"{}\": an '=' in a value needs a backslash", text);
      }
      r.value += text[i];
    }
    ++i;  // the comma
    s.requirements_.push_back(std::move(r));
  }
  return s;
}

bool FieldSelector::matches(const std::function<std::string(std::string_view field)>& value_of) const {
  return std::all_of(requirements_.begin(), requirements_.end(),
                     [&](const FieldRequirement& r) { return (value_of(r.field) == r.value) == r.equals; });
}

std::optional<std::string> FieldSelector::required_value(std::string_view field) const {
  for (const auto& r : requirements_) {
    if (r.equals && r.field == field) return r.value;
  }
  return std::nullopt;
}

}  // namespace fairlead::kube
