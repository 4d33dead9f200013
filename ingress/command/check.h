// `fairlead ingress check`: compiles manifests without a cluster and tells what the router makes of them: each diagnostic (with
// ingress-nginx annotations this is the migration report), and for requests that are asked about, which backend they would reach
// and why. Exit code 0: nothing is wrong and every expectation holds; 1: otherwise; 2: wrong usage.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "ingress/command/settings.h"

namespace fairlead::ingress {

struct CheckOptions {
  std::vector<std::string> files;
  std::vector<std::string> expectations;  // "[METHOD ]URL[ HEADER: VALUE]... => SERVICE:PORT | STATUS[ LOCATION]"
  std::vector<std::string> requests;      // the same without the arrow: only explained
  bool strict = false;                    // warnings count as errors
};

// One question, parsed. `want` is empty for a request that is only to be explained.
struct Question {
  std::string text, head, want;
  bool https = false;
};
Result<Question> parse_question(const std::string& text, bool with_want);

// What would happen: "default/web:80", "308 https://h/x", "404", and the reason in words.
struct Outcome {
  std::string what, why;
};
Outcome explain(const RouteTable& table, const Question& question);

int run_check(const CheckOptions& options, const Settings& settings);

}  // namespace fairlead::ingress
