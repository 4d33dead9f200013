#include "cni/version.h"

#include <array>

namespace fairlead::cni {

static constexpr std::array<std::string_view, 5> kNames = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

std::string_view to_string(Version v) { return kNames[static_cast<std::size_t>(v)]; }
std::span<const std::string_view> supported_versions() { return kNames; }

std::optional<Version> find_version(std::string_view text) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == text) return static_cast<Version>(i);
  return std::nullopt;
}

CniResult<Version> parse_version(std::string_view text) {
  if (const auto v = find_version(text)) return *v;
  std::string all;
  for (const auto n : kNames) all += (all.empty() ? "" : ", ") + std::string(n);
  // An absent version means 0.1.0 by the specification.
  return cni_fail(Code::incompatible_version, "cniVersion: \"{}\" is not supported (supported: {})", text.empty() ? "0.1.0" : text, all);
}

}  // namespace fairlead::cni
