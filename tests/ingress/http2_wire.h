// HTTP/2 frames by hand, for tests that say what honest libraries would not.
#pragma once

#include <string>

namespace fairlead::ingress {

inline std::string frame(int type, int flags, int stream, const std::string& payload) {
  std::string out;
  for (const int shift : {16, 8, 0}) out += static_cast<char>(payload.size() >> shift);
  out += static_cast<char>(type);
  out += static_cast<char>(flags);
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>(stream >> shift);
  return out + payload;
}
inline std::string number32(unsigned n) {
  std::string out;
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>(n >> shift);
  return out;
}
inline std::string rst(int stream, unsigned code) { return frame(3, 0, stream, number32(code)); }
inline std::string goaway(int last, unsigned code) { return frame(7, 0, 0, number32(static_cast<unsigned>(last)) + number32(code)); }
inline const std::string kSettings = frame(4, 0, 0, "");
inline const std::string kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// GET http / with :authority h, all from the static table but the last.
inline const std::string kGetBlock = std::string("\x82\x86\x84\x41\x01", 5) + "h";
// A field that is in no table; short names and values.
inline std::string literal(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
}
inline constexpr int kEndStream = 1, kEndHeaders = 4;

}  // namespace fairlead::ingress
