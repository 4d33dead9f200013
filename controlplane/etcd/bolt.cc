#include "controlplane/etcd/bolt.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace fairlead::etcd {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::uint16_t kBranch = 1, kLeaf = 2, kMeta = 4, kFreelist = 16;
constexpr std::uint32_t kBucketFlag = 1;
constexpr int kMaxDepth = 64;

struct PageHeader {
  std::uint64_t id;
  std::uint16_t flags;
  std::uint16_t count;
  std::uint32_t overflow;
};
struct LeafElement {
  std::uint32_t flags, pos, key_size, value_size;
};
struct BranchElement {
  std::uint32_t pos, key_size;
  std::uint64_t page;
};
struct Meta {
  std::uint32_t magic, version, page_size, flags;
  std::uint64_t root_page, root_sequence, freelist, high_page, transaction, checksum;
};
static_assert(sizeof(PageHeader) == 16 && sizeof(LeafElement) == 16 && sizeof(BranchElement) == 16 && sizeof(Meta) == 64);
constexpr std::uint32_t kMagic = 0xED0CDAED;

std::uint64_t fnv1a(std::string_view bytes) {
  std::uint64_t h = 14695981039346656037ull;
  for (const char c : bytes) h = (h ^ static_cast<std::uint8_t>(c)) * 1099511628211ull;
  return h;
}
template <typename T>
std::string_view raw(const T& v) {
  return {reinterpret_cast<const char*>(&v), sizeof v};
}
template <typename T>
T load(const char* at) {
  T v;
  std::memcpy(&v, at, sizeof v);
  return v;
}
std::uint64_t checksum(const Meta& m) { return fnv1a(raw(m).substr(0, offsetof(Meta, checksum))); }

Result<> write_at(int fd, std::string_view bytes, std::uint64_t offset, const std::string& path) {
  while (!bytes.empty()) {
    const auto n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write {}", path);
    bytes.remove_prefix(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

}  // namespace

Result<BoltWriter> BoltWriter::create(const std::string& path) {
  BoltWriter w;
  w.path_ = path;
  w.fd_ = Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!w.fd_) return fail_errno(errno, "create {}", path);
  return w;
}

std::uint64_t BoltWriter::bytes() const { return next_page_ * kPage; }

Result<> BoltWriter::flush_buffer() {
  FL_CHECK(write_at(fd_.get(), buffer_, buffer_offset_, path_));
  buffer_offset_ += buffer_.size();
  buffer_.clear();
  return {};
}

Result<> BoltWriter::write_page(std::uint16_t flags, std::uint16_t count, std::string_view body, std::uint64_t& page) {
  const auto pages = std::max<std::size_t>(1, (sizeof(PageHeader) + body.size() + kPage - 1) / kPage);
  page = next_page_;
  next_page_ += pages;
  const PageHeader h{page, flags, count, static_cast<std::uint32_t>(pages - 1)};
  buffer_.append(raw(h));
  buffer_.append(body);
  buffer_.append(pages * kPage - sizeof h - body.size(), '\0');
  if (buffer_.size() >= (1u << 20)) return flush_buffer();
  return {};
}

void BoltWriter::begin_bucket(std::string name) {
  bucket_ = std::move(name);
  leaf_.clear();
  leaf_bytes_ = 0;
  children_.clear();
}

Result<> BoltWriter::put(std::string_view key, std::string_view value) {
  const auto size = sizeof(LeafElement) + key.size() + value.size();
  if (!leaf_.empty() && sizeof(PageHeader) + leaf_bytes_ + size > kPage) FL_CHECK(write_leaf());
  leaf_.push_back({std::string(key), std::string(value), 0});
  leaf_bytes_ += size;
  return {};
}

Result<> BoltWriter::write_leaf() {
  std::string elements, data;
  for (std::size_t i = 0; i < leaf_.size(); ++i) {
    const auto& e = leaf_[i];
    // `pos` counts from the element itself.
    const auto pos = (leaf_.size() - i) * sizeof(LeafElement) + data.size();
    elements.append(raw(LeafElement{e.flags, static_cast<std::uint32_t>(pos), static_cast<std::uint32_t>(e.key.size()),
                                    static_cast<std::uint32_t>(e.value.size())}));
    data += e.key;
    data += e.value;
  }
  std::uint64_t page;
  FL_CHECK(write_page(kLeaf, static_cast<std::uint16_t>(leaf_.size()), elements + data, page));
  children_.push_back({leaf_.empty() ? std::string() : leaf_.front().key, page});
  leaf_.clear();
  leaf_bytes_ = 0;
  return {};
}

Result<std::uint64_t> BoltWriter::write_tree() {
  if (!leaf_.empty() || children_.empty()) FL_CHECK(write_leaf());
  while (children_.size() > 1) {
    std::vector<Child> above;
    for (std::size_t i = 0; i < children_.size();) {
      std::size_t n = 0, bytes = sizeof(PageHeader);
      while (i + n < children_.size() && (n < 2 || bytes + sizeof(BranchElement) + children_[i + n].first.size() <= kPage))
        bytes += sizeof(BranchElement) + children_[i + n++].first.size();
      if (children_.size() - i - n == 1 && n > 2) --n;  // no branch with a single child
      std::string elements, data;
      for (std::size_t k = 0; k < n; ++k) {
        const auto& c = children_[i + k];
        const auto pos = (n - k) * sizeof(BranchElement) + data.size();
        elements.append(raw(BranchElement{static_cast<std::uint32_t>(pos), static_cast<std::uint32_t>(c.first.size()), c.page}));
        data += c.first;
      }
      std::uint64_t page;
      FL_CHECK(write_page(kBranch, static_cast<std::uint16_t>(n), elements + data, page));
      above.push_back({children_[i].first, page});
      i += n;
    }
    children_ = std::move(above);
  }
  const auto root = children_.front().page;
  children_.clear();
  return root;
}

Result<> BoltWriter::end_bucket() {
  FL_TRY(const auto root, write_tree());
  std::string header(raw(root));
  header.append(8, '\0');  // sequence
  buckets_.push_back({bucket_, header, kBucketFlag});
  return {};
}

Result<> BoltWriter::finish() {
  leaf_ = std::move(buckets_);
  leaf_bytes_ = 0;
  children_.clear();
  FL_TRY(const auto root, write_tree());
  std::uint64_t freelist;
  FL_CHECK(write_page(kFreelist, 0, {}, freelist));
  FL_CHECK(flush_buffer());
  std::string head;
  for (std::uint64_t i = 0; i < 2; ++i) {
    Meta m{kMagic, 2, kPage, 0, root, 0, freelist, next_page_, i + 1, 0};
    m.checksum = checksum(m);
    head.append(raw(PageHeader{i, kMeta, 0, 0}));
    head.append(raw(m));
    head.append(kPage - sizeof(PageHeader) - sizeof(Meta), '\0');
  }
  return write_at(fd_.get(), head, 0, path_);
}

Result<BoltReader> BoltReader::open(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open {}", path);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, "stat {}", path);
  const auto size = static_cast<std::size_t>(st.st_size);
  if (size < 2 * kPage) return fail(ErrorCode::data_loss, "{}: too short for a bbolt file", path);
  auto* data = static_cast<const char*>(::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0));
  if (data == MAP_FAILED) return fail_errno(errno, "map {}", path);
  BoltReader r(data, size);
  if (size % 512 == SHA256_DIGEST_LENGTH) {
    unsigned char sum[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char*>(data), size - sizeof sum, sum);
    if (std::memcmp(sum, data + size - sizeof sum, sizeof sum) != 0) return fail(ErrorCode::data_loss, "{}: the checksum at its end does not match", path);
  }
  std::uint64_t best = 0;
  bool found = false;
  const auto first = load<Meta>(data + sizeof(PageHeader));
  const std::size_t second = first.magic == kMagic && first.page_size >= 512 && first.page_size <= 65536 ? first.page_size : kPage;
  for (const auto at : {std::size_t{0}, second}) {
    if (at + sizeof(PageHeader) + sizeof(Meta) > size) continue;
    const auto m = load<Meta>(data + at + sizeof(PageHeader));
    if (m.magic != kMagic || m.version != 2 || m.checksum != checksum(m) || m.page_size < 512 || (found && m.transaction < best)) continue;
    found = true;
    best = m.transaction;
    r.root_ = m.root_page;
    r.page_size_ = m.page_size;
  }
  if (!found) return fail(ErrorCode::data_loss, "{}: no valid meta page, this is not a bbolt file", path);
  return r;
}

