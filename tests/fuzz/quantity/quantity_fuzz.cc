// Any text as a quantity, a time, a duration and base64: canonical text reads back as the same value.
#include "base/duration.h"
#include "kube/base64.h"
#include "kube/quantity.h"
#include "kube/time_text.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::kube;

void fuzz_one(std::string_view bytes) {
  if (const auto q = Quantity::parse(bytes)) {
    const std::string text = q->to_string();
    const auto again = Quantity::parse(text);
    FUZZ_CHECK(again.has_value(), text);
    FUZZ_CHECK(*again == *q, text);
    FUZZ_CHECK(again->to_string() == text, text);
    (void)(*q + *again).to_string();
    (void)(*q - Quantity::from_value(1)).milli();
  }
  if (const auto t = parse_time(bytes)) {
    const std::string text = format_time(t->seconds);
    const auto again = parse_time(text);
    FUZZ_CHECK(again.has_value() && again->seconds == t->seconds, text);
    (void)format_micro_time(t->seconds, t->nanos);
  }
  if (const auto d = parse_duration(bytes)) {
    const auto again = parse_duration(format_duration(*d));
    FUZZ_CHECK(again.has_value() && *again == *d, format_duration(*d));
  }
  if (const auto b = from_base64(bytes)) {
    const auto again = from_base64(to_base64(*b));
    FUZZ_CHECK(again.has_value() && *again == *b, "base64");
  }
}
