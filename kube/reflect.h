// What protobuf's public reflection does only slowly: map fields (it mirrors a map into a repeated field on first use, under
// a lock) and the presence of fields (several calls for each). protobuf 3.21 declares one friend of Reflection for a library
// that needs this, and lets it define the class; this is that definition. Only for generated messages. Included by the
// codec's own files only.
#pragma once

#include <google/protobuf/generated_message_reflection.h>
#include <google/protobuf/map_field.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace google::protobuf::expr {

class CelMapReflectionFriend {
 public:
  using StringMap = Map<std::string, std::string>;
  static constexpr bool kKnownLayout = GOOGLE_PROTOBUF_VERSION / 1000 == 3021;
  using StringMapField = internal::TypeDefinedMapFieldBase<std::string, std::string>;

  static const StringMap& strings(const Message& m, const FieldDescriptor* f) {
    return static_cast<const StringMapField*>(m.GetReflection()->GetMapData(m, f))->GetMap();
  }
  static StringMap& mutable_strings(Message& m, const FieldDescriptor* f) {
    return *static_cast<StringMapField*>(m.GetReflection()->MutableMapData(&m, f))->MutableMap();
  }
  // Where a message of this type keeps its presence bits, and which of them is the field's; -1 where there is none.
  static std::int64_t has_bits_offset(const Reflection* r) {
    return kKnownLayout && r->schema_.HasHasbits() ? static_cast<std::int64_t>(r->schema_.HasBitsOffset()) : -1;
  }
  static std::int64_t has_bit(const Reflection* r, const FieldDescriptor* f) {
    if (!kKnownLayout || f->is_repeated() || f->real_containing_oneof() || !r->schema_.HasHasbits()) return -1;
    const auto index = r->schema_.HasBitIndex(f);
    return index == ~0u ? -1 : static_cast<std::int64_t>(index);
  }
  static int size(const Message& m, const FieldDescriptor* f) { return m.GetReflection()->MapSize(m, f); }
  // f(key, value) for each entry, in no order.
  template <typename F>
  static void for_each(const Message& m, const FieldDescriptor* f, F&& visit) {
    auto* mutable_for_api = const_cast<Message*>(&m);  // MapBegin reads only, but takes a pointer
    const auto* r = m.GetReflection();
    const auto end = r->MapEnd(mutable_for_api, f);
    for (auto it = r->MapBegin(mutable_for_api, f); it != end; ++it)
      visit(it.GetKey().GetStringValue(), it.GetValueRef().GetMessageValue());
  }
  template <typename F>
  static void for_each_mutable(Message& m, const FieldDescriptor* f, F&& visit) {
    const auto* r = m.GetReflection();
    const auto end = r->MapEnd(&m, f);
    for (auto it = r->MapBegin(&m, f); it != end; ++it) {
      visit(it.GetKey().GetStringValue(), *it.MutableValueRef()->MutableMessageValue());
    }
  }
  static Message& insert(Message& m, const FieldDescriptor* f, std::string key) {
    MapKey k;
    k.SetStringValue(std::move(key));
    MapValueRef v;
    m.GetReflection()->InsertOrLookupMapValue(&m, f, k, &v);
    return *v.MutableMessageValue();
  }
};

}  // namespace google::protobuf::expr

namespace fairlead::kube {

using Maps = google::protobuf::expr::CelMapReflectionFriend;

// The entries of a string map by key.
inline std::vector<std::pair<std::string_view, std::string_view>> sorted_entries(const Maps::StringMap& map) {
  std::vector<std::pair<std::string_view, std::string_view>> out(map.begin(), map.end());
  std::sort(out.begin(), out.end());
  return out;
}

inline std::vector<std::pair<std::string, const google::protobuf::Message*>> sorted_messages(
    const google::protobuf::Message& m, const google::protobuf::FieldDescriptor* f) {
  std::vector<std::pair<std::string, const google::protobuf::Message*>> out;
  Maps::for_each(m, f, [&](const std::string& key, const google::protobuf::Message& value) { out.emplace_back(key, &value); });
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return out;
}

}  // namespace fairlead::kube
