#include "lb/l2/elect.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <tuple>

namespace fairlead::lb::l2 {

std::vector<std::string> elect(const IpAddress& ip, const std::vector<Candidate>& candidates) {
  using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;
  std::vector<std::tuple<bool, bool, Digest, std::string>> order;
  const auto address = ip.to_string();
  for (const auto& c : candidates) {
    const auto text = c.node + "#" + address;
    Digest d{};
    ::SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), d.data());
    order.emplace_back(c.draining, !c.preferred, d, c.node);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::string> out;
  for (auto& o : order) out.push_back(std::move(std::get<3>(o)));
  return out;
}

}  // namespace fairlead::lb::l2
