#include <google/protobuf/repeated_ptr_field.h>

#include "kube/codec.h"
#include "kube/openapi_internal.h"
#include "kube/proto/openapi/v2.pb.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;
namespace v2 = ::openapi::v2;

std::string text(const json::object& o, std::string_view name) {
  const auto* v = o.if_contains(name);
  return v && v->is_string() ? std::string(v->get_string()) : std::string();
}

bool flag(const json::object& o, std::string_view name) {
  const auto* v = o.if_contains(name);
  return v && v->is_bool() && v->get_bool();
}

void texts(const json::object& o, std::string_view name, google::protobuf::RepeatedPtrField<std::string>& out) {
  const auto* v = o.if_contains(name);
  if (!v || !v->is_array()) return;
  for (const auto& item : v->get_array()) out.Add(std::string(item.get_string()));
}

// x- members, as YAML text (JSON is YAML).
void extensions(const json::object& o, google::protobuf::RepeatedPtrField<v2::NamedAny>& out) {
  for (const auto& [name, value] : o) {
    if (!std::string_view(name).starts_with("x-")) continue;
    auto& any = *out.Add();
    any.set_name(std::string(name));
    any.mutable_value()->set_yaml(to_json(value) + "\n");
  }
}

void schema(const json::object& o, v2::Schema& out) {
  out.set_ref(text(o, "$ref"));
  out.set_format(text(o, "format"));
  out.set_description(text(o, "description"));
  if (const auto* v = o.if_contains("default")) out.mutable_default_()->set_yaml(to_json(*v) + "\n");
  texts(o, "required", *out.mutable_required());
  if (auto type = text(o, "type"); !type.empty()) out.mutable_type()->add_value(std::move(type));
  if (const auto* v = o.if_contains("items")) schema(v->get_object(), *out.mutable_items()->add_schema());
  if (const auto* v = o.if_contains("additionalProperties")) {
    schema(v->get_object(), *out.mutable_additional_properties()->mutable_schema());
  }
  if (const auto* v = o.if_contains("properties")) {
    for (const auto& [name, property] : v->get_object()) {
      auto& named = *out.mutable_properties()->add_additional_properties();
      named.set_name(std::string(name));
      schema(property.get_object(), *named.mutable_value());
    }
  }
  extensions(o, *out.mutable_vendor_extension());
}

void parameter(const json::object& o, v2::Parameter& out) {
  const auto common = [&](auto& p) {
    p.set_name(text(o, "name"));
    p.set_in(text(o, "in"));
    p.set_description(text(o, "description"));
    p.set_required(flag(o, "required"));
  };
  const std::string in = text(o, "in");
  if (in == "body") {
    auto& p = *out.mutable_body_parameter();
    common(p);
    schema(o.at("schema").get_object(), *p.mutable_schema());
    return;
  }
  const auto typed = [&](auto& p) {
    common(p);
    p.set_type(text(o, "type"));
    p.set_unique_items(flag(o, "uniqueItems"));
  };
  auto& p = *out.mutable_non_body_parameter();
  if (in == "path") {
    typed(*p.mutable_path_parameter_sub_schema());
  } else {
    typed(*p.mutable_query_parameter_sub_schema());
  }
}

void operation(const json::object& o, v2::Operation& out) {
  texts(o, "tags", *out.mutable_tags());
  out.set_description(text(o, "description"));
  out.set_operation_id(text(o, "operationId"));
  texts(o, "produces", *out.mutable_produces());
  texts(o, "consumes", *out.mutable_consumes());
  for (const auto& p : o.at("parameters").get_array()) parameter(p.get_object(), *out.add_parameters()->mutable_parameter());
  for (const auto& [code, response] : o.at("responses").get_object()) {
    auto& named = *out.mutable_responses()->add_response_code();
    named.set_name(std::string(code));
    auto& r = *named.mutable_value()->mutable_response();
    r.set_description(text(response.get_object(), "description"));
    if (const auto* s = response.get_object().if_contains("schema"))
      schema(s->get_object(), *r.mutable_schema()->mutable_schema());
  }
  extensions(o, *out.mutable_vendor_extension());
}

void path_item(const json::object& o, v2::PathItem& out) {
  for (const auto& [name, value] : o) {
    const std::string_view method = name;
    if (method == "parameters") {
      for (const auto& p : value.get_array()) parameter(p.get_object(), *out.add_parameters()->mutable_parameter());
    } else if (method == "get") {
      operation(value.get_object(), *out.mutable_get());
    } else if (method == "put") {
      operation(value.get_object(), *out.mutable_put());
    } else if (method == "post") {
      operation(value.get_object(), *out.mutable_post());
    } else if (method == "delete") {
      operation(value.get_object(), *out.mutable_delete_());
    } else if (method == "patch") {
      operation(value.get_object(), *out.mutable_patch());
    }
  }
}

}  // namespace

std::string swagger_to_gnostic(const json::object& document) {
  v2::Document out;
  out.set_swagger(text(document, "swagger"));
  out.mutable_info()->set_title(text(document.at("info").get_object(), "title"));
  out.mutable_info()->set_version(text(document.at("info").get_object(), "version"));
  for (const auto& [path, item] : document.at("paths").get_object()) {
    auto& named = *out.mutable_paths()->add_path();
    named.set_name(std::string(path));
    path_item(item.get_object(), *named.mutable_value());
  }
  for (const auto& [name, definition] : document.at("definitions").get_object()) {
    auto& named = *out.mutable_definitions()->add_additional_properties();
    named.set_name(std::string(name));
    schema(definition.get_object(), *named.mutable_value());
  }
  return out.SerializeAsString();
}

}  // namespace fairlead::kube
