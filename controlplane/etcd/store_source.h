// Fetches versions from memory or, when they are no longer there, from the log table. Lives for one read or one group of
// writes: while it lives, the pages it looked at are not used again.
#pragma once

#include "controlplane/etcd/store_impl.h"

namespace fairlead::etcd {

class Store::Impl::Source final : public ValueSource {
 public:
  explicit Source(Impl& store) : store_(store) {}
  void reset() { reader_.reset(); }
  bool gone() const { return gone_; }  // a version was asked for that is neither in memory nor on disk

  Result<KeyValue> fetch(RevKey at) override {
    FL_TRY(auto kv, find(at));
    if (kv) return std::move(*kv);
    gone_ = true;
    return fail(ErrorCode::data_loss, "revision {}.{} is not in the store", at.main, at.sub);
  }

  Result<std::optional<KeyValue>> find(RevKey at) {
    if (const auto txn = store_.recent_.find(at.main)) {
      if (at.sub >= txn->mutations.size()) return std::nullopt;
      return to_key_value(txn->mutations[at.sub], at.main);
    }
    const bool fresh = !reader_;
    if (fresh) {
      FL_TRY(auto reader, store_.table_->read());
      reader_.emplace(std::move(reader));
    }
    FL_TRY(auto row, reader_->get(at));
    if (!row && !fresh) {  // it may have left memory after this look at the table was taken
      reader_->renew();
      FL_TRY(row, reader_->get(at));
    }
    if (!row) return std::nullopt;
    KeyValue kv;
    kv.key = row->key;
    kv.mod_revision = at.main;
    if (row->tombstone) return kv;
    kv.create_revision = row->create;
    kv.version = row->version;
    kv.value = row->value;
    kv.lease = row->lease;
    return kv;
  }

 private:
  Impl& store_;
  std::optional<LogTable::Reader> reader_;
  bool gone_ = false;
};

}  // namespace fairlead::etcd
