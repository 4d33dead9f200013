// Any datagram as a heartbeat: what is taken for one encodes to the same bytes.
#include "lb/l2/membership.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::lb::l2;

void fuzz_one(std::string_view bytes) {
  const auto h = Heartbeat::decode(bytes);
  if (!h) return;
  FUZZ_CHECK(!h->node.empty() && h->node.size() <= 253, "a name");
  FUZZ_CHECK(h->encode() == bytes, "one form");
}
