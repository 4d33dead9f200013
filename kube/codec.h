// Objects to bytes and back: JSON, YAML and protobuf for any message of kube/proto, by reflection over its descriptors.
//
// JSON follows the Kubernetes API conventions: lowerCamelCase names, inlined members, bytes as base64, Time as RFC 3339,
// Quantity as text, IntOrString as either, absent and empty fields left out (a zero stays where the schema says that zero
// is meaningful). apiVersion and kind are not fields of the messages: they come from kube/kinds.h and are written first.
//
// Zero values: a field marked `pointer` keeps a zero that is present; one marked `always` is written even when zero; all others
// leave zeros out. Go clients send such zeros in protobuf; from_protobuf() removes them, so that equal objects are equal
// bytes. Unknown protobuf fields survive. Quantities are brought to canonical text by every decoder.
//
// Reading JSON reports, with the full path ("spec.template.spec.containers[0].ports[1].containerPort"): wrong types and
// malformed values (always an error), unknown fields and duplicate keys (listed in `strict`, for the caller to ignore, warn
// about or refuse). Input is bounded in depth. Values in, values out; thread safe.
#pragma once

#include <google/protobuf/message.h>

#include <boost/json/value.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fairlead::kube {

using Message = google::protobuf::Message;

// ---- JSON
boost::json::value to_json_value(const Message& object);  // without apiVersion and kind
boost::json::object to_json_object(const Message& object, std::string_view api_version, std::string_view kind);
std::string to_json(const Message& object);                 // with kind and apiVersion when it has a type name
void append_json(std::string& out, const Message& object);  // the same, to the end of `out`
void append_json(std::string& out, const Message& object, std::string_view api_version, std::string_view kind);
void append_json(std::string& out, const boost::json::value& value);  // compact; numbers as Go writes them
std::string to_json(const boost::json::value& value);
void append_json_string(std::string& out, std::string_view text);  // quoted and escaped; bad UTF-8 becomes U+FFFD

struct DecodeOptions {
  // Filled with `unknown field "spec.x"` and `duplicate field "spec.y"`, at most 100.
  std::vector<std::string>* strict = nullptr;
};
// Reads into `out` (cleared first). The error message starts with the path of the offending field.
Result<> from_json_value(const boost::json::value& json, Message& out, const DecodeOptions& options = {});
Result<> from_json(std::string_view text, Message& out, const DecodeOptions& options = {});
// JSON text to a value with the API's limits (depth 100); duplicate keys are reported to options.strict.
Result<boost::json::value> parse_json(std::string_view text, const DecodeOptions& options = {});

// ---- YAML (the JSON subset plus anchors; several documents separated by ---)
Result<std::vector<boost::json::value>> parse_yaml(std::string_view text, const DecodeOptions& options = {});
std::string to_yaml(const boost::json::value& json);

// ---- protobuf with the k8s envelope (6b 38 73 00, then runtime.Unknown)
// Bytes are deterministic: map entries stand in key order.
std::string to_protobuf(const Message& object, std::string_view api_version, std::string_view kind);
std::string to_protobuf(const Message& object);  // Requires: a type with a name of its own (kube/kinds.h)
struct Envelope {
  std::string api_version;
  std::string kind;
  std::string raw;  // the object's own bytes
};
Result<Envelope> open_envelope(std::string_view bytes);
struct EnvelopeView {
  std::string_view api_version, kind, raw;
};
Result<EnvelopeView> view_envelope(std::string_view bytes);  // the same without copies
bool has_envelope(std::string_view bytes);
// With the envelope. `trusted`: written by to_protobuf() before, so nothing is normalised or checked again.
Result<> from_protobuf(std::string_view bytes, Message& out, bool trusted = false);
// Removes zeros that say nothing, brings quantities to canonical text, refuses what has no JSON form.
Result<> normalize(Message& object);

// ---- any format, for objects whose kind is not known beforehand
struct AnyObject {
  const struct Kind* kind = nullptr;
  std::unique_ptr<Message> object;
};
Result<AnyObject> decode_object(const boost::json::value& json, const DecodeOptions& options = {});
Result<AnyObject> decode_object(std::string_view json_or_protobuf, const DecodeOptions& options = {});

}  // namespace fairlead::kube
