// Any text as the body of a create, for every kind: decoding, defaults and validation end with an object or with errors that
// name a field, and defaulting what has been defaulted changes nothing.
#include "controlplane/apiserver/encode.h"
#include "controlplane/apiserver/registry/strategies.h"
#include "controlplane/apiserver/resource.h"
#include "kube/codec.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::apiserver;

void fuzz_one(std::string_view bytes) {
  static const auto* resources = new Resources(ClusterFacts{{Family::v4, Family::v6}});
  if (bytes.empty()) return;
  const auto& all = resources->all();
  const auto& r = *all[static_cast<unsigned char>(bytes[0]) % all.size()];
  auto object = r.make();
  if (!kube::from_json(bytes.substr(1), *object)) return;
  auto& meta = mutable_meta_of(*object);
  if (r.kind->namespaced()) meta.set_namespace_("default");
  r.strategy->apply_defaults(*object);
  auto again = clone(*object);
  r.strategy->apply_defaults(*again);
  FUZZ_CHECK(deterministic_bytes(*again) == deterministic_bytes(*object), "defaults are idempotent");
  r.strategy->prepare_for_create(*object);
  auto errors = validate_meta(meta_of(*object), r.kind->namespaced(), r.strategy->name_check(), field::Path("metadata"));
  r.strategy->validate(*object, errors);
  for (const auto& e : errors) FUZZ_CHECK(!e.body().empty(), e.field);
  // What has been accepted can be stored, cached, selected and printed, and an update to itself is accepted.
  if (errors.empty()) {
    r.strategy->canonicalise(*object);
    std::unique_ptr<Message> stored;
    if (r.to_storage) {
      stored.reset(r.storage_kind->prototype->New());
      r.to_storage(*object, *stored);
    } else {
      stored = clone(*object);
    }
    const auto entry = make_entry(r, r.key("default", meta_of(*object).name()), 7, *stored);
    FUZZ_CHECK(entry->fields.size() == r.strategy->selectable_fields().size(), "one value for each selectable field");
    EncodeOptions table;
    table.format.shape = Shape::table;
    FUZZ_CHECK(kube::parse_json(encode_event(r, EventType::added, *entry, table, true)).has_value(), "a Table is JSON");
    auto now = clone(*object);
    r.strategy->apply_defaults(*now);
    r.strategy->prepare_for_update(*now, *object);
    field::ErrorList update = validate_meta_update(meta_of(*now), meta_of(*object), field::Path("metadata"));
    r.strategy->validate_update(*now, *object, update);
    for (const auto& e : update) FUZZ_CHECK(false, e.text());
  }
  (void)r.strategy->warnings(*object);
}
