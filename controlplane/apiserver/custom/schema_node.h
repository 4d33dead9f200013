// The compiled form of a structural schema; for the files of schema.h only.
#pragma once

#include <re2/re2.h>

#include <boost/json/value.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace fairlead::apiserver::custom {

struct SchemaNode {
  std::string type;  // empty: any
  std::string format;
  bool nullable = false;
  bool preserve = false;      // x-kubernetes-preserve-unknown-fields
  bool int_or_string = false;
  bool embedded = false;      // x-kubernetes-embedded-resource
  std::string list_type;      // "atomic", "set", "map"
  std::vector<std::string> list_keys;

  std::map<std::string, SchemaNode, std::less<>> properties;
  std::unique_ptr<SchemaNode> additional;  // the schema of members that are not in properties
  bool additional_any = false;             // additionalProperties: true
  std::unique_ptr<SchemaNode> items;
  std::vector<std::string> required;
  std::optional<boost::json::value> default_value;

  std::vector<boost::json::value> enumeration;
  std::unique_ptr<RE2> pattern;
  std::optional<double> minimum, maximum, multiple_of;
  bool exclusive_minimum = false, exclusive_maximum = false;
  std::optional<std::int64_t> min_length, max_length, min_items, max_items, min_properties, max_properties;

  // Value validations only: they neither prune nor give defaults.
  std::vector<SchemaNode> all_of, any_of, one_of;
  std::unique_ptr<SchemaNode> negated;
};

}  // namespace fairlead::apiserver::custom
