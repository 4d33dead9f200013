// The bytes of an object in the store, as kube-apiserver writes them: protobuf in the "k8s\0" envelope, or JSON for custom
// resources and their definitions. Pure.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "controlplane/apiserver/resource.h"

namespace fairlead::apiserver {

// `object` is of the type that `resource` serves; resourceVersion is left out, for it is the key's revision.
std::string encode_value(const Resource& resource, const Message& object);
// In the stored type. `key` is for errors.
Result<std::unique_ptr<Message>> decode_value(const Resource& resource, std::string_view key, std::string_view value);

}  // namespace fairlead::apiserver
