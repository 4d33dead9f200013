// Any frame as a question for an address: what is taken for one has an asker who can be answered, and our answer and our
// announcement are no questions themselves.
#include "lb/l2/packet.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::lb::l2;

void fuzz_one(std::string_view bytes) {
  const auto q = parse_question({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  if (!q) return;
  FUZZ_CHECK(q->target.family() == q->asker.family(), "one family");
  FUZZ_CHECK(!q->asker_mac.is_multicast() && !q->asker_mac.is_zero(), "the asker can be answered");
  FUZZ_CHECK(!q->target.is_unspecified(), "something is asked for");
  const MacAddress ours{{2, 0, 0, 0, 0, 1}};
  const auto answer = build_answer(*q, ours);
  FUZZ_CHECK(answer.size() == (q->target.is_v4() ? 42u : 86u), "the answer is whole");
  FUZZ_CHECK(!parse_question(answer), "an answer asks nothing");
  for (const auto& frame : build_announcement(q->target, ours)) FUZZ_CHECK(!parse_question(frame), "an announcement asks nothing");
}
