// What an unsuccessful answer of an apiserver means: its Status (JSON or protobuf) as an Error, and how long it asks us to
// wait. Pure. Source: apimachinery's StatusReason values; docs: kube/client.h.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "base/http/message.h"
#include "base/result.h"
#include "kube/api.h"

namespace k8s::io::apimachinery::pkg::apis::meta::v1 {
class Status;
}

namespace fairlead::kube {

Error error_of_status(const metav1::Status& status);
// Requires: http_status >= 300. A body that is no Status becomes part of the message, shortened.
Error error_of_response(unsigned http_status, const http::Headers& headers, std::string_view body);
// From the Retry-After field (seconds) or the Status details; nullopt when the server does not ask for it.
std::optional<std::chrono::seconds> retry_after(unsigned http_status, const http::Headers& headers, std::string_view body);

bool is_protobuf(std::string_view content_type);

}  // namespace fairlead::kube
