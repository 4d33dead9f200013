// YAML to JSON values and back. Plain scalars are read as kubectl reads them (YAML 1.1: yes and no are booleans, 0644 is
// octal), but for the single letters y and n, which are keys more often than answers and stay text. Duplicate keys are
// reported; depth, and what anchors expand to, are bounded. Built on yaml-cpp's event interface.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <istream>
#include <limits>
#include <map>
#include <optional>
#include <sstream>
#include <unordered_set>
#include <utility>

#include "kube/codec.h"
#include "kube/codec_internal.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxNodes = 1'000'000;  // after aliases are expanded

bool one_of(std::string_view s, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), s) != words.end();
}

bool is_null_word(std::string_view s) { return one_of(s, {"", "~", "null", "Null", "NULL"}); }

std::optional<bool> bool_word(std::string_view s) {
  if (one_of(s, {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})) return true;
  if (one_of(s, {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})) return false;
  return std::nullopt;
}

bool all_digits(std::string_view s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// An integer with Go's prefixes: 0x, 0o, 0b, or a leading 0 for octal; underscores between digits.
std::optional<json::value> integer_word(std::string_view word) {
  std::string s;
  for (const char c : word) {
    if (c != '_') s += c;
  }
  std::string_view digits = s;
  bool negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    negative = digits[0] == '-';
    digits.remove_prefix(1);
  }
  int base = 10;
  if (digits.size() > 1 && digits[0] == '0') {
    const char p = digits[1];
    base = p == 'x' || p == 'X' ? 16 : p == 'b' || p == 'B' ? 2 : 8;
    digits.remove_prefix(base != 8 || p == 'o' || p == 'O' ? 2 : 1);
  }
  std::uint64_t v = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), v, base);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  constexpr auto max = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (negative && v > max + 1) return std::nullopt;
  if (negative) return json::value(static_cast<std::int64_t>(0 - v));
  return v <= max ? json::value(static_cast<std::int64_t>(v)) : json::value(v);
}

