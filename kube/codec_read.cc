// JSON values to messages.
#include <boost/json/monotonic_resource.hpp>
#include <limits>

#include "base/duration.h"
#include "kube/api.h"
#include "kube/base64.h"
#include "kube/codec.h"
#include "kube/codec_internal.h"
#include "kube/kinds.h"
#include "kube/proto/apimachinery/intstr.pb.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "kube/proto/apimachinery/resource.pb.h"
#include "kube/quantity.h"
#include "kube/reflect.h"
#include "kube/time_text.h"

namespace fairlead::kube {

std::string FieldPath::text(std::string_view last, bool dotted_keys) const {
  std::string out;
  const auto dotted = [&](std::string_view name) {
    if (!out.empty()) out += '.';
    out += name;
  };
  for (const Part& p : parts_) {
    if (p.index == kName || (p.index == kKey && dotted_keys)) {
      dotted(p.name);
    } else if (p.index == kKey) {
      out += fmt::format("[{}]", p.name);
    } else {
      out += fmt::format("[{}]", p.index);
    }
  }
  if (!last.empty()) dotted(last);
  return out;
}

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
namespace json = boost::json;

// What a person reads about a wrong value: `the string "abc"`, `an object`. Long text is cut.
std::string describe(const json::value& v) {
  switch (v.kind()) {
    case json::kind::null: return "null";
    case json::kind::bool_: return v.get_bool() ? "true" : "false";
    case json::kind::int64: return fmt::format("the number {}", v.get_int64());
    case json::kind::uint64: return fmt::format("the number {}", v.get_uint64());
    case json::kind::double_: return fmt::format("the number {}", v.get_double());
    case json::kind::array: return "a list";
    case json::kind::object: return "an object";
    case json::kind::string: break;
  }
  const std::string_view s = v.get_string();
  std::string out = "the string ";
  append_json_string(out, s.substr(0, 64));
  return s.size() > 64 ? out + "..." : out;
}

class Reader {
 public:
  explicit Reader(std::vector<std::string>* strict) : strict_(strict) {}

  Result<> top(const TypeInfo& t, const json::value& v, Message& out) { return message(t, v, out, true); }

 private:
  Failure wrong(std::string_view expected, const json::value& v) {
    const std::string path = path_.text();
    if (path.empty()) return fail(ErrorCode::invalid_argument, "must be {}, not {}", expected, describe(v));
    return fail(ErrorCode::invalid_argument, "{}: must be {}, not {}", path, expected, describe(v));
  }
  Failure bad(const Error& e) {
    const std::string path = path_.text();
    return path.empty() ? fail(e) : fail(ErrorCode::invalid_argument, "{}: {}", path, e.message);
  }

  Result<> message(const TypeInfo& t, const json::value& v, Message& out, bool top = false) {
    switch (t.form) {
      case Form::object: return object(t, v, out, top);
      case Form::time: return time(v, static_cast<metav1::Time&>(out));
      case Form::micro_time: return micro_time(v, static_cast<metav1::MicroTime&>(out));
      case Form::duration: return duration(v, static_cast<metav1::Duration&>(out));
      case Form::quantity: return quantity(v, static_cast<resource::Quantity&>(out));
      case Form::int_or_string: return int_or_string(v, static_cast<intstr::IntOrString&>(out));
      case Form::raw: out.GetReflection()->SetString(&out, t.fields[0].field, to_json(v)); return {};
      case Form::list: return list(t.fields[0], v, out);
    }
    return {};
  }

  Result<> object(const TypeInfo& t, const json::value& v, Message& out, bool top) {
    const auto* o = v.if_object();
    if (!o) return wrong("an object", v);
    if (path_.depth() > kMaxDepth)
      return fail(ErrorCode::invalid_argument, "{}: nested more than {} levels deep", path_.text(), kMaxDepth);
    for (const auto& [key, child] : *o) {
      const std::string_view name = key;
      const Member* member = t.find(name);
      if (!member && t.open && name != "apiVersion" && name != "kind") {
        if (!child.is_null()) FL_CHECK(message(*t.open->type, child, Maps::insert(out, t.open->field, std::string(name))));
        continue;
      }
      if (!member) {
        FL_CHECK(unknown_member(t, name, child, top));
        continue;
      }
      if (child.is_null()) continue;
      Message* target = &out;
      for (const FieldDescriptor* f : member->through) target = target->GetReflection()->MutableMessage(target, f);
      path_.push_name(name);
      FL_CHECK(field(*member->field, child, *target));
      path_.pop();
    }
    return {};
  }

