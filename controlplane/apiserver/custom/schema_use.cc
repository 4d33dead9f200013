// Pruning, defaulting and validation of objects by their schema.
#include <algorithm>
#include <cmath>
#include <set>

#include "base/ip.h"
#include "controlplane/apiserver/custom/schema.h"
#include "controlplane/apiserver/custom/schema_node.h"
#include "kube/base64.h"
#include "kube/codec.h"
#include "kube/custom.h"
#include "kube/time_text.h"

namespace fairlead::apiserver::custom {
namespace json = boost::json;
namespace {

using field::ErrorList;
using field::Path;

constexpr std::size_t kMaxStrict = 100;
constexpr std::size_t kMaxErrors = 100;

std::string joined(const std::string& path, std::string_view name) { return path.empty() ? std::string(name) : path + "." + std::string(name); }

// ---- prune

bool system_member(std::string_view name) { return name == "apiVersion" || name == "kind" || name == "metadata"; }

void prune_object(const SchemaNode& n, json::object& o, const std::string& path, bool root, std::vector<std::string>* strict);

void prune_value(const SchemaNode& n, json::value& v, const std::string& path, std::vector<std::string>* strict) {
  if (auto* o = v.if_object()) return prune_object(n, *o, path, n.embedded, strict);
  auto* a = v.if_array();
  if (!a || !n.items) return;
  for (std::size_t i = 0; i < a->size(); ++i) prune_value(*n.items, (*a)[i], fmt::format("{}[{}]", path, i), strict);
}

void prune_object(const SchemaNode& n, json::object& o, const std::string& path, bool root, std::vector<std::string>* strict) {
  std::vector<std::string> unknown;
  for (auto& m : o) {
    const std::string_view name = m.key();
    if (root && system_member(name)) continue;
    if (const auto it = n.properties.find(name); it != n.properties.end())
      prune_value(it->second, m.value(), joined(path, name), strict);
    else if (n.additional)
      prune_value(*n.additional, m.value(), joined(path, name), strict);
    else if (!n.preserve && !n.additional_any)
      unknown.emplace_back(name);
  }
  for (const auto& name : unknown) {
    if (strict && strict->size() < kMaxStrict) strict->push_back(fmt::format("unknown field \"{}\"", joined(path, name)));
    o.erase(name);
  }
}

// ---- defaults

void default_object(const SchemaNode& n, json::object& o);

void default_value(const SchemaNode& n, json::value& v) {
  if (auto* o = v.if_object()) return default_object(n, *o);
  if (auto* a = v.if_array(); a && n.items)
    for (auto& item : *a) default_value(*n.items, item);
}

void default_object(const SchemaNode& n, json::object& o) {
  for (const auto& [name, child] : n.properties) {
    auto* present = o.if_contains(name);
    if (present && present->is_null() && child.default_value && !child.nullable) *present = *child.default_value;
    if (!present && child.default_value) {
      o.emplace(name, *child.default_value);
      present = o.if_contains(name);
    }
    if (present) default_value(child, *present);
  }
  if (!n.additional) return;
  for (auto& m : o)
    if (!n.properties.count(std::string_view(m.key()))) default_value(*n.additional, m.value());
}

// ---- validate

std::string_view type_name(const json::value& v) {
  switch (v.kind()) {
    case json::kind::null: return "null";
    case json::kind::bool_: return "boolean";
    case json::kind::int64:
    case json::kind::uint64: return "integer";
    case json::kind::double_: return "number";
    case json::kind::string: return "string";
    case json::kind::array: return "array";
    case json::kind::object: return "object";
  }
  return "";
}

bool has_type(const json::value& v, const std::string& type) {
  const auto name = type_name(v);
  if (name == type || (type == "number" && name == "integer")) return true;
  return type == "integer" && v.is_double() && v.get_double() == std::floor(v.get_double());
}

std::int64_t characters(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; });
}

bool is_uuid(std::string_view s) {
  if (s.size() != 36) return false;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? s[i] != '-' : !std::isxdigit(static_cast<unsigned char>(s[i]))) return false;
  }
  return true;
}

