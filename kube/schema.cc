#include "kube/schema.h"

#include <memory>
#include <mutex>
#include <shared_mutex>

#include "kube/kinds.h"
#include "kube/proto/options.pb.h"
#include "kube/reflect.h"

namespace fairlead::kube {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
namespace options = ::k8s::io::options;

constexpr std::string_view kObjectMeta = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";

Form form_of(const Descriptor& d) {
  static const std::unordered_map<std::string_view, Form> special = {
      {"k8s.io.apimachinery.pkg.apis.meta.v1.Time", Form::time},
      {"k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", Form::micro_time},
      {"k8s.io.apimachinery.pkg.apis.meta.v1.Duration", Form::duration},
      {"k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1", Form::raw},
      {"k8s.io.apimachinery.pkg.apis.meta.v1.Verbs", Form::list},
      {"k8s.io.apimachinery.pkg.api.resource.Quantity", Form::quantity},
      {"k8s.io.apimachinery.pkg.util.intstr.IntOrString", Form::int_or_string},
      {"k8s.io.apimachinery.pkg.runtime.RawExtension", Form::raw},
      {"k8s.io.api.authentication.v1.ExtraValue", Form::list},
      {"k8s.io.api.authorization.v1.ExtraValue", Form::list},
  };
  const auto it = special.find(d.full_name());
  return it == special.end() ? Form::object : it->second;
}

class Registry {
 public:
  const TypeInfo& get(const Descriptor& d) {
    {
      std::shared_lock lock(mutex_);
      if (const auto it = types_.find(&d); it != types_.end()) return *it->second;
    }
    std::unique_lock lock(mutex_);
    return build(d);
  }

 private:
  // Requires: mutex_ held for writing. The entry exists before its fields are filled, so a recursive type finds itself;
  // readers see it only after the whole closure is complete.
  const TypeInfo& build(const Descriptor& d) {
    auto& slot = types_[&d];
    if (slot) return *slot;
    slot = std::make_unique<TypeInfo>();
    TypeInfo& t = *slot;
    t.descriptor = &d;
    t.form = form_of(d);
    t.type_meta = type_name_of(d) != nullptr;
    t.fields.reserve(d.field_count());
    t.reflection = google::protobuf::MessageFactory::generated_factory()->GetPrototype(&d)->GetReflection();
    t.has_bits_offset = Maps::has_bits_offset(t.reflection);
    for (int i = 0; i < d.field_count(); ++i) {
      t.fields.push_back(field_info(*d.field(i)));
      if (t.has_bits_offset >= 0) t.fields.back().has_bit = Maps::has_bit(t.reflection, d.field(i));
    }
    for (const FieldInfo& f : t.fields) {
      if (f.field->name() == "metadata" && f.type && f.type->descriptor->full_name() == kObjectMeta) t.metadata = &f;
      if (f.inlined && f.shape == Shape::message_map) {
        t.open = &f;
        t.type_meta = true;
      } else {
        add_members(t, f);
      }
    }
    return t;
  }

  static void add_members(TypeInfo& t, const FieldInfo& f) {
    if (!f.inlined) {
      t.members.try_emplace(f.name, Member{&f, {}});
      return;
    }
    for (const auto& [name, member] : f.type->members) {
      Member m = member;
      m.through.insert(m.through.begin(), f.field);
      t.members.try_emplace(name, std::move(m));
    }
  }

  FieldInfo field_info(const FieldDescriptor& d) {
    FieldInfo f;
    f.field = &d;
    f.name = d.json_name();
    f.key_text = "\"" + f.name + "\":";
    const auto& o = d.options();
    f.inlined = o.GetExtension(options::inline_);
    f.pointer = o.GetExtension(options::pointer);
    f.always = o.GetExtension(options::always);
    f.value = o.GetExtension(options::value);
    f.required = o.GetExtension(options::required);
    const std::string strategy = o.GetExtension(options::patch_strategy);
    f.patch_replace = strategy == "replace";
    f.patch_merge = strategy.find("merge") != std::string::npos;
    f.patch_retain_keys = strategy.find("retainKeys") != std::string::npos;
    f.patch_merge_key = o.GetExtension(options::patch_merge_key);
    const bool message = d.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (d.is_map()) {
      f.map_value = d.message_type()->map_value();
      f.shape = f.map_value->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE ? Shape::message_map : Shape::map;
      if (f.shape == Shape::message_map) f.type = &build(*f.map_value->message_type());
    } else if (d.is_repeated()) {
      f.shape = message ? Shape::message_list : Shape::list;
      if (message) f.type = &build(*d.message_type());
    } else {
      f.shape = message ? Shape::message : Shape::scalar;
      if (message) f.type = &build(*d.message_type());
    }
    return f;
  }

  std::shared_mutex mutex_;
  std::unordered_map<const Descriptor*, std::unique_ptr<TypeInfo>> types_;
};

}  // namespace

const TypeInfo& type_info(const Descriptor& type) {
  static auto* registry = new Registry();  // outlives every static that may use it
  return registry->get(type);
}

}  // namespace fairlead::kube
