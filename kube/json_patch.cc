// RFC 6902 and RFC 7396.
#include <algorithm>
#include <charconv>
#include <optional>
#include <span>

#include "kube/codec.h"
#include "kube/codec_internal.h"
#include "kube/patch.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxOperations = 10'000;
constexpr std::size_t kMaxCopiedBytes = 3u << 20;

// What an operation made of the document, for the text of its error.
struct NoFit {
  std::string why;
};
using Step = tl::expected<void, NoFit>;
template <typename... A>
tl::unexpected<NoFit> no_fit(fmt::format_string<A...> f, A&&... a) {
  return tl::unexpected(NoFit{fmt::format(f, std::forward<A>(a)...)});
}

std::size_t depth_of(const json::value& v) {
  std::size_t deepest = 0;
  if (const auto* a = v.if_array()) {
    for (const auto& x : *a) deepest = std::max(deepest, depth_of(x) + 1);
    return std::max<std::size_t>(deepest, 1);
  }
  if (const auto* o = v.if_object()) {
    for (const auto& [k, x] : *o) deepest = std::max(deepest, depth_of(x) + 1);
    return std::max<std::size_t>(deepest, 1);
  }
  return 0;
}

// Numbers are equal by value (1 and 1.0), objects whatever their order.
bool same(const json::value& a, const json::value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_double() || b.is_double()) return a.to_number<double>() == b.to_number<double>();
    return a == b;
  }
  if (a.kind() != b.kind()) return false;
  if (const auto* x = a.if_array()) {
    const auto& y = b.get_array();
    return x->size() == y.size() && std::equal(x->begin(), x->end(), y.begin(), same);
  }
  if (const auto* x = a.if_object()) {
    const auto& y = b.get_object();
    return x->size() == y.size() && std::all_of(x->begin(), x->end(), [&](const auto& member) {
             const auto* other = y.if_contains(member.key());
             return other && same(member.value(), *other);
           });
  }
  return a == b;
}

using Pointer = std::vector<std::string>;

// RFC 6901. Nullopt when it is not a JSON pointer.
std::optional<Pointer> parse_pointer(std::string_view text) {
  Pointer out;
  if (text.empty()) return out;
  if (text[0] != '/') return std::nullopt;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '/') {
      out.emplace_back();
    } else if (text[i] == '~') {
      if (++i == text.size() || (text[i] != '0' && text[i] != '1')) return std::nullopt;
      out.back() += text[i] == '0' ? '~' : '/';
    } else {
      out.back() += text[i];
    }
  }
  return out;
}

std::optional<std::size_t> array_index(std::string_view token) {
  if (token.empty() || (token.size() > 1 && token[0] == '0')) return std::nullopt;
  std::size_t i = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), i);
  if (error != std::errc{} || end != token.data() + token.size()) return std::nullopt;
  return i;
}

class JsonPatch {
 public:
  explicit JsonPatch(json::value document) : doc_(std::move(document)) {}

  Result<> apply(const json::value& operation, std::size_t number) {
    const auto* o = operation.if_object();
    if (!o) return malformed(number, "must be an object");
    FL_TRY(const auto op, text(*o, "op", number));
    FL_TRY(const auto path_text, text(*o, "path", number));
    const auto path = parse_pointer(path_text);
    if (!path) return malformed(number, fmt::format("path \"{}\" is not a JSON pointer", path_text));
    const json::value* value = o->if_contains("value");
    Pointer from;
    if (op == "move" || op == "copy") {
      FL_TRY(const auto from_text, text(*o, "from", number));
      auto parsed = parse_pointer(from_text);
      if (!parsed) return malformed(number, fmt::format("from \"{}\" is not a JSON pointer", from_text));
      from = std::move(*parsed);
    } else if (op == "add" || op == "replace" || op == "test") {
      if (!value) return malformed(number, "value: Required value");
    } else if (op != "remove") {
      return malformed(number, fmt::format("op \"{}\" is not one of add, remove, replace, move, copy, test", op));
    }
    const auto done = run(op, *path, from, value);
    if (done) return {};
    return fail(ErrorCode::failed_precondition, "operation {} ({} \"{}\"): {}", number, op, path_text, done.error().why);
  }

  json::value release() { return std::move(doc_); }

 private:
  static Failure malformed(std::size_t number, std::string_view why) {
    return fail(ErrorCode::invalid_argument, "operation {}: {}", number, why);
  }
  static Result<std::string_view> text(const json::object& o, std::string_view name, std::size_t number) {
    const auto* v = o.if_contains(name);
    if (!v) return malformed(number, fmt::format("{}: Required value", name));
    if (!v->is_string()) return malformed(number, fmt::format("{}: must be a string", name));
    return std::string_view(v->get_string());
  }

