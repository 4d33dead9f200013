// The protobuf envelope, and the normal form of what Go clients send.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>

#include <limits>

#include "kube/api.h"
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
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
using google::protobuf::internal::WireFormatLite;
namespace io = google::protobuf::io;

constexpr std::string_view kMagic("k8s\0", 4);

// One length-delimited field after another, other wire types skipped: all that runtime.Unknown and its TypeMeta need.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}
  // False at the end or on malformed input (see ok()).
  bool next(std::uint32_t& field, std::string_view& value) {
    while (!bytes_.empty()) {
      std::uint64_t tag = 0, size = 0;
      if (!varint(tag)) return false;
      switch (tag & 7) {
        case WireFormatLite::WIRETYPE_VARINT:
          if (!varint(size)) return false;
          continue;
        case WireFormatLite::WIRETYPE_FIXED64: size = 8; break;
        case WireFormatLite::WIRETYPE_FIXED32: size = 4; break;
        case WireFormatLite::WIRETYPE_LENGTH_DELIMITED:
          if (!varint(size)) return false;
          break;
        default: return ok_ = false;
      }
      if (size > bytes_.size() || tag >> 3 == 0) return ok_ = false;
      value = bytes_.substr(0, size);
      bytes_.remove_prefix(size);
      if ((tag & 7) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) continue;
      field = static_cast<std::uint32_t>(tag >> 3);
      return true;
    }
    return false;
  }
  bool ok() const { return ok_; }

 private:
  bool varint(std::uint64_t& out) {
    out = 0;
    for (int shift = 0; shift < 64 && !bytes_.empty(); shift += 7) {
      const auto b = static_cast<unsigned char>(bytes_[0]);
      bytes_.remove_prefix(1);
      out |= static_cast<std::uint64_t>(b & 0x7F) << shift;
      if (b < 0x80) return true;
    }
    return ok_ = false;
  }
  std::string_view bytes_;
  bool ok_ = true;
};

// An object embedded in another one, in an envelope of its own, may hold yet another one: this many levels.
constexpr int kMaxEmbedded = 4;

Result<std::unique_ptr<Message>> decode_enveloped(std::string_view bytes, int level);

class Normalizer {
 public:
  explicit Normalizer(int level) : level_(level) {}
  Result<> message(const TypeInfo& t, Message& m) {
    switch (t.form) {
      case Form::object: return object(t, m);
      case Form::time: return time(static_cast<metav1::Time&>(m));
      case Form::micro_time: return micro_time(static_cast<metav1::MicroTime&>(m));
      case Form::quantity: return quantity(static_cast<resource::Quantity&>(m));
      case Form::int_or_string: return int_or_string(static_cast<intstr::IntOrString&>(m));
      case Form::raw: return raw(t.fields[0], m);
      case Form::duration:
      case Form::list: return {};
    }
    return {};
  }

 private:
  template <typename... A>
  Failure bad(fmt::format_string<A...> f, A&&... a) {
    return fail(ErrorCode::invalid_argument, "{}: {}", path_.text(), fmt::format(f, std::forward<A>(a)...));
  }

  Result<> object(const TypeInfo& t, Message& m) {
    const Reflection& r = *t.reflection;
    for (const FieldInfo& f : t.fields) {
      switch (f.shape) {
        case Shape::scalar:
          if (!f.pointer && present(t, f, m) && is_zero(f, m, r)) r.ClearField(&m, f.field);
          break;
        case Shape::message: {
          if (!present(t, f, m)) break;
          Message& child = *r.MutableMessage(&m, f.field);
          if (f.inlined) {
            FL_CHECK(message(*f.type, child));
          } else {
            path_.push_name(f.name);
            FL_CHECK(message(*f.type, child));
            path_.pop();
          }
          if ((f.value || empty_is_null(f.type->form)) && !has_content(*f.type, child)) r.ClearField(&m, f.field);
          break;
        }
        case Shape::message_list: {
          const int n = r.FieldSize(m, f.field);
          if (n == 0) break;
          path_.push_name(f.name);
          for (int i = 0; i < n; ++i) {
            path_.push_index(i);
            FL_CHECK(message(*f.type, *r.MutableRepeatedMessage(&m, f.field, i)));
            path_.pop();
          }
          path_.pop();
          break;
        }
        case Shape::message_map: FL_CHECK(message_map(f, m)); break;
        case Shape::list:
        case Shape::map: break;
      }
    }
    return {};
  }

