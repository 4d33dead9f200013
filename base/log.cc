#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>
#include <boost/json/value.hpp>

namespace fairlead::log {
namespace {

std::atomic<Level> g_level{Level::info};
std::atomic<bool> g_json{false};

spdlog::level::level_enum to_spd(Level l) {
  switch (l) {
    case Level::debug: return spdlog::level::debug;
    case Level::info: return spdlog::level::info;
    case Level::warn: return spdlog::level::warn;
    case Level::error: return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& logger() {
  static auto* const l = [] {
    auto* made = new spdlog::logger("fairlead", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_level(spdlog::level::debug);
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %L %n %v", spdlog::pattern_time_type::utc);
    made->flush_on(spdlog::level::debug);
    return made;
  }();
  return *l;
}

}  // namespace

void init(const Options& o) {
  auto& l = logger();
  const auto pattern = o.json ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","component":")" + o.component + R"(","message":%v})"
                              : "%Y-%m-%dT%H:%M:%S.%eZ %L " + o.component + ": %v";
  l.set_pattern(pattern, spdlog::pattern_time_type::utc);
  g_json = o.json;
  set_level(o.level);
}

void set_level(Level level) { g_level = level; }
bool enabled(Level level) { return level >= g_level.load(std::memory_order_relaxed); }

Result<Level> parse_level(std::string_view t) {
  if (t == "debug") return Level::debug;
  if (t == "info") return Level::info;
  if (t == "warn" || t == "warning") return Level::warn;
  if (t == "error") return Level::error;
  return fail(ErrorCode::invalid_argument, "\"{}\" is not a log level (debug, info, warn, error)", t);
}

void write(Level level, std::string_view message) {
  if (g_json.load(std::memory_order_relaxed))
    logger().log(to_spd(level), "{}", boost::json::serialize(boost::json::value(boost::json::string(message))));
  else
    logger().log(to_spd(level), "{}", message);
}

}  // namespace fairlead::log
