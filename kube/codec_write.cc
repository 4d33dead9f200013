// Messages to JSON: one walk over the fields, with two sinks (text, boost::json::value).
#include <array>
#include <boost/json/value_stack.hpp>
#include <charconv>
#include <cmath>

#include "base/duration.h"
#include "kube/api.h"
#include "kube/base64.h"
#include "kube/codec.h"
#include "kube/codec_internal.h"
#include "kube/kinds.h"
#include "kube/proto/apimachinery/intstr.pb.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "kube/proto/apimachinery/resource.pb.h"
#include "kube/reflect.h"
#include "kube/time_text.h"

namespace fairlead::kube {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
namespace json = boost::json;

// The shortest text that reads back as the same number, with an exponent only for very large and very small ones.
void append_number(std::string& out, double v) {
  if (!std::isfinite(v)) {
    out += "null";
    return;
  }
  if (v == 0) v = 0;  // -0 would read back as another kind of number
  std::array<char, 48> buffer;
  const double size = std::abs(v);
  const auto format = size != 0 && (size < 1e-6 || size >= 1e21) ? std::chars_format::scientific : std::chars_format::fixed;
  out.append(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), v, format).ptr);
}

// Each value is followed by a comma; closing a list or object takes the last one back. A separator cannot be mistaken for
// content, because every value ends with a quote, a digit, a letter or a bracket.
class TextSink {
 public:
  explicit TextSink(std::string& out) : out_(out) {}
  void begin_object() { out_ += '{'; }
  void end_object() { close('}'); }
  void begin_array() { out_ += '['; }
  void end_array() { close(']'); }
  void key(const FieldInfo& f) { out_ += f.key_text; }
  void key(std::string_view k) {
    append_json_string(out_, k);
    out_ += ':';
  }
  void string(std::string_view s) {
    append_json_string(out_, s);
    out_ += ',';
  }
  // Text that needs no escaping.
  void plain(std::string_view s) {
    out_ += '"';
    out_ += s;
    out_ += "\",";
  }
  void base64(std::string_view bytes) {
    out_ += '"';
    append_base64(out_, bytes);
    out_ += "\",";
  }
  void boolean(bool b) { out_ += b ? "true," : "false,"; }
  void null() { out_ += "null,"; }
  template <typename Int>
  void integer(Int v) {
    std::array<char, 24> buffer;
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), v).ptr;
    out_.append(buffer.data(), end);
    out_ += ',';
  }
  void number(double v) {
    append_number(out_, v);
    out_ += ',';
  }
  void raw(std::string_view text) {
    out_ += text;
    out_ += ',';
  }

 private:
  void close(char bracket) {
    if (out_.back() == ',') {
      out_.back() = bracket;
    } else {
      out_ += bracket;
    }
    out_ += ',';
  }
  std::string& out_;
};

class ValueSink {
 public:
  ValueSink() { stack_.reset(); }
  void begin_object() { open(); }
  void end_object() { stack_.push_object(close()); }
  void begin_array() { open(); }
  void end_array() { stack_.push_array(close()); }
  void key(const FieldInfo& f) { stack_.push_key(f.name); }
  void key(std::string_view k) { stack_.push_key(k); }
  void string(std::string_view s) { count(), stack_.push_string(s); }
  void plain(std::string_view s) { string(s); }
  void base64(std::string_view bytes) { string(to_base64(bytes)); }
  void boolean(bool b) { count(), stack_.push_bool(b); }
  void null() { count(), stack_.push_null(); }
  void integer(std::int64_t v) { count(), stack_.push_int64(v); }
  void integer(std::uint64_t v) { count(), stack_.push_uint64(v); }
  void integer(std::int32_t v) { integer(static_cast<std::int64_t>(v)); }
  void integer(std::uint32_t v) { integer(static_cast<std::int64_t>(v)); }
  void number(double v) { count(), stack_.push_double(v); }
  // An embedded document becomes values of our own: replay it, so that nothing but this stack builds the result.
  void raw(std::string_view text) {
    const auto v = parse_json(text);
    if (!v) return null();
    replay(*v);
  }
  json::value release() { return stack_.release(); }

 private:
  void open() {
    count();
    counts_.push_back(0);
  }
  std::size_t close() {
    const std::size_t n = counts_.back();
    counts_.pop_back();
    return n;
  }
  void count() {
    if (!counts_.empty()) ++counts_.back();
  }
  void replay(const json::value& v) {
    if (const auto* o = v.if_object()) {
      begin_object();
      for (const auto& [k, child] : *o) {
        key(std::string_view(k));
        replay(child);
      }
      return end_object();
    }
    if (const auto* a = v.if_array()) {
      begin_array();
      for (const auto& child : *a) replay(child);
      return end_array();
    }
    switch (v.kind()) {
      case json::kind::bool_: return boolean(v.get_bool());
      case json::kind::int64: return integer(v.get_int64());
      case json::kind::uint64: return integer(v.get_uint64());
      case json::kind::double_: return number(v.get_double());
      case json::kind::string: return string(v.get_string());
      default: return null();
    }
  }
  json::value_stack stack_;
  std::vector<std::size_t> counts_;
};

