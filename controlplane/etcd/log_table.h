// LogTable: the store's base on disk: an LMDB file with every retained version of every key in revision order, and named
// settings. It is written in large transactions behind the write-ahead log, so it is always a whole, slightly old state;
// the write-ahead log holds the rest.
//
// Threads: reads from any thread (each read transaction is used by one thread at a time); one Batch at a time, by the
// store's flusher. Errors: resource_exhausted when the disk or the map is full, data_loss for checksum failures.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "controlplane/etcd/record.h"

struct MDB_env;
struct MDB_txn;

namespace fairlead::etcd {

class LogTable {
 public:
  static Result<std::unique_ptr<LogTable>> open(const std::string& path, std::size_t map_bytes);
  ~LogTable();
  LogTable(const LogTable&) = delete;
  LogTable& operator=(const LogTable&) = delete;

  // A consistent look at the table. Views into it are valid while it lives.
  class Reader {
   public:
    Reader(Reader&& o) noexcept;
    Reader& operator=(Reader&&) = delete;
    ~Reader();
    Result<std::optional<RowView>> get(RevKey at) const;  // nullopt: not in the table
    // Rows from `from` on, in order; `visit` returns false to stop.
    Result<> scan(RevKey from, const std::function<Result<bool>(RevKey, std::string_view row)>& visit) const;
    Result<std::optional<std::string>> setting(const std::string& name) const;
    Result<> settings(const std::string& prefix, const std::function<void(std::string_view name, std::string_view value)>& visit) const;
    void renew();  // look again, at the newest state

   private:
    friend class LogTable;
    Reader(LogTable* table, MDB_txn* txn) : table_(table), txn_(txn) {}
    LogTable* table_;
    MDB_txn* txn_;
  };
  Result<Reader> read();

  class Batch {
   public:
    Batch(Batch&& o) noexcept;
    Batch& operator=(Batch&&) = delete;
    ~Batch();  // aborts what was not committed
    Result<> append(RevKey at, const Mutation& m);
    Result<> erase(RevKey at);
    Result<> set(const std::string& name, std::string_view value);
    Result<> unset(const std::string& name);
    Result<> commit();  // on disk when it returns

   private:
    friend class LogTable;
    Batch(LogTable* table, MDB_txn* txn) : table_(table), txn_(txn) {}
    LogTable* table_;
    MDB_txn* txn_;
    std::string row_;
  };
  Result<Batch> batch();

  struct Size {
    std::uint64_t file_bytes = 0;
    std::uint64_t used_bytes = 0;
    std::uint64_t rows = 0;
  };
  Size size() const;
  Result<> copy_compact(const std::string& path) const;  // a dense copy, while reads and writes go on

 private:
  LogTable() = default;
  MDB_env* env_ = nullptr;
  unsigned log_ = 0;
  unsigned settings_ = 0;
  std::mutex pool_mutex_;
  std::vector<MDB_txn*> pool_;  // read transactions that were reset
};

}  // namespace fairlead::etcd
