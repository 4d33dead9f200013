#include "kube/openapi.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <boost/json/value.hpp>
#include <map>
#include <set>

#include "kube/api.h"
#include "kube/codec.h"
#include "kube/openapi_internal.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "kube/proto/options.pb.h"
#include "kube/schema.h"

namespace fairlead::kube {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
namespace json = boost::json;
namespace options_pb = ::k8s::io::options;

constexpr std::string_view kPatchSchema = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

json::string to_json_string(std::string_view s) { return json::string(s); }

// "k8s.io.api.core.v1.Pod" -> "io.k8s.api.core.v1.Pod"
std::string definition_name(const Descriptor& d) {
  constexpr std::string_view prefix = "k8s.io.";
  const std::string& name = d.full_name();
  return name.starts_with(prefix) ? "io.k8s." + name.substr(prefix.size()) : name;
}

// Schemas of messages, in the dialect of one version, and everything that they refer to.
class Schemas {
 public:
  explicit Schemas(bool v3) : v3_(v3), prefix_(v3 ? "#/components/schemas/" : "#/definitions/") {}

  json::object ref(const Descriptor& d) {
    need(d);
    return {{"$ref", prefix_ + definition_name(d)}};
  }
  json::object patch_ref() {
    done_.try_emplace(
        std::string(kPatchSchema),
        json::object{{"description", "A change to an object, in the form that the content type names."}, {"type", "object"}});
    return {{"$ref", prefix_ + std::string(kPatchSchema)}};
  }

  // All of them, by name.
  json::object release() {
    while (!todo_.empty()) {
      const Descriptor* d = todo_.back();
      todo_.pop_back();
      json::object schema = definition(type_info(*d));
      done_[definition_name(*d)] = std::move(schema);
    }
    json::object out;
    for (auto& [name, schema] : done_) out.emplace(name, std::move(schema));
    return out;
  }

 private:
  void need(const Descriptor& d) {
    if (seen_.insert(&d).second) todo_.push_back(&d);
  }

  json::object definition(const TypeInfo& t) {
    json::object s;
    if (const auto text = api_description(t.descriptor->full_name()); !text.empty()) s["description"] = text;
    switch (t.form) {
      case Form::object: break;
      case Form::time:
      case Form::micro_time: s["type"] = "string", s["format"] = "date-time"; return s;
      case Form::int_or_string:
        if (v3_) {
          s["oneOf"] = json::array{json::object{{"type", "integer"}}, json::object{{"type", "string"}}};
        } else {
          s["type"] = "string";
        }
        s["format"] = "int-or-string";
        return s;
      case Form::quantity:
        if (v3_) {
          s["oneOf"] = json::array{json::object{{"type", "string"}}, json::object{{"type", "number"}}};
        } else {
          s["type"] = "string";
        }
        return s;
      case Form::duration: s["type"] = "string"; return s;
      case Form::raw: s["type"] = "object"; return s;
      case Form::list: s["type"] = "array", s["items"] = json::object{{"type", "string"}}; return s;
    }
    s["type"] = "object";
    json::object properties;
    json::array required;
    if (t.type_meta) {
      const TypeInfo& meta = type_info(*metav1::TypeMeta::descriptor());
      for (const FieldInfo& f : meta.fields) properties.emplace(f.name, field(meta, f));
    }
    add_fields(t, properties, required);
    if (!required.empty()) s["required"] = std::move(required);
    if (!properties.empty()) s["properties"] = std::move(properties);
    if (const TypeName* name = type_name_of(*t.descriptor)) s["x-kubernetes-group-version-kind"] = json::array{gvk(*name)};
    return s;
  }

  static json::object gvk(const TypeName& name) {
    const auto slash = name.api_version.find('/');
    const std::string group = slash == std::string::npos ? "" : name.api_version.substr(0, slash);
    const std::string version = slash == std::string::npos ? name.api_version : name.api_version.substr(slash + 1);
    return {{"group", group}, {"kind", name.kind}, {"version", version}};
  }

