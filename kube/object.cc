#include "kube/object.h"

#include <charconv>
#include <cstdlib>

#include "base/log.h"
#include "kube/codec.h"
#include "kube/proto/apimachinery/intstr.pb.h"
#include "kube/proto/apimachinery/resource.pb.h"
#include "kube/reflect.h"
#include "kube/schema.h"
#include "kube/time_text.h"

namespace fairlead::kube {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
namespace json = boost::json;

const FieldInfo& metadata_field(const Message& object) {
  const FieldInfo* f = type_info(*object.GetDescriptor()).metadata;
  if (!f) {
    log::error("meta_of: {} has no metadata", object.GetDescriptor()->full_name());
    std::abort();
  }
  return *f;
}

std::string scalar_text(const FieldDescriptor* d, const Message& m, const Reflection& r) {
  switch (d->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return std::to_string(r.GetInt32(m, d));
    case FieldDescriptor::CPPTYPE_INT64: return std::to_string(r.GetInt64(m, d));
    case FieldDescriptor::CPPTYPE_UINT32: return std::to_string(r.GetUInt32(m, d));
    case FieldDescriptor::CPPTYPE_UINT64: return std::to_string(r.GetUInt64(m, d));
    case FieldDescriptor::CPPTYPE_DOUBLE: return fmt::format("{}", r.GetDouble(m, d));
    case FieldDescriptor::CPPTYPE_FLOAT: return fmt::format("{}", r.GetFloat(m, d));
    case FieldDescriptor::CPPTYPE_BOOL: return r.GetBool(m, d) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_STRING: return r.GetString(m, d);
    case FieldDescriptor::CPPTYPE_ENUM:
    case FieldDescriptor::CPPTYPE_MESSAGE: break;
  }
  return {};
}

std::optional<std::string> form_text(const TypeInfo& t, const Message& m) {
  switch (t.form) {
    case Form::time: {
      const auto& time = static_cast<const metav1::Time&>(m);
      return time.has_seconds() ? format_time(time.seconds()) : std::string();
    }
    case Form::micro_time: {
      const auto& time = static_cast<const metav1::MicroTime&>(m);
      return time.has_seconds() ? format_micro_time(time.seconds(), time.nanos()) : std::string();
    }
    case Form::quantity: return static_cast<const resource::Quantity&>(m).string();
    case Form::int_or_string: {
      const auto& v = static_cast<const intstr::IntOrString&>(m);
      return v.type() == 1 ? v.strval() : std::to_string(v.intval());
    }
    default: return std::nullopt;
  }
}

struct Step {
  std::string_view name;
  std::optional<std::size_t> index;
};

// "containers[0]" of "containers[0].image"; the rest stays in `path`.
std::optional<Step> next_step(std::string_view& path) {
  const auto end = std::min(path.find('.'), path.size());
  std::string_view part = path.substr(0, end);
  path.remove_prefix(std::min(end + 1, path.size()));
  Step s{part, {}};
  const auto open = part.find('[');
  if (open == std::string_view::npos) return part.empty() ? std::nullopt : std::optional(s);
  s.name = part.substr(0, open);
  const std::string_view digits = part.substr(open + 1, part.size() - open - 2);
  std::size_t index = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (part.back() != ']' || error != std::errc{} || stop != digits.data() + digits.size()) return std::nullopt;
  s.index = index;
  return s;
}

}  // namespace

const metav1::ObjectMeta& meta_of(const Message& object) {
  return static_cast<const metav1::ObjectMeta&>(object.GetReflection()->GetMessage(object, metadata_field(object).field));
}

metav1::ObjectMeta& mutable_meta(Message& object) {
  return static_cast<metav1::ObjectMeta&>(*object.GetReflection()->MutableMessage(&object, metadata_field(object).field));
}

bool has_meta(const google::protobuf::Descriptor& type) { return type_info(type).metadata != nullptr; }

