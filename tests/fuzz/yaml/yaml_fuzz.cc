// Any text as YAML: what was read can be written and reads back as the same values.
#include "kube/codec.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::kube;

void fuzz_one(std::string_view bytes) {
  std::vector<std::string> strict;
  const auto documents = parse_yaml(bytes, {.strict = &strict});
  if (!documents) return;
  for (const auto& v : *documents) {
    const std::string text = to_yaml(v);
    const auto again = parse_yaml(text);
    FUZZ_CHECK(again.has_value(), text + "\n" + again.error().message);
    FUZZ_CHECK(again->size() == 1, text);
    FUZZ_CHECK(again->front() == v, text + "\n" + to_json(v) + "\n" + to_json(again->front()));
  }
}