  void add_fields(const TypeInfo& t, json::object& properties, json::array& required) {
    for (const FieldInfo& f : t.fields) {
      if (&f == t.open) continue;  // takes anything
      if (f.inlined) {
        add_fields(*f.type, properties, required);
        continue;
      }
      properties.emplace(f.name, field(t, f));
      if (f.required || (f.always && f.name == "items")) required.push_back(to_json_string(f.name));
    }
  }

  json::object field(const TypeInfo& t, const FieldInfo& f) {
    json::object s;
    if (const auto text = api_description(t.descriptor->full_name(), f.field->name()); !text.empty()) s["description"] = text;
    switch (f.shape) {
      case Shape::scalar: scalar(f.field, s); break;
      case Shape::message: one(f, s); break;
      case Shape::list: {
        json::object items;
        scalar(f.field, items);
        s["type"] = "array", s["items"] = std::move(items);
        break;
      }
      case Shape::message_list: s["type"] = "array", s["items"] = nested(*f.type->descriptor, true); break;
      case Shape::map: {
        json::object values;
        scalar(f.map_value, values);
        s["type"] = "object", s["additionalProperties"] = std::move(values);
        break;
      }
      case Shape::message_map: s["type"] = "object", s["additionalProperties"] = nested(*f.type->descriptor); break;
    }
    extensions(f, s);
    return s;
  }

  void one(const FieldInfo& f, json::object& s) {
    if (!v3_) {
      s["$ref"] = ref(*f.type->descriptor)["$ref"];
      return;
    }
    // A $ref takes no members beside it in OpenAPI 3.0.
    s["allOf"] = json::array{ref(*f.type->descriptor)};
    if (f.value && f.type->form == Form::object) s["default"] = json::object{};
  }

  json::object nested(const Descriptor& d, bool default_empty = false) {
    if (!v3_) return ref(d);
    json::object s{{"allOf", json::array{ref(d)}}};
    if (default_empty && type_info(d).form == Form::object) s["default"] = json::object{};
    return s;
  }

  static void scalar(const FieldDescriptor* d, json::object& s) {
    const auto put = [&](std::string_view type, std::string_view format) {
      s["type"] = type;
      if (!format.empty()) s["format"] = format;
    };
    switch (d->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: return put("integer", "int32");
      case FieldDescriptor::CPPTYPE_INT64: return put("integer", "int64");
      case FieldDescriptor::CPPTYPE_UINT32: return put("integer", "int64");
      case FieldDescriptor::CPPTYPE_UINT64: return put("integer", "int64");
      case FieldDescriptor::CPPTYPE_DOUBLE: return put("number", "double");
      case FieldDescriptor::CPPTYPE_FLOAT: return put("number", "float");
      case FieldDescriptor::CPPTYPE_BOOL: return put("boolean", "");
      case FieldDescriptor::CPPTYPE_STRING: return put("string", d->type() == FieldDescriptor::TYPE_BYTES ? "byte" : "");
      case FieldDescriptor::CPPTYPE_ENUM:
      case FieldDescriptor::CPPTYPE_MESSAGE: break;
    }
  }

  static void extensions(const FieldInfo& f, json::object& s) {
    const auto& o = f.field->options();
    const auto text = [&](const auto& extension, std::string_view name) {
      if (o.HasExtension(extension)) s[name] = to_json_string(o.GetExtension(extension));
    };
    if (o.HasExtension(options_pb::default_json)) {
      if (auto v = parse_json(o.GetExtension(options_pb::default_json))) s["default"] = std::move(*v);
    }
    text(options_pb::list_type, "x-kubernetes-list-type");
    if (o.ExtensionSize(options_pb::list_map_key) > 0) {
      json::array keys;
      for (int i = 0; i < o.ExtensionSize(options_pb::list_map_key); ++i)
        keys.push_back(to_json_string(o.GetExtension(options_pb::list_map_key, i)));
      s["x-kubernetes-list-map-keys"] = std::move(keys);
    }
    text(options_pb::map_type, "x-kubernetes-map-type");
    text(options_pb::struct_type, "x-kubernetes-map-type");
    text(options_pb::patch_merge_key, "x-kubernetes-patch-merge-key");
    text(options_pb::patch_strategy, "x-kubernetes-patch-strategy");
  }

