// Shared between the files of the codec only.
#pragma once

#include <google/protobuf/message.h>

#include <boost/json/value.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "kube/codec.h"
#include "kube/schema.h"

namespace fairlead::kube {

inline constexpr std::size_t kMaxDepth = 100;
inline constexpr std::size_t kMaxStrictErrors = 100;

// parse_json() with the memory of the values in `storage`, which must outlive them.
Result<boost::json::value> parse_json_into(std::string_view text, const DecodeOptions& options, boost::json::storage_ptr storage);

// An object of any named type in an envelope of its own, inside another object.
Result<std::unique_ptr<google::protobuf::Message>> decode_embedded(std::string_view bytes);

// Well-formed UTF-8 (RFC 3629).
bool valid_utf8(std::string_view text);

// False for a message that says the same as an absent one: no field set but empty `value` messages.
bool has_content(const TypeInfo& t, const google::protobuf::Message& m);

// Where a decoder is, as text: spec.containers[0].resources.limits[cpu]. Cheap to push and pop; text is made only for errors.
class FieldPath {
 public:
  void push_name(std::string_view name) { parts_.push_back({name, kName}); }
  void push_key(std::string_view key) { parts_.push_back({key, kKey}); }
  void push_index(std::size_t index) { parts_.push_back({{}, static_cast<std::int64_t>(index)}); }
  void pop() { parts_.pop_back(); }
  std::size_t depth() const { return parts_.size(); }
  // With a last member that is not on the path. Map keys stand in brackets, or dotted as upstream's strict errors write them.
  std::string text(std::string_view last = {}, bool dotted_keys = false) const;

 private:
  static constexpr std::int64_t kName = -1;
  static constexpr std::int64_t kKey = -2;
  struct Part {
    std::string_view name;
    std::int64_t index;
  };
  std::vector<Part> parts_;
};

}  // namespace fairlead::kube
