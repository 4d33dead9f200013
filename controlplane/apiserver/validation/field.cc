#include "controlplane/apiserver/validation/field.h"

#include <fmt/core.h>

namespace fairlead::apiserver::field {

std::string_view reason(Type t) {
  switch (t) {
    case Type::not_found: return "FieldValueNotFound";
    case Type::required: return "FieldValueRequired";
    case Type::duplicate: return "FieldValueDuplicate";
    case Type::invalid: return "FieldValueInvalid";
    case Type::not_supported: return "FieldValueNotSupported";
    case Type::forbidden: return "FieldValueForbidden";
    case Type::too_long: return "FieldValueTooLong";
    case Type::too_many: return "FieldValueTooMany";
    case Type::internal: return "InternalError";
    case Type::type_invalid: return "FieldValueTypeInvalid";
  }
  return "FieldValueInvalid";
}

std::string_view title(Type t) {
  switch (t) {
    case Type::not_found: return "Not found";
    case Type::required: return "Required value";
    case Type::duplicate: return "Duplicate value";
    case Type::invalid:
    case Type::type_invalid: return "Invalid value";
    case Type::not_supported: return "Unsupported value";
    case Type::forbidden: return "Forbidden";
    case Type::too_long: return "Too long";
    case Type::too_many: return "Too many";
    case Type::internal: return "Internal error";
  }
  return "Invalid value";
}

std::string Error::body() const {
  std::string out(title(type));
  if (!value.empty()) out += ": " + value;
  if (!detail.empty()) out += ": " + detail;
  return out;
}

std::string Error::text() const { return field + ": " + body(); }

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\t': out += "\\t"; break;
      case '\r': out += "\\r"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
          out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        else
          out += c;
    }
  }
  return out + "\"";
}

void ErrorList::required(const Path& p, std::string_view detail) { add(Error{Type::required, p.text(), "", std::string(detail)}); }
void ErrorList::invalid(const Path& p, std::string_view value, std::string_view detail) {
  add(Error{Type::invalid, p.text(), quote(value), std::string(detail)});
}
void ErrorList::invalid(const Path& p, std::int64_t value, std::string_view detail) {
  add(Error{Type::invalid, p.text(), std::to_string(value), std::string(detail)});
}
void ErrorList::invalid_json(const Path& p, std::string json, std::string_view detail) {
  add(Error{Type::invalid, p.text(), std::move(json), std::string(detail)});
}
void ErrorList::duplicate(const Path& p, std::string_view value) { add(Error{Type::duplicate, p.text(), quote(value), ""}); }
void ErrorList::duplicate_json(const Path& p, std::string json) { add(Error{Type::duplicate, p.text(), std::move(json), ""}); }
void ErrorList::not_found(const Path& p, std::string_view value) { add(Error{Type::not_found, p.text(), quote(value), ""}); }

void ErrorList::not_supported(const Path& p, std::string_view value, std::span<const std::string_view> supported) {
  std::string detail = "supported values: ";
  for (std::size_t i = 0; i < supported.size(); ++i) detail += (i ? ", " : "") + quote(supported[i]);
  add(Error{Type::not_supported, p.text(), quote(value), std::move(detail)});
}
void ErrorList::not_supported(const Path& p, std::string_view value, std::initializer_list<std::string_view> supported) {
  not_supported(p, value, std::span<const std::string_view>(supported.begin(), supported.size()));
}
void ErrorList::forbidden(const Path& p, std::string_view detail) { add(Error{Type::forbidden, p.text(), "", std::string(detail)}); }
void ErrorList::too_long(const Path& p, std::size_t max_bytes) {
  add(Error{Type::too_long, p.text(), "", fmt::format("may not be more than {} bytes", max_bytes)});
}
void ErrorList::too_many(const Path& p, std::size_t actual, std::size_t max_items) {
  add(Error{Type::too_many, p.text(), std::to_string(actual), fmt::format("must have at most {} items", max_items)});
}

}  // namespace fairlead::apiserver::field
