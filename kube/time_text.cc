#include "kube/time_text.h"

#include <array>
#include <cmath>
#include <limits>

namespace fairlead::kube {
namespace {

constexpr std::int64_t kMinSeconds = -62135596800;  // 0001-01-01T00:00:00Z
constexpr std::int64_t kMaxSeconds = 253402300799;  // 9999-12-31T23:59:59Z

// Days from 1970-01-01 of a civil date of the proleptic Gregorian calendar, and back: years are counted from March, so
// that the leap day comes last and every 400-year era has the same shape.
std::int64_t days_of(std::int64_t y, unsigned m, unsigned d) {
  y -= m <= 2;
  const std::int64_t era = (y >= 0 ? y : y - 399) / 400;
  const auto yoe = static_cast<unsigned>(y - era * 400);
  const unsigned doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
  return era * 146097 + static_cast<std::int64_t>(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
}

struct Civil {
  std::int64_t year;
  unsigned month;
  unsigned day;
};

Civil civil_of(std::int64_t days) {
  days += 719468;
  const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const auto doe = static_cast<unsigned>(days - era * 146097);
  const unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  const unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
  const unsigned mp = (5 * doy + 2) / 153;
  const unsigned month = mp < 10 ? mp + 3 : mp - 9;
  return {static_cast<std::int64_t>(yoe) + era * 400 + (month <= 2), month, doy - (153 * mp + 2) / 5 + 1};
}

unsigned days_in_month(std::int64_t y, unsigned m) {
  constexpr std::array<unsigned, 12> days = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
  return m == 2 && leap ? 29 : days[m - 1];
}

void put(char*& p, std::int64_t v, int width) {
  for (int i = width - 1; i >= 0; --i, v /= 10) p[i] = static_cast<char>('0' + v % 10);
  p += width;
}

// "2024-05-01T10:00:00" into 19 bytes.
void put_date_time(char*& p, std::int64_t seconds) {
  std::int64_t days = seconds / 86400;
  std::int64_t rest = seconds % 86400;
  if (rest < 0) {
    rest += 86400;
    --days;
  }
  const Civil c = civil_of(days);
  put(p, c.year, 4);
  *p++ = '-';
  put(p, c.month, 2);
  *p++ = '-';
  put(p, c.day, 2);
  *p++ = 'T';
  put(p, rest / 3600, 2);
  *p++ = ':';
  put(p, rest / 60 % 60, 2);
  *p++ = ':';
  put(p, rest % 60, 2);
}

class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}
  bool digits(int count, int& out) {
    if (text_.size() < static_cast<std::size_t>(count)) return false;
    out = 0;
    for (int i = 0; i < count; ++i) {
      if (text_[i] < '0' || text_[i] > '9') return false;
      out = out * 10 + (text_[i] - '0');
    }
    text_.remove_prefix(count);
    return true;
  }
  bool take(char c) {
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool done() const { return text_.empty(); }
  // The digits of a fraction, as nanoseconds.
  bool fraction(int& nanos) {
    int count = 0;
    nanos = 0;
    while (!text_.empty() && text_[0] >= '0' && text_[0] <= '9') {
      if (count < 9) nanos = nanos * 10 + (text_[0] - '0');
      ++count;
      text_.remove_prefix(1);
    }
    for (int i = count; i < 9; ++i) nanos *= 10;
    return count > 0;
  }

 private:
  std::string_view text_;
};

}  // namespace

bool time_in_range(std::int64_t seconds) { return seconds >= kMinSeconds && seconds <= kMaxSeconds; }

Result<TimePoint> parse_time(std::string_view text) {
  Cursor in(text);
  int y = 0, mo = 0, d = 0, h = 0, mi = 0, s = 0, nanos = 0, offset_h = 0, offset_m = 0;
  const auto bad = [&] {
    return fail(ErrorCode::invalid_argument, "must be a time such as \"2006-01-02T15:04:05Z\" (RFC 3339), not \"{}\"", text);
  };
  if (!(in.digits(4, y) && in.take('-') && in.digits(2, mo) && in.take('-') && in.digits(2, d))) return bad();
  if (!(in.take('T') && in.digits(2, h) && in.take(':') && in.digits(2, mi) && in.take(':') && in.digits(2, s))) return bad();
  if (in.take('.') && !in.fraction(nanos)) return bad();
  int sign = 0;
  if (!in.take('Z')) {
    sign = in.take('+') ? 1 : in.take('-') ? -1 : 0;
    if (sign == 0 || !(in.digits(2, offset_h) && in.take(':') && in.digits(2, offset_m))) return bad();
  }
  if (!in.done() || mo < 1 || mo > 12 || d < 1 || d > static_cast<int>(days_in_month(y, mo))) return bad();
  if (h > 23 || mi > 59 || s > 59 || offset_h > 23 || offset_m > 59) return bad();
  TimePoint t{days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + s - sign * (offset_h * 3600 + offset_m * 60), nanos};
  if (!time_in_range(t.seconds)) return bad();
  return t;
}

std::string format_time(std::int64_t seconds) {
  std::array<char, 20> buffer;
  char* p = buffer.data();
  put_date_time(p, seconds);
  *p++ = 'Z';
  return {buffer.data(), buffer.size()};
}

std::string format_micro_time(std::int64_t seconds, std::int32_t nanos) {
  std::array<char, 27> buffer;
  char* p = buffer.data();
  put_date_time(p, seconds);
  *p++ = '.';
  put(p, nanos / 1000, 6);
  *p++ = 'Z';
  return {buffer.data(), buffer.size()};
}

}  // namespace fairlead::kube
