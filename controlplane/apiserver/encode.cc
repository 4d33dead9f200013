#include "controlplane/apiserver/encode.h"

#include "controlplane/apiserver/tables/table.h"
#include "kube/codec.h"
#include "kube/proto/apimachinery/runtime.pb.h"

namespace fairlead::apiserver {
namespace json = boost::json;
namespace {

constexpr std::string_view kMetaGroup = "meta.k8s.io/";
constexpr char kInitialEventsEnd[] = "k8s.io/initial-events-end";

// What is common to all shapes of an object: where it lives in JSON and protobuf.
struct Typed {
  std::string api_version;
  std::string kind;
};

Typed type_of(const Resource& r) { return {r.kind->api_version(), std::string(r.kind->kind)}; }
Typed partial_type(const Format& f) { return {std::string(kMetaGroup) + f.meta_version, "PartialObjectMetadata"}; }

std::string envelope(const Typed& type, std::string raw) {
  runtimepb::Unknown u;
  u.mutable_typemeta()->set_apiversion(type.api_version);
  u.mutable_typemeta()->set_kind(type.kind);
  u.set_raw(std::move(raw));
  return std::string("k8s\0", 4) + u.SerializeAsString();
}

// JSON is written as text, member by member: a list of ten thousand objects never stands as a tree in memory.
void append_typed(std::string& out, const Message& object, const Typed& type) {
  kube::append_json(out, object, type.api_version, type.kind);
}

// {"kind":K,"apiVersion":V   and the rest is up to the caller.
void open_typed(std::string& out, const Typed& type) {
  out += "{\"kind\":";
  kube::append_json_string(out, type.kind);
  out += ",\"apiVersion\":";
  kube::append_json_string(out, type.api_version);
}

metav1::PartialObjectMetadata partial_of(const Message& object) {
  metav1::PartialObjectMetadata p;
  *p.mutable_metadata() = meta_of(object);
  return p;
}

void append_partial(std::string& out, const metav1::ObjectMeta& meta, const Format& f) {
  open_typed(out, partial_type(f));
  out += ",\"metadata\":";
  kube::append_json(out, meta);
  out += '}';
}

std::string finish(std::string json_text, const Format& f) {
  if (f.encoding != Encoding::yaml) return json_text;
  const auto v = kube::parse_json(json_text);
  return v ? kube::to_yaml(*v) : json_text;
}

void append_row(std::string& out, const Resource& r, const Message& object, const EncodeOptions& o) {
  const auto row = r.printer->row(object, o.now);
  out += "{\"cells\":";
  kube::append_json(out, json::value(row.cells));
  if (!row.conditions.empty()) {
    out += ",\"conditions\":";
    kube::append_json(out, json::value(row.conditions));
  }
  out += ",\"object\":";
  switch (o.include) {
    case IncludeObject::none: out += "null"; break;
    case IncludeObject::metadata: append_partial(out, meta_of(object), o.format); break;
    case IncludeObject::object: append_typed(out, object, type_of(r)); break;
  }
  out += '}';
}

// Up to and including the opening bracket of the rows.
void open_table(std::string& out, const Resource& r, const Format& f, const metav1::ListMeta& meta, bool columns) {
  open_typed(out, {std::string(kMetaGroup) + f.meta_version, "Table"});
  out += ",\"metadata\":";
  kube::append_json(out, meta);
  out += ",\"columnDefinitions\":";
  if (columns)
    kube::append_json(out, json::value(r.printer->column_definitions()));
  else
    out += "null";
  out += ",\"rows\":[";
}

metav1::ListMeta version_meta(const std::string& resource_version) {
  metav1::ListMeta m;
  m.set_resourceversion(resource_version);
  return m;
}

// The object of one event or answer in its shape.
void append_shaped(std::string& out, const Resource& r, const Message& object, const EncodeOptions& o, bool first) {
  switch (o.format.shape) {
    case Shape::table:
      open_table(out, r, o.format, version_meta(meta_of(object).resourceversion()), first);
      append_row(out, r, object, o);
      out += "]}";
      return;
    case Shape::partial: return append_partial(out, meta_of(object), o.format);
    case Shape::object: return append_typed(out, object, type_of(r));
  }
}

std::string shaped_protobuf(const Resource& r, const Message& object, const EncodeOptions& o) {
  if (o.format.shape == Shape::partial) return envelope(partial_type(o.format), partial_of(object).SerializeAsString());
  return envelope(type_of(r), object.SerializeAsString());
}

// The metadata of an entry without the rest of it: field 1 of every kind.
metav1::PartialObjectMetadata entry_meta(const Entry& e) {
  metav1::PartialObjectMetadata p;
  p.ParseFromString(e.raw);
  p.DiscardUnknownFields();
  return p;
}

// 4 bytes of length, then a WatchEvent.
std::string protobuf_frame(std::string_view type, std::string object_with_envelope) {
  metav1::WatchEvent e;
  e.set_type(std::string(type));
  e.mutable_object()->set_raw(std::move(object_with_envelope));
  const auto body = e.SerializeAsString();
  std::string out;
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>(body.size() >> shift & 0xff);
  return out + body;
}

// `append` writes the object.
template <typename Append>
std::string text_frame(std::string_view type, const Format& f, Append append) {
  std::string out = "{\"type\":\"";
  out += type;
  out += "\",\"object\":";
  append(out);
  out += '}';
  if (f.encoding == Encoding::yaml) return "---\n" + finish(std::move(out), f);
  return out += '\n';
}

void append_length_delimited(std::string& out, int field, std::string_view bytes) {
  const auto varint = [&](std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
    out += static_cast<char>(v);
  };
  varint(static_cast<std::uint64_t>(field) << 3 | 2);
  varint(bytes.size());
  out += bytes;
}

metav1::ListMeta list_meta(const ListBody& list) {
  metav1::ListMeta m;
  m.set_resourceversion(list.resource_version);
  if (!list.continue_token.empty()) m.set_continue_(list.continue_token);
  if (list.remaining > 0) m.set_remainingitemcount(list.remaining);
  return m;
}

std::string list_protobuf(const Resource& r, const ListBody& list, const EncodeOptions& o) {
  std::string raw;
  std::size_t size = 64;
  for (const auto& e : list.items) size += e->raw.size() + 8;
  raw.reserve(size);
  append_length_delimited(raw, 1, list_meta(list).SerializeAsString());
  for (const auto& e : list.items) {
    if (o.format.shape == Shape::partial)
      append_length_delimited(raw, 2, entry_meta(*e).SerializeAsString());
    else if (r.from_storage)
      append_length_delimited(raw, 2, decode_entry(r, *e)->SerializeAsString());
    else
      append_length_delimited(raw, 2, e->raw);
  }
  auto type = o.format.shape == Shape::partial ? partial_type(o.format) : type_of(r);
  type.kind += "List";
  return envelope(type, std::move(raw));
}

std::string list_json(const Resource& r, const ListBody& list, const EncodeOptions& o) {
  std::string out;
  std::size_t size = 256;
  for (const auto& e : list.items) size += 2 * e->raw.size();
  if (o.format.shape == Shape::object) out.reserve(size);
  const auto items = [&](auto append) {
    for (const auto& e : list.items) {
      append(*e);
      out += ',';
    }
    if (!list.items.empty()) out.pop_back();
    out += "]}";
  };
  if (o.format.shape == Shape::table) {
    open_table(out, r, o.format, list_meta(list), true);
    items([&](const Entry& e) { append_row(out, r, *decode_entry(r, e), o); });
    return out;
  }
  auto type = o.format.shape == Shape::partial ? partial_type(o.format) : type_of(r);
  type.kind += "List";
  open_typed(out, type);
  out += ",\"metadata\":";
  kube::append_json(out, list_meta(list));
  out += ",\"items\":[";
  items([&](const Entry& e) {
    if (o.format.shape == Shape::partial)
      append_partial(out, entry_meta(e).metadata(), o.format);
    else
      append_typed(out, *decode_entry(r, e), type_of(r));
  });
  return out;
}

}  // namespace

std::string encode_object(const Resource& resource, const Message& object, const EncodeOptions& options) {
  if (options.format.encoding == Encoding::protobuf) return shaped_protobuf(resource, object, options);
  std::string out;
  append_shaped(out, resource, object, options, true);
  return finish(std::move(out), options.format) + "\n";
}

std::string encode_plain(const Message& object, std::string_view api_version, std::string_view kind, const Format& format) {
  if (format.encoding == Encoding::protobuf)
    return envelope({std::string(api_version), std::string(kind)}, object.SerializeAsString());
  std::string out;
  append_typed(out, object, {std::string(api_version), std::string(kind)});
  return finish(std::move(out), format) + "\n";
}

std::string encode_list(const Resource& resource, const ListBody& list, const EncodeOptions& options) {
  if (options.format.encoding == Encoding::protobuf) return list_protobuf(resource, list, options);
  return finish(list_json(resource, list, options), options.format) + "\n";
}

std::string encode_event(const Resource& resource, EventType type, const Entry& entry, const EncodeOptions& options, bool first) {
  if (options.format.encoding == Encoding::protobuf && options.format.shape == Shape::object && !resource.from_storage)
    return protobuf_frame(to_string(type), envelope(type_of(resource), entry.raw));
  const auto object = decode_entry(resource, entry);
  if (options.format.encoding == Encoding::protobuf) return protobuf_frame(to_string(type), shaped_protobuf(resource, *object, options));
  return text_frame(to_string(type), options.format, [&](std::string& out) { append_shaped(out, resource, *object, options, first); });
}

std::string encode_bookmark(const Resource& resource, etcd::Revision revision, bool initial_events_end, const EncodeOptions& options,
                            bool first) {
  const auto object = resource.make();
  auto& meta = mutable_meta_of(*object);
  meta.set_resourceversion(std::to_string(revision));
  if (initial_events_end) (*meta.mutable_annotations())[kInitialEventsEnd] = "true";
  if (options.format.encoding == Encoding::protobuf) return protobuf_frame("BOOKMARK", shaped_protobuf(resource, *object, options));
  return text_frame("BOOKMARK", options.format, [&](std::string& out) {
    if (options.format.shape != Shape::table) return append_shaped(out, resource, *object, options, first);
    // A bookmark has no cells to print: the row carries the metadata only.
    open_table(out, resource, options.format, version_meta(meta.resourceversion()), first);
    out += "{\"cells\":[],\"object\":";
    if (options.include == IncludeObject::none)
      out += "null";
    else
      append_partial(out, meta, options.format);
    out += "}]}";
  });
}

std::string encode_error_event(const ApiError& error, const Format& format) {
  const auto status = to_status(error);
  if (format.encoding == Encoding::protobuf) return protobuf_frame("ERROR", envelope({"v1", "Status"}, status.SerializeAsString()));
  return text_frame("ERROR", format, [&](std::string& out) { append_typed(out, status, {"v1", "Status"}); });
}

metav1::Status to_status(const ApiError& error) {
  metav1::Status s;
  s.mutable_metadata();
  if (!error.continue_token.empty()) s.mutable_metadata()->set_continue_(error.continue_token);
  s.set_status("Failure");
  s.set_message(error.message);
  s.set_reason(error.reason);
  s.set_code(error.code);
  if (error.group.empty() && error.kind.empty() && error.name.empty() && error.causes.empty() && !error.retry_after_seconds) return s;
  auto& d = *s.mutable_details();
  if (!error.name.empty()) d.set_name(error.name);
  if (!error.group.empty()) d.set_group(error.group);
  if (!error.kind.empty()) d.set_kind(error.kind);
  if (!error.uid.empty()) d.set_uid(error.uid);
  if (error.retry_after_seconds) d.set_retryafterseconds(error.retry_after_seconds);
  for (const auto& c : error.causes) {
    auto& out = *d.add_causes();
    if (!c.reason.empty()) out.set_reason(c.reason);
    if (!c.message.empty()) out.set_message(c.message);
    if (!c.field.empty()) out.set_field(c.field);
  }
  return s;
}

metav1::Status success_status(const Resource& resource, const metav1::ObjectMeta& meta) {
  metav1::Status s;
  s.mutable_metadata();
  s.set_status("Success");
  auto& d = *s.mutable_details();
  d.set_name(meta.name());
  if (!resource.kind->group.empty()) d.set_group(std::string(resource.kind->group));
  d.set_kind(std::string(resource.kind->resource));
  d.set_uid(meta.uid());
  return s;
}

}  // namespace fairlead::apiserver
