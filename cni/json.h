// Field: reading a JSON document with a path for error messages ("ipam.ranges[0][1].subnet: ..."). An absent field
// and JSON null read as nullopt; a field of another type is an error that names it.
//
// Keys are found by exact name first, then without regard to case: containerd sends its runtime configuration with Go
// field names (HostPort, IngressRate), and plugins written in Go never noticed.
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "cni/error.h"

namespace fairlead::cni {

// Bounded: at most kMaxConfigBytes, nesting at most 32.
inline constexpr std::size_t kMaxConfigBytes = 4u << 20;
CniResult<boost::json::value> parse_json(std::string_view text);

class Field {
 public:
  explicit Field(const boost::json::value& root) : value_(&root) {}
  Field(const boost::json::value* value, std::string path) : value_(value), path_(std::move(path)) {}

  bool present() const { return value_ != nullptr && !value_->is_null(); }
  const boost::json::value* raw() const { return value_; }
  const std::string& path() const { return path_; }
  Field get(std::string_view key) const;  // an absent field when this is no object

  CniResult<> expect_object() const;  // absent is fine
  CniResult<std::optional<std::string>> string() const;
  CniResult<std::optional<bool>> boolean() const;
  CniResult<std::optional<std::int64_t>> integer(std::int64_t min, std::int64_t max) const;
  CniResult<std::optional<std::uint64_t>> unsigned_integer() const;
  CniResult<std::vector<Field>> array() const;        // empty when absent
  CniResult<std::vector<std::string>> strings() const;
  CniResult<std::vector<std::pair<std::string, Field>>> members() const;  // of an object

  CniResult<std::string> string_or(std::string_view fallback) const;
  CniResult<bool> boolean_or(bool fallback) const;
  // With the parsing functions of base: the error is theirs, prefixed with the path.
  CniResult<std::optional<IpAddress>> ip() const;
  CniResult<std::optional<Prefix>> prefix() const;
  CniResult<std::optional<InterfaceAddress>> interface_address() const;

  tl::unexpected<CniError> error(std::string_view reason) const;

 private:
  const boost::json::value* value_ = nullptr;
  std::string path_;
};

}  // namespace fairlead::cni
