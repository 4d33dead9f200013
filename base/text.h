// Small tools for ASCII text, the same for every parser: protocols and manifests know no other letters here, and no locale.
// Pure; what is returned as string_view points into what was given.
#pragma once

#include <string>
#include <string_view>

namespace fairlead {

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

inline std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}

constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower(b[i])) return false;
  return true;
}

// What else than text may stand in values of several lines.
inline constexpr std::string_view kBlank = " \t\r\n";

// Without what of `space` stands at the ends. HTTP's optional white space by default (RFC 9110, 5.6.3).
constexpr std::string_view trim(std::string_view text, std::string_view space = " \t") {
  while (!text.empty() && space.find(text.front()) != std::string_view::npos) text.remove_prefix(1);
  while (!text.empty() && space.find(text.back()) != std::string_view::npos) text.remove_suffix(1);
  return text;
}

// 0..15, or -1.
constexpr int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

}  // namespace fairlead