  bool v3_;
  std::string prefix_;
  std::set<const Descriptor*> seen_;
  std::vector<const Descriptor*> todo_;
  std::map<std::string, json::object> done_;
};

// ---- operations

struct Parameter {
  std::string_view name;
  std::string_view type;
  std::string_view description;
};

constexpr Parameter kPretty = {"pretty", "string", "Write JSON with line breaks and indents."};
constexpr Parameter kWriteParameters[] = {
    {"dryRun", "string", "Do everything but store the result. The only value is All."},
    {"fieldManager", "string", "Name of whoever makes this change, at most 128 printable characters."},
    {"fieldValidation", "string", "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict."},
};
constexpr Parameter kForce = {"force", "boolean", "With server-side apply: take fields over from other managers."};
constexpr Parameter kListParameters[] = {
    {"allowWatchBookmarks", "boolean", "With watch: send bookmarks, which tell how far the stream has come."},
    {"continue", "string", "Go on with a list where an earlier page ended: its metadata.continue."},
    {"fieldSelector", "string", "Only objects whose fields match, such as metadata.name=web."},
    {"labelSelector", "string", "Only objects whose labels match, such as app=web,tier in (a,b)."},
    {"limit", "integer", "At most this many objects on one page."},
    {"resourceVersion", "string", "How fresh the answer must be, or where a watch starts."},
    {"resourceVersionMatch", "string", "How resourceVersion is meant: NotOlderThan or Exact."},
    {"sendInitialEvents", "boolean", "With watch: first send the objects that exist, then a bookmark, then changes."},
    {"timeoutSeconds", "integer", "End the list or watch after this time."},
    {"watch", "boolean", "Stream changes instead of listing."},
};
constexpr Parameter kDeleteParameters[] = {
    {"dryRun", "string", "Do everything but store the result. The only value is All."},
    {"gracePeriodSeconds", "integer", "How long the object may take to end; 0 is at once."},
    {"orphanDependents", "boolean", "Deprecated: use propagationPolicy."},
    {"propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."},
};

constexpr std::string_view kJsonYamlProtobuf[] = {"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"};

struct Operation {
  std::string_view method;  // "get", "put", "post", "delete", "patch"
  std::string_view action;  // "get", "list", "put", "post", "delete", "deletecollection", "patch"
  std::string id;
  std::string description;
  const Descriptor* body = nullptr;    // null with method patch: the Patch schema
  const Descriptor* answer = nullptr;  // null: text
  std::vector<Parameter> query;
};

std::string capitalised(std::string_view s) {
  std::string out(s);
  if (!out.empty() && out[0] >= 'a' && out[0] <= 'z') out[0] = static_cast<char>(out[0] - 'a' + 'A');
  return out;
}

// "CoreV1", "DiscoveryV1", "RbacAuthorizationV1"
std::string group_id(const Kind& k) {
  std::string_view group = k.group.empty() ? "core" : k.group;
  if (group.ends_with(".k8s.io")) group.remove_suffix(7);
  std::string out;
  while (!group.empty()) {
    const auto dot = std::min(group.find('.'), group.size());
    out += capitalised(group.substr(0, dot));
    group.remove_prefix(std::min(dot + 1, group.size()));
  }
  return out + capitalised(k.version);
}

// Operations of one kind, by path.
class Routes {
 public:
  Routes(const Kind& kind, const OpenApiOptions& options) : k_(kind), options_(options) {
    const std::string base =
        k_.group.empty() ? fmt::format("/api/{}", k_.version) : fmt::format("/apis/{}/{}", k_.group, k_.version);
    const std::string collection = fmt::format("{}{}/{}", base, k_.namespaced() ? "/namespaces/{namespace}" : "", k_.resource);
    const std::string name = (k_.namespaced() ? "Namespaced" : "") + std::string(k_.kind);
    add_collection(collection, name);
    if (k_.namespaced() && k_.has_verb("list")) {
      add(fmt::format("{}/{}", base, k_.resource),
          {"get", "list", id("list", std::string(k_.kind), "ForAllNamespaces"),
           fmt::format("list or watch objects of kind {}", k_.kind), nullptr, list_type(), with(kListParameters)});
    }
    add_item(collection + "/{name}", name, k_.verbs, k_.prototype->GetDescriptor(), "", false);
    for (const Subresource& s : k_.subresources) {
      if (!s.served) continue;
      const Descriptor* body = s.prototype ? s.prototype->GetDescriptor() : k_.prototype->GetDescriptor();
      add_item(fmt::format("{}/{{name}}/{}", collection, s.name), name, s.verbs, s.name == "log" ? nullptr : body, s.name, true);
    }
  }