  Result<> unknown_member(const TypeInfo& t, std::string_view name, const json::value& v, bool top) {
    if ((t.type_meta || top) && (name == "apiVersion" || name == "kind")) {
      if (v.is_string() || v.is_null()) return {};
      path_.push_name(name);
      return wrong("a string", v);
    }
    if (strict_ && strict_->size() < kMaxStrictErrors) {
      strict_->push_back(fmt::format("unknown field \"{}\"", path_.text(name, true)));
    }
    return {};
  }

  Result<> field(const FieldInfo& f, const json::value& v, Message& out) {
    switch (f.shape) {
      case Shape::scalar: return scalar(f, v, out);
      case Shape::list: return list(f, v, out);
      case Shape::message_list: return message_list(f, v, out);
      case Shape::map: return string_map(f, v, out);
      case Shape::message_map: return message_map(f, v, out);
      case Shape::message: break;
    }
    const Reflection& r = *out.GetReflection();
    Message& m = *r.MutableMessage(&out, f.field);
    FL_CHECK(message(*f.type, v, m));
    if (f.value && !has_content(*f.type, m)) r.ClearField(&out, f.field);
    return {};
  }

  template <typename Int>
  Result<Int> integer(const json::value& v) {
    const std::string_view expected = sizeof(Int) == 4 ? "an integer of 32 bits" : "an integer";
    if (!v.is_int64() && !v.is_uint64()) return wrong(expected, v);
    const __int128 i = v.is_int64() ? __int128{v.get_int64()} : __int128{v.get_uint64()};
    if (i < __int128{std::numeric_limits<Int>::min()} || i > __int128{std::numeric_limits<Int>::max()}) return wrong(expected, v);
    return static_cast<Int>(i);
  }

  Result<double> number(const json::value& v) {
    if (!v.is_number()) return wrong("a number", v);
    return v.to_number<double>();
  }

  Result<std::string> text(const FieldDescriptor& d, const json::value& v) {
    const auto* s = v.if_string();
    if (!s) return wrong("a string", v);
    if (d.type() != FieldDescriptor::TYPE_BYTES) return std::string(*s);
    auto bytes = from_base64(*s);
    if (!bytes) return wrong("base64", v);
    return std::move(*bytes);
  }

  Result<> scalar(const FieldInfo& f, const json::value& v, Message& out) {
    const Reflection& r = *out.GetReflection();
    const FieldDescriptor* d = f.field;
    const auto store = [&](const auto& value, const auto& zero, auto set) {
      if (f.pointer || value != zero) set(value);
    };
    switch (d->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: {
        FL_TRY(const auto i, integer<std::int32_t>(v));
        store(i, 0, [&](auto x) { r.SetInt32(&out, d, x); });
        return {};
      }
      case FieldDescriptor::CPPTYPE_INT64: {
        FL_TRY(const auto i, integer<std::int64_t>(v));
        store(i, 0, [&](auto x) { r.SetInt64(&out, d, x); });
        return {};
      }
      case FieldDescriptor::CPPTYPE_UINT32: {
        FL_TRY(const auto i, integer<std::uint32_t>(v));
        store(i, 0u, [&](auto x) { r.SetUInt32(&out, d, x); });
        return {};
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        FL_TRY(const auto i, integer<std::uint64_t>(v));
        store(i, 0u, [&](auto x) { r.SetUInt64(&out, d, x); });
        return {};
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        FL_TRY(const auto x, number(v));
        store(x, 0.0, [&](auto y) { r.SetDouble(&out, d, y); });
        return {};
      }
      case FieldDescriptor::CPPTYPE_FLOAT: {
        FL_TRY(const auto x, number(v));
        store(x, 0.0, [&](auto y) { r.SetFloat(&out, d, static_cast<float>(y)); });
        return {};
      }
      case FieldDescriptor::CPPTYPE_BOOL: {
        const auto* b = v.if_bool();
        if (!b) return wrong("true or false", v);
        store(*b, false, [&](auto x) { r.SetBool(&out, d, x); });
        return {};
      }
      case FieldDescriptor::CPPTYPE_STRING: {
        FL_TRY(auto s, text(*d, v));
        if (f.pointer || !s.empty()) r.SetString(&out, d, std::move(s));
        return {};
      }
      case FieldDescriptor::CPPTYPE_ENUM:
      case FieldDescriptor::CPPTYPE_MESSAGE: break;
    }
    return {};
  }

