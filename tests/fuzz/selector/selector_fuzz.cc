// Any text as a label selector and as a field selector: the canonical text reads back as itself.
#include <map>

#include "kube/selector.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::kube;

void fuzz_one(std::string_view bytes) {
  if (const auto s = LabelSelector::parse(bytes)) {
    const std::string text = s->to_string();
    const auto again = LabelSelector::parse(text);
    FUZZ_CHECK(again.has_value(), text);
    FUZZ_CHECK(again->to_string() == text, text);
    const std::map<std::string, std::string> labels = {{"app", "web"}, {"tier", "a"}, {"n", "5"}};
    FUZZ_CHECK(again->matches(labels) == s->matches(labels), text);
  }
  if (const auto s = FieldSelector::parse(bytes)) {
    (void)s->matches([](std::string_view field) { return std::string(field); });
    for (const auto& r : s->requirements()) FUZZ_CHECK(!r.field.empty(), "a requirement has a field");
  }
}
