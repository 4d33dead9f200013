// The continue token of a paged list: at which revision the list is read and after which key to go on. Opaque to clients,
// in upstream's form: base64url of {"v":"meta.k8s.io/v1","rv":N,"start":"<key after the prefix>\0"}. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead::apiserver {

struct ContinueToken {
  std::int64_t revision = 0;  // -1: the newest (an inconsistent continuation after an expired one)
  std::string after_key;      // full key
};
std::string encode_continue(std::int64_t revision, std::string_view last_key, std::string_view prefix);
Result<ContinueToken> decode_continue(std::string_view token, std::string_view prefix);

}  // namespace fairlead::apiserver
