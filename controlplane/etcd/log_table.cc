#include "controlplane/etcd/log_table.h"

#include <lmdb.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <utility>

namespace fairlead::etcd {
namespace {

Error lmdb_error(int rc, std::string_view what) {
  if (rc == MDB_MAP_FULL || rc == ENOSPC || rc == EDQUOT)
    return Error{ErrorCode::resource_exhausted, fmt::format("{}: {}", what, mdb_strerror(rc)), rc > 0 ? rc : 0};
  if (rc > 0) return errno_error(rc, what);
  const auto code = rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID || rc == MDB_PANIC
                        ? ErrorCode::data_loss : ErrorCode::internal;
  return Error{code, fmt::format("{}: {}", what, mdb_strerror(rc)), 0};
}
Failure lmdb_fail(int rc, std::string_view what) { return fail(lmdb_error(rc, what)); }

MDB_val val(std::string_view s) { return {s.size(), const_cast<char*>(s.data())}; }
std::string_view view(const MDB_val& v) { return {static_cast<const char*>(v.mv_data), v.mv_size}; }

bool nearly_full(MDB_env* env) {
  constexpr std::uint64_t kLittle = 1u << 20;
  mdb_filehandle_t fd;
  struct statvfs s {};
  return mdb_env_get_fd(env, &fd) == 0 && ::fstatvfs(fd, &s) == 0 && std::uint64_t{s.f_bavail} * s.f_frsize < kLittle;
}

constexpr unsigned kReaders = 1024;
constexpr std::size_t kPooled = 64;

}  // namespace

Result<std::unique_ptr<LogTable>> LogTable::open(const std::string& path, std::size_t map_bytes) {
  std::unique_ptr<LogTable> t(new LogTable);
  if (int rc = mdb_env_create(&t->env_)) return lmdb_fail(rc, "create LMDB environment");
  mdb_env_set_maxdbs(t->env_, 4);
  mdb_env_set_maxreaders(t->env_, kReaders);
  mdb_env_set_mapsize(t->env_, map_bytes);
  if (int rc = mdb_env_open(t->env_, path.c_str(), MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD, 0600))
    return lmdb_fail(rc, "open " + path);
  MDB_txn* txn = nullptr;
  if (int rc = mdb_txn_begin(t->env_, nullptr, 0, &txn)) return lmdb_fail(rc, "begin transaction in " + path);
  int rc = mdb_dbi_open(txn, "log", MDB_CREATE, &t->log_);
  if (rc == 0) rc = mdb_dbi_open(txn, "settings", MDB_CREATE, &t->settings_);
  if (rc != 0) {
    mdb_txn_abort(txn);
    return lmdb_fail(rc, "open the tables in " + path);
  }
  if (rc = mdb_txn_commit(txn); rc != 0) return lmdb_fail(rc, "create the tables in " + path);
  return t;
}

LogTable::~LogTable() {
  for (auto* t : pool_) mdb_txn_abort(t);
  if (env_) mdb_env_close(env_);
}

Result<LogTable::Reader> LogTable::read() {
  MDB_txn* txn = nullptr;
  {
    std::lock_guard lock(pool_mutex_);
    if (!pool_.empty()) {
      txn = pool_.back();
      pool_.pop_back();
    }
  }
  int rc = txn ? mdb_txn_renew(txn) : mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn);
  if (rc == MDB_READERS_FULL) return fail(ErrorCode::resource_exhausted, "more than {} reads at once", kReaders);
  if (rc != 0) return lmdb_fail(rc, "begin read");
  return Reader(this, txn);
}

LogTable::Reader::Reader(Reader&& o) noexcept : table_(o.table_), txn_(std::exchange(o.txn_, nullptr)) {}

LogTable::Reader::~Reader() {
  if (!txn_) return;
  mdb_txn_reset(txn_);
  {
    std::lock_guard lock(table_->pool_mutex_);
    if (table_->pool_.size() < kPooled) {
      table_->pool_.push_back(txn_);
      return;
    }
  }
  mdb_txn_abort(txn_);
}

void LogTable::Reader::renew() {
  mdb_txn_reset(txn_);
  mdb_txn_renew(txn_);
}

Result<std::optional<RowView>> LogTable::Reader::get(RevKey at) const {
  const auto key = encode_rev_key(at);
  auto k = val(key);
  MDB_val v;
  const int rc = mdb_get(txn_, table_->log_, &k, &v);
  if (rc == MDB_NOTFOUND) return std::nullopt;
  if (rc != 0) return lmdb_fail(rc, "read log table");
  FL_TRY(auto row, decode_row(at, view(v)));
  return row;
}

