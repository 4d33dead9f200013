// nghttp2's types beside ours. Included by the .cc files of this folder only.
#pragma once

#include <nghttp2/nghttp2.h>

#include <string_view>
#include <vector>

#include "ingress/http2/fields.h"

namespace fairlead::ingress {

// Points into `list`, which must stay as it is until nghttp2 has copied it (its submit functions do).
inline std::vector<nghttp2_nv> to_nv(const FieldList& list) {
  std::vector<nghttp2_nv> out;
  out.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto n = list.name(i), v = list.value(i);
    out.push_back({reinterpret_cast<std::uint8_t*>(const_cast<char*>(n.data())), reinterpret_cast<std::uint8_t*>(const_cast<char*>(v.data())), n.size(), v.size(), NGHTTP2_NV_FLAG_NONE});
  }
  return out;
}

inline std::string_view text_of(const std::uint8_t* p, std::size_t n) { return {reinterpret_cast<const char*>(p), n}; }

// Appends what a session has to send, about `most` bytes. False: it is broken.
inline bool produce_from(nghttp2_session* session, std::string& out, std::size_t most) {
  const auto from = out.size();
  while (out.size() - from < most) {
    const std::uint8_t* bytes = nullptr;
    const auto n = nghttp2_session_mem_send(session, &bytes);
    if (n < 0) return false;
    if (n == 0) return true;
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace fairlead::ingress
