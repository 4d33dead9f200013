// Command line of the demo program: positional words, "--flag value" and "--flag", with strict checking. Errors are printed
// and end the program with status 2.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace fairlead::demo {

class Options {
 public:
  // Flags named in with_value take one; those in without take none; anything else is an error.
  static Options parse(int argc, char** argv, const std::vector<std::string>& with_value,
                       const std::vector<std::string>& without);
  bool has(const std::string& flag) const { return flags_.contains(flag); }
  std::string text(const std::string& flag, const std::string& fallback) const;
  long number(const std::string& flag, long fallback, long low, long high) const;
  std::chrono::milliseconds duration(const std::string& flag, std::chrono::milliseconds fallback, const char* default_unit) const;
  const std::vector<std::string>& words() const { return words_; }

 private:
  std::map<std::string, std::string> flags_;
  std::vector<std::string> words_;
};

// "250ms", "1.5s", "2m", "1h"; a bare number is in default_unit. False when it is malformed or longer than 10 years.
bool parse_duration(const std::string& text, const char* default_unit, std::chrono::milliseconds& out);

[[noreturn]] void usage_error(const std::string& message);

int run_serve(int argc, char** argv);
int run_fetch(int argc, char** argv);
int run_probe(int argc, char** argv);

}  // namespace fairlead::demo
