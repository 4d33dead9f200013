#include "controlplane/apiserver/custom/json_path.h"

#include <charconv>

#include "kube/codec.h"

namespace fairlead::apiserver::custom {
namespace json = boost::json;
namespace {

constexpr std::size_t kMaxText = 1'000;

// A member's name up to the next dot or bracket; a backslash takes the next character as it is.
std::string take_name(std::string_view& s) {
  std::string out;
  while (!s.empty() && s.front() != '.' && s.front() != '[') {
    if (s.front() == '\\' && s.size() > 1) s.remove_prefix(1);
    out += s.front();
    s.remove_prefix(1);
  }
  return out;
}

bool quoted(std::string_view s) { return s.size() >= 2 && (s.front() == '\'' || s.front() == '"') && s.back() == s.front(); }

// The bracket that closes the one before `s`, quotes and nested brackets left aside.
std::size_t closing_bracket(std::string_view s) {
  char quote = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (quote) {
      if (s[i] == quote) quote = 0;
    } else if (s[i] == '\'' || s[i] == '"') {
      quote = s[i];
    } else if (s[i] == ']') {
      return i;
    }
  }
  return std::string_view::npos;
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
  while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
  return s;
}

std::string text_of(const json::value& v) { return v.is_string() ? std::string(v.get_string()) : kube::to_json(v); }

}  // namespace

Result<JsonPath> JsonPath::parse(std::string_view text) {
  const auto bad = [&](std::string_view why) { return fail(ErrorCode::invalid_argument, "{} in \"{}\"", why, text); };
  if (text.empty() || text.size() > kMaxText || (text.front() != '.' && text.front() != '['))
    return bad("a path begins with a dot");
  JsonPath path;
  auto s = text;
  while (!s.empty()) {
    Step step;
    if (s.front() == '.') {
      s.remove_prefix(1);
      if (s.starts_with('[')) continue;
      step.name = take_name(s);
      if (step.name.empty()) return bad("an empty name");
      path.steps_.push_back(std::move(step));
      continue;
    }
    s.remove_prefix(1);
    const auto end = closing_bracket(s);
    if (end == std::string_view::npos) return bad("an open bracket");
    const auto inside = trim(s.substr(0, end));
    s.remove_prefix(end + 1);
    if (quoted(inside)) {
      step.name = inside.substr(1, inside.size() - 2);
    } else if (inside == "*") {
      step.kind = Step::Kind::any;
    } else if (inside.starts_with("?(@.") && inside.ends_with(')')) {
      step.kind = Step::Kind::filter;
      const auto condition = inside.substr(4, inside.size() - 5);
      const auto equals = condition.find("==");
      const auto wanted = equals == std::string_view::npos ? std::string_view{} : trim(condition.substr(equals + 2));
      if (wanted.empty()) return bad("a filter compares with ==");
      step.name = trim(condition.substr(0, equals));
      step.wanted = quoted(wanted) ? wanted.substr(1, wanted.size() - 2) : wanted;
    } else {
      step.kind = Step::Kind::index;
      const auto [stop, ec] = std::from_chars(inside.data(), inside.data() + inside.size(), step.index);
      if (ec != std::errc() || stop != inside.data() + inside.size()) return bad("a bracket that is no index");
    }
    path.steps_.push_back(std::move(step));
    if (!s.empty() && s.front() != '.' && s.front() != '[') return bad("text after a bracket");
  }
  return path;
}

const json::value* JsonPath::walk(const json::value& v, const std::vector<Step>& steps, std::size_t from) {
  if (from == steps.size()) return &v;
  const auto& step = steps[from];
  if (step.kind == Step::Kind::member) {
    const auto* o = v.if_object();
    const auto* next = o ? o->if_contains(step.name) : nullptr;
    return next ? walk(*next, steps, from + 1) : nullptr;
  }
  const auto* a = v.if_array();
  if (!a) return nullptr;
  if (step.kind == Step::Kind::index) {
    const auto size = static_cast<std::int64_t>(a->size());
    const auto at = step.index < 0 ? size + step.index : step.index;
    return at >= 0 && at < size ? walk((*a)[static_cast<std::size_t>(at)], steps, from + 1) : nullptr;
  }
  for (const auto& item : *a) {
    if (step.kind == Step::Kind::filter) {
      const auto* o = item.if_object();
      const auto* m = o ? o->if_contains(step.name) : nullptr;
      if (!m || text_of(*m) != *step.wanted) continue;
    }
    if (const auto* found = walk(item, steps, from + 1)) return found;
  }
  return nullptr;
}

const json::value* JsonPath::find(const json::value& root) const { return walk(root, steps_, 0); }

}  // namespace fairlead::apiserver::custom
