// A toy of the store: plain maps and whole copies, so slow and so simple that it is right by reading. The real one is
// compared with it. Written from etcd's description of its data model, not from the store's code.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::etcd {

class Model {
 public:
  Result<RangeResponse> range(const RangeRequest& r) const;
  Result<PutResponse> put(const PutRequest& r);
  Result<DeleteRangeResponse> remove(const DeleteRangeRequest& r);
  Result<TxnResponse> txn(const TxnRequest& r);
  Result<Revision> compact(Revision r);
  void grant(LeaseId id) { leases_[id]; }
  Result<Revision> revoke(LeaseId id);

  Revision revision() const { return revision_; }
  Revision compacted() const { return compacted_; }
  // What a watch from `from` must see, prev_kv included where it was asked for and not compacted at `compacted`.
  std::vector<Event> events(const WatchRequest& w, Revision from, Revision compacted) const;

 private:
  using State = std::map<std::string, KeyValue>;
  RangeResponse read(const State& state, const RangeRequest& r) const;
  Result<> check(const TxnRequest& r, const State& state, std::vector<bool>& path) const;
  TxnResponse run(const TxnRequest& r, const std::vector<bool>& path, std::size_t& at, State& state, bool& wrote);
  PutResponse do_put(const PutRequest& r, State& state, bool& wrote);
  DeleteRangeResponse do_remove(const DeleteRangeRequest& r, State& state, bool& wrote);
  void finish(State state, bool wrote);

  Revision revision_ = 1;
  Revision compacted_ = 0;
  std::map<Revision, State> states_{{1, {}}};
  std::map<Revision, std::vector<Event>> log_;
  std::vector<Event> pending_;
  std::map<LeaseId, std::set<std::string>> leases_;
};

bool model_in_range(const std::string& key, const std::string& range_end, const std::string& k);

}  // namespace fairlead::etcd
