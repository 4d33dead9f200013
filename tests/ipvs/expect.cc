#include "tests/ipvs/expect.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <string_view>

namespace fairlead::ipvs::testing {
namespace {

using proxy::Decision;
using proxy::testing::PacketRow;

// One list of real servers per virtual server: who comes from this node gets the endpoints here, as everybody else does.
void only_here(PacketRow& row) { row.expect.endpoints = {{proxy::testing::ip("10.244.0.2"), 8080}}; }
// The address is bound on this node, so without a refusal the node's own programs would answer on it.
void refused(PacketRow& row) { row.expect = {Decision::Verdict::reject, {}, false, false, {}}; }

struct Difference {
  std::string_view row;
  void (*change)(PacketRow&);
};
constexpr std::array<Difference, 4> kDifferences{{
    {"Local: a pod of this node may use all endpoints", only_here},
    {"Local: a pod of this node through the NodePort", only_here},
    {"Local: the host may use all endpoints", only_here},
    {"another port of a VIP is none of our business", refused},
}};

}  // namespace

std::vector<PacketRow> packet_table() {
  auto rows = proxy::testing::packet_table();
  for (const auto& d : kDifferences) {
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const PacketRow& r) { return r.name == d.row; });
    if (row == rows.end()) throw std::logic_error("the packet table has no row \"" + std::string(d.row) + "\" any more");
    d.change(*row);
  }
  return rows;
}

}  // namespace fairlead::ipvs::testing
