// ObjectFields: reads members of a JSON object into values. Errors begin with the member's path ("spec.holdTime: must be ...");
// unknown() lists members that nobody asked for. An absent member or null leaves the value as it is. Not thread safe.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "kube/selector.h"

namespace fairlead::lb {

class ObjectFields {
 public:
  ObjectFields(const boost::json::object& o, std::string path) : object_(o), path_(std::move(path)) {}

  std::string at(std::string_view name) const { return path_.empty() ? std::string(name) : path_ + "." + std::string(name); }
  // Null when absent.
  const boost::json::value* get(std::string_view name);
  Result<> read(std::string_view name, bool& out);
  Result<> read(std::string_view name, std::string& out);
  Result<> read(std::string_view name, std::optional<IpAddress>& out);
  Result<> read(std::string_view name, std::vector<std::string>& out);
  Result<> read(std::string_view name, std::set<std::string>& out);
  Result<> read(std::string_view name, std::vector<kube::LabelSelector>& out);
  // Whole numbers within bounds.
  Result<> read(std::string_view name, std::uint32_t& out, std::int64_t least = 0, std::int64_t most = INT32_MAX);
  // "90s", "1m30s"; whole seconds.
  Result<> read(std::string_view name, std::optional<std::chrono::seconds>& out);
  std::vector<std::string> unknown() const;

 private:
  const boost::json::object& object_;
  std::string path_;
  std::set<std::string> known_;
};

}  // namespace fairlead::lb
