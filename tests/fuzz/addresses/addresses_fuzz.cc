// Any text as every kind of address that Fairlead reads: what is understood has a canonical text that is understood as the same.
#include "base/ip.h"
#include "netlink/link.h"
#include "proxy/from_api.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;

void fuzz_one(std::string_view bytes) {
  if (const auto a = IpAddress::parse(bytes)) {
    const auto again = IpAddress::parse(a->to_string());
    FUZZ_CHECK(again && *again == *a, a->to_string());
    const auto lenient = proxy::parse_ip_leniently(bytes);
    FUZZ_CHECK(lenient.has_value(), bytes);  // lenient takes what strict takes
  }
  if (const auto p = Prefix::parse(bytes)) {
    const auto again = Prefix::parse(p->to_string());
    FUZZ_CHECK(again && *again == *p, p->to_string());
    FUZZ_CHECK(p->length() <= p->address().bits() && p->contains(p->first()) && p->contains(p->last()), p->to_string());
  }
  if (const auto p = proxy::parse_prefix_leniently(bytes)) FUZZ_CHECK(Prefix::parse(p->to_string()).has_value(), p->to_string());
  if (const auto i = InterfaceAddress::parse(bytes)) FUZZ_CHECK(i->length <= i->address.bits(), bytes);
  if (const auto s = SocketAddress::parse(bytes)) {
    const auto again = SocketAddress::parse(s->to_string());
    FUZZ_CHECK(again && *again == *s, s->to_string());
  }
  if (const auto m = netlink::MacAddress::parse(bytes)) {
    const auto again = netlink::MacAddress::parse(m->to_string());
    FUZZ_CHECK(again && *again == *m, m->to_string());
  }
  (void)parse_port(bytes);
  (void)parse_protocol(bytes);
}
