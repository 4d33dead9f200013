// Any bytes as an enveloped object, and as the body of several kinds: what was accepted has a JSON form that reads back.
#include <memory>

#include "kube/codec.h"
#include "kube/kinds.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::kube;

namespace {

// JSON cannot carry unknown fields, so they are left out of the comparison.
void check(const Message& accepted) {
  const std::unique_ptr<Message> known(accepted.New());
  known->CopyFrom(accepted);
  known->DiscardUnknownFields();
  if (!normalize(*known)) std::abort();  // what held only unknown fields may be empty now
  const Message& m = *known;
  const std::string text = to_json(m);
  const std::unique_ptr<Message> from_text(m.New()), from_bytes(m.New());
  const auto r = from_json(text, *from_text);
  FUZZ_CHECK(r.has_value(), text + "\n" + r.error().message);
  FUZZ_CHECK(to_json(*from_text) == text, text + "\n" + to_json(*from_text));
  const std::string bytes = to_protobuf(m);
  FUZZ_CHECK(from_protobuf(bytes, *from_bytes).has_value(), text);
  FUZZ_CHECK(to_protobuf(*from_bytes) == bytes, text);
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  if (const auto any = decode_object(bytes)) check(*any->object);
  (void)open_envelope(bytes);
  for (const auto& [api_version, kind] :
       {std::pair("v1", "Pod"), std::pair("apps/v1", "ControllerRevision"), std::pair("v1", "Service"),
        std::pair("coordination.k8s.io/v1", "Lease"), std::pair("apps/v1", "Deployment")}) {
    const std::unique_ptr<Message> m(find_kind(api_version, kind)->prototype->New());
    if (!m->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) continue;
    (void)to_json(*m);  // must hold for what nobody checked, too
    if (normalize(*m)) check(*m);
  }
}
