// CRC-32C (Castagnoli), as in RFC 3720 appendix B.4, with the processor's instruction where there is one.
#pragma once

#include <cstdint>
#include <string_view>

namespace fairlead::etcd {

// Continues from `crc` (0 to start); crc32c(crc32c(0, a), b) == crc32c(0, a + b).
std::uint32_t crc32c(std::uint32_t crc, std::string_view bytes);

}  // namespace fairlead::etcd
