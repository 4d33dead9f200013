// A schema and an object of a custom resource, as a writer of both could send them: {"schema": ..., "object": ..., "path": ...}.
// Whatever was compiled can be used on anything, and what was pruned and defaulted once stays as it is.
#include <cstdlib>

#include "controlplane/apiserver/custom/json_path.h"
#include "controlplane/apiserver/custom/schema.h"
#include "kube/codec.h"
#include "kube/custom.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(std::string_view input) {
  using namespace fairlead;
  using namespace fairlead::apiserver;
  const auto parsed = kube::parse_json(input);
  if (!parsed || !parsed->is_object()) return;
  const auto& root = parsed->get_object();
  if (const auto* path = root.if_contains("path"); path && path->is_string())
    if (const auto p = custom::JsonPath::parse(path->get_string())) (void)p->find(*parsed);
  const auto* schema_text = root.if_contains("schema");
  const auto* object = root.if_contains("object");
  if (!schema_text) return;
  field::ErrorList errors;
  const auto schema = custom::Schema::compile(*schema_text, field::Path("schema"), errors);
  if (!errors.empty() || !object || !object->is_object()) return;
  auto once = object->get_object();
  std::vector<std::string> unknown;
  schema.prune(once, &unknown);
  schema.apply_defaults(once);
  schema.validate(once, errors);
  auto twice = once;
  schema.apply_defaults(twice);
  if (kube::sorted(twice) != kube::sorted(once)) std::abort();
}
