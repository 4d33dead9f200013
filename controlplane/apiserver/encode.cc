#include "controlplane/apiserver/encode.h"

#include <boost/json/serialize.hpp>

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

std::string text(const json::value& v, const Format& f) {
  if (f.encoding == Encoding::yaml) return kube::to_yaml(v);
  return json::serialize(v);
}

metav1::PartialObjectMetadata partial_of(const Message& object) {
  metav1::PartialObjectMetadata p;
  *p.mutable_metadata() = meta_of(object);
  return p;
}

json::object typed_json(const Message& object, const Typed& type) { return kube::to_json_object(object, type.api_version, type.kind); }

json::object table_head(const Format& f, json::object metadata) {
  json::object t;
  t["kind"] = "Table";
  t["apiVersion"] = std::string(kMetaGroup) + f.meta_version;
  t["metadata"] = std::move(metadata);
  return t;
}

json::object table_row(const Resource& r, const Message& object, const EncodeOptions& o) {
  auto row = r.printer->row(object, o.now);
  json::object out;
  out["cells"] = std::move(row.cells);
  if (!row.conditions.empty()) out["conditions"] = std::move(row.conditions);
  switch (o.include) {
    case IncludeObject::none: out["object"] = nullptr; break;
    case IncludeObject::metadata: out["object"] = typed_json(partial_of(object), partial_type(o.format)); break;
    case IncludeObject::object: out["object"] = typed_json(object, type_of(r)); break;
  }
  return out;
}

json::object table_of(const Resource& r, const Message& object, const EncodeOptions& o, bool columns) {
  auto t = table_head(o.format, {{"resourceVersion", meta_of(object).resourceversion()}});
  t["columnDefinitions"] = columns ? json::value(r.printer->column_definitions()) : json::value(nullptr);
  t["rows"] = json::array{table_row(r, object, o)};
  return t;
}

// The object of one event or answer in its shape, as JSON.
json::value shaped_json(const Resource& r, const Message& object, const EncodeOptions& o, bool first) {
  switch (o.format.shape) {
    case Shape::table: return table_of(r, object, o, first);
    case Shape::partial: return typed_json(partial_of(object), partial_type(o.format));
    case Shape::object: break;
  }
  return typed_json(object, type_of(r));
}

std::string shaped_protobuf(const Resource& r, const Message& object, const EncodeOptions& o) {
  if (o.format.shape == Shape::partial) return envelope(partial_type(o.format), partial_of(object).SerializeAsString());
  return envelope(type_of(r), object.SerializeAsString());
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

std::string text_frame(std::string_view type, const json::value& object, const Format& f) {
  json::object e;
  e["type"] = type;
  e["object"] = object;
  if (f.encoding == Encoding::yaml) return "---\n" + kube::to_yaml(e);
  return json::serialize(e) + "\n";
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

json::object list_meta_json(const ListBody& list) {
  json::object m;
  m["resourceVersion"] = list.resource_version;
  if (!list.continue_token.empty()) m["continue"] = list.continue_token;
  if (list.remaining > 0) m["remainingItemCount"] = list.remaining;
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
      append_length_delimited(raw, 2, partial_of(*decode_entry(r, *e)).SerializeAsString());
    else if (r.from_storage)
      append_length_delimited(raw, 2, decode_entry(r, *e)->SerializeAsString());
    else
      append_length_delimited(raw, 2, e->raw);
  }
  auto type = o.format.shape == Shape::partial ? partial_type(o.format) : type_of(r);
  type.kind += "List";
  return envelope(type, std::move(raw));
}

json::object list_json(const Resource& r, const ListBody& list, const EncodeOptions& o) {
  if (o.format.shape == Shape::table) {
    auto t = table_head(o.format, list_meta_json(list));
    t["columnDefinitions"] = r.printer->column_definitions();
    json::array rows;
    rows.reserve(list.items.size());
    for (const auto& e : list.items) rows.push_back(table_row(r, *decode_entry(r, *e), o));
    t["rows"] = std::move(rows);
    return t;
  }
  const auto type = o.format.shape == Shape::partial ? partial_type(o.format) : type_of(r);
  json::object out;
  out["kind"] = type.kind + "List";
  out["apiVersion"] = type.api_version;
  out["metadata"] = list_meta_json(list);
  json::array items;
  items.reserve(list.items.size());
  for (const auto& e : list.items) {
    const auto object = decode_entry(r, *e);
    if (o.format.shape == Shape::partial)
      items.push_back(kube::to_json_value(partial_of(*object)));
    else
      items.push_back(kube::to_json_value(*object));
  }
  out["items"] = std::move(items);
  return out;
}

}  // namespace

std::string encode_object(const Resource& resource, const Message& object, const EncodeOptions& options) {
  if (options.format.encoding == Encoding::protobuf) return shaped_protobuf(resource, object, options);
  return text(shaped_json(resource, object, options, true), options.format) + "\n";
}

std::string encode_plain(const Message& object, std::string_view api_version, std::string_view kind, const Format& format) {
  if (format.encoding == Encoding::protobuf)
    return envelope({std::string(api_version), std::string(kind)}, object.SerializeAsString());
  return text(kube::to_json_object(object, api_version, kind), format) + "\n";
}

std::string encode_list(const Resource& resource, const ListBody& list, const EncodeOptions& options) {
  if (options.format.encoding == Encoding::protobuf) return list_protobuf(resource, list, options);
  return text(list_json(resource, list, options), options.format) + "\n";
}

std::string encode_event(const Resource& resource, EventType type, const Entry& entry, const EncodeOptions& options, bool first) {
  if (options.format.encoding == Encoding::protobuf && options.format.shape == Shape::object && !resource.from_storage)
    return protobuf_frame(to_string(type), envelope(type_of(resource), entry.raw));
  const auto object = decode_entry(resource, entry);
  if (options.format.encoding == Encoding::protobuf) return protobuf_frame(to_string(type), shaped_protobuf(resource, *object, options));
  return text_frame(to_string(type), shaped_json(resource, *object, options, first), options.format);
}

std::string encode_bookmark(const Resource& resource, etcd::Revision revision, bool initial_events_end, const EncodeOptions& options,
                            bool first) {
  const auto object = resource.make();
  auto& meta = mutable_meta_of(*object);
  meta.set_resourceversion(std::to_string(revision));
  if (initial_events_end) (*meta.mutable_annotations())[kInitialEventsEnd] = "true";
  if (options.format.encoding == Encoding::protobuf) return protobuf_frame("BOOKMARK", shaped_protobuf(resource, *object, options));
  if (options.format.shape != Shape::table)
    return text_frame("BOOKMARK", shaped_json(resource, *object, options, first), options.format);
  // A bookmark has no cells to print: the row carries the metadata only.
  auto t = table_head(options.format, {{"resourceVersion", meta.resourceversion()}});
  t["columnDefinitions"] = first ? json::value(resource.printer->column_definitions()) : json::value(nullptr);
  json::object row;
  row["cells"] = json::array{};
  row["object"] = options.include == IncludeObject::none ? json::value(nullptr)
                                                         : json::value(typed_json(partial_of(*object), partial_type(options.format)));
  t["rows"] = json::array{std::move(row)};
  return text_frame("BOOKMARK", t, options.format);
}

std::string encode_error_event(const ApiError& error, const Format& format) {
  const auto status = to_status(error);
  if (format.encoding == Encoding::protobuf) return protobuf_frame("ERROR", envelope({"v1", "Status"}, status.SerializeAsString()));
  return text_frame("ERROR", kube::to_json_object(status, "v1", "Status"), format);
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