  std::map<std::string, std::vector<Operation>> paths;

 private:
  const Descriptor* list_type() const { return k_.list_prototype ? k_.list_prototype->GetDescriptor() : nullptr; }
  std::string id(std::string_view verb, const std::string& name, std::string_view suffix) const {
    return fmt::format("{}{}{}{}", verb, group_id(k_), name, suffix);
  }
  template <typename Range>
  static std::vector<Parameter> with(const Range& parameters) {
    std::vector<Parameter> out(std::begin(parameters), std::end(parameters));
    out.push_back(kPretty);
    return out;
  }
  void add(const std::string& path, Operation op) { paths[path].push_back(std::move(op)); }

  void add_collection(const std::string& path, const std::string& name) {
    const Descriptor* object = k_.prototype->GetDescriptor();
    if (k_.has_verb("list")) {
      add(path, {"get", "list", id("list", name, ""), fmt::format("list or watch objects of kind {}", k_.kind), nullptr,
                 list_type(), with(kListParameters)});
    }
    if (k_.has_verb("create")) {
      add(path,
          {"post", "post", id("create", name, ""), fmt::format("create a {}", k_.kind), object, object, with(kWriteParameters)});
    }
    if (k_.has_verb("deletecollection")) {
      auto query = with(kListParameters);
      query.insert(query.end(), std::begin(kDeleteParameters), std::end(kDeleteParameters));
      add(path,
          {"delete", "deletecollection", id("deleteCollection", name, ""), fmt::format("delete a collection of {}", k_.kind),
           metav1::DeleteOptions::descriptor(), metav1::Status::descriptor(), std::move(query)});
    }
  }

  void add_item(const std::string& path, const std::string& name, const std::vector<std::string_view>& verbs,
                const Descriptor* body, std::string_view subresource, bool create_here) {
    const std::string suffix = capitalised(subresource);
    const std::string what =
        subresource.empty() ? fmt::format("the {}", k_.kind) : fmt::format("{} of the {}", subresource, k_.kind);
    const auto has = [&](std::string_view verb) { return std::find(verbs.begin(), verbs.end(), verb) != verbs.end(); };
    if (has("get")) add(path, {"get", "get", id("read", name, suffix), "read " + what, nullptr, body, {kPretty}});
    if (has("update"))
      add(path, {"put", "put", id("replace", name, suffix), "replace " + what, body, body, with(kWriteParameters)});
    if (has("delete")) {
      add(path, {"delete", "delete", id("delete", name, suffix), "delete " + what, metav1::DeleteOptions::descriptor(),
                 metav1::Status::descriptor(), with(kDeleteParameters)});
    }
    if (has("patch")) {
      auto query = with(kWriteParameters);
      query.push_back(kForce);
      add(path, {"patch", "patch", id("patch", name, suffix), "change parts of " + what, nullptr, body, std::move(query)});
    }
    if (create_here && has("create"))
      add(path, {"post", "post", id("create", name, suffix), "create " + what, body, body, with(kWriteParameters)});
  }

