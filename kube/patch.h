// The three patch formats of the API, as pure functions over JSON values.
//   json_patch       RFC 6902 (at most 10,000 operations)
//   merge_patch      RFC 7396
//   strategic_patch  Kubernetes strategic merge patch: list items match by merge key as the schema says; $patch
//                    (replace, delete, merge), $retainKeys, $setElementOrder/x, $deleteFromPrimitiveList/x
#pragma once

#include <google/protobuf/descriptor.h>

#include <boost/json/value.hpp>

#include "base/result.h"

namespace fairlead::kube {

Result<boost::json::value> json_patch(const boost::json::value& target, const boost::json::value& patch);
Result<boost::json::value> merge_patch(const boost::json::value& target, const boost::json::value& patch);
Result<boost::json::value> strategic_patch(const boost::json::value& target, const boost::json::value& patch,
                                           const google::protobuf::Descriptor& schema);

}  // namespace fairlead::kube
