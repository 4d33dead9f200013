// The CRI log format, what a client is shown of it, and rotation.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/fd.h"
#include "base/random.h"
#include "controlplane/kubelet/log_reader.h"

namespace fairlead::kubelet {
namespace {

std::string folder() {
  char name[] = "/tmp/fairlead-log-XXXXXX";
  return ::mkdtemp(name);
}

struct Folder {
  std::string path = folder();
  ~Folder() { std::filesystem::remove_all(path); }
};

void write(const std::string& path, const std::string& text, bool append = false) {
  std::ofstream(path, append ? std::ios::app : std::ios::trunc) << text;
}

TEST(LogLine, Table) {
  struct Row {
    const char* line;
    bool good;
    bool partial = false;
    const char* text = "";
  };
  const Row rows[] = {
      {"2026-01-02T03:04:05.123456789Z stdout F hello world", true, false, "hello world"},
      {"2026-01-02T03:04:05.123456789Z stderr P part", true, true, "part"},
      {"2026-01-02T03:04:05.123456789Z stdout F ", true, false, ""},
      {"2026-01-02T03:04:05.123456789Z stdout F", true, false, ""},
      {"2026-01-02T03:04:05.123456789Z stdout F:tag x", true, false, "x"},
      {"2026-01-02T03:04:05.123456789Z stdout F  two spaces", true, false, " two spaces"},
      {"", false},
      {"hello", false},
      {"2026-01-02T03:04:05Z stdin F x", false},
      {"2026-01-02T03:04:05Z stdout X x", false},
      {"2026-01-02T03:04:05Z stdout", false},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.line);
    const auto line = parse_log_line(row.line);
    ASSERT_EQ(line.has_value(), row.good);
    if (!line) continue;
    EXPECT_EQ(line->partial, row.partial);
    EXPECT_EQ(line->text, row.text);
  }
}

TEST(LogTime, Table) {
  struct Row {
    const char* text;
    std::optional<std::int64_t> ns;
  };
  const Row rows[] = {
      {"1970-01-01T00:00:00Z", 0},
      {"1970-01-01T00:00:01.5Z", 1'500'000'000},
      {"1970-01-01T00:00:00.000000001Z", 1},
      {"1970-01-01T01:00:00+01:00", 0},
      {"1969-12-31T23:00:00-01:00", std::nullopt},
      {"2026-02-30T00:00:00Z", std::nullopt},
      {"2026-01-02 03:04:05Z", std::nullopt},
      {"2026-01-02T03:04:05", std::nullopt},
      {"2026-01-02T03:04:05Zx", std::nullopt},
      {"2026-01-02T03:04:05+0100", std::nullopt},
      {"", std::nullopt},
  };
  for (const Row& row : rows) EXPECT_EQ(parse_log_time(row.text), row.ns) << row.text;
}

const std::string kLog =
    "1970-01-01T00:00:01Z stdout F one\n"
    "1970-01-01T00:00:02Z stderr F two\n"
    "1970-01-01T00:00:03Z stdout P thr\n"
    "1970-01-01T00:00:03.5Z stdout F ee\n"
    "garbage\n"
    "1970-01-01T00:00:04Z stdout F four\n"
    "1970-01-01T00:00:05Z stdout F unfin";

TEST(LogFormatter, Table) {
  struct Row {
    const char* name;
    std::function<void(LogOptions&)> given;
    const char* expect;
  };
  const Row rows[] = {
      {"plain", [](LogOptions&) {}, "one\ntwo\nthree\nfour\n"},
      {"timestamps once per whole line", [](LogOptions& o) { o.timestamps = true; },
       "1970-01-01T00:00:01Z one\n1970-01-01T00:00:02Z two\n1970-01-01T00:00:03Z three\n1970-01-01T00:00:04Z four\n"},
      {"since", [](LogOptions& o) { o.since_ns = 3'200'000'000; }, "four\n"},
      {"since the start of a line in parts", [](LogOptions& o) { o.since_ns = 3'000'000'000; }, "three\nfour\n"},
      {"limit", [](LogOptions& o) { o.limit_bytes = 6; }, "one\ntw"},
      {"one stream", [](LogOptions& o) { o.stream = "Stderr"; }, "two\n"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    LogOptions o;
    row.given(o);
    LogFormatter whole(o);
    EXPECT_EQ(whole.feed(kLog), row.expect);
    LogFormatter bytewise(o);  // however the bytes arrive
    std::string out;
    for (const char c : kLog) out += bytewise.feed(std::string_view(&c, 1));
    EXPECT_EQ(out, row.expect);
  }
}

TEST(LogTail, CountsWholeLines) {
  const Folder dir;
  const std::string path = dir.path + "/0.log";
  write(path, kLog);
  for (const auto& [lines, expect] :
       {std::pair{0, ""}, {1, "four\n"}, {3, "three\nfour\n"}, {4, "two\nthree\nfour\n"}, {99, "one\ntwo\nthree\nfour\n"}}) {
    SCOPED_TRACE(lines);
    Fd fd(::open(path.c_str(), O_RDONLY));
    const auto offset = tail_offset(fd.get(), static_cast<std::int64_t>(kLog.size()), lines);
    ASSERT_TRUE(offset);
    LogFormatter f(LogOptions{});
    EXPECT_EQ(f.feed(std::string_view(kLog).substr(static_cast<std::size_t>(*offset))), expect);
  }
}

TEST(LogTail, OfALargeFile) {
  const Folder dir;
  const std::string path = dir.path + "/0.log";
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "2026-01-02T03:04:05.000000000Z stdout F line " + std::to_string(i) + "\n";
  write(path, text);
  Fd fd(::open(path.c_str(), O_RDONLY));
  const auto offset = tail_offset(fd.get(), static_cast<std::int64_t>(text.size()), 5000);
  ASSERT_TRUE(offset);
  EXPECT_EQ(text.substr(static_cast<std::size_t>(*offset)).find("line 15000\n"), 40u);
}

std::string collect(const LogStream& base, net::io_context& io) {
  std::string out;
  LogStream s = base;
  s.write = [&out](std::string text) -> Task<Result<>> {
    out += text;
    co_return Result<>{};
  };
  if (!s.stopped) s.stopped = [] { return false; };
  net::co_spawn(io, stream_log(s), [](std::exception_ptr, Result<> r) { EXPECT_TRUE(r) << r.error().message; });
  io.run();
  io.restart();
  return out;
}

TEST(LogStream, FollowsGrowthAndRotationToTheEnd) {
  const Folder dir;
  net::io_context io;
  LogStream s;
  s.path = dir.path + "/0.log";
  s.options.follow = true;
  write(s.path, "1970-01-01T00:00:01Z stdout F a\n");
  int step = 0;
  s.ended = [&] {
    ++step;
    if (step == 3) write(s.path, "1970-01-01T00:00:02Z stdout F b\n", true);
    if (step == 5) {
      EXPECT_TRUE(rotate_log(s.path, 1, 5, WallTime{}).value_or(false));
    }
    if (step == 6) write(s.path, "1970-01-01T00:00:03Z stdout F c\n");
    return step > 10;
  };
  EXPECT_EQ(collect(s, io), "a\nb\nc\n");
}

TEST(LogRotation, KeepsTheNewest) {
  const Folder dir;
  const std::string path = dir.path + "/0.log";
  EXPECT_FALSE(*rotate_log(path, 10, 3, WallTime{}));  // not there
  write(path, "short");
  EXPECT_FALSE(*rotate_log(path, 10, 3, WallTime{}));
  for (int i = 0; i < 5; ++i) {
    write(path, "long enough " + std::to_string(i));
    EXPECT_TRUE(*rotate_log(path, 10, 3, WallTime(std::chrono::seconds(i))));
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  int files = 0;
  for (const auto& e : std::filesystem::directory_iterator(dir.path)) {
    (void)e;
    ++files;
  }
  EXPECT_EQ(files, 2);  // with the one that the runtime opens anew: three
}

TEST(LogOptions, Query) {
  const auto parse = [](std::map<std::string, std::string> q) {
    return parse_log_options(
        [q](const char* key) {
          const auto it = q.find(key);
          return it == q.end() ? std::nullopt : std::optional(it->second);
        },
        WallTime(std::chrono::seconds(100)));
  };
  const auto good =
      parse({{"follow", "true"}, {"tailLines", "7"}, {"sinceSeconds", "10"}, {"limitBytes", "5"}, {"timestamps", "true"}});
  ASSERT_TRUE(good);
  EXPECT_TRUE(good->follow && good->timestamps && !good->previous);
  EXPECT_EQ(good->tail_lines, 7);
  EXPECT_EQ(good->since_ns, 90'000'000'000);
  for (const auto& bad :
       std::vector<std::map<std::string, std::string>>{{{"tailLines", "-1"}},
                                                       {{"tailLines", "x"}},
                                                       {{"limitBytes", "0"}},
                                                       {{"sinceSeconds", "0"}},
                                                       {{"sinceTime", "yesterday"}},
                                                       {{"sinceSeconds", "1"}, {"sinceTime", "1970-01-01T00:00:00Z"}},
                                                       {{"stream", "x"}}})
    EXPECT_FALSE(parse(bad)) << bad.begin()->first;
}

TEST(LastLogText, JoinsPartsAndKeepsTheEnd) {
  const Folder dir;
  const std::string path = dir.path + "/0.log";
  write(path, kLog);
  EXPECT_EQ(*last_log_text(path, 2, 2048), "four\nunfin\n");
  EXPECT_EQ(*last_log_text(path, 80, 8), "r\nunfin\n");
  EXPECT_FALSE(last_log_text(dir.path + "/none", 1, 10));
}

}  // namespace
}  // namespace fairlead::kubelet
