#include <algorithm>

#include "controlplane/apiserver/custom/schema.h"
#include "controlplane/apiserver/custom/schema_node.h"
#include "kube/codec.h"

namespace fairlead::apiserver::custom {
namespace json = boost::json;
namespace {

using field::ErrorList;
using field::Path;

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxUnknown = 20;
constexpr std::int64_t kPatternMemory = 1 << 20;
constexpr std::string_view kTypes[] = {"array", "boolean", "integer", "number", "object", "string"};
// Known, and without effect here.
constexpr std::string_view kIgnored[] = {"description", "title", "example", "externalDocs", "id", "$schema", "x-kubernetes-map-type"};
constexpr std::string_view kForbidden[] = {"$ref", "definitions", "dependencies", "deprecated", "discriminator", "readOnly", "writeOnly",
                                           "xml", "patternProperties", "additionalItems"};

class Compiler {
 public:
  explicit Compiler(ErrorList& errors) : errors_(errors) {}

  // `inner`: below allOf and the like, where only value validations may stand.
  SchemaNode node(const json::value& v, const Path& at, std::size_t depth, bool inner) {
    SchemaNode n;
    const auto* o = v.if_object();
    if (!o) {
      errors_.add({field::Type::type_invalid, at.text(), kube::to_json(v), "must be an object"});
      return n;
    }
    if (depth > kMaxDepth) {
      errors_.forbidden(at, fmt::format("schemas are at most {} levels deep", kMaxDepth));
      return n;
    }
    for (const auto& [key, value] : *o) keyword(n, key, value, at, depth, inner);
    if (!inner) check_structure(n, at, depth);
    return n;
  }
  bool rules = false;
  std::vector<std::string> unknown;

 private:
  void wrong(const Path& at, const json::value& v, std::string_view want) {
    errors_.add({field::Type::type_invalid, at.text(), kube::to_json(v), fmt::format("must be {}", want)});
  }
  void text(std::string& out, const json::value& v, const Path& at) {
    if (v.is_string())
      out = v.get_string();
    else
      wrong(at, v, "a string");
  }
  void flag(bool& out, const json::value& v, const Path& at) {
    if (v.is_bool())
      out = v.get_bool();
    else
      wrong(at, v, "true or false");
  }
  void number(std::optional<double>& out, const json::value& v, const Path& at) {
    if (v.is_number())
      out = v.to_number<double>();
    else
      wrong(at, v, "a number");
  }
  void count(std::optional<std::int64_t>& out, const json::value& v, const Path& at) {
    if (v.is_int64() && v.get_int64() >= 0)
      out = v.get_int64();
    else
      wrong(at, v, "a whole number that is not negative");
  }
  void names(std::vector<std::string>& out, const json::value& v, const Path& at) {
    const auto* a = v.if_array();
    if (!a) return wrong(at, v, "a list of strings");
    for (std::size_t i = 0; i < a->size(); ++i) {
      if ((*a)[i].is_string())
        out.emplace_back((*a)[i].get_string());
      else
        wrong(at.index(i), (*a)[i], "a string");
    }
  }
  void nodes(std::vector<SchemaNode>& out, const json::value& v, const Path& at, std::size_t depth) {
    const auto* a = v.if_array();
    if (!a) return wrong(at, v, "a list of schemas");
    for (std::size_t i = 0; i < a->size(); ++i) out.push_back(node((*a)[i], at.index(i), depth + 1, true));
  }

