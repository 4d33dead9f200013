// What codec, patch and openapi know about a message type: its fields by JSON name, with the options of kube/proto/options.proto
// read once, inlined members flattened, and the forms that are not plain JSON objects (Time, Quantity, ...) recognised.
// Built on first use for a type and everything it contains, then immutable and shared by all threads.
#pragma once

#include <google/protobuf/descriptor.h>

#include <cstdint>
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

enum class Shape : std::uint8_t { scalar, message, list, message_list, map, message_map };

struct TypeInfo;

struct FieldInfo {
  const google::protobuf::FieldDescriptor* field = nullptr;
  std::string name;      // in JSON
  std::string key_text;  // "\"name\":"
  Shape shape = Shape::scalar;
  bool inlined = false;  // its members stand in the parent's object
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
  Form form = Form::object;
  bool type_meta = false;               // an object of its own on the wire: apiVersion and kind may stand in its JSON
  bool needs_normalize = true;          // false: nothing below can hold a zero or a special form (see normalize in codec)
  const FieldInfo* metadata = nullptr;  // of type ObjectMeta
  std::vector<FieldInfo> fields;        // in the order of the schema, which is the order of the JSON text
  std::unordered_map<std::string_view, Member> members;  // by JSON name, inlined ones included

  const Member* find(std::string_view name) const {
    const auto it = members.find(name);
    return it == members.end() ? nullptr : &it->second;
  }
};

const TypeInfo& type_info(const google::protobuf::Descriptor& type);

}  // namespace fairlead::kube