template <typename Sink>
class Emitter {
 public:
  explicit Emitter(Sink& sink) : s_(sink) {}

  void object(const TypeInfo& t, const Message& m, const std::string_view* api_version, const std::string_view* kind) {
    s_.begin_object();
    if (kind) {
      s_.key("kind");
      s_.string(*kind);
      s_.key("apiVersion");
      s_.string(*api_version);
    }
    members(t, m);
    s_.end_object();
  }

  void message(const TypeInfo& t, const Message& m) {
    switch (t.form) {
      case Form::object: return object(t, m, nullptr, nullptr);
      case Form::time: {
        const auto& time = static_cast<const metav1::Time&>(m);
        return time.has_seconds() && time_in_range(time.seconds()) ? s_.plain(format_time(time.seconds())) : s_.null();
      }
      case Form::micro_time: {
        const auto& time = static_cast<const metav1::MicroTime&>(m);
        const bool ok = time.has_seconds() && time_in_range(time.seconds()) && time.nanos() >= 0 && time.nanos() < 1'000'000'000;
        return ok ? s_.plain(format_micro_time(time.seconds(), time.nanos())) : s_.null();
      }
      case Form::duration: return s_.plain(format_duration(std::chrono::nanoseconds(static_cast<const metav1::Duration&>(m).duration())));
      case Form::quantity: {
        const std::string& text = static_cast<const resource::Quantity&>(m).string();
        return text.empty() ? s_.plain("0") : s_.string(text);
      }
      case Form::int_or_string: {
        const auto& v = static_cast<const intstr::IntOrString&>(m);
        return v.type() == 1 ? s_.string(v.strval()) : s_.integer(v.intval());
      }
      case Form::raw: return raw(t.reflection->GetString(m, t.fields[0].field));
      case Form::list: return scalar_list(t.fields[0], m, *t.reflection);
    }
  }

 private:
  void members(const TypeInfo& t, const Message& m) {
    const Reflection& r = *t.reflection;
    for (const FieldInfo& f : t.fields) {
      switch (f.shape) {
        case Shape::scalar: scalar_member(t, f, m, r); break;
        case Shape::message: message_member(t, f, m, r); break;
        case Shape::list:
          if (!f.always && r.FieldSize(m, f.field) == 0) break;
          s_.key(f);
          scalar_list(f, m, r);
          break;
        case Shape::message_list: message_list(f, m, r); break;
        case Shape::map: string_map(f, m); break;
        case Shape::message_map: message_map(f, m); break;
      }
    }
  }

  void message_member(const TypeInfo& t, const FieldInfo& f, const Message& m, const Reflection& r) {
    if (f.inlined) {
      if (present(t, f, m)) members(*f.type, r.GetMessage(m, f.field));
      return;
    }
    if (!f.always) {
      if (!present(t, f, m)) return;
      if ((f.value || empty_is_null(f.type->form)) && !has_content(*f.type, r.GetMessage(m, f.field))) return;
    }
    s_.key(f);
    message(*f.type, r.GetMessage(m, f.field));
  }

