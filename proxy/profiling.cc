#include "proxy/profiling.h"

#include <charconv>

#include "base/cpu_profile.h"
#include "base/files.h"
#include "base/log.h"
#include "proxy/config.h"

namespace fairlead::proxy {
namespace {

constexpr std::string_view kIndex =
    "/debug/pprof/\n\n"
    "profile   processor time: go tool pprof http://HOST/debug/pprof/profile?seconds=30\n"
    "          (to see names, keep the program where it was running, or name it: go tool pprof /usr/bin/fairlead http://...)\n"
    "cmdline   the program and its arguments\n";
constexpr std::string_view kNotGo =
    "this program is not written in Go and has no such profile; for memory use heaptrack or perf, for threads gdb or /proc/PID/task\n";

http::Response answer(unsigned status, std::string body, std::string type = "text/plain; charset=utf-8") {
  http::Response r;
  r.status = status;
  r.headers.set("Content-Type", type);
  r.headers.set("X-Content-Type-Options", "nosniff");
  r.body = std::move(body);
  return r;
}

Result<int> number(std::string_view text, int from, int to) {
  int n = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc{} || end != text.data() + text.size() || n < from || n > to)
    return fail(ErrorCode::invalid_argument, "\"{}\" is not a number from {} to {}", text, from, to);
  return n;
}

Task<http::Response> take_profile(http::Target target, std::shared_ptr<bool> stopping) {
  const auto seconds = number(target.get("seconds").value_or("30"), 1, 300);
  if (!seconds) co_return answer(400, "seconds: " + seconds.error().message + "\n");
  auto profile = CpuProfile::start();
  if (!profile) co_return answer(500, "Could not enable CPU profiling: " + profile.error().message + "\n");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(*seconds);
  while (!*stopping && std::chrono::steady_clock::now() < end) {
    auto slept = co_await sleep_for(std::chrono::milliseconds(100));
    if (!slept) break;
  }
  auto r = answer(200, profile->finish(), "application/octet-stream");
  r.headers.set("Content-Disposition", "attachment; filename=\"profile\"");
  co_return r;
}

http::Response set_verbosity(const http::Request& request) {
  if (request.method != "PUT") return answer(405, "unrecognized http method: want PUT\n");
  const auto v = number(request.body, 0, 100);
  if (!v) return answer(400, "verbosity: " + v.error().message + "\n");
  log::set_level(*log::parse_level(log_level_of(*v)));
  return answer(200, "successfully set klog.logging.verbosity to " + request.body);
}

}  // namespace

http::Handler Profiling::handler() const {
  return [enabled = enabled_, stopping = stopping_](http::Request request) -> Task<http::Response> {
    const auto target = http::Target::parse(request.target);
    const std::string path = target ? target->path : std::string();
    if (!path.starts_with("/debug/")) co_return answer(404, "not found\n");
    if (!enabled) co_return answer(404, "profiling is off: set enableProfiling in the configuration, or --profiling\n");
    if (path == "/debug/flags/v") co_return set_verbosity(request);
    if (path == "/debug/pprof" || path == "/debug/pprof/") co_return answer(200, std::string(kIndex));
    if (path == "/debug/pprof/cmdline") {
      auto text = read_file("/proc/self/cmdline", 1 << 20);
      if (!text) co_return answer(500, text.error().message + "\n");
      if (!text->empty()) text->pop_back();  // the NUL after the last argument
      co_return answer(200, std::move(*text));
    }
    if (path == "/debug/pprof/profile") {
      auto taken = co_await take_profile(*target, stopping);
      co_return taken;
    }
    if (path.starts_with("/debug/pprof/")) co_return answer(501, std::string(kNotGo));
    co_return answer(404, "not found\n");
  };
}

}  // namespace fairlead::proxy
