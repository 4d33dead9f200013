// The JSONPath that printer columns and selectable fields are written in: ".spec.addresses", ".metadata.labels['a.b']",
// ".status.conditions[?(@.type==\"Ready\")].status", ".spec.ports[0].name", ".spec.ports[*].name". The first value found counts.
// Pure. Source: client-go util/jsonpath, as far as CustomResourceDefinitions allow it.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fairlead::apiserver::custom {

class JsonPath {
 public:
  static Result<JsonPath> parse(std::string_view text);
  const boost::json::value* find(const boost::json::value& root) const;  // null: nothing there

 private:
  struct Step {
    enum class Kind { member, index, any, filter } kind = Kind::member;
    std::string name;                  // of a member; of the member that a filter compares
    std::int64_t index = 0;            // negative: from the end
    std::optional<std::string> wanted;  // of a filter
  };
  static const boost::json::value* walk(const boost::json::value& v, const std::vector<Step>& steps, std::size_t from);
  std::vector<Step> steps_;
};

}  // namespace fairlead::apiserver::custom
