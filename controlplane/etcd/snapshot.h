// Snapshots in etcd's own format (a bbolt file), from and to the embedded store, so that a backup of either can be read by
// the other: `etcdctl snapshot restore` takes ours, and import_snapshot() takes etcd's. Keys, revisions, tombstones,
// leases, users and roles are carried over; members are not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "controlplane/etcd/store.h"

namespace fairlead::etcd {

inline constexpr std::size_t kSnapshotChecksumBytes = 32;  // SHA-256 of the pages, at the end of a snapshot file

struct SnapshotInfo {
  std::uint64_t bytes = 0;  // of the pages, without the checksum
  Revision revision = 0;
};

// Writes a file that is consistent at one revision, while reads and writes go on. The lowest free disk needed is the size
// of the data. Not flushed to disk.
Result<SnapshotInfo> write_snapshot(Store& store, const std::string& path);

// Makes a new store in `dir` (which must not hold one) from a snapshot or a db file of etcd 3.x.
Result<SnapshotInfo> import_snapshot(const std::string& file, const std::string& dir);

struct KvHash {
  std::uint32_t hash = 0;
  Revision compacted = 0;
  Revision revision = 0;
};
// etcd's HashKV: equal for two stores with the same history. revision 0: now.
Result<KvHash> hash_kv(Store& store, Revision revision);

}  // namespace fairlead::etcd