Result<> LogTable::Reader::scan(RevKey from, const std::function<Result<bool>(RevKey, std::string_view)>& visit) const {
  MDB_cursor* cursor = nullptr;
  if (int rc = mdb_cursor_open(txn_, table_->log_, &cursor)) return lmdb_fail(rc, "read log table");
  std::unique_ptr<MDB_cursor, void (*)(MDB_cursor*)> guard(cursor, mdb_cursor_close);
  const auto start = encode_rev_key(from);
  auto k = val(start);
  MDB_val v;
  int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
  for (; rc == 0; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
    FL_TRY(const bool more, visit(decode_rev_key(view(k)), view(v)));
    if (!more) return {};
  }
  if (rc != MDB_NOTFOUND) return lmdb_fail(rc, "read log table");
  return {};
}

Result<std::optional<std::string>> LogTable::Reader::setting(const std::string& name) const {
  auto k = val(name);
  MDB_val v;
  const int rc = mdb_get(txn_, table_->settings_, &k, &v);
  if (rc == MDB_NOTFOUND) return std::nullopt;
  if (rc != 0) return lmdb_fail(rc, "read setting " + name);
  return std::string(view(v));
}

Result<> LogTable::Reader::settings(const std::string& prefix,
                                    const std::function<void(std::string_view, std::string_view)>& visit) const {
  MDB_cursor* cursor = nullptr;
  if (int rc = mdb_cursor_open(txn_, table_->settings_, &cursor)) return lmdb_fail(rc, "read settings");
  std::unique_ptr<MDB_cursor, void (*)(MDB_cursor*)> guard(cursor, mdb_cursor_close);
  auto k = val(prefix);
  MDB_val v;
  int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
  for (; rc == 0 && view(k).starts_with(prefix); rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) visit(view(k), view(v));
  if (rc != 0 && rc != MDB_NOTFOUND) return lmdb_fail(rc, "read settings");
  return {};
}

Result<LogTable::Batch> LogTable::batch() {
  MDB_txn* txn = nullptr;
  if (int rc = mdb_txn_begin(env_, nullptr, 0, &txn)) return lmdb_fail(rc, "begin batch");
  return Batch(this, txn);
}

LogTable::Batch::Batch(Batch&& o) noexcept : table_(o.table_), txn_(std::exchange(o.txn_, nullptr)) {}
LogTable::Batch::~Batch() {
  if (txn_) mdb_txn_abort(txn_);
}

Result<> LogTable::Batch::append(RevKey at, const Mutation& m) {
  encode_row(at, m, row_);
  const auto key = encode_rev_key(at);
  auto k = val(key);
  auto v = val(row_);
  if (int rc = mdb_put(txn_, table_->log_, &k, &v, MDB_APPEND)) return lmdb_fail(rc, "append to log table");
  return {};
}

Result<> LogTable::Batch::erase(RevKey at) {
  const auto key = encode_rev_key(at);
  auto k = val(key);
  if (int rc = mdb_del(txn_, table_->log_, &k, nullptr); rc != 0 && rc != MDB_NOTFOUND)
    return lmdb_fail(rc, "delete from log table");
  return {};
}

Result<> LogTable::Batch::set(const std::string& name, std::string_view value) {
  auto k = val(name);
  auto v = val(value);
  if (int rc = mdb_put(txn_, table_->settings_, &k, &v, 0)) return lmdb_fail(rc, "write setting " + name);
  return {};
}

Result<> LogTable::Batch::unset(const std::string& name) {
  auto k = val(name);
  if (int rc = mdb_del(txn_, table_->settings_, &k, nullptr); rc != 0 && rc != MDB_NOTFOUND)
    return lmdb_fail(rc, "remove setting " + name);
  return {};
}

Result<> LogTable::Batch::commit() {
  int rc = mdb_txn_commit(std::exchange(txn_, nullptr));
  if (rc == EIO && nearly_full(table_->env_)) rc = ENOSPC;  // what LMDB calls a write that came out short
  if (rc != 0) return lmdb_fail(rc, "commit to log table");
  return {};
}

LogTable::Size LogTable::size() const {
  Size out;
  MDB_envinfo info;
  MDB_stat stat;
  if (mdb_env_info(env_, &info) != 0 || mdb_env_stat(env_, &stat) != 0) return out;
  out.file_bytes = (info.me_last_pgno + 1) * stat.ms_psize;
  auto reader = const_cast<LogTable*>(this)->read();
  if (!reader) return out;
  for (const auto dbi : {log_, settings_}) {
    if (mdb_stat(reader->txn_, dbi, &stat) != 0) continue;
    out.used_bytes += (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) * stat.ms_psize;
    if (dbi == log_) out.rows = stat.ms_entries;
  }
  return out;
}

Result<> LogTable::copy_compact(const std::string& path) const {
  if (int rc = mdb_env_copy2(env_, path.c_str(), MDB_CP_COMPACT)) return lmdb_fail(rc, "copy store to " + path);
  return {};
}

}  // namespace fairlead::etcd
