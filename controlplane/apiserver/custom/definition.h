// Definition: what a CustomResourceDefinition says, read from its JSON into values and checked, with kube-apiserver's field
// errors. Pure. Source: apiextensions-apiserver pkg/apis/apiextensions (v1 types, defaults, validation).
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/apiserver/custom/json_path.h"
#include "controlplane/apiserver/custom/schema.h"
#include "controlplane/apiserver/validation/field.h"
#include "kube/custom.h"

namespace fairlead::apiserver::custom {

struct PrinterColumn {
  std::string name, type, format, description;
  int priority = 0;
  JsonPath path;
};

struct Version {
  std::string name;
  bool served = false;
  bool storage = false;
  bool status = false;  // has the status subresource
  Schema schema;
  boost::json::value schema_json;
  std::vector<PrinterColumn> columns;
  std::vector<std::string> selectable;  // "spec.color"
  std::vector<JsonPath> selectable_paths;
  std::string deprecation;  // the warning; empty: not deprecated
};

struct Names {
  std::string plural, singular, kind, list_kind;
  std::vector<std::string> short_names, categories;
  bool operator==(const Names&) const = default;
};

struct Definition {
  std::string group;
  kube::Scope scope = kube::Scope::namespaced;
  Names names;
  std::vector<Version> versions;  // in order of preference
  bool webhook = false;           // objects are converted between versions by a webhook

  const Version* storage() const;
};

// What is not given and follows from the rest: spec.conversion, spec.names.singular, spec.names.listKind.
void default_definition(kube::CustomObject& crd);
// Everything wrong is in `errors`; the definition is good when none were added.
Definition read_definition(const kube::CustomObject& crd, field::ErrorList& errors);
Names read_names(const boost::json::value& names);
boost::json::object names_json(const Names& names);

// "v1" before "v2beta1" before "v1beta1" before "v1alpha1" before names without such a form.
bool preferred_version(std::string_view a, std::string_view b);

}  // namespace fairlead::apiserver::custom