  Result<> message_map(const FieldInfo& f, Message& m) {
    if (Maps::size(m, f.field) == 0) return {};
    Result<> result;
    Maps::for_each_mutable(m, f.field, [&](const std::string& key, Message& value) {
      if (!result) return;
      path_.push_name(f.name);
      path_.push_key(key);
      result = message(*f.type, value);
      path_.pop();
      path_.pop();
    });
    return result;
  }

  bool is_zero(const FieldInfo& f, const Message& m, const Reflection& r) {
    switch (f.field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: return r.GetInt32(m, f.field) == 0;
      case FieldDescriptor::CPPTYPE_INT64: return r.GetInt64(m, f.field) == 0;
      case FieldDescriptor::CPPTYPE_UINT32: return r.GetUInt32(m, f.field) == 0;
      case FieldDescriptor::CPPTYPE_UINT64: return r.GetUInt64(m, f.field) == 0;
      case FieldDescriptor::CPPTYPE_DOUBLE: return r.GetDouble(m, f.field) == 0;
      case FieldDescriptor::CPPTYPE_FLOAT: return r.GetFloat(m, f.field) == 0;
      case FieldDescriptor::CPPTYPE_BOOL: return !r.GetBool(m, f.field);
      case FieldDescriptor::CPPTYPE_STRING: return r.GetStringReference(m, f.field, &scratch_).empty();
      case FieldDescriptor::CPPTYPE_ENUM:
      case FieldDescriptor::CPPTYPE_MESSAGE: return false;
    }
    return false;
  }

  // JSON has whole seconds only, so a fraction would change on the way through it.
  Result<> time(metav1::Time& t) {
    t.clear_nanos();
    if (t.has_seconds() && !time_in_range(t.seconds())) return bad("time out of range: {} seconds since 1970", t.seconds());
    return {};
  }