  void keyword(SchemaNode& n, std::string_view key, const json::value& v, const Path& at, std::size_t depth, bool inner) {
    const auto here = at.child(key);
    if (v.is_null()) return;
    if (key == "type") return text(n.type, v, here);
    if (key == "format") return text(n.format, v, here);
    if (key == "nullable") return flag(n.nullable, v, here);
    if (key == "required") return names(n.required, v, here);
    if (key == "minimum") return number(n.minimum, v, here);
    if (key == "maximum") return number(n.maximum, v, here);
    if (key == "multipleOf") return number(n.multiple_of, v, here);
    if (key == "exclusiveMinimum") return flag(n.exclusive_minimum, v, here);
    if (key == "exclusiveMaximum") return flag(n.exclusive_maximum, v, here);
    if (key == "minLength") return count(n.min_length, v, here);
    if (key == "maxLength") return count(n.max_length, v, here);
    if (key == "minItems") return count(n.min_items, v, here);
    if (key == "maxItems") return count(n.max_items, v, here);
    if (key == "minProperties") return count(n.min_properties, v, here);
    if (key == "maxProperties") return count(n.max_properties, v, here);
    if (key == "enum") {
      if (const auto* a = v.if_array()) n.enumeration.assign(a->begin(), a->end());
      else wrong(here, v, "a list");
      return;
    }
    if (key == "pattern") return pattern(n, v, here);
    if (key == "properties") return properties(n, v, here, depth, inner);
    if (key == "additionalProperties") return additional(n, v, here, depth, inner);
    if (key == "items") {
      if (v.is_array()) return errors_.forbidden(here, "items must be a schema object and not an array");
      n.items = std::make_unique<SchemaNode>(node(v, here, depth + 1, inner));
      return;
    }
    if (key == "allOf") return nodes(n.all_of, v, here, depth);
    if (key == "anyOf") return nodes(n.any_of, v, here, depth);
    if (key == "oneOf") return nodes(n.one_of, v, here, depth);
    if (key == "not") {
      n.negated = std::make_unique<SchemaNode>(node(v, here, depth + 1, true));
      return;
    }
    if (key == "default") {
      if (inner) return errors_.forbidden(here, "must be undefined to be structural");
      n.default_value = v;
      return;
    }
    if (key == "x-kubernetes-preserve-unknown-fields") {
      if (!v.is_bool() || !v.get_bool()) return errors_.invalid_json(here, kube::to_json(v), "must be true or undefined");
      n.preserve = true;
      return;
    }
    if (key == "x-kubernetes-int-or-string") return flag(n.int_or_string, v, here);
    if (key == "x-kubernetes-embedded-resource") return flag(n.embedded, v, here);
    if (key == "x-kubernetes-list-type") return text(n.list_type, v, here);
    if (key == "x-kubernetes-list-map-keys") return names(n.list_keys, v, here);
    if (key == "x-kubernetes-validations") {
      rules = true;
      return;
    }
    if (key == "uniqueItems") {
      if (v.is_bool() && v.get_bool())
        errors_.forbidden(here, "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
      return;
    }
    if (std::find(std::begin(kForbidden), std::end(kForbidden), key) != std::end(kForbidden))
      return errors_.forbidden(here, fmt::format("{} is not supported", key));
    const bool known = std::find(std::begin(kIgnored), std::end(kIgnored), key) != std::end(kIgnored);
    if (!known && unknown.size() < kMaxUnknown) unknown.push_back(here.text());
  }

  void pattern(SchemaNode& n, const json::value& v, const Path& at) {
    std::string regex;
    text(regex, v, at);
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(kPatternMemory);
    n.pattern = std::make_unique<RE2>(regex, options);
    if (n.pattern->ok()) return;
    errors_.invalid(at, regex, fmt::format("must be a valid regular expression, but isn't: {}", n.pattern->error()));
    n.pattern.reset();
  }

  void properties(SchemaNode& n, const json::value& v, const Path& at, std::size_t depth, bool inner) {
    const auto* o = v.if_object();
    if (!o) return wrong(at, v, "an object");
    for (const auto& [name, child] : *o) n.properties.emplace(name, node(child, at.key(name), depth + 1, inner));
  }

  void additional(SchemaNode& n, const json::value& v, const Path& at, std::size_t depth, bool inner) {
    if (v.is_bool()) {
      if (!v.get_bool()) errors_.forbidden(at, "additionalProperties cannot be set to false");
      n.additional_any = v.get_bool();
      return;
    }
    n.additional = std::make_unique<SchemaNode>(node(v, at, depth + 1, inner));
  }

  void check_structure(const SchemaNode& n, const Path& at, std::size_t depth) {
    if (!n.type.empty() && std::find(std::begin(kTypes), std::end(kTypes), n.type) == std::end(kTypes))
      errors_.not_supported(at.child("type"), n.type, kTypes);
    if (n.type.empty() && !n.int_or_string && !n.preserve && depth > 0)
      errors_.required(at.child("type"), "must not be empty for specified object fields");
    if (depth == 0 && n.type != "object") {
      if (n.type.empty())
        errors_.required(at.child("type"), "must not be empty at the root");
      else
        errors_.invalid(at.child("type"), n.type, "must be object at the root");
    }
    if (n.int_or_string && !n.type.empty())
      errors_.forbidden(at.child("type"), "must be empty if x-kubernetes-int-or-string is true");
    if (!n.properties.empty() && (n.additional || n.additional_any))
      errors_.forbidden(at.child("additionalProperties"), "additionalProperties and properties are mutual exclusive");
    if (n.type == "array" && !n.items) errors_.required(at.child("items"), "must be specified");
    check_list_type(n, at);
  }

  void check_list_type(const SchemaNode& n, const Path& at) {
    const auto here = at.child("x-kubernetes-list-type");
    if (n.list_type.empty()) return;
    if (n.list_type != "atomic" && n.list_type != "set" && n.list_type != "map")
      return errors_.not_supported(here, n.list_type, {"atomic", "map", "set"});
    if (n.type != "array") errors_.invalid(at.child("type"), n.type, "must be array if x-kubernetes-list-type is specified");
    if (n.list_type != "map") return;
    const auto keys = at.child("x-kubernetes-list-map-keys");
    if (n.list_keys.empty()) errors_.required(keys, "must not be empty if x-kubernetes-list-type is map");
    for (std::size_t i = 0; i < n.list_keys.size(); ++i)
      if (n.items && !n.items->properties.count(n.list_keys[i]))
        errors_.invalid(keys.index(i), n.list_keys[i], "must exist as a property of the items");
  }

  ErrorList& errors_;
};

}  // namespace

Schema Schema::compile(const json::value& text, const Path& at, ErrorList& errors) {
  Compiler compiler(errors);
  auto root = std::make_shared<SchemaNode>(compiler.node(text, at, 0, false));
  Schema out;
  out.rules_ = compiler.rules;
  out.unknown_ = std::move(compiler.unknown);
  // What the API itself knows is not the schema's business.
  for (const auto* name : {"apiVersion", "kind", "metadata"}) root->properties.erase(name);
  std::erase_if(root->required, [](const std::string& r) { return r == "metadata" || r == "apiVersion" || r == "kind"; });
  out.root_ = std::move(root);
  return out;
}

}  // namespace fairlead::apiserver::custom