std::string key_of(std::string_view ns, std::string_view name) {
  return ns.empty() ? std::string(name) : fmt::format("{}/{}", ns, name);
}
std::string key_of(const metav1::ObjectMeta& meta) { return key_of(meta.namespace_(), meta.name()); }
std::string key_of(const Message& object) { return key_of(meta_of(object)); }

SplitKey split_key(std::string_view key) {
  const auto slash = key.find('/');
  if (slash == std::string_view::npos) return {{}, key};
  return {key.substr(0, slash), key.substr(slash + 1)};
}

std::optional<std::string> field_text(const Message& object, std::string_view path) {
  const Message* m = &object;
  const TypeInfo* t = &type_info(*object.GetDescriptor());
  bool present = true;  // else the walk goes on over default instances: it still tells whether the type has the field
  while (!path.empty()) {
    const auto step = next_step(path);
    if (!step || t->form != Form::object) return std::nullopt;
    const Member* member = t->find(step->name);
    if (!member) return std::nullopt;
    for (const FieldDescriptor* f : member->through) m = &m->GetReflection()->GetMessage(*m, f);
    const FieldInfo& f = *member->field;
    const Reflection& r = *m->GetReflection();
    const bool list = f.shape == Shape::list || f.shape == Shape::message_list;
    if (list != step->index.has_value()) return std::nullopt;
    if (f.shape == Shape::scalar) {
      if (!path.empty()) return std::nullopt;
      const bool unset =
          !present || (!r.HasField(*m, f.field) && (f.pointer || f.field->cpp_type() == FieldDescriptor::CPPTYPE_STRING));
      return unset ? std::string() : scalar_text(f.field, *m, r);
    }
    if (f.shape == Shape::message) {
      present = present && r.HasField(*m, f.field);
      m = &r.GetMessage(*m, f.field);
    } else if (f.shape == Shape::message_list) {
      if (present && static_cast<int>(*step->index) < r.FieldSize(*m, f.field)) {
        m = &r.GetRepeatedMessage(*m, f.field, static_cast<int>(*step->index));
      } else {
        present = false;
        m = r.GetMessageFactory()->GetPrototype(f.type->descriptor);
      }
    } else if (f.shape == Shape::map) {
      if (path.empty()) return std::nullopt;
      const auto& map = Maps::strings(*m, f.field);
      const auto it = map.find(std::string(path));  // the rest of the path is the key
      return it == map.end() ? std::string() : it->second;
    } else {
      return std::nullopt;
    }
    t = f.type;
  }
  auto text = form_text(*t, *m);
  if (text && !present) return std::string();
  return text;
}

std::string safe_name_of(std::uint64_t number) {
  std::string out;
  do {
    out += kSafeNameCharacters[number % kSafeNameCharacters.size()];
    number /= kSafeNameCharacters.size();
  } while (number != 0);
  return out;
}

std::string stable_hash(const Message& object, std::optional<std::int32_t> collision) {
  std::string text = to_json(object);
  if (collision) text += fmt::format("#{}", *collision);
  std::uint64_t h = 0xcbf29ce484222325;  // FNV-1a, then mixed down to the ten characters that a name has room for
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  h ^= h >> 32;
  h *= 0xd6e8feb86659fd93;
  h ^= h >> 32;
  return safe_name_of(h >> 20);
}

json::value create_merge_patch(const json::value& before, const json::value& after) {
  const auto* b = before.if_object();
  const auto* a = after.if_object();
  if (!a) return after;
  json::object patch;
  for (const auto& [key, value] : *a) {
    const auto* old = b ? b->if_contains(key) : nullptr;
    if (!old) {
      patch.emplace(key, value);
    } else if (*old != value) {
      patch.emplace(key, value.is_object() && old->is_object() ? create_merge_patch(*old, value) : value);
    }
  }
  if (b) {
    for (const auto& [key, value] : *b) {
      if (!a->contains(key)) patch.emplace(key, nullptr);
    }
  }
  return patch;
}

json::value create_merge_patch(const Message& before, const Message& after) {
  return create_merge_patch(to_json_value(before), to_json_value(after));
}

}  // namespace fairlead::kube