  Result<> micro_time(metav1::MicroTime& t) {
    if (t.nanos() < 0 || t.nanos() >= 1'000'000'000) return bad("time out of range: {} nanoseconds", t.nanos());
    if (t.has_seconds() && !time_in_range(t.seconds())) return bad("time out of range: {} seconds since 1970", t.seconds());
    if (!t.has_seconds() && t.nanos() != 0) t.set_seconds(0);
    const std::int32_t micros = t.nanos() / 1000 * 1000;
    if (micros == 0) {
      t.clear_nanos();
    } else {
      t.set_nanos(micros);
    }
    return {};
  }

  Result<> quantity(resource::Quantity& q) {
    if (!q.has_string()) return {};
    const auto parsed = Quantity::parse(q.string());
    if (!parsed) return bad("{}", parsed.error().message);
    if (std::string text = parsed->to_string(); text != q.string()) q.set_string(std::move(text));
    return {};
  }

  Result<> int_or_string(intstr::IntOrString& v) {
    if (v.type() != 0 && v.type() != 1) return bad("neither a number nor a string (type {})", v.type());
    if (v.type() == 1) {
      v.clear_intval();
      if (!v.has_strval()) v.set_strval("");
      return {};
    }
    v.clear_type();
    v.clear_strval();
    if (v.intval() == 0) v.clear_intval();
    return {};
  }

  // Embedded objects are kept as JSON.
  Result<> raw(const FieldInfo& f, Message& m) {
    const std::string bytes = m.GetReflection()->GetString(m, f.field);
    if (bytes.empty()) {
      m.GetReflection()->ClearField(&m, f.field);
      return {};
    }
    if (has_envelope(bytes)) {
      const auto object = decode_enveloped(bytes, level_ + 1);
      if (!object) return bad("{}", object.error().message);
      m.GetReflection()->SetString(&m, f.field, to_json(**object));
      return {};
    }
    if (const auto parsed = parse_json(bytes); !parsed) return bad("{}", parsed.error().message);
    return {};
  }

  int level_;
  FieldPath path_;
  std::string scratch_;
};

Result<> parse_body(std::string_view raw, Message& out) {
  if (raw.size() > std::numeric_limits<int>::max() || !out.ParseFromArray(raw.data(), static_cast<int>(raw.size()))) {
    return fail(ErrorCode::invalid_argument, "protobuf: malformed {}", out.GetDescriptor()->name());
  }
  return {};
}

Result<> normalize_at(Message& object, int level) {
  return Normalizer(level).message(type_info(*object.GetDescriptor()), object);
}

Result<std::unique_ptr<Message>> decode_enveloped(std::string_view bytes, int level) {
  if (level > kMaxEmbedded)
    return fail(ErrorCode::invalid_argument, "protobuf: objects embedded more than {} levels deep", kMaxEmbedded);
  FL_TRY(const auto e, view_envelope(bytes));
  const Message* prototype = find_prototype(e.api_version, e.kind);
  if (!prototype) return fail(ErrorCode::not_found, "no kind \"{}\" is registered for version \"{}\"", e.kind, e.api_version);
  std::unique_ptr<Message> object(prototype->New());
  FL_CHECK(parse_body(e.raw, *object));
  FL_CHECK(normalize_at(*object, level));
  return object;
}

void put_tag(io::CodedOutputStream& out, std::uint32_t field, std::size_t size) {
  out.WriteTag(WireFormatLite::MakeTag(static_cast<int>(field), WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
  out.WriteVarint32(static_cast<std::uint32_t>(size));
}

std::size_t field_size(std::size_t payload) {
  return 1 + io::CodedOutputStream::VarintSize32(static_cast<std::uint32_t>(payload)) + payload;
}

void put_text(io::CodedOutputStream& out, std::uint32_t field, std::string_view text) {
  put_tag(out, field, text.size());
  if (!text.empty()) out.WriteRaw(text.data(), static_cast<int>(text.size()));
}

}  // namespace

Result<EnvelopeView> view_envelope(std::string_view bytes) {
  if (!has_envelope(bytes)) return fail(ErrorCode::invalid_argument, "protobuf: the bytes 6b 38 73 00 are missing at the start");
  EnvelopeView e;
  std::uint32_t field = 0;
  std::string_view value;
  WireReader outer(bytes.substr(kMagic.size()));
  while (outer.next(field, value)) {
    if (field == 2) e.raw = value;
    if (field == 3 && !value.empty())
      return fail(ErrorCode::invalid_argument, "protobuf: contentEncoding \"{}\" is not supported", value);
    if (field != 1) continue;
    WireReader meta(value);
    while (meta.next(field, value)) {
      if (field == 1) e.api_version = value;
      if (field == 2) e.kind = value;
    }
    if (!meta.ok()) return fail(ErrorCode::invalid_argument, "protobuf: malformed type in the envelope");
  }
  if (!outer.ok()) return fail(ErrorCode::invalid_argument, "protobuf: malformed envelope");
  return e;
}

bool has_envelope(std::string_view bytes) { return bytes.starts_with(kMagic); }

std::string to_protobuf(const Message& object, std::string_view api_version, std::string_view kind) {
  const std::size_t meta = field_size(api_version.size()) + field_size(kind.size());
  const std::size_t body = object.ByteSizeLong();
  std::string bytes;
  bytes.reserve(kMagic.size() + field_size(meta) + field_size(body) + 2 * field_size(0));
  {
    io::StringOutputStream stream(&bytes);
    io::CodedOutputStream out(&stream);
    out.SetSerializationDeterministic(true);
    out.WriteRaw(kMagic.data(), static_cast<int>(kMagic.size()));
    put_tag(out, 1, meta);
    put_text(out, 1, api_version);
    put_text(out, 2, kind);
    put_tag(out, 2, body);
    object.SerializeWithCachedSizes(&out);
    put_text(out, 3, {});
    put_text(out, 4, {});
  }
  return bytes;
}

std::string to_protobuf(const Message& object) {
  const TypeName* name = type_name_of(*object.GetDescriptor());
  return to_protobuf(object, name ? std::string_view(name->api_version) : std::string_view(),
                     name ? std::string_view(name->kind) : std::string_view());
}

Result<Envelope> open_envelope(std::string_view bytes) {
  FL_TRY(const auto e, view_envelope(bytes));
  return Envelope{std::string(e.api_version), std::string(e.kind), std::string(e.raw)};
}

Result<> from_protobuf(std::string_view bytes, Message& out, bool trusted) {
  FL_TRY(const auto e, view_envelope(bytes));
  FL_CHECK(parse_body(e.raw, out));
  return trusted ? Result<>() : normalize(out);
}

Result<std::unique_ptr<Message>> decode_embedded(std::string_view bytes) { return decode_enveloped(bytes, 1); }

Result<> normalize(Message& object) { return normalize_at(object, 0); }

Result<AnyObject> decode_object(std::string_view bytes, const DecodeOptions& options) {
  if (!has_envelope(bytes)) {
    FL_TRY(const auto json, parse_json(bytes, options));
    return decode_object(json, options);
  }
  FL_TRY(const auto e, view_envelope(bytes));
  AnyObject any;
  any.kind = find_kind(e.api_version, e.kind);
  if (!any.kind) return fail(ErrorCode::not_found, "no kind \"{}\" is registered for version \"{}\"", e.kind, e.api_version);
  FL_TRY(any.object, decode_enveloped(bytes, 0));
  return any;
}

}  // namespace fairlead::kube