// [-+]? (digits [. digits?] | . digits) ([eE] [-+]? digits)?
std::optional<json::value> float_word(std::string_view word) {
  std::string_view s = word;
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  const auto exponent = s.find_first_of("eE");
  std::string_view number = s.substr(0, exponent);
  if (exponent != std::string_view::npos) {
    std::string_view e = s.substr(exponent + 1);
    if (!e.empty() && (e[0] == '-' || e[0] == '+')) e.remove_prefix(1);
    if (!all_digits(e)) return std::nullopt;
  }
  const auto point = number.find('.');
  const std::string_view whole = number.substr(0, point);
  const std::string_view fraction = point == std::string_view::npos ? std::string_view() : number.substr(point + 1);
  if (whole.empty() && fraction.empty()) return std::nullopt;
  if ((!whole.empty() && !all_digits(whole)) || (!fraction.empty() && !all_digits(fraction))) return std::nullopt;
  double v = 0;
  const char* start = word.data() + (word[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(start, word.data() + word.size(), v);
  if (error != std::errc{}) return std::nullopt;
  if (v == static_cast<double>(static_cast<std::int64_t>(std::clamp(v, -9e15, 9e15))) && std::abs(v) < 9e15) {
    return json::value(static_cast<std::int64_t>(v));  // 1.0 and 1e3 are written as whole numbers in JSON
  }
  return json::value(v);
}

json::value plain_scalar(const std::string& word) {
  if (is_null_word(word)) return nullptr;
  if (const auto b = bool_word(word)) return json::value(*b);
  const char c = word[0];
  if ((c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.') {
    if (auto i = integer_word(word)) return std::move(*i);
    if (auto f = float_word(word)) return std::move(*f);
  }
  return json::value(word);
}

// Thrown through yaml-cpp, caught in parse_yaml.
struct Refused {
  YAML::Mark mark;
  std::string message;
};

std::size_t count_nodes(const json::value& v) {
  std::size_t n = 1;
  if (const auto* a = v.if_array()) {
    for (const auto& x : *a) n += count_nodes(x);
  } else if (const auto* o = v.if_object()) {
    for (const auto& [k, x] : *o) n += count_nodes(x);
  }
  return n;
}

class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::vector<std::string>* strict) : strict_(strict) {}
  json::value release() { return std::move(root_); }

  const YAML::Mark& start() const { return start_; }

  void OnDocumentStart(const YAML::Mark& mark) override { start_ = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(mark, nullptr, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto it = anchors_.find(anchor);
    if (it == anchors_.end()) throw Refused{mark, "an alias inside its own anchor"};
    nodes_ += count_nodes(it->second);
    add(mark, it->second, 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return add(mark, json::value(value), anchor);
    if (value == "<<" && at_key()) {
      frames_.back().has_key = frames_.back().merging = true;
      return;
    }
    add(mark, plain_scalar(value), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, anchor, json::array());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, anchor, json::object());
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    json::value value;
    YAML::anchor_t anchor = 0;
    YAML::Mark mark;
    bool has_key = false;
    bool merging = false;  // the key is <<, unquoted
    std::string key;
    std::unordered_set<std::string> keys;  // written here, not merged in
  };

  void open(const YAML::Mark& mark, YAML::anchor_t anchor, json::value v) {
    if (frames_.size() >= kMaxDepth) throw Refused{mark, fmt::format("nested more than {} levels deep", kMaxDepth)};
    if (at_key()) throw Refused{mark, "a key must be a scalar"};
    frames_.push_back({std::move(v), anchor, mark, false, false, {}, {}});
  }

  bool at_key() const { return !frames_.empty() && frames_.back().value.is_object() && !frames_.back().has_key; }

  void close() {
    Frame f = std::move(frames_.back());
    frames_.pop_back();
    add(f.mark, std::move(f.value), f.anchor);
  }

  void add(const YAML::Mark& mark, json::value v, YAML::anchor_t anchor) {
    if (++nodes_ > kMaxNodes) throw Refused{mark, fmt::format("more than {} values", kMaxNodes)};
    if (anchor != 0) anchors_[anchor] = v;
    if (frames_.empty()) {
      root_ = std::move(v);
      return;
    }
    Frame& f = frames_.back();
    if (auto* a = f.value.if_array()) {
      a->push_back(std::move(v));
    } else if (!f.has_key) {
      set_key(mark, f, v);
    } else {
      f.has_key = false;
      if (std::exchange(f.merging, false)) return merge(mark, f, v);
      f.value.get_object().insert_or_assign(f.key, std::move(v));
    }
  }

  void set_key(const YAML::Mark& mark, Frame& f, const json::value& v) {
    f.has_key = true;
    switch (v.kind()) {
      case json::kind::string: f.key = std::string_view(v.get_string()); break;
      case json::kind::bool_: f.key = v.get_bool() ? "true" : "false"; break;
      case json::kind::int64: f.key = std::to_string(v.get_int64()); break;
      case json::kind::uint64: f.key = std::to_string(v.get_uint64()); break;
      case json::kind::double_: f.key = to_json(v); break;
      default: throw Refused{mark, "a key must be a scalar"};
    }
    if (!f.keys.insert(f.key).second && strict_ && strict_->size() < kMaxStrictErrors) {
      strict_->push_back(fmt::format("duplicate field \"{}\"", path()));
    }
  }

  // The merge key of YAML 1.1: members that are not written here themselves.
  void merge(const YAML::Mark& mark, Frame& f, const json::value& v) {
    if (const auto* list = v.if_array()) {
      for (const auto& item : *list) merge(mark, f, item);
      return;
    }
    const auto* o = v.if_object();
    if (!o) throw Refused{mark, "the value of << must be a mapping or a list of mappings"};
    nodes_ += o->size();
    for (const auto& [k, x] : *o) {
      if (!f.value.get_object().contains(k)) f.value.get_object().emplace(k, x);
    }
  }

  std::string path() const {
    std::string out;
    for (const Frame& f : frames_) {
      if (const auto* a = f.value.if_array()) {
        out += fmt::format("[{}]", a->size());
      } else {
        if (!out.empty()) out += '.';
        out += f.key;
      }
    }
    return out;
  }

  std::vector<std::string>* strict_;
  YAML::Mark start_;
  json::value root_;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, json::value> anchors_;
  std::size_t nodes_ = 0;
};

}  // namespace

Result<std::vector<json::value>> parse_yaml(std::string_view text, const DecodeOptions& options) {
  std::vector<json::value> out;
  const auto refuse = [](const YAML::Mark& mark, std::string_view message) {
    if (mark.is_null()) return fail(ErrorCode::invalid_argument, "invalid YAML: {}", message);
    return fail(ErrorCode::invalid_argument, "invalid YAML at line {}, column {}: {}", mark.line + 1, mark.column + 1, message);
  };
  if (!valid_utf8(text)) return refuse(YAML::Mark::null_mark(), "not UTF-8");
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    for (int last = -1;;) {
      Builder builder(options.strict);
      if (!parser.HandleNextDocument(builder)) break;
      // At a stray sign, such as a comma, yaml-cpp reports an empty document again and again without getting on.
      if (builder.start().pos == last) throw Refused{builder.start(), "expected a document"};
      last = builder.start().pos;
      json::value v = builder.release();
      if (!v.is_null()) out.push_back(std::move(v));  // an empty document between two separators
    }
  } catch (const YAML::Exception& e) {
    return refuse(e.mark, e.msg);
  } catch (const Refused& e) {
    return refuse(e.mark, e.message);
  } catch (const std::exception& e) {
    return refuse(YAML::Mark::null_mark(), e.what());
  }
  return out;
}

namespace {

class YamlWriter {
 public:
  std::string out;

