#include "controlplane/etcd/wal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>

#include "base/files.h"
#include "controlplane/etcd/crc32c.h"

namespace fairlead::etcd {
namespace {

constexpr char kMagic[8] = {'F', 'L', 'W', 'A', 'L', '0', '0', '1'};
constexpr std::size_t kHeader = 64;
constexpr std::uint32_t kFrameMagic = 0x4c46u << 16 | 0x5752u;

struct SegmentHeader {
  char magic[8];
  std::uint64_t number;
  std::uint32_t crc;
};
struct Frame {
  std::uint32_t magic;
  std::uint32_t crc;  // of the segment number, the rest of the frame and the payload
  std::uint64_t length;
  std::uint64_t sequence;
  std::uint64_t synced;  // everything up to here was flushed when this record was formed
};
static_assert(sizeof(Frame) == 32);

std::size_t padded(std::size_t n) { return (n + 7) & ~std::size_t{7}; }

std::string_view raw(const auto& v) { return {reinterpret_cast<const char*>(&v), sizeof v}; }

std::uint32_t frame_crc(std::uint64_t number, const Frame& f, std::string_view payload) {
  auto c = crc32c(0, raw(number));
  c = crc32c(c, raw(f.length));
  c = crc32c(c, raw(f.sequence));
  c = crc32c(c, raw(f.synced));
  return crc32c(c, payload);
}

Result<> write_at(int fd, std::string_view bytes, std::size_t offset) {
  while (!bytes.empty()) {
    const auto n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write to the write-ahead log");
    bytes.remove_prefix(static_cast<std::size_t>(n));
    offset += static_cast<std::size_t>(n);
  }
  return {};
}

Result<> sync_dir(const std::string& dir) {
  Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return fail_errno(errno, "sync folder {}", dir);
  return {};
}

// The frame at `at`, when there is a whole and valid one.
const Frame* frame_at(std::string_view file, std::size_t at, std::uint64_t number, std::string_view& payload) {
  if (at + sizeof(Frame) > file.size()) return nullptr;
  const auto* f = reinterpret_cast<const Frame*>(file.data() + at);
  if (f->magic != kFrameMagic || f->length > file.size() - at - sizeof(Frame)) return nullptr;
  payload = file.substr(at + sizeof(Frame), f->length);
  return f->crc == frame_crc(number, *f, payload) ? f : nullptr;
}

Result<std::vector<std::uint64_t>> list_segments(const std::string& dir, std::vector<std::string>& spare) {
  std::vector<std::uint64_t> numbers;
  std::unique_ptr<DIR, int (*)(DIR*)> d(::opendir(dir.c_str()), ::closedir);
  if (!d) return fail_errno(errno, "list {}", dir);
  while (const auto* e = ::readdir(d.get())) {
    std::uint64_t n;
    char rest[8] = {};
    const std::string name = e->d_name;
    if (name.ends_with(".new")) ::unlink((dir + "/" + name).c_str());  // an unfinished segment
    else if (name.ends_with(".spare")) spare.push_back(dir + "/" + name);
    else if (name.size() == 20 && std::sscanf(name.c_str(), "%16" SCNx64 "%4s", &n, rest) == 2 && std::strcmp(rest, ".wal") == 0)
      numbers.push_back(n);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace

std::string Wal::path(std::uint64_t number) const { return fmt::format("{}/{:016x}.wal", dir_, number); }

Result<std::unique_ptr<Wal>> Wal::open(const std::string& dir, std::uint64_t after, const Replay& replay, WalOptions options) {
  FL_CHECK(make_dirs(dir, 0700));
  std::unique_ptr<Wal> wal(new Wal(dir, std::move(options)));
  FL_TRY(auto numbers, list_segments(dir, wal->spare_));
  wal->next_ = after + 1;
  bool first = true;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0 && numbers[i] != numbers[i - 1] + 1)
      return fail(ErrorCode::data_loss, "write-ahead log {}: segment {:016x} is missing", dir, numbers[i - 1] + 1);
    FL_CHECK(wal->replay_segment(numbers[i], after, first, replay));
    wal->full_.push_back({numbers[i], wal->next_ - 1});
  }
  wal->number_ = numbers.empty() ? 0 : numbers.back();
  if (wal->next_ <= after) {
    wal->next_ = after + 1;
    wal->release_through(after);
  }
  wal->synced_ = wal->next_ - 1;
  FL_CHECK(wal->rotate(0));
  return wal;
}

// Records up to `after` are in the log table already: damage among them costs nothing. A gap above `after` is a loss.
Result<> Wal::replay_segment(std::uint64_t number, std::uint64_t after, bool& first, const Replay& replay) {
  FL_TRY(const auto content, read_file(path(number), std::size_t{1} << 40));
  const std::string_view file = content;
  SegmentHeader header{};
  if (file.size() < kHeader) return fail(ErrorCode::data_loss, "write-ahead log {}: no header", path(number));
  std::copy_n(file.data(), sizeof header, reinterpret_cast<char*>(&header));
  if (std::memcmp(header.magic, kMagic, 8) != 0 || header.number != number ||
      header.crc != crc32c(0, file.substr(0, offsetof(SegmentHeader, crc))))
    return fail(ErrorCode::data_loss, "write-ahead log {}: bad header", path(number));
  std::size_t at = kHeader;
  std::string_view payload;
  while (const auto* f = frame_at(file, at, number, payload)) {
    if (f->sequence > std::max(next_, after + 1) || (!first && f->sequence < next_))
      return fail(ErrorCode::data_loss, "write-ahead log {}: record {} is missing (found {} at offset {})", path(number), next_,
                  f->sequence, at);
    first = false;
    next_ = f->sequence + 1;
    if (f->sequence > after) FL_CHECK_CTX(replay(f->sequence, payload), "write-ahead log {} at offset {}", path(number), at);
    at = padded(at + sizeof(Frame) + f->length);
  }
  for (auto later = padded(at + 8); later + sizeof(Frame) <= file.size(); later += 8) {
    const auto* f = frame_at(file, later, number, payload);
    if (f && next_ > after && f->sequence > next_ && f->synced >= next_)
      return fail(ErrorCode::data_loss, "write-ahead log {}: record {} at offset {} is damaged, and later ones are whole",
                  path(number), next_, at);
  }
  return {};
}

Result<Wal::Next> Wal::make_segment(std::uint64_t number, std::size_t bytes) {
  std::string spare;
  {
    std::lock_guard lock(mutex_);
    if (bytes <= options_.segment_bytes && !spare_.empty()) {
      spare = spare_.back();
      spare_.pop_back();
    }
  }
  Next next;
  next.number = number;
  next.bytes = std::max(bytes, options_.segment_bytes);
  const auto temporary = spare.empty() ? fmt::format("{}/{:016x}.new", dir_, number) : spare;
  next.fd = Fd(::open(temporary.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (spare.empty() ? O_TRUNC : 0), 0600));
  if (!next.fd) return fail_errno(errno, "create {}", temporary);
  struct stat st {};
  if (::fstat(next.fd.get(), &st) != 0) return fail_errno(errno, "stat {}", temporary);
  const std::string zeros(std::size_t{1} << 20, '\0');
  for (std::size_t at = static_cast<std::size_t>(st.st_size) >= next.bytes ? next.bytes : 0; at < next.bytes; at += zeros.size())
    FL_CHECK(write_at(next.fd.get(), std::string_view(zeros).substr(0, std::min(zeros.size(), next.bytes - at)), at));
  SegmentHeader header{};
  std::memcpy(header.magic, kMagic, 8);
  header.number = number;
  header.crc = crc32c(0, raw(header).substr(0, offsetof(SegmentHeader, crc)));
  FL_CHECK(write_at(next.fd.get(), raw(header), 0));
  if (::fsync(next.fd.get()) != 0) return fail_errno(errno, "sync {}", temporary);
  if (::rename(temporary.c_str(), path(number).c_str()) != 0) return fail_errno(errno, "rename {}", temporary);
  FL_CHECK(sync_dir(dir_));
  return next;
}

Result<> Wal::prepare() {
  std::lock_guard making(making_);
  std::uint64_t number;
  {
    std::lock_guard lock(mutex_);
    if (prepared_) return {};
    number = number_ + 1;
  }
  FL_TRY(auto next, make_segment(number, options_.segment_bytes));
  std::lock_guard lock(mutex_);
  prepared_ = std::make_unique<Next>(std::move(next));
  return {};
}

Result<> Wal::rotate(std::size_t need) {
  // The old segment is flushed before the new one gets records: a gap between segments is then always a loss.
  if (fd_) FL_CHECK(flush(fd_.get()));
  std::lock_guard making(making_);
  std::unique_ptr<Next> next;
  {
    std::lock_guard lock(mutex_);
    if (fd_) full_.push_back({number_, next_ - 1});
    next = std::move(prepared_);
  }
  if (!next || next->bytes < kHeader + need) {
    const auto number = next ? next->number : number_ + 1;
    FL_TRY(auto made, make_segment(number, kHeader + need));
    next = std::make_unique<Next>(std::move(made));
  }
  std::lock_guard lock(mutex_);
  fd_ = std::move(next->fd);
  number_ = next->number;
  capacity_ = next->bytes;
  offset_ = kHeader;
  return {};
}

std::uint64_t Wal::append(std::string_view payload) {
  Frame f{kFrameMagic, 0, payload.size(), next_++, synced_};
  frames_.push_back(buffer_.size());
  buffer_.append(raw(f));
  buffer_.append(payload);
  buffer_.resize(padded(buffer_.size()));
  return f.sequence;
}

Result<> Wal::flush(int fd) {
  if (options_.sync) return options_.sync(fd);
  if (::fdatasync(fd) != 0) return fail_errno(errno, "flush the write-ahead log");
  return {};
}

Result<> Wal::write_frames() {
  std::size_t begin = 0;  // of what goes into the current segment
  const auto write_until = [&](std::size_t end) -> Result<> {
    FL_CHECK(write_at(fd_.get(), std::string_view(buffer_).substr(begin, end - begin), offset_));
    offset_ += end - begin;
    begin = end;
    return {};
  };
  for (std::size_t i = 0; i < frames_.size(); ++i) {
    const auto start = frames_[i];
    const auto end = i + 1 < frames_.size() ? frames_[i + 1] : buffer_.size();
    auto* f = reinterpret_cast<Frame*>(buffer_.data() + start);
    if (offset_ + (end - begin) > capacity_) {
      FL_CHECK(write_until(start));
      const auto last = next_;
      next_ = f->sequence;  // what the full segment ends with
      auto rotated = rotate(end - start);
      next_ = last;
      FL_CHECK(rotated);
    }
    f->crc = frame_crc(number_, *f, std::string_view(buffer_).substr(start + sizeof(Frame), f->length));
  }
  return write_until(buffer_.size());
}

Result<> Wal::sync() {
  if (broken_) return fail(ErrorCode::unavailable, "the write-ahead log failed earlier; restart the store");
  if (frames_.empty()) return {};
  auto result = write_frames();
  if (result) result = flush(fd_.get());
  if (buffer_.capacity() > (4u << 20)) buffer_ = {};  // one giant transaction need not stay in memory
  buffer_.clear();
  frames_.clear();
  if (!result) {
    broken_ = true;
    return result;
  }
  synced_ = next_ - 1;
  return {};
}

void Wal::release_through(std::uint64_t through) {
  std::vector<std::string> remove;
  {
    std::lock_guard lock(mutex_);
    // From the oldest on, so that the numbers on disk stay consecutive.
    while (!full_.empty() && full_.front().last <= through) {
      remove.push_back(path(full_.front().number));
      full_.erase(full_.begin());
    }
  }
  for (const auto& p : remove) {
    struct stat st {};
    std::unique_lock lock(mutex_);
    const auto spare = p.substr(0, p.size() - 4) + ".spare";
    if (spare_.size() < options_.keep_spare && ::stat(p.c_str(), &st) == 0 &&
        static_cast<std::size_t>(st.st_size) == options_.segment_bytes && ::rename(p.c_str(), spare.c_str()) == 0)
      spare_.push_back(spare);
    else
      ::unlink(p.c_str());
  }
}

}  // namespace fairlead::etcd
