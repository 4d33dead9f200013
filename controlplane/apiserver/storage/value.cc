#include "controlplane/apiserver/storage/value.h"

#include "kube/codec.h"
#include "kube/proto/apimachinery/runtime.pb.h"

namespace fairlead::apiserver {
namespace {

Result<std::unique_ptr<Message>> decode_json(const Resource& resource, std::string_view value) {
  FL_TRY(auto json, kube::parse_json(value));
  auto* object = json.if_object();
  if (!object) return fail(ErrorCode::data_loss, "not a JSON object");
  if (resource.upgrade) resource.upgrade(*object);
  std::unique_ptr<Message> stored(resource.storage_kind->prototype->New());
  FL_CHECK(kube::from_json_value(json, *stored));
  return stored;
}

}  // namespace

std::string encode_value(const Resource& resource, const Message& object) {
  std::unique_ptr<Message> stored;
  if (resource.to_storage) {
    stored.reset(resource.storage_kind->prototype->New());
    resource.to_storage(object, *stored);
  } else {
    stored = clone(object);
  }
  auto& meta = mutable_meta_of(*stored);
  meta.clear_resourceversion();  // it is the key's revision
  meta.clear_selflink();
  if (resource.json_only) {
    std::string out;
    kube::append_json(out, *stored, resource.storage_kind->api_version(), resource.storage_kind->kind);
    return out;
  }
  // Deterministic, so that an update that changes nothing is seen to change nothing.
  runtimepb::Unknown envelope;
  envelope.mutable_typemeta()->set_apiversion(resource.storage_kind->api_version());
  envelope.mutable_typemeta()->set_kind(std::string(resource.storage_kind->kind));
  envelope.set_raw(deterministic_bytes(*stored));
  return std::string("k8s\0", 4) + envelope.SerializeAsString();
}

Result<std::unique_ptr<Message>> decode_value(const Resource& resource, std::string_view key, std::string_view value) {
  if (resource.json_only) {
    FL_TRY_CTX(auto stored, decode_json(resource, value), "stored object {}", key);
    return stored;
  }
  FL_TRY_CTX(auto envelope, kube::open_envelope(value), "stored object {}", key);
  std::unique_ptr<Message> stored(resource.storage_kind->prototype->New());
  if (!stored->ParseFromString(envelope.raw)) return fail(ErrorCode::data_loss, "stored object {}: malformed protobuf", key);
  return stored;
}

}  // namespace fairlead::apiserver
