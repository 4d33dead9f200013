// bbolt files, as etcd keeps and snapshots its data: written densely in one pass, and read without changing them. With
// these a snapshot of the embedded store restores into a real etcd, and a real etcd's snapshot into the embedded store.
//
// Format (bbolt 1.3, version 2): pages of 4096 bytes; pages 0 and 1 are meta; a bucket is a B+tree of branch and leaf
// pages; the root bucket's leaves hold buckets. Little endian. Source: bbolt page.go, db.go, bucket.go.
// Threads: a value each. Errors: data_loss for files that are not whole; system errors with the path.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace fairlead::etcd {

class BoltWriter {
 public:
  static Result<BoltWriter> create(const std::string& path);
  void begin_bucket(std::string name);                             // buckets in order of name
  Result<> put(std::string_view key, std::string_view value);     // keys in order, without repetition
  Result<> end_bucket();
  Result<> finish();                                               // meta pages; not flushed
  std::uint64_t bytes() const;

 private:
  struct Element {
    std::string key, value;
    std::uint32_t flags = 0;
  };
  struct Child {
    std::string first;
    std::uint64_t page;
  };
  Result<> write_leaf();
  Result<std::uint64_t> write_tree();  // of what was put since begin_bucket(); the root page
  Result<> write_page(std::uint16_t flags, std::uint16_t count, std::string_view body, std::uint64_t& page);
  Result<> flush_buffer();

  std::string path_, bucket_, buffer_;
  Fd fd_;
  std::uint64_t next_page_ = 2;
  std::uint64_t buffer_offset_ = 8192;
  std::vector<Element> leaf_;
  std::size_t leaf_bytes_ = 0;
  std::vector<Child> children_;
  std::vector<Element> buckets_;
};

class BoltReader {
 public:
  static Result<BoltReader> open(const std::string& path);  // a db file, or a snapshot with its checksum at the end
  ~BoltReader();
  BoltReader(BoltReader&& o) noexcept;
  BoltReader& operator=(BoltReader&&) = delete;

  using Visit = std::function<Result<>(std::string_view key, std::string_view value)>;
  Result<> for_each(std::string_view bucket, const Visit& visit) const;  // nothing for a bucket that is not there

 private:
  BoltReader(const char* data, std::size_t size) : data_(data), size_(size) {}
  Result<> walk(std::uint64_t page, const std::function<Result<>(std::uint32_t flags, std::string_view, std::string_view)>& visit, int depth) const;
  Result<> walk_page(std::string_view page, const std::function<Result<>(std::uint32_t flags, std::string_view, std::string_view)>& visit, int depth) const;
  const char* data_;
  std::size_t size_;       // mapped
  std::size_t page_size_ = 4096;
  std::uint64_t root_ = 0;
};

}  // namespace fairlead::etcd