// Formats that upstream knows and that can be said in a line; others are not checked.
bool has_format(std::string_view s, const std::string& format) {
  if (format == "ipv4") {
    const auto ip = IpAddress::parse(s);
    return ip && ip->is_v4();
  }
  if (format == "ipv6") {
    const auto ip = IpAddress::parse(s);
    return ip && !ip->is_v4();
  }
  if (format == "cidr") return s.find('/') != std::string_view::npos && InterfaceAddress::parse(s);
  if (format == "date-time") return kube::parse_time(s).has_value();
  if (format == "byte") return kube::from_base64(s).has_value();
  if (format == "uuid") return is_uuid(s);
  return true;
}

std::string number_text(double v) { return kube::to_json(json::value(v)); }

class Validator {
 public:
  explicit Validator(ErrorList& errors) : errors_(errors) {}

  void value(const SchemaNode& n, const json::value& v, const Path& at) {
    if (errors_.size() >= kMaxErrors) return;
    if (v.is_null() && n.nullable) return;
    if (n.int_or_string && !v.is_string() && !has_type(v, "integer")) return wrong_type("integer,string", v, at);
    if (!n.type.empty() && !has_type(v, n.type)) return wrong_type(n.type, v, at);
    enumeration(n, v, at);
    if (v.is_string()) text(n, v.get_string(), at);
    if (v.is_number()) number(n, v, at);
    if (const auto* a = v.if_array()) list(n, *a, at);
    if (const auto* o = v.if_object()) object(n, *o, at);
    combinations(n, v, at);
  }

  void object(const SchemaNode& n, const json::object& o, const Path& at) {
    const auto size = static_cast<std::int64_t>(o.size());
    if (n.max_properties && size > *n.max_properties)
      errors_.too_many(at, o.size(), static_cast<std::size_t>(*n.max_properties));
    if (n.min_properties && size < *n.min_properties)
      invalid(at, "object", fmt::format("should have at least {} properties", *n.min_properties));
    for (const auto& name : n.required)
      if (!o.contains(name)) errors_.required(at.child(name));
    for (const auto& m : o) {
      if (const auto it = n.properties.find(std::string_view(m.key())); it != n.properties.end())
        value(it->second, m.value(), at.child(m.key()));
      else if (n.additional)
        value(*n.additional, m.value(), at.child(m.key()));
    }
  }

 private:
  std::string where(const Path& at) const { return at.text().empty() ? "" : at.text(); }
  Path shown(const Path& at) const { return at.text().empty() ? Path("<nil>") : at; }
  // `value_json` as it is printed.
  void invalid_json(const Path& at, std::string value_json, std::string_view says) {
    errors_.invalid_json(shown(at), std::move(value_json), fmt::format("{} in body {}", where(at), says));
  }
  void invalid(const Path& at, std::string_view text, std::string_view says) { invalid_json(at, field::quote(text), says); }
  void wrong_type(std::string_view wanted, const json::value& v, const Path& at) {
    const auto name = type_name(v);
    errors_.add({field::Type::type_invalid, shown(at).text(), field::quote(name),
                 fmt::format("{} in body must be of type {}: {}", where(at), wanted, field::quote(name))});
  }

  void enumeration(const SchemaNode& n, const json::value& v, const Path& at) {
    if (n.enumeration.empty()) return;
    for (const auto& allowed : n.enumeration)
      if (kube::sorted(allowed) == kube::sorted(v)) return;
    std::string supported = "supported values: ";
    for (std::size_t i = 0; i < n.enumeration.size(); ++i) supported += (i ? ", " : "") + kube::to_json(n.enumeration[i]);
    errors_.add({field::Type::not_supported, shown(at).text(), kube::to_json(v), supported});
  }