  // A value after "key:" or "-", or at the top. `inline_first`: the first line continues a "- ".
  void value(const json::value& v, int indent, bool after_dash) {
    if (const auto* o = v.if_object(); o && !o->empty()) return object(*o, indent, after_dash);
    if (const auto* a = v.if_array(); a && !a->empty()) return array(*a, indent);
    scalar(v, indent);
  }

 private:
  void pad(int indent) { out.append(static_cast<std::size_t>(indent), ' '); }

  void object(const json::object& o, int indent, bool after_dash) {
    std::vector<std::pair<std::string_view, const json::value*>> members;
    members.reserve(o.size());
    for (const auto& [k, v] : o) members.emplace_back(k, &v);
    std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    bool first = after_dash;
    for (const auto& [k, v] : members) {
      if (!first) pad(indent);
      first = false;
      text(k, indent, true);
      out += ':';
      member_value(*v, indent);
    }
  }

  void member_value(const json::value& v, int indent) {
    const auto* o = v.if_object();
    const auto* a = v.if_array();
    if ((o && !o->empty()) || (a && !a->empty())) {
      out += '\n';
      value(v, o ? indent + 2 : indent, false);  // list items stand under their key without an indent, as kubectl writes them
    } else {
      out += ' ';
      scalar(v, indent);
    }
  }

  void array(const json::array& a, int indent) {
    for (const auto& v : a) {
      pad(indent);
      out += '-';
      const auto* inner = v.if_array();
      if (inner && !inner->empty()) {
        out += '\n';
        array(*inner, indent + 2);
        continue;
      }
      out += ' ';
      value(v, indent + 2, true);
    }
  }

  void scalar(const json::value& v, int indent) {
    switch (v.kind()) {
      case json::kind::null: out += "null"; break;
      case json::kind::bool_: out += v.get_bool() ? "true" : "false"; break;
      case json::kind::int64: out += std::to_string(v.get_int64()); break;
      case json::kind::uint64: out += std::to_string(v.get_uint64()); break;
      case json::kind::double_: out += to_json(v); break;
      case json::kind::array: out += "[]"; break;
      case json::kind::object: out += "{}"; break;
      case json::kind::string: text(v.get_string(), indent, false); return;
    }
    out += '\n';
  }

  // A string that reads back as itself: plain where nothing else can be meant, a literal block for lines, else quoted.
  void text(std::string_view s, int indent, bool key) {
    if (plain_is_safe(s)) {
      out += s;
    } else if (!key && block_is_safe(s)) {
      return block(s, indent + 2);
    } else {
      append_json_string(out, s);
    }
    if (!key) out += '\n';
  }

  static bool plain_is_safe(std::string_view s) {
    if (s.empty() || s.size() > 1000) return false;
    const std::string word(s);
    if (!plain_scalar(word).is_string() ||
        one_of(s, {"y", "Y", "n", "N", "<<", "=", "-", "?", "---", "...", ".inf", ".nan", ".NaN", ".Inf"}))
      return false;
    if (s.front() >= '0' && s.front() <= '9' && s.find_first_not_of("0123456789-:TtZz.+ _eE") == std::string_view::npos)
      return false;
    if (s.find_first_of("!&*-?|>@`%'\"#,[]{}:~= ") == 0 && !(s[0] == '-' && s.size() > 1 && s[1] != ' ' && s[1] != '-'))
      return false;
    if (s.front() == ' ' || s.back() == ' ' || s.back() == ':') return false;
    for (std::size_t i = 0; i < s.size(); ++i) {
      const auto c = static_cast<unsigned char>(s[i]);
      if (c < 0x20 || c >= 0x7F) return false;
      if (c == ':' && s[i + 1] == ' ') return false;  // not the last, see above
      if (c == '#' && s[i - 1] == ' ') return false;  // not the first, see above
    }
    return true;
  }

  static bool block_is_safe(std::string_view s) {
    if (s.find('\n') == std::string_view::npos || s.front() == ' ' || s.front() == '\n' || s.front() == '\t') return false;
    for (std::size_t i = 0; i < s.size(); ++i) {
      const auto c = static_cast<unsigned char>(s[i]);
      if ((c < 0x20 && c != '\n' && c != '\t') || c >= 0x7F) return false;
      if (c == '\n' && i > 0 && (s[i - 1] == ' ' || s[i - 1] == '\t')) return false;
    }
    return s.back() != ' ' && s.back() != '\t';
  }

  void block(std::string_view s, int indent) {
    const bool ends = s.back() == '\n';
    out += !ends ? "|-" : s.ends_with("\n\n") ? "|+" : "|";
    out += '\n';
    if (ends) s.remove_suffix(1);
    for (std::size_t start = 0; start <= s.size();) {
      const auto end = std::min(s.find('\n', start), s.size());
      if (end > start) pad(indent);
      out += s.substr(start, end - start);
      out += '\n';
      start = end + 1;
    }
  }
};

}  // namespace

std::string to_yaml(const json::value& v) {
  YamlWriter w;
  w.value(v, 0, false);
  return std::move(w.out);
}

}  // namespace fairlead::kube