  void scalar_member(const TypeInfo& t, const FieldInfo& f, const Message& m, const Reflection& r) {
    if (!f.always && !present(t, f, m)) return;
    const bool keep_zero = f.always || f.pointer;
    switch (f.field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: return integer(f, r.GetInt32(m, f.field), keep_zero);
      case FieldDescriptor::CPPTYPE_INT64: return integer(f, r.GetInt64(m, f.field), keep_zero);
      case FieldDescriptor::CPPTYPE_UINT32: return integer(f, r.GetUInt32(m, f.field), keep_zero);
      case FieldDescriptor::CPPTYPE_UINT64: return integer(f, r.GetUInt64(m, f.field), keep_zero);
      case FieldDescriptor::CPPTYPE_BOOL: {
        const bool v = r.GetBool(m, f.field);
        if (!v && !keep_zero) return;
        s_.key(f);
        return s_.boolean(v);
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: return floating(f, r.GetDouble(m, f.field), keep_zero);
      case FieldDescriptor::CPPTYPE_FLOAT: return floating(f, r.GetFloat(m, f.field), keep_zero);
      case FieldDescriptor::CPPTYPE_STRING: {
        const std::string& v = r.GetStringReference(m, f.field, &scratch_);
        if (v.empty() && !keep_zero) return;
        s_.key(f);
        return f.field->type() == FieldDescriptor::TYPE_BYTES ? s_.base64(v) : s_.string(v);
      }
      case FieldDescriptor::CPPTYPE_ENUM:
      case FieldDescriptor::CPPTYPE_MESSAGE: return;  // the API has no enums; messages are not scalars
    }
  }

  template <typename Int>
  void integer(const FieldInfo& f, Int v, bool keep_zero) {
    if (v == 0 && !keep_zero) return;
    s_.key(f);
    s_.integer(v);
  }
  void floating(const FieldInfo& f, double v, bool keep_zero) {
    if (v == 0 && !keep_zero) return;
    s_.key(f);
    s_.number(v);
  }

  void scalar_list(const FieldInfo& f, const Message& m, const Reflection& r) {
    s_.begin_array();
    const int n = r.FieldSize(m, f.field);
    for (int i = 0; i < n; ++i) {
      switch (f.field->cpp_type()) {
        case FieldDescriptor::CPPTYPE_INT32: s_.integer(r.GetRepeatedInt32(m, f.field, i)); break;
        case FieldDescriptor::CPPTYPE_INT64: s_.integer(r.GetRepeatedInt64(m, f.field, i)); break;
        case FieldDescriptor::CPPTYPE_UINT32: s_.integer(r.GetRepeatedUInt32(m, f.field, i)); break;
        case FieldDescriptor::CPPTYPE_UINT64: s_.integer(r.GetRepeatedUInt64(m, f.field, i)); break;
        case FieldDescriptor::CPPTYPE_BOOL: s_.boolean(r.GetRepeatedBool(m, f.field, i)); break;
        case FieldDescriptor::CPPTYPE_DOUBLE: s_.number(r.GetRepeatedDouble(m, f.field, i)); break;
        case FieldDescriptor::CPPTYPE_FLOAT: s_.number(r.GetRepeatedFloat(m, f.field, i)); break;
        case FieldDescriptor::CPPTYPE_STRING: {
          const std::string& v = r.GetRepeatedStringReference(m, f.field, i, &scratch_);
          f.field->type() == FieldDescriptor::TYPE_BYTES ? s_.base64(v) : s_.string(v);
          break;
        }
        case FieldDescriptor::CPPTYPE_ENUM:
        case FieldDescriptor::CPPTYPE_MESSAGE: break;
      }
    }
    s_.end_array();
  }

  void message_list(const FieldInfo& f, const Message& m, const Reflection& r) {
    const int n = r.FieldSize(m, f.field);
    if (n == 0 && !f.always) return;
    s_.key(f);
    s_.begin_array();
    for (int i = 0; i < n; ++i) message(*f.type, r.GetRepeatedMessage(m, f.field, i));
    s_.end_array();
  }

  void string_map(const FieldInfo& f, const Message& m) {
    const auto& map = Maps::strings(m, f.field);
    if (map.empty() && !f.always) return;
    s_.key(f);
    s_.begin_object();
    const bool bytes = f.map_value->type() == FieldDescriptor::TYPE_BYTES;
    for (const auto& [key, value] : sorted_entries(map)) {
      s_.key(key);
      bytes ? s_.base64(value) : s_.string(value);
    }
    s_.end_object();
  }

  void message_map(const FieldInfo& f, const Message& m) {
    if (Maps::size(m, f.field) == 0 && !f.always) return;
    if (!f.inlined) {
      s_.key(f);
      s_.begin_object();
    }
    for (const auto& [key, value] : sorted_messages(m, f.field)) {
      s_.key(std::string_view(key));
      message(*f.type, *value);
    }
    if (!f.inlined) s_.end_object();
  }

  // Bytes that are JSON already, or an object in the protobuf envelope.
  void raw(const std::string& bytes) {
    if (bytes.empty()) return s_.null();
    if (!has_envelope(bytes)) return s_.raw(bytes);
    const auto embedded = decode_embedded(bytes);
    if (!embedded) return s_.null();
    const TypeName& name = *type_name_of(*(*embedded)->GetDescriptor());
    const std::string_view api_version = name.api_version, kind = name.kind;
    object(type_info(*(*embedded)->GetDescriptor()), **embedded, &api_version, &kind);
  }

  Sink& s_;
  std::string scratch_;
};

constexpr std::array<char, 256> kEscapes = [] {
  std::array<char, 256> e{};
  for (int c = 0; c < 0x20; ++c) e[c] = 'u';
  for (int c = 0x80; c < 0x100; ++c) e[c] = '8';  // part of UTF-8
  e['"'] = '"', e['\\'] = '\\', e['\b'] = 'b', e['\f'] = 'f', e['\n'] = 'n', e['\r'] = 'r', e['\t'] = 't';
  return e;
}();

// The length of the well-formed UTF-8 sequence at the start of `s` (RFC 3629), 0 if there is none.
std::size_t utf8_length(std::string_view s) {
  const auto at = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const auto tail = [&](std::size_t i) { return (at(i) & 0xC0) == 0x80; };
  const unsigned a = at(0);
  if (a < 0xC2 || a > 0xF4) return 0;
  if (a < 0xE0) return tail(1) ? 2 : 0;
  if (a < 0xF0) {
    const bool overlong = a == 0xE0 && at(1) < 0xA0, surrogate = a == 0xED && at(1) > 0x9F;
    return tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
  }
  const bool overlong = a == 0xF0 && at(1) < 0x90, too_big = a == 0xF4 && at(1) > 0x8F;
  return tail(1) && tail(2) && tail(3) && !overlong && !too_big ? 4 : 0;
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t start = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const char e = kEscapes[c];
    if (e == 0) [[likely]]
      continue;
    if (e == '8') {
      if (const std::size_t n = utf8_length(text.substr(i))) {
        i += n - 1;
        continue;
      }
    }
    out.append(text, start, i - start);
    start = i + 1;
    if (e == '8') {
      out += "\xEF\xBF\xBD";
    } else if (e == 'u') {
      constexpr std::string_view hex = "0123456789abcdef";
      out += "\\u00";
      out += hex[c >> 4];
      out += hex[c & 15];
    } else {
      out += '\\';
      out += e;
    }
  }
  out.append(text, start);
  out += '"';
}

