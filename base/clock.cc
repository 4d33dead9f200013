#include "base/clock.h"

#include <charconv>
#include <ctime>

namespace fairlead {

using namespace std::chrono;

const SystemClock& SystemClock::get() {
  static const SystemClock c;
  return c;
}

WallTime ManualClock::wall() const {
  static constexpr auto start = sys_days(year(2026) / 1 / 1);
  return WallTime(duration_cast<WallTime::duration>(start.time_since_epoch() + nanoseconds(offset_.load())));
}

static std::string format_date_time(WallTime t) {
  const auto secs = floor<seconds>(t);
  const auto day = floor<days>(secs);
  const year_month_day ymd(day);
  const hh_mm_ss hms(secs - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", static_cast<int>(ymd.year()), static_cast<unsigned>(ymd.month()),
                     static_cast<unsigned>(ymd.day()), hms.hours().count(), hms.minutes().count(), hms.seconds().count());
}

std::string format_rfc3339(WallTime t) { return format_date_time(t) + "Z"; }

std::string format_rfc3339_micro(WallTime t) {
  const auto us = duration_cast<microseconds>(t - floor<seconds>(t)).count();
  return fmt::format("{}.{:06}Z", format_date_time(t), us);
}

namespace {
struct Cursor {
  std::string_view rest;
  bool ok = true;
  int number(std::size_t digits) {
    int v = 0;
    if (rest.size() < digits) return ok = false, 0;
    for (std::size_t i = 0; i < digits; ++i) {
      if (rest[i] < '0' || rest[i] > '9') return ok = false, 0;
      v = v * 10 + (rest[i] - '0');
    }
    rest.remove_prefix(digits);
    return v;
  }
  bool take(char c) {
    if (rest.empty() || rest.front() != c) return false;
    rest.remove_prefix(1);
    return true;
  }
  void need(char c) { ok = take(c) && ok; }
};
}  // namespace

Result<WallTime> parse_rfc3339(std::string_view text) {
  Cursor c{text};
  const int y = c.number(4);
  c.need('-');
  const int mo = c.number(2);
  c.need('-');
  const int d = c.number(2);
  c.ok = c.ok && (c.take('T') || c.take('t'));
  const int h = c.number(2);
  c.need(':');
  const int mi = c.number(2);
  c.need(':');
  const int s = c.number(2);
  nanoseconds frac{0};
  if (c.take('.')) {
    std::int64_t scale = 100'000'000, n = 0;
    std::size_t digits = 0;
    while (!c.rest.empty() && c.rest.front() >= '0' && c.rest.front() <= '9') {
      n += (c.rest.front() - '0') * scale;
      scale /= 10;
      c.rest.remove_prefix(1);
      ++digits;
    }
    c.ok = c.ok && digits > 0 && digits <= 9;
    frac = nanoseconds(n);
  }
  minutes zone{0};
  if (!c.take('Z') && !c.take('z')) {
    const bool minus = c.take('-');
    c.ok = c.ok && (minus || c.take('+'));
    const int zh = c.number(2);
    c.need(':');
    const int zm = c.number(2);
    zone = minutes(zh * 60 + zm) * (minus ? -1 : 1);
  }
  const year_month_day ymd{year(y), month(static_cast<unsigned>(mo)), day(static_cast<unsigned>(d))};
  if (!c.ok || !c.rest.empty() || !ymd.ok() || h > 23 || mi > 59 || s > 60)
    return fail(ErrorCode::invalid_argument, "\"{}\" is not an RFC 3339 time (2026-01-02T15:04:05Z)", text);
  return WallTime(duration_cast<WallTime::duration>(sys_days(ymd).time_since_epoch() + hours(h) + minutes(mi) + seconds(s) +
                                                    frac - zone));
}

}  // namespace fairlead
