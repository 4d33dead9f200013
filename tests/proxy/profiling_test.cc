// /debug/: what kube-proxy offers with enableProfiling, as far as it makes sense for a program that is not written in Go.
#include "proxy/profiling.h"

#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <thread>

#include "base/cpu_profile.h"
#include "base/log.h"

namespace fairlead::proxy {
namespace {

http::Response ask(const http::Handler& handler, const std::string& target, const std::string& method = "GET", const std::string& body = {},
                   std::function<void()> meanwhile = {}) {
  net::io_context io{1};
  http::Request request;
  request.method = method;
  request.target = target;
  request.body = body;
  http::Response out;
  bool done = false;
  net::co_spawn(
      io,
      [&]() -> Task<> {
        auto r = co_await handler(std::move(request));
        out = std::move(r);
        done = true;
      },
      net::detached);
  while (!done) {
    io.restart();
    io.run_for(std::chrono::milliseconds(5));
    if (meanwhile) meanwhile();
  }
  return out;
}

TEST(Profiling, Pages) {
  const Profiling p(true);
  const auto h = p.handler();
  EXPECT_NE(ask(h, "/debug/pprof/").body.find("go tool pprof"), std::string::npos);
  EXPECT_NE(ask(h, "/debug/pprof/cmdline").body.find("proxy_profiling_test"), std::string::npos);
  const auto heap = ask(h, "/debug/pprof/heap");
  EXPECT_EQ(heap.status, 501u);
  EXPECT_NE(heap.body.find("not written in Go"), std::string::npos);
  for (const std::string seconds : {"0", "301", "-1", "x", ""}) EXPECT_EQ(ask(h, "/debug/pprof/profile?seconds=" + seconds).status, 400u) << seconds;
  EXPECT_EQ(ask(h, "/debug/nothing").status, 404u);
  EXPECT_EQ(ask(h, "/etc/passwd").status, 404u);
  const auto off = ask(Profiling(false).handler(), "/debug/pprof/profile");
  EXPECT_EQ(off.status, 404u);
  EXPECT_NE(off.body.find("enableProfiling"), std::string::npos);
}

TEST(Profiling, Verbosity) {
  const Profiling p(true);
  const auto h = p.handler();
  log::set_level(log::Level::info);
  EXPECT_EQ(ask(h, "/debug/flags/v", "PUT", "5").body, "successfully set klog.logging.verbosity to 5");
  EXPECT_TRUE(log::enabled(log::Level::debug));
  EXPECT_EQ(ask(h, "/debug/flags/v", "PUT", "2").status, 200u);
  EXPECT_FALSE(log::enabled(log::Level::debug));
  EXPECT_EQ(ask(h, "/debug/flags/v", "PUT", "much").status, 400u);
  EXPECT_EQ(ask(h, "/debug/flags/v").status, 405u);
}

TEST(Profiling, OneAtATimeAndNoneOutlivesTheServer) {
  Profiling p(true);
  const auto h = p.handler();
  auto running = CpuProfile::start();
  ASSERT_TRUE(running) << running.error().message;
  EXPECT_EQ(ask(h, "/debug/pprof/profile?seconds=1").status, 500u);
  EXPECT_FALSE(running->finish().empty());
  int rounds = 0;
  const auto r = ask(h, "/debug/pprof/profile?seconds=300", "GET", {}, [&] {
    if (++rounds == 3) p.stop();
  });
  EXPECT_EQ(r.status, 200u);
}

// The field of a message; a reader of profile.proto that has nothing to do with our writer.
using google::protobuf::UnknownFieldSet;
std::deque<UnknownFieldSet> messages(const UnknownFieldSet& m, int field) {
  std::deque<UnknownFieldSet> out;
  for (int i = 0; i < m.field_count(); ++i)
    if (m.field(i).number() == field) {
      out.emplace_back();
      EXPECT_TRUE(out.back().ParseFromString(m.field(i).length_delimited()));
    }
  return out;
}
std::vector<std::uint64_t> numbers(const UnknownFieldSet& m, int field) {
  std::vector<std::uint64_t> out;
  for (int i = 0; i < m.field_count(); ++i)
    if (m.field(i).number() == field) out.push_back(m.field(i).varint());
  return out;
}

[[gnu::noinline]] std::uint64_t busy_work(const std::atomic<bool>& stop) {
  std::uint64_t x = 1;
  while (!stop) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

TEST(Profiling, TheProfileShowsWhoWasBusy) {
  const Profiling p(true);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> sink{0};
  std::thread worker([&] { sink = busy_work(stop); });
  const auto r = ask(p.handler(), "/debug/pprof/profile?seconds=1");
  stop = true;
  worker.join();
  ASSERT_EQ(r.status, 200u);
  EXPECT_EQ(r.headers.value_or("Content-Type", ""), "application/octet-stream");
  UnknownFieldSet profile;
  ASSERT_TRUE(profile.ParseFromString(r.body));
  std::vector<std::string> strings;
  for (int i = 0; i < profile.field_count(); ++i)
    if (profile.field(i).number() == 6) strings.push_back(profile.field(i).length_delimited());
  ASSERT_FALSE(strings.empty());
  EXPECT_EQ(strings[0], "");
  const auto types = messages(profile, 1);
  ASSERT_EQ(types.size(), 2u);
  EXPECT_EQ(strings.at(numbers(types[1], 1).at(0)), "cpu");
  EXPECT_EQ(strings.at(numbers(types[1], 2).at(0)), "nanoseconds");
  std::map<std::uint64_t, std::uint64_t> address;  // of location
  std::set<std::string> files;
  for (const auto& l : messages(profile, 4)) address[numbers(l, 1).at(0)] = numbers(l, 3).at(0);
  for (const auto& m : messages(profile, 3)) files.insert(strings.at(numbers(m, 5).at(0)));
  EXPECT_TRUE(std::any_of(files.begin(), files.end(), [](const std::string& f) { return f.ends_with("proxy_profiling_test"); }));
  const auto begin = reinterpret_cast<std::uint64_t>(&busy_work);
  std::uint64_t all = 0, busy = 0;
  for (const auto& s : messages(profile, 2)) {
    const auto stack = numbers(s, 1), values = numbers(s, 2);
    ASSERT_FALSE(stack.empty());
    ASSERT_EQ(values.size(), 2u);
    EXPECT_EQ(values[1], values[0] * 10'000'000);
    for (const auto id : stack) ASSERT_TRUE(address.contains(id));
    all += values[0];
    if (address[stack[0]] >= begin && address[stack[0]] < begin + 256) busy += values[0];
  }
  EXPECT_GT(all, 0u);
  EXPECT_GT(busy * 2, all) << busy << " of " << all << " samples";
  EXPECT_EQ(numbers(profile, 12).at(0), 10'000'000u);
  EXPECT_GE(numbers(profile, 10).at(0), 900'000'000u);
}

}  // namespace
}  // namespace fairlead::proxy
