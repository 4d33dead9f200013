// Applying one write to the writer's tree: comparisons, puts, deletes and reads of a transaction, all at one new main
// revision. Everything that can fail is checked before the first change, so a failed transaction leaves nothing behind.
// Owner: the store's writer thread. Source of the rules: etcd server/etcdserver/txn, storage/mvcc/kvstore_txn.go.
#pragma once

#include "base/result.h"
#include "controlplane/etcd/index.h"
#include "controlplane/etcd/kv.h"
#include "controlplane/etcd/lessor.h"
#include "controlplane/etcd/range.h"

namespace fairlead::etcd {

class Applier {
 public:
  // `revision` is the newest one; the changes get revision + 1.
  Applier(Index& index, Lessor& lessor, ValueSource& values, Revision revision, Revision compacted)
      : index_(index), lessor_(lessor), values_(values), now_(revision), compacted_(compacted) {
    txn_.main = revision + 1;
  }
  Result<PutResponse> put(const PutRequest& r);
  Result<DeleteRangeResponse> remove(const DeleteRangeRequest& r);
  Result<TxnResponse> txn(const TxnRequest& r);
  void remove_keys(const std::vector<std::string>& keys);  // of a revoked lease

  Revision revision() const { return txn_.mutations.empty() ? now_ : txn_.main; }
  Txn take() { return std::move(txn_); }  // empty when nothing changed

 private:
  struct Own;
  Result<bool> compare(const Compare& c);
  Result<> check_puts(const TxnRequest& r, std::vector<bool>& path);
  Result<> check_put(const PutRequest& r);
  Result<> check_range(const RangeRequest& r) const;
  Result<TxnResponse> run(const TxnRequest& r, const std::vector<bool>& path, std::size_t& at);
  Result<KeyValue> fetch(RevKey at);
  Result<PutResponse> do_put(const PutRequest& r);
  Result<DeleteRangeResponse> do_remove(const DeleteRangeRequest& r);
  void remove_item(const std::string& key, RevKey prev, LeaseId lease);
  RevKey next() const { return {txn_.main, static_cast<std::uint32_t>(txn_.mutations.size())}; }

  Index& index_;
  Lessor& lessor_;
  ValueSource& values_;
  const Revision now_;
  const Revision compacted_;
  Txn txn_;
};

}  // namespace fairlead::etcd
