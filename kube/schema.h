// What codec, patch and openapi know about a message type: its fields by JSON name, with the options of kube/proto/options.proto
// read once, inlined members flattened, and the forms that are not plain JSON objects (Time, Quantity, ...) recognised.
// Built on first use for a type and everything it contains, then immutable and shared by all threads.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fairlead::kube {

// How a message looks in JSON.
enum class Form : std::uint8_t {
  object,         // a JSON object of its fields
  time,           // RFC 3339 text, whole seconds
  micro_time,     // RFC 3339 text with six decimals
  duration,       // "1m30s"
  quantity,       // "100m"
  int_or_string,  // 80 or "http"
  raw,            // any JSON value, stored as it is (RawExtension, FieldsV1)
  list,           // the bare list in `items` (Verbs, ExtraValue)
};

// Forms whose empty message is JSON's null, which is the same as absent.
constexpr bool empty_is_null(Form f) { return f == Form::time || f == Form::micro_time || f == Form::raw; }

enum class Shape : std::uint8_t { scalar, message, list, message_list, map, message_map };

struct TypeInfo;

struct FieldInfo {
  const google::protobuf::FieldDescriptor* field = nullptr;
  std::string name;      // in JSON
  std::string key_text;  // "\"name\":"
  Shape shape = Shape::scalar;
  std::int64_t has_bit = -1;  // its presence bit, -1: ask reflection
  bool inlined = false;       // its members stand in the parent's object
  bool pointer = false;
  bool always = false;
  bool value = false;
  bool required = false;
  bool patch_replace = false;      // strategy "replace"
  bool patch_merge = false;        // strategy has "merge"
  bool patch_retain_keys = false;  // strategy has "retainKeys"
  std::string patch_merge_key;
  const TypeInfo* type = nullptr;                                // of the message, the list's items or the map's values
  const google::protobuf::FieldDescriptor* map_value = nullptr;  // of a map
};

// A JSON member: the field and the inlined messages on the way to it.
struct Member {
  const FieldInfo* field = nullptr;
  std::vector<const google::protobuf::FieldDescriptor*> through;
};

struct TypeInfo {
  const google::protobuf::Descriptor* descriptor = nullptr;
  const google::protobuf::Reflection* reflection = nullptr;  // of generated messages of this type
  std::int64_t has_bits_offset = -1;
  Form form = Form::object;
  bool type_meta = false;               // an object of its own on the wire: apiVersion and kind may stand in its JSON
  const FieldInfo* metadata = nullptr;  // of type ObjectMeta
  const FieldInfo* open = nullptr;      // an inlined map of JSON values: takes every member that the schema does not name
  std::vector<FieldInfo> fields;        // in the order of the schema, which is the order of the JSON text
  std::unordered_map<std::string_view, Member> members;  // by JSON name, inlined ones included

  const Member* find(std::string_view name) const {
    const auto it = members.find(name);
    return it == members.end() ? nullptr : &it->second;
  }
};

// Whether a singular field is present. Requires: `m` is a generated message of type `t`, and `f` one of its fields.
inline bool present(const TypeInfo& t, const FieldInfo& f, const google::protobuf::Message& m) {
  if (f.has_bit < 0) return t.reflection->HasField(m, f.field);
  std::uint32_t word;
  std::memcpy(&word, reinterpret_cast<const char*>(&m) + t.has_bits_offset + f.has_bit / 32 * 4, sizeof word);
  return (word >> (f.has_bit % 32) & 1) != 0;
}

const TypeInfo& type_info(const google::protobuf::Descriptor& type);

}  // namespace fairlead::kube
