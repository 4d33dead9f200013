// Any bytes as what a router sends. The decoder answers each message with a value or a notification that fits into a message;
// values are written and read back as they were. Then the same bytes as the stream of a session: whatever comes, the machine
// ends the connection with a word, or waits for more, and never for ever.
#include "base/random.h"
#include "lb/bgp/peer.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::lb::bgp;

namespace {

void one_message(View bytes, bool four_byte_asn) {
  const auto m = decode(bytes, four_byte_asn);
  if (!m) {
    const auto n = encode(m.error());
    FUZZ_CHECK(n.size() <= kMaxMessage && decode(n, true).has_value(), "a notification is a message");
    FUZZ_CHECK(!m.error().to_string().empty(), "it can be told");
    return;
  }
  FUZZ_CHECK(message_length(bytes).value_or(0) == bytes.size(), "a message is as long as it says");
  if (const auto* o = std::get_if<Open>(&*m)) {
    // What is written has the four-byte number only when it was announced.
    if (o->four_byte_asn || o->asn <= 0xffff) FUZZ_CHECK(decode(encode(*o), true) == *m || o->families.empty(), "an OPEN reads as it was written");
  }
  if (const auto* u = std::get_if<Update>(&*m))
    for (const auto& p : u->announced) FUZZ_CHECK(p.length() <= p.address().bits(), "blocks are in their family");
}

void session(View bytes) {
  SeededRandom random(1);
  SteadyTime now{std::chrono::hours(1)};
  PeerConfig c;
  c.my_asn = 64512;
  c.peer_asn = 64500;
  c.address = IpAddress::v4(192, 0, 2, 254);
  c.router_id = 1;
  Peer peer(c, random, now);
  peer.on(event::Tick{}, now);
  peer.on(event::Connected{Side::active, {{Family::v4, IpAddress::v4(192, 0, 2, 1)}}}, now);
  bool closed = false;
  for (const auto& a : peer.on(event::Received{Side::active, bytes}, now)) {
    if (const auto* s = std::get_if<action::Send>(&a)) FUZZ_CHECK(!closed && decode(s->bytes, true).has_value(), "what is sent is a message");
    closed |= std::holds_alternative<action::Close>(a);
  }
  FUZZ_CHECK(closed == (peer.state() == State::idle), "closed when it ended");
  FUZZ_CHECK(peer.next_tick() < SteadyTime::max(), "it does not wait for ever");
}

}  // namespace

void fuzz_one(std::string_view text) {
  const View bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  for (const bool four : {true, false}) one_message(bytes, four);
  session(bytes);
}