  const Kind& k_;
  const OpenApiOptions& options_;
};

std::vector<std::string_view> patch_types(const Kind& k, const OpenApiOptions& o) {
  std::vector<std::string_view> out = {"application/json-patch+json", "application/merge-patch+json"};
  // A strategic patch goes by a schema of ours.
  if (!type_info(*k.prototype->GetDescriptor()).open) out.push_back("application/strategic-merge-patch+json");
  if (o.server_side_apply) out.push_back("application/apply-patch+yaml");
  return out;
}

template <typename Range>
json::array strings(const Range& range) {
  json::array out;
  for (const auto& s : range) out.push_back(to_json_string(s));
  return out;
}

// The kind that an operation is about: that of a subresource's body where it has one of its own.
json::object operation_gvk(const Kind& k, const Operation& op) {
  const Descriptor* type = op.body && op.body != metav1::DeleteOptions::descriptor() ? op.body : op.answer;
  const TypeName* name = type && type != k.prototype->GetDescriptor() && type != metav1::Status::descriptor() &&
                                 (!k.list_prototype || type != k.list_prototype->GetDescriptor())
                             ? type_name_of(*type)
                             : nullptr;
  if (!name) return {{"group", k.group}, {"kind", k.kind}, {"version", k.version}};
  const auto slash = name->api_version.find('/');
  if (slash == std::string::npos) return {{"group", ""}, {"kind", name->kind}, {"version", name->api_version}};
  return {{"group", name->api_version.substr(0, slash)}, {"kind", name->kind}, {"version", name->api_version.substr(slash + 1)}};
}

// Writes operations in the dialect of one version.
class Document {
 public:
  Document(const OpenApiOptions& options, bool v3) : options_(options), v3_(v3), schemas_(v3) {}

  void add(const Kind& kind) {
    for (const auto& [path, operations] : Routes(kind, options_).paths) {
      json::object item;
      for (const Operation& op : operations) item.emplace(op.method, v3_ ? operation_v3(kind, op) : operation_v2(kind, op));
      json::array parameters;
      if (path.find("{name}") != std::string::npos) parameters.push_back(path_parameter("name", "Name of the object."));
      if (path.find("{namespace}") != std::string::npos)
        parameters.push_back(path_parameter("namespace", "Namespace of the object."));
      if (!parameters.empty()) item.emplace("parameters", std::move(parameters));
      paths_[path] = std::move(item);
    }
  }

  json::object release() {
    json::object paths;
    for (auto& [path, item] : paths_) paths.emplace(path, std::move(item));
    json::object out;
    out.emplace(v3_ ? "openapi" : "swagger", v3_ ? "3.0.0" : "2.0");
    out.emplace("info", json::object{{"title", options_.title}, {"version", options_.version}});
    out.emplace("paths", std::move(paths));
    if (v3_) {
      out.emplace("components", json::object{{"schemas", schemas_.release()}});
    } else {
      out.emplace("definitions", schemas_.release());
    }
    return out;
  }

 private:
  json::object path_parameter(std::string_view name, std::string_view description) const {
    json::object p{{"name", name}, {"in", "path"}, {"description", description}, {"required", true}};
    typed(p, "string");
    return p;
  }
  void typed(json::object& p, std::string_view type) const {
    if (v3_) {
      p.emplace("schema", json::object{{"type", type}, {"uniqueItems", true}});
    } else {
      p.emplace("type", type);
      p.emplace("uniqueItems", true);
    }
  }
  json::array query(const Operation& op) const {
    json::array out;
    for (const Parameter& q : op.query) {
      json::object p{{"name", q.name}, {"in", "query"}, {"description", q.description}};
      typed(p, q.type);
      out.push_back(std::move(p));
    }
    return out;
  }

