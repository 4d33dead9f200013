// Opening a store: the folder, its lock and format, then the index from the log table and the rest from the write-ahead log.
#include <fcntl.h>
#include <sys/file.h>

#include <charconv>

#include "base/files.h"
#include "base/log.h"
#include "controlplane/etcd/store_impl.h"
#include "controlplane/etcd/store_source.h"

namespace fairlead::etcd {
namespace {

constexpr char kFormat[] = "fairlead-etcd 1\n";

Result<> check_format(const std::string& dir) {
  const auto path = dir + "/format";
  if (!path_exists(path)) {
    if (path_exists(dir + "/log.mdb")) return fail(ErrorCode::data_loss, "{} is missing beside a log table", path);
    return write_file_atomic(path, kFormat, 0600);
  }
  FL_TRY(const auto found, read_file(path, 4096));
  if (found != kFormat)
    return fail(ErrorCode::failed_precondition, "{} says \"{}\", this program reads \"{}\": use the version that wrote it",
                path, found.substr(0, found.find('\n')), std::string(kFormat, sizeof kFormat - 2));
  return {};
}

Result<std::int64_t> number(LogTable::Reader& reader, const std::string& name, std::int64_t otherwise) {
  FL_TRY(auto text, reader.setting(name));
  if (!text) return otherwise;
  std::int64_t v = 0;
  const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), v);
  if (ec != std::errc() || end != text->data() + text->size())
    return fail(ErrorCode::data_loss, "the log table's setting {} is not a number", name);
  return v;
}

}  // namespace

Store::Impl::Impl(std::string dir, StoreOptions options)
    : dir_(std::move(dir)),
      options_(std::move(options)),
      clock_(options_.clock ? *options_.clock : SystemClock::get()),
      random_(options_.random ? *options_.random : SystemRandom::get()),
      lessor_(clock_),
      hub_(*this),
      source_(std::make_unique<Source>(*this)) {}

Result<> Store::Impl::open() {
  FL_CHECK(make_dirs(dir_, 0700));
  lock_ = Fd(::open((dir_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_) return fail_errno(errno, "open {}/lock", dir_);
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return fail(ErrorCode::failed_precondition, "another process has the store {} open", dir_);
    return fail_errno(errno, "lock {}/lock", dir_);
  }
  FL_CHECK(check_format(dir_));
  const auto map = std::max<std::uint64_t>(options_.quota_bytes * 2, std::uint64_t{16} << 30);
  FL_TRY_CTX(table_, LogTable::open(dir_ + "/log.mdb", map), "open store {}", dir_);
  FL_CHECK_CTX(recover(), "open store {}", dir_);
  writer_ = std::thread([this] { write_loop(); });
  flusher_ = std::thread([this] { flush_loop(); });
  return {};
}

Result<> Store::Impl::recover() {
  std::int64_t applied;
  {
    FL_TRY(auto reader, table_->read());
    FL_TRY(applied, number(reader, "applied", 0));
    FL_TRY(revision_, number(reader, "revision", 1));
    FL_TRY(compacted_, number(reader, "compacted", 0));
    FL_TRY(compact_done_, number(reader, "compact_done", 0));
    FL_CHECK(rebuild_index(reader));
    std::optional<Error> bad;
    FL_CHECK(reader.settings("lease/", [&](std::string_view name, std::string_view value) {
      std::uint64_t id = 0;
      std::int64_t ttl = 0;
      name.remove_prefix(6);
      std::from_chars(name.data(), name.data() + name.size(), id, 16);
      std::from_chars(value.data(), value.data() + value.size(), ttl);
      if (id == 0 || ttl <= 0) bad = Error{ErrorCode::data_loss, fmt::format("the stored lease {} is malformed", name), 0};
      lessor_.grant(static_cast<LeaseId>(id), ttl);
    }));
    if (bad) return fail(*bad);
    FL_CHECK(reader.settings("s/", [&](std::string_view name, std::string_view value) { settings_[std::string(name.substr(2))] = value; }));
  }
  compact_done_flushed_ = compact_done_;
  flushed_revision_ = revision_;
  flushed_sequence_ = static_cast<std::uint64_t>(applied);
  FL_TRY(wal_, Wal::open(dir_ + "/wal", flushed_sequence_,
                         [this](std::uint64_t sequence, std::string_view payload) { return replay(sequence, payload); }, options_.wal));
  index_.view().scan(KeyRange{{}, {}, KeyRange::Kind::open}, [&](const Item& item) {
    if (item.lease != 0) lessor_.attach(item.lease, std::string(item.key()));
    return true;
  });
  if (compacted_ > compact_done_) {
    compaction_.next = std::max<Revision>(compact_done_, 1);
    compaction_.to = compacted_;
  }
  const auto size = table_->size();
  used_bytes_ = size.used_bytes;
  file_bytes_ = size.file_bytes;
  sequence_ = wal_->last_sequence();
  hub_.start(revision_);
  publish();
  return {};
}

Result<> Store::Impl::rebuild_index(LogTable::Reader& reader) {
  return reader.scan({0, 0}, [&](RevKey at, std::string_view bytes) -> Result<bool> {
    FL_TRY(const auto row, decode_row(at, bytes));
    if (at.main > revision_) return fail(ErrorCode::data_loss, "the log table has revision {} but says it ends at {}", at.main, revision_);
    if (row.tombstone) index_.remove(row.key, at);
    else index_.put(row.key, at, row.create, row.version, row.lease);
    return true;
  });
}

Result<> Store::Impl::replay(std::uint64_t sequence, std::string_view payload) {
  FL_TRY(auto record, decode_record(payload));
  record.sequence = sequence;
  if (record.txn && record.txn->main != revision_ + 1)
    return fail(ErrorCode::data_loss, "revision {} follows {}", record.txn->main, revision_);
  take_effect(record);
  const auto bytes = 64 + (record.txn ? record.txn->bytes() : 0);
  unflushed_bytes_ += bytes;
  unflushed_.push_back(std::make_shared<Record>(std::move(record)));
  return {};
}

void Store::Impl::take_effect(const Record& r) {
  if (r.txn) {
    for (std::uint32_t sub = 0; sub < r.txn->mutations.size(); ++sub) {
      const auto& m = r.txn->mutations[sub];
      if (m.tombstone) index_.remove(m.key, {r.txn->main, sub});
      else index_.put(m.key, {r.txn->main, sub}, m.create, m.version, m.lease);
    }
    revision_ = r.txn->main;
    recent_.append(r.txn);
  }
  if (r.lease_grant) lessor_.grant(r.lease_grant->id, r.lease_grant->ttl_seconds);
  if (r.lease_revoke != 0) lessor_.revoke(r.lease_revoke);
  if (r.compact != 0) compacted_ = r.compact;
  for (const auto& s : r.settings) {
    if (s.value) settings_[s.name] = *s.value;
    else settings_.erase(s.name);
  }
}

Store::Impl::~Impl() {
  {
    std::lock_guard lock(queue_mutex_);
    stop_ = true;
  }
  queue_ready_.notify_all();
  if (writer_.joinable()) writer_.join();
  {
    std::lock_guard lock(flush_mutex_);
    flusher_stop_ = true;
  }
  flush_wanted_.notify_all();
  flushed_.notify_all();
  if (flusher_.joinable()) flusher_.join();
  hub_.stop(errors::stopped());
  version_.reset();
}

}  // namespace fairlead::etcd
