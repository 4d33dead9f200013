// Whole files from outside: a log segment and a bbolt file with any content are read or refused, never a crash.
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "controlplane/etcd/bolt.h"
#include "controlplane/etcd/wal.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::etcd;

void fuzz_one(std::string_view bytes) {
  static const std::string dir = [] {
    std::string pattern = "/tmp/fairlead-fuzz-XXXXXX";
    return std::string(::mkdtemp(pattern.data()));
  }();
  const auto file = dir + "/file.db";
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
  if (auto bolt = BoltReader::open(file))
    for (const char* bucket : {"key", "meta", "lease"}) {
      std::size_t entries = 0;
      (void)bolt->for_each(bucket, [&](std::string_view, std::string_view) -> fairlead::Result<> {
        if (++entries > 10'000) return fairlead::fail(fairlead::ErrorCode::data_loss, "too many");
        return {};
      });
    }
  const auto wal = dir + "/wal";
  std::filesystem::remove_all(wal);
  std::filesystem::create_directory(wal);
  std::ofstream(wal + "/0000000000000001.wal", std::ios::binary) << bytes;
  WalOptions o;
  o.segment_bytes = 4096;
  o.sync = [](int) { return fairlead::Result<>{}; };
  std::uint64_t last = 0;
  auto opened = Wal::open(wal, 0, [&](std::uint64_t sequence, std::string_view) -> fairlead::Result<> {
    FUZZ_CHECK(sequence == last + 1, "records come without a gap");
    last = sequence;
    return {};
  }, o);
  FUZZ_CHECK(!opened || (*opened)->last_sequence() == last, "what was replayed is what counts");
  std::filesystem::remove_all(wal);
  std::filesystem::remove(file);
}
