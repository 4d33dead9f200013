// Answers of DNS servers as the router reads them for names outside of the cluster: no crash, and never more than is bounded.
#include <algorithm>

#include "ingress/command/names.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(std::string_view in) {
  using namespace fairlead;
  const std::vector<unsigned char> message(in.begin(), in.end());
  for (const auto family : {Family::v4, Family::v6}) {
    const auto found = ingress::read_answer(message, family);
    if (!found) continue;
    FUZZ_CHECK(found->addresses.size() <= 64, "more addresses than are bounded");
    FUZZ_CHECK(std::is_sorted(found->addresses.begin(), found->addresses.end()), "addresses out of order");
    for (const auto& a : found->addresses) FUZZ_CHECK(a.family() == family, "an address of the other family");
  }
}
