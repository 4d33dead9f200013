#include "demo/options.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace fairlead::demo {

void usage_error(const std::string& message) {
  std::fprintf(stderr, "fairlead-demo: %s (see --help)\n", message.c_str());
  std::exit(2);
}

Options Options::parse(int argc, char** argv, const std::vector<std::string>& with_value,
                       const std::vector<std::string>& without) {
  Options out;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      out.words_.push_back(word);
      continue;
    }
    std::string value;
    const auto equals = word.find('=');
    const bool inline_value = equals != std::string::npos;
    if (inline_value) {
      value = word.substr(equals + 1);
      word.resize(equals);
    }
    if (std::find(with_value.begin(), with_value.end(), word) != with_value.end()) {
      if (!inline_value) {
        if (++i >= argc) usage_error(word + " needs a value");
        value = argv[i];
      }
    } else if (std::find(without.begin(), without.end(), word) == without.end()) {
      usage_error("unknown flag " + word);
    } else if (inline_value) {
      usage_error(word + " takes no value");
    }
    out.flags_[word] = value;
  }
  return out;
}

std::string Options::text(const std::string& flag, const std::string& fallback) const {
  const auto it = flags_.find(flag);
  return it == flags_.end() ? fallback : it->second;
}

long Options::number(const std::string& flag, long fallback, long low, long high) const {
  const auto it = flags_.find(flag);
  if (it == flags_.end()) return fallback;
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(it->second.c_str(), &end, 10);
  if (it->second.empty() || *end != '\0' || errno != 0 || value < low || value > high)
    usage_error(flag + ": \"" + it->second + "\" is not a number from " + std::to_string(low) + " to " + std::to_string(high));
  return value;
}

std::chrono::milliseconds Options::duration(const std::string& flag, std::chrono::milliseconds fallback,
                                            const char* default_unit) const {
  const auto it = flags_.find(flag);
  if (it == flags_.end()) return fallback;
  std::chrono::milliseconds out{};
  if (!parse_duration(it->second, default_unit, out))
    usage_error(flag + ": \"" + it->second + "\" is not a duration like 250ms or 2s");
  return out;
}

bool parse_duration(const std::string& text, const char* default_unit, std::chrono::milliseconds& out) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !std::isfinite(value) || value < 0) return false;
  std::string unit = end;
  if (unit.empty()) unit = default_unit;
  const double factor = unit == "ms" ? 1 : unit == "s" ? 1e3 : unit == "m" ? 60e3 : unit == "h" ? 3600e3 : 0;
  if (factor == 0 || value * factor > 10.0 * 366 * 24 * 3600e3) return false;
  out = std::chrono::milliseconds(static_cast<long long>(value * factor));
  return true;
}

}  // namespace fairlead::demo
