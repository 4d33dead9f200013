// What iptables-save prints is read without trust: any bytes give a listing or an error, and a rule that is understood reads
// back the same.
#include "tests/fuzz/fuzz.h"

#include "iptables/model.h"
#include "iptables/rule.h"

void fuzz_one(std::string_view bytes) {
  using namespace fairlead;
  using namespace fairlead::iptables;
  for (const Table t : kTables) {
    const auto listing = Listing::parse(std::string(bytes), t);
    if (!listing) continue;
    for (const auto& [name, chain] : listing->chains())
      for (const auto text : chain.rules) {
        (void)target_of(text);
        for (const Family f : {Family::v4, Family::v6}) {
          const auto rule = parse_rule(text, f);
          if (!rule) continue;
          const auto once = canonical(text, f);
          FUZZ_CHECK(canonical(once, f) == once, text);
          const auto again = parse_rule(once, f);
          FUZZ_CHECK(again && to_text(*again, f) == once, text);
        }
      }
  }
  (void)steps_of(bytes);
}
