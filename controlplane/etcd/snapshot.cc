#include "controlplane/etcd/snapshot.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/files.h"
#include "controlplane/etcd/bolt.h"
#include "controlplane/etcd/crc32c.h"
#include "controlplane/etcd/errors.h"
#include "controlplane/etcd/log_table.h"
#include "controlplane/etcd/proto/kv.pb.h"

namespace fairlead::etcd {
namespace {

std::string big_endian(std::uint64_t v) {
  std::string s(8, '\0');
  for (int i = 0; i < 8; ++i) s[i] = static_cast<char>(v >> (56 - 8 * i));
  return s;
}
std::uint64_t from_big_endian(std::string_view b) {
  std::uint64_t v = 0;
  for (const char c : b.substr(0, 8)) v = v << 8 | static_cast<std::uint8_t>(c);
  return v;
}

// etcd's key of a version: main '_' sub, and 't' for a tombstone.
std::string rev_name(RevKey at, bool tombstone) {
  auto s = big_endian(static_cast<std::uint64_t>(at.main)) + "_" + big_endian(at.sub);
  if (tombstone) s += 't';
  return s;
}

std::string kv_bytes(RevKey at, const RowView& row) {
  mvccpb::KeyValue m;
  m.set_key(row.key.data(), row.key.size());
  if (!row.tombstone) {
    m.set_create_revision(row.create);
    m.set_mod_revision(at.main);
    m.set_version(row.version);
    m.set_value(row.value.data(), row.value.size());
    m.set_lease(row.lease);
  }
  return m.SerializeAsString();
}

// leasepb.Lease {ID = 1, TTL = 2}: two varint fields.
std::string lease_bytes(LeaseId id, std::int64_t ttl) {
  std::string s;
  s.push_back(0x08);
  put_varint(s, static_cast<std::uint64_t>(id));
  s.push_back(0x10);
  put_varint(s, static_cast<std::uint64_t>(ttl));
  return s;
}
Result<std::int64_t> lease_ttl(std::string_view bytes) {
  std::int64_t ttl = 0;
  while (!bytes.empty()) {
    const auto tag = static_cast<std::uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    std::uint64_t v;
    if ((tag & 7) != 0 || !get_varint(bytes, v)) return fail(ErrorCode::data_loss, "a lease of the snapshot is malformed");
    if (tag >> 3 == 2) ttl = static_cast<std::int64_t>(v);
  }
  return ttl;
}

Result<> write_auth(BoltWriter& w, const std::map<std::string, std::string>& settings) {
  w.begin_bucket("auth");
  const auto revision = settings.find("auth/revision");
  FL_CHECK(w.put("authEnabled", std::string(1, settings.contains("auth/enabled") ? '\1' : '\0')));
  FL_CHECK(w.put("authRevision", big_endian(revision == settings.end() ? 1 : std::stoull(revision->second))));
  FL_CHECK(w.end_bucket());
  for (const auto& [bucket, prefix] : {std::pair<const char*, std::string>{"authRoles", "auth/role/"}, {"authUsers", "auth/user/"}}) {
    w.begin_bucket(bucket);
    for (auto it = settings.lower_bound(prefix); it != settings.end() && it->first.starts_with(prefix); ++it)
      FL_CHECK(w.put(it->first.substr(prefix.size()), it->second));
    FL_CHECK(w.end_bucket());
  }
  return {};
}

Result<> write_empty(BoltWriter& w, const char* bucket) {
  w.begin_bucket(bucket);
  return w.end_bucket();
}

// etcd's tools find it behind the last page.
Result<> append_checksum(const std::string& path) {
  Fd file(::open(path.c_str(), O_RDWR | O_APPEND | O_CLOEXEC));
  if (!file) return fail_errno(errno, "open {}", path);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> digest(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr);
  std::vector<char> piece(1u << 20);
  for (;;) {
    const auto n = ::read(file.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read {}", path);
    if (n == 0) break;
    EVP_DigestUpdate(digest.get(), piece.data(), static_cast<std::size_t>(n));
  }
  unsigned char sum[kSnapshotChecksumBytes];
  EVP_DigestFinal_ex(digest.get(), sum, nullptr);
  if (::write(file.get(), sum, sizeof sum) != static_cast<ssize_t>(sizeof sum)) return fail_errno(errno, "write {}", path);
  return {};
}

}  // namespace

Result<SnapshotInfo> write_snapshot(Store& store, const std::string& path) {
  FL_TRY(auto w, BoltWriter::create(path));
  const auto settings = store.settings("auth/");
  FL_CHECK(write_empty(w, "alarm"));
  FL_CHECK(write_auth(w, settings));
  FL_CHECK(write_empty(w, "cluster"));
  const auto revision = store.revision();
  w.begin_bucket("key");
  // A compaction that runs meanwhile may take rows before we read them: then start again, from a newer state.
  const auto compacted = store.compacted();
  FL_CHECK(store.scan(1, revision, [&](RevKey at, const RowView& row) -> Result<bool> {
    FL_CHECK(w.put(rev_name(at, row.tombstone), kv_bytes(at, row)));
    return true;
  }));
  if (store.compacted() != compacted) return write_snapshot(store, path);
  FL_CHECK(w.end_bucket());
  w.begin_bucket("lease");
  auto leases = store.leases();
  std::sort(leases.begin(), leases.end(), [](LeaseId a, LeaseId b) { return static_cast<std::uint64_t>(a) < static_cast<std::uint64_t>(b); });
  for (const auto id : leases)
    if (const auto info = store.lease_info(id, false); info.ttl_seconds >= 0)
      FL_CHECK(w.put(big_endian(static_cast<std::uint64_t>(id)), lease_bytes(id, info.granted_ttl_seconds)));
  FL_CHECK(w.end_bucket());
  FL_CHECK(write_empty(w, "members"));
  FL_CHECK(write_empty(w, "members_removed"));
  w.begin_bucket("meta");
  FL_CHECK(w.put("consistent_index", big_endian(store.status().sequence)));
  if (compacted > 0) {
    FL_CHECK(w.put("finishedCompactRev", rev_name({compacted, 0}, false)));
    FL_CHECK(w.put("scheduledCompactRev", rev_name({compacted, 0}, false)));
  }
  FL_CHECK(w.end_bucket());
  FL_CHECK(w.finish());
  FL_CHECK(append_checksum(path));
  return SnapshotInfo{w.bytes(), revision};
}

namespace {

// Puts etcd's rows into a new log table, in transactions of bounded size.
class Importer {
 public:
  explicit Importer(LogTable& table) : table_(table) {}
  Result<> row(std::string_view name, std::string_view value) {
    if (name.size() < 17 || name[8] != '_') return fail(ErrorCode::data_loss, "a revision of the snapshot is malformed");
    const RevKey at{static_cast<Revision>(from_big_endian(name)), static_cast<std::uint32_t>(from_big_endian(name.substr(9)))};
    mvccpb::KeyValue m;
    if (!m.ParseFromArray(value.data(), static_cast<int>(value.size()))) return fail(ErrorCode::data_loss, "revision {} of the snapshot is malformed", at.main);
    Mutation mutation;
    mutation.tombstone = name.size() == 18 && name[17] == 't';
    mutation.key = m.key();
    if (const auto it = alive_.find(m.key()); it != alive_.end()) mutation.prev = it->second;
    if (mutation.tombstone) {
      alive_.erase(m.key());
    } else {
      mutation.value = m.value();
      mutation.create = m.create_revision();
      mutation.version = m.version();
      mutation.lease = m.lease();
      alive_[m.key()] = at;
    }
    revision_ = at.main;
    FL_CHECK(open());
    FL_CHECK(batch_->append(at, mutation));
    if (++rows_ % 50'000 == 0) return close();
    return {};
  }
  Result<> set(const std::string& name, std::string_view value) {
    FL_CHECK(open());
    return batch_->set(name, value);
  }
  Result<> close() {
    if (!batch_) return {};
    auto done = batch_->commit();
    batch_.reset();
    return done;
  }
  Revision revision() const { return revision_; }

 private:
  Result<> open() {
    if (batch_) return {};
    FL_TRY(auto b, table_.batch());
    batch_.emplace(std::move(b));
    return {};
  }
  LogTable& table_;
  std::optional<LogTable::Batch> batch_;
  std::unordered_map<std::string, RevKey> alive_;
  std::size_t rows_ = 0;
  Revision revision_ = 1;
};

Result<> import_rest(const BoltReader& file, Importer& to) {
  Revision compacted = 0;
  FL_CHECK(file.for_each("meta", [&](std::string_view name, std::string_view value) -> Result<> {
    if (name == "scheduledCompactRev" && value.size() >= 8) compacted = static_cast<Revision>(from_big_endian(value));
    return {};
  }));
  FL_CHECK(file.for_each("lease", [&](std::string_view name, std::string_view value) -> Result<> {
    FL_TRY(const auto ttl, lease_ttl(value));
    return to.set(fmt::format("lease/{:016x}", from_big_endian(name)), std::to_string(ttl));
  }));
  FL_CHECK(file.for_each("auth", [&](std::string_view name, std::string_view value) -> Result<> {
    if (name == "authEnabled" && value == std::string_view("\1", 1)) return to.set("s/auth/enabled", "");
    if (name == "authRevision" && value.size() == 8) return to.set("s/auth/revision", std::to_string(from_big_endian(value)));
    return {};
  }));
  for (const auto& [bucket, prefix] : {std::pair<const char*, std::string>{"authRoles", "s/auth/role/"}, {"authUsers", "s/auth/user/"}})
    FL_CHECK(file.for_each(bucket, [&, p = prefix](std::string_view name, std::string_view value) { return to.set(p + std::string(name), value); }));
  // The newest revision may have been a deletion that was compacted away.
  const auto revision = std::max(to.revision(), compacted);
  FL_CHECK(to.set("revision", std::to_string(revision)));
  FL_CHECK(to.set("compacted", std::to_string(compacted)));
  FL_CHECK(to.set("compact_done", "0"));  // look again: etcd may have been in the middle of one
  return to.close();
}

}  // namespace

Result<SnapshotInfo> import_snapshot(const std::string& file, const std::string& dir) {
  if (path_exists(dir + "/format")) return fail(ErrorCode::already_exists, "{} holds a store already", dir);
  FL_TRY_CTX(const auto bolt, BoltReader::open(file), "read snapshot");
  FL_CHECK(make_dirs(dir, 0700));
  SnapshotInfo info;
  {
    FL_TRY(auto table, LogTable::open(dir + "/log.mdb", std::size_t{64} << 30));
    Importer importer(*table);
    FL_CHECK_CTX(bolt.for_each("key", [&](std::string_view name, std::string_view value) { return importer.row(name, value); }), "import {}", file);
    FL_CHECK_CTX(import_rest(bolt, importer), "import {}", file);
    info.revision = importer.revision();
    info.bytes = table->size().used_bytes;
  }
  FL_CHECK(write_file_atomic(dir + "/format", "fairlead-etcd 1\n", 0600));  // last: without it, this is not a store
  return info;
}

Result<KvHash> hash_kv(Store& store, Revision revision) {
  const auto now = store.revision();
  const auto compacted = store.compacted();
  if (revision > now) return fail(errors::future_revision());
  if (revision != 0 && revision < compacted) return fail(errors::compacted());
  KvHash out{crc32c(0, "key"), compacted, revision == 0 ? now : revision};
  // Of what the compaction left, etcd counts the versions that are still the newest of their key at the hashed revision; all
  // of them if no key lives then.
  FL_TRY(const auto alive, store.range_now({.key = std::string(1, '\0'), .range_end = std::string(1, '\0'), .revision = out.revision, .count_only = true}));
  const Revision judged_at = alive.count == 0 ? compacted : out.revision;
  FL_CHECK(store.scan(1, out.revision, [&](RevKey at, const RowView& row) -> Result<bool> {
    if (at.main <= compacted) {
      if (row.tombstone) return true;
      FL_TRY(const auto newest, store.range_now({.key = std::string(row.key), .revision = judged_at, .keys_only = true}));
      if (newest.kvs.empty() || newest.kvs[0].mod_revision != at.main) return true;
    }
    out.hash = crc32c(crc32c(out.hash, rev_name(at, row.tombstone)), kv_bytes(at, row));
    return true;
  }));
  return out;
}

}  // namespace fairlead::etcd
