// Any text as JSON, and as objects of several kinds: what was read can be written and reads back as the same bytes.
#include <memory>

#include "kube/api.h"
#include "kube/codec.h"
#include "kube/kinds.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::kube;

namespace {

void as_message(std::string_view text, const Message& type) {
  const std::unique_ptr<Message> m(type.New()), again(type.New());
  std::vector<std::string> strict;
  if (!from_json(text, *m, {.strict = &strict})) return;
  const std::string written = to_json(*m);
  const auto r = from_json(written, *again);
  FUZZ_CHECK(r.has_value(), written);
  FUZZ_CHECK(to_json(*again) == written, written);
  FUZZ_CHECK(to_protobuf(*again, "v1", "X") == to_protobuf(*m, "v1", "X"), written);
  FUZZ_CHECK(from_protobuf(to_protobuf(*m, "v1", "X"), *again).has_value(), written);
  FUZZ_CHECK(to_json(*again) == written, written);
  (void)to_json_value(*m);
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  std::vector<std::string> strict;
  const auto v = parse_json(bytes, {.strict = &strict});
  FUZZ_CHECK(strict.size() <= 100, "strict errors");
  if (v) {
    const std::string text = to_json(*v);
    const auto again = parse_json(text);
    FUZZ_CHECK(again.has_value(), text);
    FUZZ_CHECK(to_json(*again) == text, text);
  }
  for (const auto name : {"Pod", "Service", "Node", "Secret", "ConfigMap", "Event"})
    as_message(bytes, *find_kind("v1", name)->prototype);
  as_message(bytes, *find_kind("apps/v1", "Deployment")->prototype);
  as_message(bytes, *find_kind("apps/v1", "ControllerRevision")->prototype);
  as_message(bytes, *find_kind("coordination.k8s.io/v1", "Lease")->prototype);
  as_message(bytes, metav1::Status::default_instance());
  (void)decode_object(bytes);
}
