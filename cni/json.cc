#include "cni/json.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "base/text.h"

namespace fairlead::cni {
namespace {

namespace json = boost::json;

const json::value* find(const json::object& o, std::string_view key) {
  if (const auto* exact = o.if_contains(json::string_view(key.data(), key.size()))) return exact;
  for (const auto& [k, v] : o)
    if (equal_ignoring_case({k.data(), k.size()}, key)) return &v;
  return nullptr;
}

std::string shown(const json::value& v) {
  std::string s = json::serialize(v);
  if (s.size() > 60) s = s.substr(0, 57) + "...";
  return s;
}

}  // namespace

CniResult<json::value> parse_json(std::string_view text) {
  if (text.size() > kMaxConfigBytes) return cni_fail(Code::failed_to_decode, "the configuration is larger than {} bytes", kMaxConfigBytes);
  json::parse_options options;
  options.max_depth = 32;
  boost::system::error_code ec;
  json::value v = json::parse(json::string_view(text.data(), text.size()), ec, {}, options);
  if (ec) return cni_fail(Code::failed_to_decode, "the configuration is not JSON: {}", ec.message());
  if (!v.is_object()) return cni_fail(Code::failed_to_decode, "the configuration is not a JSON object");
  return v;
}

tl::unexpected<CniError> Field::error(std::string_view reason) const {
  return cni_fail(Code::invalid_config, "invalid configuration: {}{}{}", path_, path_.empty() ? "" : ": ", reason);
}

Field Field::get(std::string_view key) const {
  const std::string path = path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  if (!present() || !value_->is_object()) return {nullptr, path};
  return {find(value_->get_object(), key), path};
}

CniResult<> Field::expect_object() const {
  if (present() && !value_->is_object()) return error(shown(*value_) + " is not an object");
  return {};
}

CniResult<std::optional<std::string>> Field::string() const {
  if (!present()) return std::optional<std::string>();
  if (!value_->is_string()) return error(shown(*value_) + " is not a string");
  const auto& s = value_->get_string();
  return std::optional<std::string>(std::string(s.data(), s.size()));
}

CniResult<std::optional<bool>> Field::boolean() const {
  if (!present()) return std::optional<bool>();
  if (!value_->is_bool()) return error(shown(*value_) + " is not true or false");
  return std::optional<bool>(value_->get_bool());
}

CniResult<std::optional<std::int64_t>> Field::integer(std::int64_t min, std::int64_t max) const {
  if (!present()) return std::optional<std::int64_t>();
  std::int64_t n = 0;
  if (value_->is_int64())
    n = value_->get_int64();
  else if (value_->is_uint64() && value_->get_uint64() > INT64_MAX)
    return error(fmt::format("{} is above {}", shown(*value_), max));
  else if (value_->is_uint64())
    n = static_cast<std::int64_t>(value_->get_uint64());
  else
    return error(shown(*value_) + " is not a whole number");
  if (n < min || n > max) return error(fmt::format("{} is outside {}..{}", n, min, max));
  return std::optional<std::int64_t>(n);
}

CniResult<std::optional<std::uint64_t>> Field::unsigned_integer() const {
  if (!present()) return std::optional<std::uint64_t>();
  if (value_->is_uint64()) return std::optional<std::uint64_t>(value_->get_uint64());
  if (value_->is_int64() && value_->get_int64() >= 0) return std::optional<std::uint64_t>(value_->get_int64());
  return error(shown(*value_) + " is not a whole number of 0 or more");
}

CniResult<std::vector<Field>> Field::array() const {
  std::vector<Field> out;
  if (!present()) return out;
  if (!value_->is_array()) return error(shown(*value_) + " is not a list");
  const auto& a = value_->get_array();
  out.reserve(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) out.emplace_back(&a[i], fmt::format("{}[{}]", path_, i));
  return out;
}

CniResult<std::vector<std::string>> Field::strings() const {
  std::vector<std::string> out;
  CNI_TRY(const auto items, array());
  for (const Field& f : items) {
    CNI_TRY(auto s, f.string());
    if (!s) return f.error("null is not a string");
    out.push_back(std::move(*s));
  }
  return out;
}

CniResult<std::vector<std::pair<std::string, Field>>> Field::members() const {
  std::vector<std::pair<std::string, Field>> out;
  CNI_CHECK(expect_object());
  if (!present()) return out;
  for (const auto& [k, v] : value_->get_object()) {
    std::string key(k.data(), k.size());
    Field f(&v, path_.empty() ? key : path_ + "." + key);
    out.emplace_back(std::move(key), std::move(f));
  }
  return out;
}

CniResult<std::string> Field::string_or(std::string_view fallback) const {
  CNI_TRY(auto s, string());
  return s ? std::move(*s) : std::string(fallback);
}

CniResult<bool> Field::boolean_or(bool fallback) const {
  CNI_TRY(const auto b, boolean());
  return b.value_or(fallback);
}

template <typename T, typename Parse>
static CniResult<std::optional<T>> parsed(const Field& f, Parse parse) {
  CNI_TRY(const auto s, f.string());
  if (!s || s->empty()) return std::optional<T>();
  auto v = parse(*s);
  if (!v) return f.error(v.error().message);
  return std::optional<T>(std::move(*v));
}

CniResult<std::optional<IpAddress>> Field::ip() const { return parsed<IpAddress>(*this, IpAddress::parse); }
CniResult<std::optional<Prefix>> Field::prefix() const { return parsed<Prefix>(*this, Prefix::parse); }
CniResult<std::optional<InterfaceAddress>> Field::interface_address() const {
  return parsed<InterfaceAddress>(*this, InterfaceAddress::parse);
}

}  // namespace fairlead::cni
