// Label and field selectors: parsed once, matched many times. Text forms as in kubectl and the API:
// "app=web,tier in (a,b),!legacy" and "spec.nodeName=n1,status.phase!=Failed" (in a value, a backslash takes the meaning
// from the comma, equals sign or backslash that follows). Immutable values.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace k8s::io::apimachinery::pkg::apis::meta::v1 {
class LabelSelector;
}

namespace fairlead::kube {

using LabelLookup = std::function<const std::string*(const std::string& key)>;

struct Requirement {
  enum class Op { in, not_in, exists, not_exists, gt, lt };
  std::string key;
  Op op = Op::exists;
  std::vector<std::string> values;  // sorted
};

class LabelSelector {
 public:
  LabelSelector() = default;  // matches everything
  static LabelSelector nothing();
  static Result<LabelSelector> parse(std::string_view text);
  // The empty message matches everything. An absent one usually means nothing: that is for the caller to know.
  static Result<LabelSelector> from(const k8s::io::apimachinery::pkg::apis::meta::v1::LabelSelector& s);
  template <typename Map>  // std::map or google::protobuf::Map of string to string
  static LabelSelector from_map(const Map& m) {
    LabelSelector s;
    for (const auto& [k, v] : m) s.requirements_.push_back({k, Requirement::Op::in, {v}});
    return s;
  }
  template <typename Map>
  bool matches(const Map& labels) const {
    return matches_lookup([&](const std::string& k) -> const std::string* {
      const auto it = labels.find(k);
      return it == labels.end() ? nullptr : &it->second;
    });
  }
  bool matches_lookup(const LabelLookup& lookup) const;
  bool empty() const { return requirements_.empty() && !nothing_; }  // matches everything
  const std::vector<Requirement>& requirements() const { return requirements_; }
  std::string to_string() const;  // canonical, by key: parse() reads it back

 private:
  std::vector<Requirement> requirements_;
  bool nothing_ = false;
};

// Why `key` cannot be the key of a label ("" when it can): an optional DNS prefix and '/', then at most 63 of [A-Za-z0-9_.-].
std::string check_label_key(std::string_view key);
std::string check_label_value(std::string_view value);

struct FieldRequirement {
  std::string field;
  bool equals = true;
  std::string value;
};

class FieldSelector {
 public:
  static Result<FieldSelector> parse(std::string_view text);
  bool empty() const { return requirements_.empty(); }
  const std::vector<FieldRequirement>& requirements() const { return requirements_; }
  // value_of gives a field's text ("" when unset).
  bool matches(const std::function<std::string(std::string_view field)>& value_of) const;
  std::optional<std::string> required_value(std::string_view field) const;  // of an equality on that field

 private:
  std::vector<FieldRequirement> requirements_;
};

}  // namespace fairlead::kube
