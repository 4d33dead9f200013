// Bytes of the write-ahead log and of the log table: refused or read, and what was read is written back the same.
#include <cstring>
#include <string>

#include "controlplane/etcd/crc32c.h"
#include "controlplane/etcd/record.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::etcd;

void fuzz_one(std::string_view bytes) {
  if (auto record = decode_record(bytes)) {
    std::string once, twice;
    encode_record(*record, once);
    auto again = decode_record(once);
    FUZZ_CHECK(again.has_value(), "what was written can be read");
    encode_record(*again, twice);
    FUZZ_CHECK(once == twice, "the same bytes come out");
  }
  // A row passes its checksum first, or it would be refused for that alone.
  const RevKey at{7, 1};
  std::string row(4, '\0');
  row.append(bytes);
  const auto crc = crc32c(crc32c(0, encode_rev_key(at)), bytes);
  std::memcpy(row.data(), &crc, 4);
  if (auto view = decode_row(at, row)) {
    Mutation m{view->tombstone, std::string(view->key), std::string(view->value), view->create, view->version, view->lease, view->prev, nullptr};
    std::string written;
    encode_row(at, m, written);
    auto again = decode_row(at, written);
    FUZZ_CHECK(again && again->key == m.key && again->value == m.value && again->lease == m.lease, "a row survives being written");
    FUZZ_CHECK(!decode_row({7, 2}, written), "a row in the wrong place is refused");
  }
}
