// A JSON list [object, patch]: all three patch formats on it. A result can be written and read again.
#include <boost/json/array.hpp>

#include "kube/codec.h"
#include "kube/kinds.h"
#include "kube/object.h"
#include "kube/patch.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::kube;

namespace {

void check(const Result<boost::json::value>& r) {
  if (!r) {
    FUZZ_CHECK(!r.error().message.empty(), "an error says why");
    return;
  }
  const std::string text = to_json(*r);
  FUZZ_CHECK(parse_json(text).has_value(), text);
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  const auto input = parse_json(bytes);
  if (!input || !input->is_array() || input->get_array().size() != 2) return;
  const auto& target = input->get_array()[0];
  const auto& patch = input->get_array()[1];
  check(json_patch(target, patch));
  check(merge_patch(target, patch));
  check(strategic_patch(target, patch, *find_kind("v1", "Pod")->prototype->GetDescriptor()));
  check(strategic_patch(target, patch, *find_kind("apps/v1", "Deployment")->prototype->GetDescriptor()));
  // The patch between two objects leads from one to the other, unless the second holds nulls, which a patch cannot say.
  if (target.is_object() && patch.is_object() && to_json(patch).find("null") == std::string::npos) {
    const auto r = merge_patch(target, create_merge_patch(target, patch));
    FUZZ_CHECK(r.has_value() && *r == patch, to_json(target) + " " + to_json(patch));
  }
}
