// Any datagram, read as everything that this folder reads. Nothing may be read outside of it (the sanitizers watch), and
// what was read must be within the bounds that the values promise.
#include "netlink/address.h"
#include "netlink/link.h"
#include "netlink/neighbour.h"
#include "netlink/qdisc.h"
#include "netlink/route.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(std::string_view bytes) {
  using namespace fairlead::netlink;
  const ByteView view(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  if (const auto inner = Attributes::parse(view)) inner->for_each([](std::uint16_t, ByteView) {});
  const auto messages = split_messages(view);
  if (!messages) return;
  for (const MessageView& m : *messages) {
    FUZZ_CHECK(m.payload.size() <= bytes.size(), "a message is within its datagram");
    if (const auto l = parse_link(m)) FUZZ_CHECK(l->name.size() <= bytes.size(), "a name is within its message");
    if (const auto a = parse_address(m)) FUZZ_CHECK(a->ip.length <= a->ip.address.bits(), "a prefix length");
    if (const auto r = parse_route(m); r && *r) {
      FUZZ_CHECK((*r)->destination.length() <= (*r)->destination.address().bits(), "a prefix length");
      (void)(*r)->to_string();
    }
    if (const auto r = parse_rule(m); r && r->from) FUZZ_CHECK(r->from->length() <= 128, "a prefix length");
    (void)parse_neighbour(m);
    (void)parse_fdb(m);
    (void)parse_qdisc(m);
    (void)parse_ack(m);
  }
  (void)hex_dump(view);
}
