// Content negotiation: in which encoding a body is read and an answer is written, and in which shape (the object itself, a
// Table for people, or metadata only). Pure. Source: RFC 9110 section 12, Kubernetes API concepts.
#pragma once

#include <string>
#include <string_view>

#include "controlplane/apiserver/api_error.h"

namespace fairlead::apiserver {

enum class Encoding { json, yaml, protobuf };
enum class Shape { object, table, partial };

struct Format {
  Encoding encoding = Encoding::json;
  Shape shape = Shape::object;
  std::string meta_version = "v1";  // of Table and PartialObjectMetadata
  bool pretty = false;
  int index() const { return static_cast<int>(encoding) * 8 + static_cast<int>(shape) * 2 + (meta_version == "v1" ? 0 : 1); }
};

// What an endpoint can produce.
struct Offers {
  bool yaml = true;
  bool protobuf = true;
  bool shapes = true;  // Table and PartialObjectMetadata
  bool stream = false;  // a watch
};

// Picks the best of the Accept header (empty: JSON). Fails with 406.
ApiResult<Format> negotiate(std::string_view accept, const Offers& offers);
// Of the answer.
std::string content_type(const Format& format, bool stream);
// The encoding of a request body; an empty type is JSON. Fails with 415.
ApiResult<Encoding> body_encoding(std::string_view content_type);
// "text/html; charset=utf-8" -> "text/html".
std::string_view media_type(std::string_view content_type);

}  // namespace fairlead::apiserver