  Step run(std::string_view op, const Pointer& path, const Pointer& from, const json::value* value) {
    if (op == "add") return add(path, *value);
    if (op == "remove") return remove(path);
    if (op == "replace") return replace(path, *value);
    if (op == "test") return test(path, *value);
    auto source = find(from);
    if (!source) return tl::unexpected(std::move(source).error());
    if (op == "copy") {
      copied_ += to_json(**source).size();
      if (copied_ > kMaxCopiedBytes) return no_fit("all copies together are larger than {} bytes", kMaxCopiedBytes);
      return add(path, json::value(**source));
    }
    if (from == path) return {};
    if (from.size() < path.size() && std::equal(from.begin(), from.end(), path.begin()))
      return no_fit("cannot move a value into itself");
    const json::value moved = **source;
    if (auto removed = remove(from); !removed) return removed;
    return add(path, moved);
  }

  tl::expected<json::value*, NoFit> find(std::span<const std::string> path) {
    json::value* at = &doc_;
    for (const auto& token : path) {
      json::value* next = nullptr;
      if (auto* o = at->if_object()) {
        next = o->if_contains(token);
      } else if (auto* a = at->if_array()) {
        const auto i = array_index(token);
        if (!i) return no_fit("\"{}\" is not an index of a list", token);
        next = a->if_contains(*i);
      }
      if (!next) return no_fit("there is no \"{}\"", token);
      at = next;
    }
    return at;
  }

  Step add(const Pointer& path, const json::value& value) {
    if (path.size() + depth_of(value) > kMaxDepth) return no_fit("the result is nested more than {} levels deep", kMaxDepth);
    if (path.empty()) {
      doc_ = value;
      return {};
    }
    auto parent = find(std::span(path).first(path.size() - 1));
    if (!parent) return tl::unexpected(std::move(parent).error());
    if (auto* o = (*parent)->if_object()) {
      o->insert_or_assign(path.back(), value);
      return {};
    }
    auto* a = (*parent)->if_array();
    if (!a) return no_fit("\"{}\" would stand in something that is neither an object nor a list", path.back());
    if (path.back() == "-") {
      a->push_back(value);
      return {};
    }
    const auto i = array_index(path.back());
    if (!i) return no_fit("\"{}\" is not an index of a list", path.back());
    if (*i > a->size()) return no_fit("index {} is beyond the end of a list of {}", *i, a->size());
    a->insert(a->begin() + static_cast<std::ptrdiff_t>(*i), value);
    return {};
  }

  Step remove(const Pointer& path) {
    if (path.empty()) return no_fit("the whole document cannot be removed");
    auto target = find(path);
    if (!target) return tl::unexpected(std::move(target).error());
    json::value& parent = **find(std::span(path).first(path.size() - 1));
    if (auto* o = parent.if_object()) {
      o->erase(path.back());
    } else {
      auto& a = parent.get_array();
      a.erase(a.begin() + static_cast<std::ptrdiff_t>(*array_index(path.back())));
    }
    return {};
  }

  Step replace(const Pointer& path, const json::value& value) {
    auto target = find(path);
    if (!target) return tl::unexpected(std::move(target).error());
    if (path.size() + depth_of(value) > kMaxDepth) return no_fit("the result is nested more than {} levels deep", kMaxDepth);
    **target = value;
    return {};
  }

  Step test(const Pointer& path, const json::value& value) {
    auto target = find(path);
    if (!target) return tl::unexpected(std::move(target).error());
    if (!same(**target, value)) return no_fit("the value is different");
    return {};
  }

  json::value doc_;
  std::size_t copied_ = 0;
};

json::value merged(const json::value& target, const json::value& patch) {
  const auto* p = patch.if_object();
  if (!p) return patch;
  json::object out = target.is_object() ? target.get_object() : json::object();
  for (const auto& [key, value] : *p) {
    if (value.is_null()) {
      out.erase(key);
    } else {
      auto* old = out.if_contains(key);
      json::value next = merged(old ? *old : json::value(), value);
      out.insert_or_assign(key, std::move(next));
    }
  }
  return out;
}

}  // namespace

Result<json::value> json_patch(const json::value& target, const json::value& patch) {
  const auto* operations = patch.if_array();
  if (!operations) return fail(ErrorCode::invalid_argument, "a JSON patch must be a list of operations");
  if (operations->size() > kMaxOperations) {
    return fail(ErrorCode::invalid_argument, "the patch has {} operations, the limit is {}", operations->size(), kMaxOperations);
  }
  JsonPatch p(target);
  for (std::size_t i = 0; i < operations->size(); ++i) FL_CHECK(p.apply((*operations)[i], i));
  return p.release();
}

Result<json::value> merge_patch(const json::value& target, const json::value& patch) {
  if (!patch.is_object()) return fail(ErrorCode::invalid_argument, "a merge patch must be an object");
  return merged(target, patch);
}

}  // namespace fairlead::kube
