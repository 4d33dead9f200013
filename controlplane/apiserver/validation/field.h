// Field paths and field errors: where in an object something is wrong and what. The text forms are Kubernetes' own
// (apimachinery/pkg/util/validation/field), because people and tools read them:
//   spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. ...
// Values; thread safe.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace google::protobuf {
class Message;
}

namespace fairlead::apiserver::field {

class Path {
 public:
  Path() = default;
  explicit Path(std::string_view root) : text_(root) {}
  Path child(std::string_view name) const {
    Path p;
    p.text_.reserve(text_.size() + 1 + name.size());
    p.text_ = text_;
    if (!p.text_.empty()) p.text_ += '.';
    p.text_ += name;
    return p;
  }
  Path index(std::size_t i) const { return Path(text_ + "[" + std::to_string(i) + "]"); }
  Path key(std::string_view k) const { return Path(text_ + "[" + std::string(k) + "]"); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

enum class Type { not_found, required, duplicate, invalid, not_supported, forbidden, too_long, too_many, internal, type_invalid };
std::string_view reason(Type t);  // "FieldValueInvalid"
std::string_view title(Type t);   // "Invalid value"

struct Error {
  Type type = Type::invalid;
  std::string field;
  std::string value;  // printed form (already quoted where it is text); empty: none
  std::string detail;

  std::string body() const;  // without the field: a cause's message
  std::string text() const;  // "field: body"
};

class ErrorList {
 public:
  void add(Error e) { items_.push_back(std::move(e)); }
  void add(ErrorList more) {
    for (auto& e : more.items_) items_.push_back(std::move(e));
  }
  bool empty() const { return items_.empty(); }
  std::size_t size() const { return items_.size(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  const Error& operator[](std::size_t i) const { return items_[i]; }

  void required(const Path& p, std::string_view detail = {});
  void invalid(const Path& p, std::string_view value, std::string_view detail);
  void invalid(const Path& p, std::int64_t value, std::string_view detail);
  void invalid_json(const Path& p, std::string json, std::string_view detail);  // value printed as given
  void duplicate(const Path& p, std::string_view value);
  void duplicate_json(const Path& p, std::string json);
  void not_found(const Path& p, std::string_view value);
  void not_supported(const Path& p, std::string_view value, std::initializer_list<std::string_view> supported);
  void not_supported(const Path& p, std::string_view value, std::span<const std::string_view> supported);
  void forbidden(const Path& p, std::string_view detail);
  void too_long(const Path& p, std::size_t max_bytes);
  void too_many(const Path& p, std::size_t actual, std::size_t max_items);

 private:
  std::vector<Error> items_;
};

std::string quote(std::string_view text);  // as Go's %q for printable text

}  // namespace fairlead::apiserver::field
