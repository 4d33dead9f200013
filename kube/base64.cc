#include "kube/base64.h"

#include <array>
#include <cstdint>

namespace fairlead::kube {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> kValues = [] {
  std::array<std::int8_t, 256> v{};
  v.fill(-1);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) v[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::int8_t>(i);
  return v;
}();

}  // namespace

void append_base64(std::string& out, std::string_view bytes) {
  out.reserve(out.size() + (bytes.size() + 2) / 3 * 4);
  const auto at = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])); };
  std::size_t i = 0;
  for (; i + 3 <= bytes.size(); i += 3) {
    const std::uint32_t v = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    out += kAlphabet[v >> 18];
    out += kAlphabet[v >> 12 & 63];
    out += kAlphabet[v >> 6 & 63];
    out += kAlphabet[v & 63];
  }
  if (i == bytes.size()) return;
  const bool two = i + 2 == bytes.size();
  const std::uint32_t v = at(i) << 16 | (two ? at(i + 1) << 8 : 0);
  out += kAlphabet[v >> 18];
  out += kAlphabet[v >> 12 & 63];
  out += two ? kAlphabet[v >> 6 & 63] : '=';
  out += '=';
}

std::string to_base64(std::string_view bytes) {
  std::string out;
  append_base64(out, bytes);
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string out;
  out.reserve(text.size() / 4 * 3);
  std::uint32_t bits = 0;
  int have = 0;  // characters of the current group of four
  int padding = 0;
  for (const char c : text) {
    if (c == '\n' || c == '\r') continue;
    if (c == '=') {
      if (have < 2 || ++padding > 4 - have) return std::nullopt;
      continue;
    }
    const int v = kValues[static_cast<unsigned char>(c)];
    if (v < 0 || padding != 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(v);
    if (++have < 4) continue;
    out += static_cast<char>(bits >> 16);
    out += static_cast<char>(bits >> 8);
    out += static_cast<char>(bits);
    bits = 0;
    have = 0;
  }
  if (have == 0) return padding == 0 ? std::optional(std::move(out)) : std::nullopt;
  if (have == 1 || padding != 4 - have) return std::nullopt;
  out += static_cast<char>(have == 2 ? bits >> 4 : bits >> 10);
  if (have == 3) out += static_cast<char>(bits >> 2);
  return out;
}

}  // namespace fairlead::kube