  json::object common(const Kind& kind, const Operation& op) const {
    std::string tag(kind.group.empty() ? "core" : kind.group.substr(0, kind.group.find('.')));
    json::object o;
    o.emplace("tags", json::array{to_json_string(tag + "_" + std::string(kind.version))});
    o.emplace("description", op.description);
    o.emplace("operationId", op.id);
    o.emplace("x-kubernetes-action", op.action);
    o.emplace("x-kubernetes-group-version-kind", operation_gvk(kind, op));
    return o;
  }

  json::object operation_v2(const Kind& kind, const Operation& op) {
    json::object o = common(kind, op);
    if (op.method == "patch") {
      o.emplace("consumes", strings(patch_types(kind, options_)));
    } else {
      o.emplace("consumes", op.method == "get" ? json::array{"*/*"} : strings(kJsonYamlProtobuf));
    }
    o.emplace("produces", op.answer ? strings(kJsonYamlProtobuf) : json::array{"text/plain"});
    json::array parameters = query(op);
    if (op.method == "patch" || op.body) {
      json::object body{{"name", "body"}, {"in", "body"}, {"required", op.method != "delete"}};
      body.emplace("schema", op.body ? schemas_.ref(*op.body) : schemas_.patch_ref());
      parameters.push_back(std::move(body));
    }
    o.emplace("parameters", std::move(parameters));
    json::object ok{{"description", "OK"}};
    ok.emplace("schema", op.answer ? schemas_.ref(*op.answer) : json::object{{"type", "string"}});
    o.emplace("responses", json::object{{"200", std::move(ok)}, {"401", {{"description", "Unauthorized"}}}});
    return o;
  }

  template <typename Range>
  static json::object content(const Range& types, const json::object& schema) {
    json::object out;
    for (const auto& type : types) out.emplace(type, json::object{{"schema", schema}});
    return out;
  }

  json::object operation_v3(const Kind& kind, const Operation& op) {
    json::object o = common(kind, op);
    o.emplace("parameters", query(op));
    if (op.method == "patch") {
      o.emplace("requestBody",
                json::object{{"content", content(patch_types(kind, options_), schemas_.patch_ref())}, {"required", true}});
    } else if (op.body) {
      json::object body{{"content", content(std::array{std::string_view("*/*")}, schemas_.ref(*op.body))}};
      if (op.method != "delete") body.emplace("required", true);
      o.emplace("requestBody", std::move(body));
    }
    json::object ok{{"description", "OK"}};
    ok.emplace("content", op.answer ? content(kJsonYamlProtobuf, schemas_.ref(*op.answer))
                                    : content(std::array{std::string_view("text/plain")}, json::object{{"type", "string"}}));
    o.emplace("responses", json::object{{"200", std::move(ok)}, {"401", {{"description", "Unauthorized"}}}});
    return o;
  }

  const OpenApiOptions& options_;
  bool v3_;
  Schemas schemas_;
  std::map<std::string, json::object> paths_;
};

json::object document_v2(const OpenApiOptions& options) {
  Document d(options, false);
  for (const Kind& k : kinds()) {
    if (options.include(k)) d.add(k);
  }
  return d.release();
}

std::string sha512_hex(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha512(), nullptr);
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02X}", digest[i]);
  return out;
}

}  // namespace

std::string openapi_v2_json(const OpenApiOptions& options) { return to_json(json::value(document_v2(options))); }

std::string openapi_v2_protobuf(const OpenApiOptions& options) { return swagger_to_gnostic(document_v2(options)); }

std::vector<OpenApiV3> openapi_v3(const OpenApiOptions& options) {
  std::map<std::string, Document> documents;
  for (const Kind& k : kinds()) {
    if (!options.include(k)) continue;
    const std::string path = k.group.empty() ? fmt::format("api/{}", k.version) : fmt::format("apis/{}/{}", k.group, k.version);
    documents.try_emplace(path, options, true).first->second.add(k);
  }
  std::vector<OpenApiV3> out;
  for (auto& [path, document] : documents) {
    OpenApiV3 v{path, to_json(json::value(document.release())), {}};
    v.hash = sha512_hex(v.json);
    out.push_back(std::move(v));
  }
  return out;
}

