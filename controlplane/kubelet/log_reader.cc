#include "controlplane/kubelet/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;
constexpr std::size_t kBlock = 64 << 10;
constexpr std::size_t kMaxLine = 1 << 20;  // a line without an end is given up
constexpr milliseconds kFollowPeriod{40};

Result<std::int64_t> whole_number(const char* name, const std::string& text, std::int64_t low) {
  std::int64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || value < low)
    return fail(ErrorCode::invalid_argument, "{}: \"{}\" is not a number of at least {}", name, text, low);
  return value;
}

Result<std::string> read_block(int fd, std::int64_t offset, std::size_t size) {
  std::string out(size, '\0');
  for (;;) {
    const ssize_t n = ::pread(fd, out.data(), size, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read log");
    out.resize(static_cast<std::size_t>(n));
    return out;
  }
}

bool true_text(const std::optional<std::string>& v) { return v && (*v == "true" || *v == "1" || v->empty()); }

}  // namespace

Result<LogOptions> parse_log_options(const std::function<std::optional<std::string>(const char*)>& query, WallTime now) {
  LogOptions out;
  out.follow = true_text(query("follow"));
  out.timestamps = true_text(query("timestamps"));
  out.previous = true_text(query("previous"));
  const std::int64_t now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(now.time_since_epoch()).count();
  if (const auto v = query("tailLines")) {
    FL_TRY(out.tail_lines, whole_number("tailLines", *v, 0));
  }
  if (const auto v = query("limitBytes")) {
    FL_TRY(out.limit_bytes, whole_number("limitBytes", *v, 1));
  }
  if (const auto v = query("sinceSeconds")) {
    FL_TRY(const std::int64_t seconds, whole_number("sinceSeconds", *v, 1));
    out.since_ns = now_ns - std::min<std::int64_t>(seconds, now_ns / 1'000'000'000) * 1'000'000'000;
  }
  if (const auto v = query("sinceTime")) {
    if (out.since_ns)
      return fail(ErrorCode::invalid_argument, "sinceTime: at most one of sinceTime and sinceSeconds may be given");
    out.since_ns = parse_log_time(*v);
    if (!out.since_ns) return fail(ErrorCode::invalid_argument, "sinceTime: \"{}\" is not an RFC 3339 time", *v);
  }
  if (const auto v = query("stream")) {
    if (*v != "All" && *v != "Stdout" && *v != "Stderr")
      return fail(ErrorCode::invalid_argument, "stream: \"{}\" is not All, Stdout or Stderr", *v);
    out.stream = *v;
  }
  return out;
}

std::string LogFormatter::feed(std::string_view bytes) {
  std::string out;
  rest_.append(bytes);
  std::size_t at = 0;
  for (auto eol = rest_.find('\n'); eol != std::string::npos && !full(); eol = rest_.find('\n', at)) {
    add(std::string_view(rest_).substr(at, eol - at), out);
    at = eol + 1;
  }
  rest_.erase(0, at);
  if (rest_.size() > kMaxLine) rest_.clear();
  return out;
}

void LogFormatter::add(std::string_view raw, std::string& out) {
  const auto line = parse_log_line(raw);
  if (!line) return;
  const bool continues = begun_ || skipping_;
  if (!continues) {
    if (options_.since_ns) {
      const auto at = parse_log_time(line->timestamp);
      skipping_ = !at || *at < *options_.since_ns;
    }
    if ((options_.stream == "Stdout" && line->stream != "stdout") || (options_.stream == "Stderr" && line->stream != "stderr"))
      skipping_ = true;
  }
  std::string text;
  if (!skipping_) {
    if (options_.timestamps && !begun_) text = std::string(line->timestamp) + " ";
    text += line->text;
    if (!line->partial) text += '\n';
    if (options_.limit_bytes)
      text.resize(static_cast<std::size_t>(
          std::min<std::int64_t>(static_cast<std::int64_t>(text.size()), *options_.limit_bytes - sent_)));
    sent_ += static_cast<std::int64_t>(text.size());
    out += text;
  }
  begun_ = line->partial && !skipping_;
  if (!line->partial) skipping_ = false;
}

Result<std::int64_t> tail_offset(int fd, std::int64_t size, std::int64_t lines) {
  if (lines == 0) return size;
  // Backwards in growing windows until one holds enough line ends.
  for (std::int64_t window = kBlock;; window *= 4) {
    const std::int64_t from = std::max<std::int64_t>(0, size - window);
    FL_TRY(const std::string text, read_block(fd, from, static_cast<std::size_t>(size - from)));
    std::vector<std::int64_t> ends;  // offsets just after each whole line
    std::size_t at = 0;
    if (from > 0) at = std::min(text.find('\n'), text.size() - 1) + 1;  // the first one may be cut
    const std::int64_t first = from + static_cast<std::int64_t>(at);
    for (auto eol = text.find('\n', at); eol != std::string::npos; at = eol + 1, eol = text.find('\n', at)) {
      const auto line = parse_log_line(std::string_view(text).substr(at, eol - at));
      if (!line || !line->partial) ends.push_back(from + static_cast<std::int64_t>(eol) + 1);
    }
    const auto have = static_cast<std::int64_t>(ends.size());
    if (have > lines) return ends[static_cast<std::size_t>(have - lines - 1)];
    if (from == 0) return 0;
    if (window > (256ll << 20)) return first;
  }
}

Task<Result<>> stream_log(LogStream s) {
  Fd fd(::open(s.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) co_return fail_errno(errno, "open log");
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) co_return fail_errno(errno, "stat log");
  std::int64_t offset = 0;
  if (s.options.tail_lines) {
    FL_CO_TRY(offset, tail_offset(fd.get(), st.st_size, *s.options.tail_lines));
  }
  LogFormatter formatter(s.options);
  while (!formatter.full() && !s.stopped()) {
    const bool last = s.ended();  // before reading: what came until then is read below
    FL_CO_TRY(const std::string block, read_block(fd.get(), offset, kBlock));
    if (!block.empty()) {
      offset += static_cast<std::int64_t>(block.size());
      std::string text = formatter.feed(block);
      if (!text.empty()) FL_CO_CHECK(co_await s.write(std::move(text)));
      continue;
    }
    struct stat named {};
    if (::stat(s.path.c_str(), &named) == 0 && (named.st_ino != st.st_ino || named.st_dev != st.st_dev)) {
      Fd next(::open(s.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));  // rotated: go on with the new file
      if (next && ::fstat(next.get(), &st) == 0) {
        fd = std::move(next);
        offset = 0;
        continue;
      }
    }
    if (!s.options.follow || last) break;
    co_await sleep_for(kFollowPeriod);
  }
  co_return Result<>{};
}

Result<bool> rotate_log(const std::string& path, std::int64_t max_bytes, int max_files, WallTime now) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0 || st.st_size < max_bytes) return false;
  namespace fs = std::filesystem;
  const std::string stamp = format_rfc3339_micro(now);
  std::string name = path + ".";
  for (const char c : stamp)
    if (c != ':') name += c;
  if (::rename(path.c_str(), name.c_str()) != 0) return fail_errno(errno, "rotate {}", path);
  std::vector<std::string> old;
  std::error_code ec;
  const std::string prefix = fs::path(path).filename().string() + ".";
  for (fs::directory_iterator it(fs::path(path).parent_path(), ec), end; !ec && it != end; it.increment(ec))
    if (it->path().filename().string().rfind(prefix, 0) == 0) old.push_back(it->path().string());
  std::sort(old.begin(), old.end());
  for (std::size_t i = 0; i + static_cast<std::size_t>(std::max(1, max_files - 1)) < old.size(); ++i) ::unlink(old[i].c_str());
  return true;
}

}  // namespace fairlead::kubelet
