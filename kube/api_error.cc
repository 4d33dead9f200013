#include "kube/api_error.h"

#include <charconv>

#include "kube/codec.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::kube {
namespace {

ErrorCode code_of(std::string_view reason, int http_status) {
  struct Row {
    std::string_view reason;
    ErrorCode code;
  };
  static constexpr Row rows[] = {
      {"NotFound", ErrorCode::not_found},
      {"AlreadyExists", ErrorCode::already_exists},
      {"Conflict", ErrorCode::conflict},
      {"Expired", ErrorCode::expired},
      {"Gone", ErrorCode::expired},
      {"Forbidden", ErrorCode::permission_denied},
      {"Unauthorized", ErrorCode::unauthenticated},
      {"Invalid", ErrorCode::invalid_argument},
      {"BadRequest", ErrorCode::invalid_argument},
      {"RequestEntityTooLarge", ErrorCode::invalid_argument},
      {"UnsupportedMediaType", ErrorCode::invalid_argument},
      {"NotAcceptable", ErrorCode::invalid_argument},
      {"MethodNotAllowed", ErrorCode::unimplemented},
      {"TooManyRequests", ErrorCode::unavailable},
      {"ServiceUnavailable", ErrorCode::unavailable},
      {"ServerTimeout", ErrorCode::unavailable},
      {"Timeout", ErrorCode::unavailable},
      {"InternalError", ErrorCode::unavailable},
  };
  for (const auto& r : rows)
    if (r.reason == reason) return r.code;
  switch (http_status) {
    case 400:
    case 406:
    case 413:
    case 415:
    case 422: return ErrorCode::invalid_argument;
    case 401: return ErrorCode::unauthenticated;
    case 403: return ErrorCode::permission_denied;
    case 404: return ErrorCode::not_found;
    case 405: return ErrorCode::unimplemented;
    case 409: return ErrorCode::conflict;
    case 410: return ErrorCode::expired;
    case 429: return ErrorCode::unavailable;
    default: return http_status >= 500 ? ErrorCode::unavailable : ErrorCode::internal;
  }
}

std::optional<metav1::Status> parse_status(const http::Headers& headers, std::string_view body) {
  metav1::Status status;
  const auto type = headers.value_or("content-type", "");
  Result<> r;
  if (is_protobuf(type))
    r = from_protobuf(body, status);
  else if (type.find("json") != std::string_view::npos)
    r = from_json(body, status);
  else
    return std::nullopt;
  if (!r || (status.status() != "Failure" && status.reason().empty() && status.message().empty())) return std::nullopt;
  return status;
}

}  // namespace

bool is_protobuf(std::string_view content_type) { return content_type.starts_with("application/vnd.kubernetes.protobuf"); }

Error error_of_status(const metav1::Status& status) {
  std::string message = status.message();
  if (message.empty()) message = status.reason().empty() ? fmt::format("the server answered {}", status.code()) : status.reason();
  return Error{code_of(status.reason(), status.code()), std::move(message), 0};
}

Error error_of_response(unsigned http_status, const http::Headers& headers, std::string_view body) {
  if (auto status = parse_status(headers, body)) {
    if (!status->has_code() || status->code() == 0) status->set_code(static_cast<int>(http_status));
    return error_of_status(*status);
  }
  std::string text(body.substr(0, 200));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  while (text.ends_with(' ')) text.pop_back();
  auto message = fmt::format("the server answered {} {}", http_status, http::reason_phrase(http_status));
  if (!text.empty() && headers.value_or("content-type", "").starts_with("text/plain")) message += ": " + text;
  return Error{code_of({}, static_cast<int>(http_status)), std::move(message), 0};
}

std::optional<std::chrono::seconds> retry_after(unsigned http_status, const http::Headers& headers, std::string_view body) {
  if (http_status != 429 && http_status < 500) return std::nullopt;
  if (const auto field = headers.get("retry-after")) {
    unsigned seconds = 0;
    const auto [end, error] = std::from_chars(field->data(), field->data() + field->size(), seconds);
    if (error == std::errc() && end == field->data() + field->size()) return std::chrono::seconds(std::min(seconds, 86'400u));
    return std::nullopt;  // a date: our own backoff will do
  }
  const auto status = parse_status(headers, body);
  if (status && status->details().retryafterseconds() > 0) return std::chrono::seconds(status->details().retryafterseconds());
  return std::nullopt;
}

}  // namespace fairlead::kube
