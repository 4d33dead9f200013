#include "controlplane/apiserver/object.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "kube/proto/options.pb.h"

namespace fairlead::apiserver {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;

const FieldDescriptor* meta_field(const Message& m) { return m.GetDescriptor()->FindFieldByNumber(1); }

bool is_empty(const Message& m) {
  std::vector<const FieldDescriptor*> set;
  m.GetReflection()->ListFields(m, &set);
  for (const auto* f : set) {
    if (f->is_repeated()) return false;  // ListFields leaves empty ones out
    if (f->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) return false;
    if (!is_empty(m.GetReflection()->GetMessage(m, f))) return false;
  }
  return true;
}

bool scalar_equal(const Message& a, const Message& b, const FieldDescriptor* f) {
  const auto* ra = a.GetReflection();
  const auto* rb = b.GetReflection();
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return ra->GetInt32(a, f) == rb->GetInt32(b, f);
    case FieldDescriptor::CPPTYPE_INT64: return ra->GetInt64(a, f) == rb->GetInt64(b, f);
    case FieldDescriptor::CPPTYPE_UINT32: return ra->GetUInt32(a, f) == rb->GetUInt32(b, f);
    case FieldDescriptor::CPPTYPE_UINT64: return ra->GetUInt64(a, f) == rb->GetUInt64(b, f);
    case FieldDescriptor::CPPTYPE_BOOL: return ra->GetBool(a, f) == rb->GetBool(b, f);
    case FieldDescriptor::CPPTYPE_FLOAT: return ra->GetFloat(a, f) == rb->GetFloat(b, f);
    case FieldDescriptor::CPPTYPE_DOUBLE: return ra->GetDouble(a, f) == rb->GetDouble(b, f);
    case FieldDescriptor::CPPTYPE_ENUM: return ra->GetEnumValue(a, f) == rb->GetEnumValue(b, f);
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string sa, sb;
      return ra->GetStringReference(a, f, &sa) == rb->GetStringReference(b, f, &sb);
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: break;
  }
  return false;
}

// Maps compare without regard to order; their deterministic bytes do that.
bool repeated_equal(const Message& a, const Message& b, const FieldDescriptor* f) {
  const auto* r = a.GetReflection();
  const int n = r->FieldSize(a, f);
  if (n != b.GetReflection()->FieldSize(b, f)) return false;
  if (n == 0) return true;
  if (f->is_map()) {
    std::unique_ptr<Message> only_a(a.New()), only_b(b.New());
    copy_field(a, *only_a, f->name());
    copy_field(b, *only_b, f->name());
    return deterministic_bytes(*only_a) == deterministic_bytes(*only_b);
  }
  for (int i = 0; i < n; ++i) {
    switch (f->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (!semantic_equal(r->GetRepeatedMessage(a, f, i), r->GetRepeatedMessage(b, f, i))) return false;
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        if (r->GetRepeatedString(a, f, i) != r->GetRepeatedString(b, f, i)) return false;
        break;
      case FieldDescriptor::CPPTYPE_INT32:
        if (r->GetRepeatedInt32(a, f, i) != r->GetRepeatedInt32(b, f, i)) return false;
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        if (r->GetRepeatedInt64(a, f, i) != r->GetRepeatedInt64(b, f, i)) return false;
        break;
      default: {
        std::unique_ptr<Message> only_a(a.New()), only_b(b.New());
        copy_field(a, *only_a, f->name());
        copy_field(b, *only_b, f->name());
        return deterministic_bytes(*only_a) == deterministic_bytes(*only_b);
      }
    }
  }
  return true;
}

bool one_field_equal(const Message& a, const Message& b, const FieldDescriptor* f) {
  if (f->is_repeated()) return repeated_equal(a, b, f);
  if (f->options().GetExtension(k8s::io::options::pointer) && a.GetReflection()->HasField(a, f) != b.GetReflection()->HasField(b, f))
    return false;
  if (f->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) return scalar_equal(a, b, f);
  const bool has_a = a.GetReflection()->HasField(a, f), has_b = b.GetReflection()->HasField(b, f);
  if (has_a && has_b) return semantic_equal(a.GetReflection()->GetMessage(a, f), b.GetReflection()->GetMessage(b, f));
  if (!has_a && !has_b) return true;
  // Absent and empty say the same for what is a plain struct upstream; for the rest ("emptyDir: {}") presence has a meaning.
  if (!f->options().GetExtension(k8s::io::options::value)) return false;
  return has_a ? is_empty(a.GetReflection()->GetMessage(a, f)) : is_empty(b.GetReflection()->GetMessage(b, f));
}

}  // namespace

const metav1::ObjectMeta& meta_of(const Message& object) {
  return static_cast<const metav1::ObjectMeta&>(object.GetReflection()->GetMessage(object, meta_field(object)));
}

metav1::ObjectMeta& mutable_meta_of(Message& object) {
  return static_cast<metav1::ObjectMeta&>(*object.GetReflection()->MutableMessage(&object, meta_field(object)));
}

std::unique_ptr<Message> clone(const Message& object) {
  std::unique_ptr<Message> out(object.New());
  out->CopyFrom(object);
  return out;
}

bool semantic_equal(const Message& a, const Message& b) {
  const auto* d = a.GetDescriptor();
  if (d != b.GetDescriptor()) return false;
  for (int i = 0; i < d->field_count(); ++i)
    if (!one_field_equal(a, b, d->field(i))) return false;
  return true;
}

bool field_equal(const Message& a, const Message& b, std::string_view field) {
  const auto* f = a.GetDescriptor()->FindFieldByName(std::string(field));
  return !f || one_field_equal(a, b, f);
}

void copy_field(const Message& from, Message& to, std::string_view field) {
  const auto* f = from.GetDescriptor()->FindFieldByName(std::string(field));
  if (!f) return;
  to.GetReflection()->ClearField(&to, f);
  std::unique_ptr<Message> copy = clone(from);
  to.GetReflection()->SwapFields(&to, copy.get(), {f});
}

void clear_field(Message& object, std::string_view field) {
  if (const auto* f = object.GetDescriptor()->FindFieldByName(std::string(field))) object.GetReflection()->ClearField(&object, f);
}

std::string deterministic_bytes(const Message& object) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    object.SerializeToCodedStream(&coded);
  }
  return out;
}

metav1::Time to_time(WallTime t) {
  metav1::Time out;
  out.set_seconds(std::chrono::duration_cast<std::chrono::seconds>(t.time_since_epoch()).count());
  out.set_nanos(0);
  return out;
}

metav1::MicroTime to_micro_time(WallTime t) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
  metav1::MicroTime out;
  out.set_seconds(us / 1'000'000);
  out.set_nanos(static_cast<int>(us % 1'000'000) * 1000);
  return out;
}

WallTime from_time(const metav1::Time& t) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::seconds(t.seconds()) + std::chrono::nanoseconds(t.nanos())));
}

}  // namespace fairlead::apiserver
