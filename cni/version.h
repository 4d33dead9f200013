// The versions of the CNI specification that Fairlead speaks, and what each of them has.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "cni/error.h"

namespace fairlead::cni {

enum class Version { v0_3_0, v0_3_1, v0_4_0, v1_0_0, v1_1_0 };
inline constexpr Version kNewest = Version::v1_1_0;

std::string_view to_string(Version v);
std::span<const std::string_view> supported_versions();
std::optional<Version> find_version(std::string_view text);
CniResult<Version> parse_version(std::string_view text);  // incompatible_version names those we have

inline bool has_check(Version v) { return v >= Version::v0_4_0; }
inline bool has_gc_and_status(Version v) { return v >= Version::v1_1_0; }
inline bool ips_carry_version(Version v) { return v < Version::v1_0_0; }
inline bool has_link_and_route_details(Version v) { return v >= Version::v1_1_0; }  // mtu, pciID, route mtu, table ...

}  // namespace fairlead::cni
