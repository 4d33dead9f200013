// Logging: one line per event on stderr: time, level, component, message, key=value pairs. The component is set once per
// process or thread of work. Messages are for operators: what happened, to which object, and what follows. Secrets and
// request bodies are never logged. Thread safe. The sink is spdlog, hidden in log.cc to keep compile times low.
//
//   log::info("listening on {}", address.to_string());
//   log::warn("skip EndpointSlice {}/{}: {}", ns, name, error.message);
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace fairlead::log {

enum class Level { debug, info, warn, error };

struct Options {
  std::string component = "fairlead";
  Level level = Level::info;
  bool json = false;  // one JSON object a line instead of text
};
void init(const Options& options);
void set_level(Level level);
bool enabled(Level level);
Result<Level> parse_level(std::string_view text);
void write(Level level, std::string_view message);

template <typename... A>
void at(Level level, fmt::format_string<A...> f, A&&... a) {
  if (enabled(level)) write(level, fmt::format(f, std::forward<A>(a)...));
}
template <typename... A>
void debug(fmt::format_string<A...> f, A&&... a) { at(Level::debug, f, std::forward<A>(a)...); }
template <typename... A>
void info(fmt::format_string<A...> f, A&&... a) { at(Level::info, f, std::forward<A>(a)...); }
template <typename... A>
void warn(fmt::format_string<A...> f, A&&... a) { at(Level::warn, f, std::forward<A>(a)...); }
template <typename... A>
void error(fmt::format_string<A...> f, A&&... a) { at(Level::error, f, std::forward<A>(a)...); }

}  // namespace fairlead::log
