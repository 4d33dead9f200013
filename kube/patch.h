// The three patch formats of the API, as pure functions over JSON values.
//   json_patch       RFC 6902 (at most 10,000 operations; copies bounded in sum)
//   merge_patch      RFC 7396
//   strategic_patch  Kubernetes strategic merge patch: list items match by merge key as the schema says; $patch
//                    (replace, delete, merge), $retainKeys, $setElementOrder/x, $deleteFromPrimitiveList/x
// Errors: invalid_argument for a patch that is malformed (400 in the API), failed_precondition for one that does not fit
// the object, such as a failed `test` or a missing path (422). Members that the schema does not know are merged as plain
// JSON: whoever decodes the result reports them. Results are never nested deeper than the codec reads.
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
