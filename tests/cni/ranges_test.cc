#include "cni/ipam/ranges.h"

#include <gtest/gtest.h>

namespace fairlead::cni {
namespace {

RangeSet set_of(const std::string& text) {
  const auto doc = parse_json(R"({"r":[)" + text + "]}");
  EXPECT_TRUE(doc.has_value());
  auto sets = parse_range_sets(Field(*doc).get("r"));
  EXPECT_TRUE(sets.has_value()) << (sets ? "" : sets.error().msg);
  return sets->at(0);
}

std::string walk(const RangeSet& s, const char* last) {
  RangeWalk w(s, *last ? std::optional(*IpAddress::parse(last)) : std::nullopt);
  std::string out;
  while (const auto ip = w.next()) out += (out.empty() ? "" : " ") + ip->to_string();
  return out;
}

TEST(RangeWalk, VisitsEachAddressOnceStartingBehindTheLast) {
  const RangeSet small = set_of(R"([{"subnet":"10.0.0.0/29"}])");
  const RangeSet two = set_of(R"([{"subnet":"10.0.0.0/30"},{"subnet":"10.0.1.0/24","rangeStart":"10.0.1.7","rangeEnd":"10.0.1.8","gateway":"10.0.1.1"}])");
  const RangeSet middle = set_of(R"([{"subnet":"10.0.0.0/29","gateway":"10.0.0.3"}])");
  const RangeSet six = set_of(R"([{"subnet":"fd00::/126"}])");
  struct Row {
    const RangeSet& set;
    const char* last;
    const char* expected;
  };
  for (const Row& r : {
           Row{small, "", "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"},
           Row{small, "10.0.0.4", "10.0.0.5 10.0.0.6 10.0.0.2 10.0.0.3 10.0.0.4"},
           Row{small, "10.0.0.6", "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"},
           Row{small, "192.168.0.1", "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"},
           Row{small, "fd00::1", "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"},
           Row{two, "", "10.0.0.2 10.0.1.7 10.0.1.8"},
           Row{two, "10.0.0.2", "10.0.1.7 10.0.1.8 10.0.0.2"},
           Row{two, "10.0.1.8", "10.0.0.2 10.0.1.7 10.0.1.8"},
           Row{middle, "10.0.0.2", "10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.1 10.0.0.2"},
           Row{six, "", "fd00::2 fd00::3"},
       })
    EXPECT_EQ(walk(r.set, r.last), r.expected) << r.set.to_string() << " after " << r.last;
}

}  // namespace
}  // namespace fairlead::cni