  Result<> list_item(const FieldDescriptor* d, const json::value& v, Message& out) {
    const Reflection& r = *out.GetReflection();
    const bool null = v.is_null();  // a null item is a zero item
    switch (d->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: {
        FL_TRY(const auto i, null ? Result<std::int32_t>(0) : integer<std::int32_t>(v));
        r.AddInt32(&out, d, i);
        return {};
      }
      case FieldDescriptor::CPPTYPE_INT64: {
        FL_TRY(const auto i, null ? Result<std::int64_t>(0) : integer<std::int64_t>(v));
        r.AddInt64(&out, d, i);
        return {};
      }
      case FieldDescriptor::CPPTYPE_UINT32: {
        FL_TRY(const auto i, null ? Result<std::uint32_t>(0u) : integer<std::uint32_t>(v));
        r.AddUInt32(&out, d, i);
        return {};
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        FL_TRY(const auto i, null ? Result<std::uint64_t>(0u) : integer<std::uint64_t>(v));
        r.AddUInt64(&out, d, i);
        return {};
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        FL_TRY(const auto x, null ? Result<double>(0.0) : number(v));
        r.AddDouble(&out, d, x);
        return {};
      }
      case FieldDescriptor::CPPTYPE_FLOAT: {
        FL_TRY(const auto x, null ? Result<double>(0.0) : number(v));
        r.AddFloat(&out, d, static_cast<float>(x));
        return {};
      }
      case FieldDescriptor::CPPTYPE_BOOL: {
        const auto* b = v.if_bool();
        if (!b && !null) return wrong("true or false", v);
        r.AddBool(&out, d, b && *b);
        return {};
      }
      case FieldDescriptor::CPPTYPE_STRING: {
        FL_TRY(auto s, null ? Result<std::string>(std::string()) : text(*d, v));
        r.AddString(&out, d, std::move(s));
        return {};
      }
      case FieldDescriptor::CPPTYPE_ENUM:
      case FieldDescriptor::CPPTYPE_MESSAGE: break;
    }
    return {};
  }

  Result<> list(const FieldInfo& f, const json::value& v, Message& out) {
    const auto* a = v.if_array();
    if (!a) return wrong("a list", v);
    for (std::size_t i = 0; i < a->size(); ++i) {
      path_.push_index(i);
      FL_CHECK(list_item(f.field, (*a)[i], out));
      path_.pop();
    }
    return {};
  }

  Result<> message_list(const FieldInfo& f, const json::value& v, Message& out) {
    const auto* a = v.if_array();
    if (!a) return wrong("a list", v);
    const Reflection& r = *out.GetReflection();
    for (std::size_t i = 0; i < a->size(); ++i) {
      Message& item = *r.AddMessage(&out, f.field);
      if ((*a)[i].is_null()) continue;
      path_.push_index(i);
      FL_CHECK(message(*f.type, (*a)[i], item));
      path_.pop();
    }
    return {};
  }

  Result<> string_map(const FieldInfo& f, const json::value& v, Message& out) {
    const auto* o = v.if_object();
    if (!o) return wrong("an object", v);
    auto& map = Maps::mutable_strings(out, f.field);
    for (const auto& [key, child] : *o) {
      path_.push_key(key);
      FL_TRY(auto s, child.is_null() ? Result<std::string>(std::string()) : text(*f.map_value, child));
      map[std::string(key)] = std::move(s);
      path_.pop();
    }
    return {};
  }