BoltReader::BoltReader(BoltReader&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)), size_(o.size_), page_size_(o.page_size_), root_(o.root_) {}
BoltReader::~BoltReader() {
  if (data_) ::munmap(const_cast<char*>(data_), size_);
}

Result<> BoltReader::walk(std::uint64_t page, const std::function<Result<>(std::uint32_t, std::string_view, std::string_view)>& visit, int depth) const {
  if (page >= size_ / page_size_) return fail(ErrorCode::data_loss, "page {} lies outside the file", page);
  const auto at = page * page_size_;
  const auto h = load<PageHeader>(data_ + at);
  const auto length = (std::uint64_t{h.overflow} + 1) * page_size_;
  if (h.id != page || length > size_ - at) return fail(ErrorCode::data_loss, "page {} is damaged", page);
  return walk_page({data_ + at, length}, visit, depth);
}

Result<> BoltReader::walk_page(std::string_view page, const std::function<Result<>(std::uint32_t, std::string_view, std::string_view)>& visit, int depth) const {
  const auto damaged = [&] { return fail(ErrorCode::data_loss, "a page of the bbolt file is damaged"); };
  if (depth > kMaxDepth || page.size() < sizeof(PageHeader)) return damaged();
  const auto h = load<PageHeader>(page.data());
  if (sizeof(PageHeader) + std::size_t{h.count} * 16 > page.size()) return damaged();
  for (std::uint16_t i = 0; i < h.count; ++i) {
    const std::size_t at = sizeof(PageHeader) + std::size_t{i} * 16;
    if (h.flags & kBranch) {
      FL_CHECK(walk(load<BranchElement>(page.data() + at).page, visit, depth + 1));
    } else if (h.flags & kLeaf) {
      const auto e = load<LeafElement>(page.data() + at);
      const auto begin = at + e.pos;
      if (begin > page.size() || std::uint64_t{e.key_size} + e.value_size > page.size() - begin) return damaged();
      FL_CHECK(visit(e.flags, page.substr(begin, e.key_size), page.substr(begin + e.key_size, e.value_size)));
    } else {
      return damaged();
    }
  }
  return {};
}

Result<> BoltReader::for_each(std::string_view bucket, const Visit& visit) const {
  const auto plain = [&](std::uint32_t, std::string_view k, std::string_view v) { return visit(k, v); };
  return walk(root_, [&](std::uint32_t flags, std::string_view name, std::string_view value) -> Result<> {
    if (!(flags & kBucketFlag) || name != bucket) return {};
    if (value.size() < 16) return fail(ErrorCode::data_loss, "the bucket {} is damaged", bucket);
    const auto root = load<std::uint64_t>(value.data());
    if (root != 0) return walk(root, plain, 0);
    return walk_page(value.substr(16), plain, 0);  // a small bucket lies inside its entry
  }, 0);
}

}  // namespace fairlead::etcd
