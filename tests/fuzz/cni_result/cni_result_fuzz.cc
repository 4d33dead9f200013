// Any text as the result of another plugin: what was read can be written in the shape of each version and read again.
#include <boost/json/serialize.hpp>

#include "cni/result.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(std::string_view bytes) {
  using namespace fairlead::cni;
  const auto doc = parse_json(bytes);
  if (!doc) return;
  const auto a = parse_attachment(Field(*doc));
  if (!a) {
    FUZZ_CHECK(!a.error().msg.empty(), "an error says something");
    return;
  }
  for (const auto name : supported_versions()) {
    const Version v = *find_version(name);
    const auto text = boost::json::serialize(to_json(*a, v));
    const auto again = parse_json(text);
    FUZZ_CHECK(again.has_value(), "what was written is JSON");
    const auto back = parse_attachment(Field(*again));
    FUZZ_CHECK(back.has_value(), "a result can be read back");
    FUZZ_CHECK(back->ips == a->ips && back->dns == a->dns && back->interfaces.size() == a->interfaces.size(), "nothing is lost that every version has");
    if (has_link_and_route_details(v)) FUZZ_CHECK(*back == *a, "the newest version has it all");
  }
}
