// What a fuzz target is: one function that is handed any bytes and must neither crash nor break a promise. FUZZ_CHECK is the
// promise. See tests/fuzz/CMakeLists.txt.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

void fuzz_one(std::string_view bytes);

#define FUZZ_CHECK(condition, what)                                                                                     \
  do {                                                                                                                  \
    if (!(condition)) {                                                                                                 \
      std::fprintf(stderr, "%s:%d: %s does not hold: %s\n", __FILE__, __LINE__, #condition, std::string(what).c_str()); \
      std::abort();                                                                                                     \
    }                                                                                                                   \
  } while (false)
