#include "controlplane/kubelet/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/fd.h"

namespace fairlead::kubelet {
namespace {

// Digits of fixed width; -1 when there is anything else.
int number(std::string_view text, std::size_t at, std::size_t width) {
  if (at + width > text.size()) return -1;
  int out = 0;
  for (std::size_t i = at; i < at + width; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    out = out * 10 + (text[i] - '0');
  }
  return out;
}

}  // namespace

std::optional<LogLine> parse_log_line(std::string_view line) {
  const auto first = line.find(' ');
  if (first == std::string_view::npos) return std::nullopt;
  const auto second = line.find(' ', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  LogLine out;
  out.timestamp = line.substr(0, first);
  out.stream = line.substr(first + 1, second - first - 1);
  if (out.stream != "stdout" && out.stream != "stderr") return std::nullopt;
  // Tags are separated by colons; the first one is P or F.
  const auto third = line.find(' ', second + 1);
  const std::string_view tags = line.substr(second + 1, third == std::string_view::npos ? third : third - second - 1);
  const std::string_view tag = tags.substr(0, tags.find(':'));
  if (tag != "P" && tag != "F") return std::nullopt;
  out.partial = tag == "P";
  out.text = third == std::string_view::npos ? std::string_view() : line.substr(third + 1);
  return out;
}

std::optional<std::int64_t> parse_log_time(std::string_view t) {
  const int year = number(t, 0, 4), month = number(t, 5, 2), day = number(t, 8, 2), hour = number(t, 11, 2),
            minute = number(t, 14, 2), second = number(t, 17, 2);
  if (year < 0 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
      second < 0 || second > 60)
    return std::nullopt;
  if (t[4] != '-' || t[7] != '-' || t[10] != 'T' || t[13] != ':' || t[16] != ':') return std::nullopt;
  using namespace std::chrono;
  const year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                            std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok() || year < 1970 || year > 2261) return std::nullopt;
  std::int64_t ns = duration_cast<nanoseconds>(sys_days(date).time_since_epoch()).count();
  ns += (static_cast<std::int64_t>(hour) * 3600 + minute * 60 + second) * 1'000'000'000;
  std::size_t at = 19;
  if (at < t.size() && t[at] == '.') {
    std::int64_t unit = 100'000'000;
    for (++at; at < t.size() && t[at] >= '0' && t[at] <= '9'; ++at, unit /= 10) ns += unit * (t[at] - '0');
  }
  if (at >= t.size()) return std::nullopt;
  if (t[at] == 'Z') return at + 1 == t.size() ? std::optional(ns) : std::nullopt;
  const int off_h = number(t, at + 1, 2), off_m = number(t, at + 4, 2);
  if ((t[at] != '+' && t[at] != '-') || off_h < 0 || off_m < 0 || t[at + 3] != ':' || at + 6 != t.size()) return std::nullopt;
  const std::int64_t offset = (static_cast<std::int64_t>(off_h) * 3600 + off_m * 60) * 1'000'000'000;
  return t[at] == '+' ? ns - offset : ns + offset;
}

Result<std::string> read_file_end(const std::string& path, std::size_t max_bytes) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return fail_errno(errno, "open {}", path);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, "stat {}", path);
  if (!S_ISREG(st.st_mode)) return fail(ErrorCode::failed_precondition, "{} is not a regular file", path);
  const off_t from = std::max<off_t>(0, st.st_size - static_cast<off_t>(max_bytes));
  std::string out(static_cast<std::size_t>(st.st_size - from), '\0');
  std::size_t have = 0;
  while (have < out.size()) {
    const ssize_t n = ::pread(fd.get(), out.data() + have, out.size() - have, from + static_cast<off_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read {}", path);
    if (n == 0) break;
    have += static_cast<std::size_t>(n);
  }
  out.resize(have);
  return out;
}

Result<std::string> last_log_text(const std::string& path, int lines, std::size_t max_bytes) {
  // Twice the bytes leave room for the time stamps in front of each line.
  FL_TRY(const std::string raw, read_file_end(path, 2 * max_bytes + 16384));
  std::vector<std::string> texts;
  std::string part;
  std::string_view rest = raw;
  while (!rest.empty()) {
    const auto eol = rest.find('\n');
    const auto line = parse_log_line(rest.substr(0, eol));
    rest.remove_prefix(eol == std::string_view::npos ? rest.size() : eol + 1);
    if (!line) continue;  // the first one may be cut
    part += line->text;
    if (line->partial) continue;
    texts.push_back(std::move(part) + "\n");
    part.clear();
  }
  if (!part.empty()) texts.push_back(part);
  std::string out;
  const std::size_t first = texts.size() > static_cast<std::size_t>(lines) ? texts.size() - static_cast<std::size_t>(lines) : 0;
  for (std::size_t i = first; i < texts.size(); ++i) out += texts[i];
  if (out.size() > max_bytes) out.erase(0, out.size() - max_bytes);
  return out;
}

}  // namespace fairlead::kubelet
