// Base64 with padding (RFC 4648, section 4), as bytes stand in JSON. Line breaks are skipped when reading. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fairlead::kube {

void append_base64(std::string& out, std::string_view bytes);
std::string to_base64(std::string_view bytes);
std::optional<std::string> from_base64(std::string_view text);  // nullopt: not base64

}  // namespace fairlead::kube