  Result<> message_map(const FieldInfo& f, const json::value& v, Message& out) {
    const auto* o = v.if_object();
    if (!o) return wrong("an object", v);
    for (const auto& [key, child] : *o) {
      Message& item = Maps::insert(out, f.field, std::string(key));
      if (child.is_null()) continue;
      path_.push_key(key);
      FL_CHECK(message(*f.type, child, item));
      path_.pop();
    }
    return {};
  }

  // ---- special forms

  Result<TimePoint> time_point(const json::value& v) {
    const auto* s = v.if_string();
    if (!s) return wrong("a time such as \"2006-01-02T15:04:05Z\"", v);
    auto t = parse_time(*s);
    if (!t) return bad(t.error());
    return t;
  }

  Result<> time(const json::value& v, metav1::Time& out) {
    FL_TRY(const auto t, time_point(v));
    out.set_seconds(t.seconds);
    return {};
  }

  Result<> micro_time(const json::value& v, metav1::MicroTime& out) {
    FL_TRY(const auto t, time_point(v));
    out.set_seconds(t.seconds);
    if (t.nanos >= 1000) out.set_nanos(t.nanos / 1000 * 1000);
    return {};
  }

  Result<> duration(const json::value& v, metav1::Duration& out) {
    const auto* s = v.if_string();
    if (!s) return wrong("a duration such as \"1m30s\"", v);
    const auto d = parse_duration(*s);
    if (!d) return bad(d.error());
    if (d->count() != 0) out.set_duration(d->count());
    return {};
  }

  Result<> quantity(const json::value& v, resource::Quantity& out) {
    std::string text;
    if (const auto* s = v.if_string()) {
      text = std::string_view(*s);
    } else if (v.is_number()) {
      text = to_json(v);
    } else {
      return wrong("a quantity such as \"100m\" or \"1Gi\"", v);
    }
    const auto q = Quantity::parse(text);
    if (!q) return bad(Error{ErrorCode::invalid_argument, fmt::format("{}, and this is {}", q.error().message, describe(v)), 0});
    out.set_string(q->to_string());
    return {};
  }

  Result<> int_or_string(const json::value& v, intstr::IntOrString& out) {
    if (const auto* s = v.if_string()) {
      out.set_type(1);
      out.set_strval(std::string(*s));
      return {};
    }
    if (!v.is_number()) return wrong("a number or a string", v);
    FL_TRY(const auto i, integer<std::int32_t>(v));
    if (i != 0) out.set_intval(i);
    return {};
  }

  FieldPath path_;
  std::vector<std::string>* strict_;
};

}  // namespace

Result<> from_json_value(const json::value& v, Message& out, const DecodeOptions& options) {
  out.Clear();
  return Reader(options.strict).top(type_info(*out.GetDescriptor()), v, out);
}

Result<> from_json(std::string_view text, Message& out, const DecodeOptions& options) {
  json::monotonic_resource memory(2 * text.size() + 4096);  // the values live only here
  FL_TRY(const auto v, parse_json_into(text, options, &memory));
  return from_json_value(v, out, options);
}

Result<AnyObject> decode_object(const json::value& v, const DecodeOptions& options) {
  const auto* o = v.if_object();
  if (!o) return fail(ErrorCode::invalid_argument, "must be an object, not {}", describe(v));
  const auto text_of = [&](std::string_view name) -> Result<std::string_view> {
    const auto* member = o->if_contains(name);
    if (!member || member->is_null()) return fail(ErrorCode::invalid_argument, "{}: Required value", name);
    const auto* s = member->if_string();
    if (!s) return fail(ErrorCode::invalid_argument, "{}: must be a string, not {}", name, describe(*member));
    if (s->empty()) return fail(ErrorCode::invalid_argument, "{}: Required value", name);
    return std::string_view(*s);
  };
  FL_TRY(const auto kind_name, text_of("kind"));
  FL_TRY(const auto api_version, text_of("apiVersion"));
  AnyObject any;
  any.kind = find_kind(api_version, kind_name);
  if (!any.kind) return fail(ErrorCode::not_found, "no kind \"{}\" is registered for version \"{}\"", kind_name, api_version);
  any.object.reset(any.kind->prototype->New());
  FL_CHECK(from_json_value(v, *any.object, options));
  return any;
}

}  // namespace fairlead::kube
