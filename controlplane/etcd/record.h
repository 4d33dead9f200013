// What the store writes: transactions and the rarer entries (leases, named settings, compaction), and their bytes.
//
// A Record is the unit of atomicity: it is in the write-ahead log whole or not at all. Its Txn, when there is one, is one
// main revision; the mutations are its sub revisions 0, 1, ... Values, no shared state. Decoders accept any bytes and
// fail with data_loss.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "controlplane/etcd/kv.h"

namespace fairlead::etcd {

// Where a version of a key lives: main revision and position inside its transaction. main == 0: nowhere.
struct RevKey {
  Revision main = 0;
  std::uint32_t sub = 0;
  auto operator<=>(const RevKey&) const = default;
};

struct Mutation {
  bool tombstone = false;
  std::string key;
  std::string value;
  Revision create = 0;
  std::int64_t version = 0;
  LeaseId lease = 0;
  RevKey prev;  // the version this one replaced, when it was alive
  std::shared_ptr<const KeyValue> before;  // that version itself, when a watcher asked; not stored
};

struct Txn {
  Revision main = 0;
  std::vector<Mutation> mutations;
  std::size_t bytes() const;
};

KeyValue to_key_value(const Mutation& m, Revision main);

struct LeaseGrantEntry {
  LeaseId id = 0;
  std::int64_t ttl_seconds = 0;
};
// A named value beside the keys: alarms, users, roles. nullopt removes it.
struct SettingEntry {
  std::string name;
  std::optional<std::string> value;
};

struct Record {
  std::uint64_t sequence = 0;  // position in the write-ahead log
  std::shared_ptr<const Txn> txn;
  std::optional<LeaseGrantEntry> lease_grant;
  LeaseId lease_revoke = 0;
  Revision compact = 0;
  std::vector<SettingEntry> settings;
};

// The payload of a write-ahead log record (the sequence is in its frame).
void encode_record(const Record& r, std::string& out);
Result<Record> decode_record(std::string_view bytes);

// One row of the log table: checksum, then the mutation. `at` is part of the checksum, so a row in the wrong place fails.
void encode_row(RevKey at, const Mutation& m, std::string& out);
struct RowView {
  bool tombstone = false;
  std::string_view key;
  std::string_view value;
  Revision create = 0;
  std::int64_t version = 0;
  LeaseId lease = 0;
  RevKey prev;
};
Result<RowView> decode_row(RevKey at, std::string_view bytes);

// 12 bytes, big endian, so that rows sort by revision.
std::string encode_rev_key(RevKey k);
RevKey decode_rev_key(std::string_view bytes);

void put_varint(std::string& out, std::uint64_t v);
bool get_varint(std::string_view& in, std::uint64_t& v);

}  // namespace fairlead::etcd