namespace {

// "metallb.io" -> "io.metallb": the names of schemas begin with the group backwards.
std::string reversed_group(std::string_view group) {
  std::string out;
  while (!group.empty()) {
    const auto dot = group.rfind('.');
    out += (out.empty() ? "" : ".") + std::string(dot == std::string_view::npos ? group : group.substr(dot + 1));
    group = dot == std::string_view::npos ? std::string_view{} : group.substr(0, dot);
  }
  return out;
}

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) text.replace(at, what.size(), by);
}

// The document of one kind: that of an object of any kind, with its own names and its own schema in it.
json::object custom_document(const CustomSchema& c, const OpenApiOptions& options) {
  Document d(options, true);
  d.add(*c.kind);
  auto text = to_json(json::value(d.release()));
  const auto name = fmt::format("{}.{}.{}", reversed_group(c.kind->group), c.kind->version, c.kind->kind);
  const auto any = definition_name(*c.kind->prototype->GetDescriptor());
  replace_all(text, any + "List\"", name + "List\"");
  replace_all(text, any + "\"", name + "\"");
  auto document = parse_json(text);
  if (!document) return {};  // our own text
  auto& root = document->as_object();
  auto& schemas = root["components"].as_object()["schemas"].as_object();
  const auto gvk = [&](const std::string& kind) {
    return json::array{json::object{{"group", c.kind->group}, {"kind", kind}, {"version", c.kind->version}}};
  };
  json::value schema = *c.schema;
  if (auto* object = schema.if_object()) {
    json::object properties;
    if (auto* own = object->if_contains("properties"); own && own->is_object()) properties = own->get_object();
    for (const auto& m : schemas[name].as_object()["properties"].as_object()) properties[m.key()] = m.value();
    (*object)["properties"] = std::move(properties);
    (*object)["x-kubernetes-group-version-kind"] = gvk(std::string(c.kind->kind));
  }
  schemas[name] = std::move(schema);
  schemas[name + "List"].as_object()["x-kubernetes-group-version-kind"] = gvk(c.kind->list_kind());
  return std::move(root);
}

void merge_members(json::object& into, json::object& from) {
  for (auto& m : from)
    if (!into.contains(m.key())) into.emplace(m.key(), std::move(m.value()));
}

}  // namespace

std::vector<OpenApiV3> openapi_v3_custom(const std::vector<CustomSchema>& all, const OpenApiOptions& options) {
  std::map<std::string, json::object> documents;
  for (const auto& c : all) {
    auto one = custom_document(c, options);
    auto& whole = documents[fmt::format("apis/{}/{}", c.kind->group, c.kind->version)];
    if (whole.empty()) {
      whole = std::move(one);
      continue;
    }
    merge_members(whole["paths"].as_object(), one["paths"].as_object());
    merge_members(whole["components"].as_object()["schemas"].as_object(), one["components"].as_object()["schemas"].as_object());
  }
  std::vector<OpenApiV3> out;
  for (auto& [path, document] : documents) {
    OpenApiV3 v{path, to_json(json::value(std::move(document))), {}};
    v.hash = sha512_hex(v.json);
    out.push_back(std::move(v));
  }
  return out;
}

std::string openapi_v3_index(const std::vector<OpenApiV3>& documents) {
  json::object paths;
  for (const auto& d : documents) {
    paths.emplace(d.path, json::object{{"serverRelativeURL", fmt::format("/openapi/v3/{}?hash={}", d.path, d.hash)}});
  }
  return to_json(json::value(json::object{{"paths", std::move(paths)}}));
}

}  // namespace fairlead::kube
