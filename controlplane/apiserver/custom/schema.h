// Structural schemas of custom resources: what a CustomResourceDefinition says about its objects, compiled once, and then
// used to prune what it does not name, to fill in defaults, and to validate, with kube-apiserver's field errors.
//
// Supported: type, format, nullable, enum, pattern, minimum, maximum, exclusive bounds, multipleOf, lengths, items and their
// number, properties and their number, required, additionalProperties, allOf, anyOf, oneOf, not, default,
// x-kubernetes-preserve-unknown-fields, -int-or-string, -embedded-resource, -list-type and -list-map-keys.
// x-kubernetes-validations (CEL) are kept but not evaluated: uses_rules() tells, and the API warns about it.
//
// Bounded: depth 64, patterns by RE2 with a bound on their memory. Immutable after compile(); thread safe. Pure.
// Source: apiextensions-apiserver pkg/apiserver/schema, kube-openapi pkg/validation, KEP on structural schemas.
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/apiserver/validation/field.h"

namespace fairlead::apiserver::custom {

struct SchemaNode;

class Schema {
 public:
  // Reads the JSON of openAPIV3Schema. Everything wrong with it is in `errors`, with its path below `at`; the schema is good
  // when none were added.
  static Schema compile(const boost::json::value& text, const field::Path& at, field::ErrorList& errors);

  // Removes members that the schema does not name, at any depth, and nulls that a default replaces. Each removed member is
  // reported as `unknown field "spec.x"` when `strict` is given. The members apiVersion, kind and metadata of the root stay.
  void prune(boost::json::object& object, std::vector<std::string>* strict) const;
  void apply_defaults(boost::json::object& object) const;
  void validate(const boost::json::object& object, field::ErrorList& errors) const;
  bool uses_rules() const { return rules_; }
  const std::vector<std::string>& unknown_keywords() const { return unknown_; }  // their paths; without effect

 private:
  std::shared_ptr<const SchemaNode> root_;
  bool rules_ = false;
  std::vector<std::string> unknown_;
};

}  // namespace fairlead::apiserver::custom
