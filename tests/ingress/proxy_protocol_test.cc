// PROXY headers as rows: what they say, what is refused and why, and that a cut changes nothing.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ingress/proxy_protocol/header.h"

namespace fairlead::ingress {
namespace {

std::string describe(const ProxyHeader& h) {
  switch (h.state) {
    case ProxyHeader::State::incomplete: return "incomplete";
    case ProxyHeader::State::bad: return std::string("bad: ") + h.why;
    case ProxyHeader::State::good: return h.source ? h.source->to_string() + " " + h.destination->to_string() : "itself";
  }
  return "";
}

const std::string kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
std::string v2(unsigned char version_command, unsigned char family, const std::string& rest, int size = -1) {
  const auto n = size < 0 ? rest.size() : static_cast<std::size_t>(size);
  return kSignature + static_cast<char>(version_command) + static_cast<char>(family) + static_cast<char>(n >> 8) + static_cast<char>(n) + rest;
}
const std::string kV4("\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbb", 12);

struct Row {
  std::string bytes, want;
};

TEST(ProxyHeader, Rows) {
  const std::string v6 = std::string("\x20\x01\x0d\xb8", 4) + std::string(11, '\0') + "\x01" + std::string("\x20\x01\x0d\xb8", 4) + std::string(11, '\0') + "\x02" + std::string("\x00\x01\x00\x02", 4);
  const std::string mapped = std::string(10, '\0') + "\xff\xff\x01\x02\x03\x04" + std::string(10, '\0') + "\xff\xff\x05\x06\x07\x08" + std::string("\x00\x01\x00\x02", 4);
  for (const auto& r : std::vector<Row>{
           {"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", "1.2.3.4:80 5.6.7.8:443"},
           {"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "[2001:db8::1]:1 [2001:db8::2]:65535"},
           {"PROXY TCP6 ::ffff:1.2.3.4 ::ffff:5.6.7.8 1 2\r\n", "1.2.3.4:1 5.6.7.8:2"},
           {"PROXY UNKNOWN\r\n", "itself"},
           {"PROXY UNKNOWN ffff:f...f:ffff 1 2\r\n", "itself"},
           {"GET / HTTP/1.1\r\n", "bad: no PROXY header"},
           {"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n", "bad: a line that ends without CR"},
           {"PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n", "bad: a line with the wrong number of words"},
           {"PROXY TCP4 1.2.3.4 5.6.7.8 80 443 1\r\n", "bad: a line with the wrong number of words"},
           {"PROXY TCP4  1.2.3.4 5.6.7.8 80 443\r\n", "bad: a line with the wrong number of words"},
           {"PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n", "bad: a protocol other than TCP4 and TCP6"},
           {"PROXY TCP4 1.2.3.04 5.6.7.8 80 443\r\n", "bad: an address that is none of its family"},
           {"PROXY TCP4 ::1 ::2 80 443\r\n", "bad: an address that is none of its family"},
           {"PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n", "bad: an address that is none of its family"},
           {"PROXY TCP4 1.2.3.4 5.6.7.8 080 443\r\n", "bad: a port that is none"},
           {"PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n", "bad: a port that is none"},
           {"PROXY TCP4 1.2.3.4 5.6.7.8 80 -1\r\n", "bad: a port that is none"},
           {"PROXY UNKNOWN " + std::string(100, 'x') + "\r\n", "bad: a line that is too long"},
           {v2(0x21, 0x11, kV4), "1.2.3.4:80 5.6.7.8:443"},
           {v2(0x21, 0x21, v6), "[2001:db8::1]:1 [2001:db8::2]:2"},
           {v2(0x21, 0x21, mapped), "1.2.3.4:1 5.6.7.8:2"},
           {v2(0x20, 0x11, kV4), "itself"},
           {v2(0x20, 0x00, ""), "itself"},
           {v2(0x21, 0x00, "anything"), "bad: an extension that is longer than the header"},
           {v2(0x21, 0x31, std::string(216, '/')), "itself"},
           {v2(0x21, 0x11, kV4 + std::string("\x04\x00\x02zz", 5)), "1.2.3.4:80 5.6.7.8:443"},
           {v2(0x21, 0x11, kV4 + std::string("\x04\x00", 2)), "bad: an extension that is cut off"},
           {v2(0x21, 0x11, kV4 + std::string("\x04\x00\x03zz", 5)), "bad: an extension that is longer than the header"},
           {v2(0x21, 0x11, kV4 + std::string("\x03\x00\x04zzzz", 7)), "bad: a wrong checksum"},
           {v2(0x21, 0x11, kV4 + std::string("\x03\x00\x01z", 4)), "bad: a checksum that is none"},
           {v2(0x21, 0x11, kV4.substr(1)), "bad: addresses that are cut off"},
           {v2(0x21, 0x12, kV4), "bad: a family or transport that is no stream"},
           {v2(0x31, 0x11, kV4), "bad: a version other than 2"},
           {v2(0x22, 0x11, kV4), "bad: an unknown command"},
           {v2(0x21, 0x11, kV4, 4081), "bad: a header that is too long"},
       }) {
    const auto whole = parse_proxy_header(r.bytes + "GET");
    EXPECT_EQ(describe(whole), r.want) << r.bytes;
    if (whole.state != ProxyHeader::State::good) continue;
    EXPECT_EQ(whole.size, r.bytes.size()) << r.bytes;
    for (std::size_t cut = 0; cut < r.bytes.size(); ++cut) EXPECT_EQ(describe(parse_proxy_header(std::string_view(r.bytes).substr(0, cut))), "incomplete") << r.bytes << " at " << cut;
  }
}

// The reference's own polynomial: CRC-32C of "123456789" is e3069283; here of a header with the checksum's bytes as zero.
TEST(ProxyHeader, AChecksumThatHolds) {
  auto bytes = v2(0x21, 0x11, kV4 + std::string("\x03\x00\x04\0\0\0\0", 7));
  std::uint32_t c = ~0u;
  for (const char x : bytes) {
    c ^= static_cast<unsigned char>(x);
    for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
  }
  c = ~c;
  for (int i = 0; i < 4; ++i) bytes[bytes.size() - 4 + static_cast<std::size_t>(i)] = static_cast<char>(c >> (24 - 8 * i));
  EXPECT_EQ(describe(parse_proxy_header(bytes)), "1.2.3.4:80 5.6.7.8:443");
}

}  // namespace
}  // namespace fairlead::ingress
