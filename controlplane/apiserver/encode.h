// Answers as bytes: one object, a list, or one watch event, in the negotiated encoding and shape. Lists in protobuf are put
// together from the bytes that the caches hold, without decoding. Pure apart from the time for ages in Tables.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "controlplane/apiserver/negotiation.h"
#include "controlplane/apiserver/storage/watch_cache.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"

namespace fairlead::apiserver {

enum class IncludeObject { none, metadata, object };

struct EncodeOptions {
  Format format;
  IncludeObject include = IncludeObject::metadata;  // in Table rows
  WallTime now;
};

std::string encode_object(const Resource& resource, const Message& object, const EncodeOptions& options);
// An object that is not of the resource's own kind (Scale, Status, TokenRequest ...).
std::string encode_plain(const Message& object, std::string_view api_version, std::string_view kind, const Format& format);

struct ListBody {
  std::string resource_version;
  std::string continue_token;
  std::int64_t remaining = 0;  // 0: not told
  std::vector<EntryPtr> items;
};
std::string encode_list(const Resource& resource, const ListBody& list, const EncodeOptions& options);

// One frame of a watch. `first` Table frames carry the column definitions.
std::string encode_event(const Resource& resource, EventType type, const Entry& entry, const EncodeOptions& options, bool first);
std::string encode_bookmark(const Resource& resource, etcd::Revision revision, bool initial_events_end, const EncodeOptions& options,
                            bool first);
std::string encode_error_event(const ApiError& error, const Format& format);

metav1::Status to_status(const ApiError& error);
metav1::Status success_status(const Resource& resource, const metav1::ObjectMeta& meta);

}  // namespace fairlead::apiserver
