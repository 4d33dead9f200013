// Runs fuzz_one() on the files of a folder, and on mutations of them. The same mutations each time, so that a failure comes
// back; FAIRLEAD_FUZZ_ROUNDS (default 2000) makes a longer search, FAIRLEAD_FUZZ_SEED another one. A crash leaves its input in
// FAIRLEAD_FUZZ_OUT (default: crash.bin in the working folder).
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

std::string current;
const char* out_path = "crash.bin";

void save_input() {
  if (std::FILE* f = std::fopen(out_path, "wb")) {
    std::fwrite(current.data(), 1, current.size(), f);
    std::fclose(f);
    std::fprintf(stderr, "input saved in %s (%zu bytes)\n", out_path, current.size());
  }
}

void on_abort(int) {
  save_input();
  std::_Exit(1);
}

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

class Mutator {
 public:
  Mutator(std::vector<std::string> corpus, std::uint64_t seed) : corpus_(std::move(corpus)), random_(seed) {}

  std::string next() {
    std::string s = corpus_[below(corpus_.size())];
    for (std::size_t n = 1 + below(4); n > 0; --n) mutate(s);
    return s;
  }

 private:
  std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }

  void mutate(std::string& s) {
    const std::size_t at = below(s.size() + 1);
    switch (below(7)) {
      case 0: s.resize(at); break;
      case 1:
        if (at < s.size()) s[at] = static_cast<char>(random_());
        break;
      case 2:
        if (at < s.size()) s[at] = static_cast<char>(s[at] ^ (1 << below(8)));
        break;
      case 3: s.erase(at, 1 + below(8)); break;
      case 4: s.insert(at, s.substr(below(s.size()), below(32))); break;
      case 5: {
        const std::string& other = corpus_[below(corpus_.size())];
        s.insert(at, other.substr(below(other.size()), below(64)));
        break;
      }
      case 6: {
        static constexpr std::string_view kTokens[] = {"null",
                                                       "\"\"",
                                                       "{}",
                                                       "[]",
                                                       "-1",
                                                       "1e999",
                                                       "18446744073709551616",
                                                       "0.1",
                                                       "true",
                                                       "\\u0000",
                                                       "\"$patch\":\"delete\",",
                                                       "$setElementOrder/",
                                                       ",",
                                                       ":",
                                                       "&a ",
                                                       "*a",
                                                       "<<: ",
                                                       "\n",
                                                       "  ",
                                                       "\xff",
                                                       "k8s",
                                                       "=",
                                                       "!",
                                                       "(",
                                                       ")",
                                                       "in",
                                                       "Ki",
                                                       "e",
                                                       "."};
        s.insert(at, kTokens[below(std::size(kTokens))]);
        break;
      }
    }
    if (s.size() > 65536) s.resize(65536);
  }

  std::vector<std::string> corpus_;
  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  if (const char* path = std::getenv("FAIRLEAD_FUZZ_OUT")) out_path = path;
  std::signal(SIGABRT, on_abort);
  std::signal(SIGSEGV, on_abort);
  std::vector<std::string> corpus;
  for (int i = 1; i < argc; ++i) {
    const auto add = [&](const std::filesystem::path& p) {
      std::ifstream in(p, std::ios::binary);
      corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    };
    if (std::filesystem::is_regular_file(argv[i])) {
      add(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) add(entry.path());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "no input: give a corpus folder or files\n");
    return 2;
  }
  std::sort(corpus.begin(), corpus.end());  // a folder has no order
  for (const auto& input : corpus) {
    current = input;
    fuzz_one(current);
  }
  const std::uint64_t rounds =
      argc == 2 && std::filesystem::is_regular_file(argv[1]) ? 0 : number_of("FAIRLEAD_FUZZ_ROUNDS", 2000);
  Mutator mutator(corpus, number_of("FAIRLEAD_FUZZ_SEED", 1));
  for (std::uint64_t i = 0; i < rounds; ++i) {
    current = mutator.next();
    fuzz_one(current);
  }
  std::printf("%zu inputs, %llu mutations\n", corpus.size(), static_cast<unsigned long long>(rounds));
  return 0;
}
