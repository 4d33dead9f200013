// What stands in front of a connection behind a load balancer: no crash, no read outside of the bytes, and a verdict that more
// bytes do not change.
#include "ingress/proxy_protocol/header.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(std::string_view bytes) {
  using namespace fairlead::ingress;
  const auto whole = parse_proxy_header(bytes);
  if (whole.state == ProxyHeader::State::good) {
    FUZZ_CHECK(whole.size > 0 && whole.size <= bytes.size() && whole.size <= kMostProxyHeader, "a size outside of the bytes");
    FUZZ_CHECK(whole.source.has_value() == whole.destination.has_value(), "one address of two");
    const auto exact = parse_proxy_header(bytes.substr(0, whole.size));
    FUZZ_CHECK(exact.state == ProxyHeader::State::good && exact.size == whole.size && exact.source == whole.source, "what follows the header changes it");
    FUZZ_CHECK(parse_proxy_header(bytes.substr(0, whole.size - 1)).state == ProxyHeader::State::incomplete, "a header that is good before its end");
  }
  if (whole.state == ProxyHeader::State::incomplete) FUZZ_CHECK(bytes.size() < kMostProxyHeader, "more is asked for than may come");
  bool bad = false;
  for (std::size_t n = 0; n <= bytes.size() && n <= 300; ++n) {
    const auto part = parse_proxy_header(bytes.substr(0, n));
    FUZZ_CHECK(!bad || part.state == ProxyHeader::State::bad, "bad, and then not");
    bad = part.state == ProxyHeader::State::bad;
  }
}
