// Reading ranges: which keys of a tree match, in which order, cut where, with their values fetched from memory or disk.
// Pure over its inputs apart from fetching; used for reads on a published Version and for reads inside a transaction.
#pragma once

#include "base/result.h"
#include "controlplane/etcd/index.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::etcd {

// Fetches what a RevKey points to. Gone (compacted meanwhile, or a damaged store) is data_loss.
class ValueSource {
 public:
  virtual ~ValueSource() = default;
  virtual Result<KeyValue> fetch(RevKey at) = 0;
};

// `revision` is the one to look at and `now` the tree's own; the caller has checked that it is neither compacted nor in
// the future. The response's `revision` is left to the caller.
Result<RangeResponse> read_range(View view, Revision now, Revision revision, const RangeRequest& request, ValueSource& values);

}  // namespace fairlead::etcd