  void text(const SchemaNode& n, std::string_view s, const Path& at) {
    if (n.max_length && characters(s) > *n.max_length) errors_.too_long(shown(at), static_cast<std::size_t>(*n.max_length));
    if (n.min_length && characters(s) < *n.min_length)
      invalid(at, s, fmt::format("should be at least {} chars long", *n.min_length));
    if (n.pattern && !RE2::PartialMatch({s.data(), s.size()}, *n.pattern)) invalid(at, s, fmt::format("should match '{}'", n.pattern->pattern()));
    if (!n.format.empty() && !has_format(s, n.format)) {
      errors_.add({field::Type::type_invalid, shown(at).text(), field::quote(s),
                   fmt::format("{} in body must be of type {}: {}", where(at), n.format, field::quote(s))});
    }
  }

  void number(const SchemaNode& n, const json::value& v, const Path& at) {
    const auto x = v.to_number<double>();
    const auto complain = [&](std::string_view says) { invalid_json(at, kube::to_json(v), says); };
    if (n.minimum && (n.exclusive_minimum ? x <= *n.minimum : x < *n.minimum))
      complain(fmt::format("should be greater than {}{}", n.exclusive_minimum ? "" : "or equal to ", number_text(*n.minimum)));
    if (n.maximum && (n.exclusive_maximum ? x >= *n.maximum : x > *n.maximum))
      complain(fmt::format("should be less than {}{}", n.exclusive_maximum ? "" : "or equal to ", number_text(*n.maximum)));
    if (n.multiple_of && *n.multiple_of > 0 && std::abs(std::remainder(x, *n.multiple_of)) > 1e-9)
      complain(fmt::format("should be a multiple of {}", number_text(*n.multiple_of)));
  }

  void list(const SchemaNode& n, const json::array& a, const Path& at) {
    const auto size = static_cast<std::int64_t>(a.size());
    if (n.max_items && size > *n.max_items) errors_.too_many(shown(at), a.size(), static_cast<std::size_t>(*n.max_items));
    if (n.min_items && size < *n.min_items) invalid_json(at, std::to_string(size), fmt::format("should have at least {} items", *n.min_items));
    if (n.items)
      for (std::size_t i = 0; i < a.size(); ++i) value(*n.items, a[i], at.index(i));
    if (n.list_type == "set" || n.list_type == "map") unique(n, a, at);
  }

  void unique(const SchemaNode& n, const json::array& a, const Path& at) {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < a.size(); ++i) {
      json::value id = a[i];
      if (n.list_type == "map") {
        json::object keys;
        for (const auto& k : n.list_keys)
          if (const auto* o = a[i].if_object(); o && o->contains(k)) keys.emplace(k, o->at(k));
        id = std::move(keys);
      }
      const auto text = kube::to_json(kube::sorted(id));
      if (!seen.insert(text).second) errors_.duplicate_json(at.index(i), text);
    }
  }

  bool good(const SchemaNode& n, const json::value& v, const Path& at) const {
    ErrorList errors;
    Validator(errors).value(n, v, at);
    return errors.empty();
  }
  void combinations(const SchemaNode& n, const json::value& v, const Path& at) {
    for (const auto& each : n.all_of) value(each, v, at);
    const auto matching = [&](const std::vector<SchemaNode>& list) {
      return std::count_if(list.begin(), list.end(), [&](const SchemaNode& each) { return good(each, v, at); });
    };
    const auto name = field::quote(at.text());
    const auto complain = [&](std::string detail) { errors_.invalid_json(shown(at), kube::to_json(v), detail); };
    if (!n.any_of.empty() && matching(n.any_of) == 0) complain(name + " must validate at least one schema (anyOf)");
    if (!n.one_of.empty())
      if (const auto count = matching(n.one_of); count != 1)
        complain(fmt::format("{} must validate one and only one schema (oneOf). {}", name,
                             count ? fmt::format("Found {} valid alternatives", count) : "Found none valid"));
    if (n.negated && good(*n.negated, v, at)) complain(name + " must not validate the schema (not)");
  }

  ErrorList& errors_;
};

}  // namespace

void Schema::prune(json::object& object, std::vector<std::string>* strict) const { prune_object(*root_, object, "", true, strict); }
void Schema::apply_defaults(json::object& object) const { default_object(*root_, object); }

void Schema::validate(const json::object& object, ErrorList& errors) const {
  Validator(errors).value(*root_, json::value(object), Path());
}

}  // namespace fairlead::apiserver::custom
