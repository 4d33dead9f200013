#include "lb/object_fields.h"

#include <boost/json.hpp>

#include "base/duration.h"
#include "kube/api.h"
#include "kube/codec.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::lb {

const boost::json::value* ObjectFields::get(std::string_view name) {
  known_.insert(std::string(name));
  const auto* v = object_.if_contains(name);
  return v && !v->is_null() ? v : nullptr;
}

Result<> ObjectFields::read(std::string_view name, bool& out) {
  const auto* v = get(name);
  if (!v) return {};
  if (!v->is_bool()) return fail(ErrorCode::invalid_argument, "{}: must be true or false", at(name));
  out = v->get_bool();
  return {};
}

Result<> ObjectFields::read(std::string_view name, std::string& out) {
  const auto* v = get(name);
  if (!v) return {};
  if (!v->is_string()) return fail(ErrorCode::invalid_argument, "{}: must be text", at(name));
  out = std::string(v->get_string());
  return {};
}

Result<> ObjectFields::read(std::string_view name, std::optional<IpAddress>& out) {
  std::string text;
  FL_CHECK(read(name, text));
  if (text.empty()) return {};
  FL_TRY_CTX(out, IpAddress::parse(text), "{}", at(name));
  return {};
}

Result<> ObjectFields::read(std::string_view name, std::vector<std::string>& out) {
  const auto* v = get(name);
  if (!v) return {};
  if (!v->is_array()) return fail(ErrorCode::invalid_argument, "{}: must be a list", at(name));
  for (std::size_t i = 0; i < v->get_array().size(); ++i) {
    const auto& e = v->get_array()[i];
    if (!e.is_string()) return fail(ErrorCode::invalid_argument, "{}[{}]: must be text", at(name), i);
    out.emplace_back(e.get_string());
  }
  return {};
}

Result<> ObjectFields::read(std::string_view name, std::set<std::string>& out) {
  std::vector<std::string> all;
  FL_CHECK(read(name, all));
  out = {all.begin(), all.end()};
  return {};
}

Result<> ObjectFields::read(std::string_view name, std::vector<kube::LabelSelector>& out) {
  const auto* v = get(name);
  if (!v) return {};
  if (!v->is_array()) return fail(ErrorCode::invalid_argument, "{}: must be a list", at(name));
  for (std::size_t i = 0; i < v->get_array().size(); ++i) {
    metav1::LabelSelector message;
    std::vector<std::string> strict;
    FL_CHECK_CTX(kube::from_json_value(v->get_array()[i], message, {.strict = &strict}), "{}[{}]", at(name), i);
    // A misspelt selector would match everything.
    if (!strict.empty()) return fail(ErrorCode::invalid_argument, "{}[{}]: {}", at(name), i, strict.front());
    FL_TRY_CTX(auto selector, kube::LabelSelector::from(message), "{}[{}]", at(name), i);
    out.push_back(std::move(selector));
  }
  return {};
}

Result<> ObjectFields::read(std::string_view name, std::uint32_t& out, std::int64_t least, std::int64_t most) {
  const auto* v = get(name);
  if (!v) return {};
  if (v->is_int64() && v->get_int64() >= least && v->get_int64() <= most) {
    out = static_cast<std::uint32_t>(v->get_int64());
    return {};
  }
  if (least == 0 && most == INT32_MAX) return fail(ErrorCode::invalid_argument, "{}: must be a whole number, 0 or more", at(name));
  return fail(ErrorCode::invalid_argument, "{}: must be a whole number from {} to {}", at(name), least, most);
}

Result<> ObjectFields::read(std::string_view name, std::optional<std::chrono::seconds>& out) {
  std::string text;
  FL_CHECK(read(name, text));
  if (text.empty()) return {};
  FL_TRY_CTX(const auto time, parse_duration(text), "{}", at(name));
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  if (time.count() < 0 || time != whole) return fail(ErrorCode::invalid_argument, "{}: {} is not a number of whole seconds, 0 or more", at(name), text);
  out = whole;
  return {};
}

std::vector<std::string> ObjectFields::unknown() const {
  std::vector<std::string> out;
  for (const auto& m : object_)
    if (!known_.contains(std::string(m.key()))) out.push_back(at(m.key()));
  return out;
}

}  // namespace fairlead::lb