bool valid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (static_cast<unsigned char>(text[i]) < 0x80) continue;
    const std::size_t n = utf8_length(text.substr(i));
    if (n == 0) return false;
    i += n - 1;
  }
  return true;
}

bool has_content(const TypeInfo& t, const Message& m) {
  const Reflection& r = *t.reflection;
  if (t.form == Form::time || t.form == Form::micro_time) return present(t, t.fields[0], m);
  if (t.form == Form::raw) return !r.GetString(m, t.fields[0].field).empty();
  for (const FieldInfo& f : t.fields) {
    switch (f.shape) {
      case Shape::message:
        if (!present(t, f, m)) break;
        if (!f.value || has_content(*f.type, r.GetMessage(m, f.field))) return true;
        break;
      case Shape::scalar:
        if (present(t, f, m)) return true;
        break;
      case Shape::message_map:
      case Shape::map:
      case Shape::list:
      case Shape::message_list:
        if (r.FieldSize(m, f.field) > 0) return true;
        break;
    }
  }
  return !r.GetUnknownFields(m).empty();
}

void append_json(std::string& out, const Message& object, std::string_view api_version, std::string_view kind) {
  TextSink sink(out);
  Emitter<TextSink>(sink).object(type_info(*object.GetDescriptor()), object, &api_version, &kind);
  out.pop_back();  // the comma
}

void append_json(std::string& out, const Message& object) {
  const TypeName* name = type_name_of(*object.GetDescriptor());
  if (name) return append_json(out, object, name->api_version, name->kind);
  TextSink sink(out);
  Emitter<TextSink>(sink).message(type_info(*object.GetDescriptor()), object);
  out.pop_back();
}

void append_json(std::string& out, const json::value& v) {
  const auto separated = [&](char open, char close, const auto& items, auto append) {
    out += open;
    for (const auto& item : items) {
      append(item);
      out += ',';
    }
    if (out.back() == ',') out.pop_back();
    out += close;
  };
  switch (v.kind()) {
    case json::kind::null: out += "null"; return;
    case json::kind::bool_: out += v.get_bool() ? "true" : "false"; return;
    case json::kind::int64: out += std::to_string(v.get_int64()); return;
    case json::kind::uint64: out += std::to_string(v.get_uint64()); return;
    case json::kind::double_: return append_number(out, v.get_double());
    case json::kind::string: return append_json_string(out, v.get_string());
    case json::kind::array: return separated('[', ']', v.get_array(), [&](const json::value& item) { append_json(out, item); });
    case json::kind::object:
      return separated('{', '}', v.get_object(), [&](const auto& member) {
        append_json_string(out, member.key());
        out += ':';
        append_json(out, member.value());
      });
  }
}

std::string to_json(const json::value& v) {
  std::string out;
  append_json(out, v);
  return out;
}

std::string to_json(const Message& object) {
  std::string out;
  append_json(out, object);
  return out;
}

json::value to_json_value(const Message& object) {
  ValueSink sink;
  Emitter<ValueSink>(sink).message(type_info(*object.GetDescriptor()), object);
  return sink.release();
}

json::object to_json_object(const Message& object, std::string_view api_version, std::string_view kind) {
  ValueSink sink;
  Emitter<ValueSink>(sink).object(type_info(*object.GetDescriptor()), object, &api_version, &kind);
  return std::move(sink.release().as_object());
}

}  // namespace fairlead::kube
