#include "controlplane/controllers/node_ipam.h"

#include <algorithm>

namespace fairlead::controllers {
namespace {

constexpr unsigned max_block_bits = 16;

// The bits of an address between two prefix lengths, as a number. Requires: to - from <= 16.
std::size_t bits_between(const IpAddress& a, unsigned from, unsigned to) {
  std::size_t v = 0;
  const auto bytes = a.bytes();
  for (unsigned bit = from; bit < to; ++bit) v = v << 1 | (bytes[bit / 8] >> (7 - bit % 8) & 1);
  return v;
}

}  // namespace

Result<CidrPool> CidrPool::make(const Prefix& cluster, unsigned node_mask) {
  if (node_mask < cluster.length() || node_mask > cluster.address().bits())
    return fail(ErrorCode::invalid_argument, "a node mask of /{} does not fit into the cluster CIDR {}", node_mask, cluster.to_string());
  if (node_mask - cluster.length() > max_block_bits)
    return fail(ErrorCode::invalid_argument, "the cluster CIDR {} holds more than 65536 blocks of /{}: the masks may differ by at most {}",
                cluster.to_string(), node_mask, max_block_bits);
  return CidrPool(cluster, node_mask, std::size_t{1} << (node_mask - cluster.length()));
}

Prefix CidrPool::block(std::size_t i) const {
  std::array<std::uint8_t, 16> bytes{};
  const auto base = cluster_.address().bytes();
  std::copy(base.begin(), base.end(), bytes.begin());
  const unsigned bits = mask_ - cluster_.length();
  for (unsigned k = 0; k < bits; ++k) {
    const unsigned bit = cluster_.length() + k;
    if (i >> (bits - 1 - k) & 1) bytes[bit / 8] |= static_cast<std::uint8_t>(1u << (7 - bit % 8));
  }
  return {*IpAddress::from_bytes({bytes.data(), base.size()}), mask_};
}

std::pair<std::size_t, std::size_t> CidrPool::range(const Prefix& p) const {
  const IpAddress first = p.length() <= cluster_.length() ? cluster_.first() : p.first();
  const IpAddress last = p.length() <= cluster_.length() ? cluster_.last() : p.last();
  return {bits_between(first, cluster_.length(), mask_), bits_between(last, cluster_.length(), mask_)};
}

std::optional<Prefix> CidrPool::allocate() {
  for (std::size_t n = 0; n < used_.size(); ++n) {
    const std::size_t i = (cursor_ + n) % used_.size();
    if (used_[i]) continue;
    used_[i] = 1;
    ++count_;
    cursor_ = (i + 1) % used_.size();
    return block(i);
  }
  return std::nullopt;
}

void CidrPool::occupy(const Prefix& p) {
  if (!overlaps(p)) return;
  const auto [first, last] = range(p);
  for (std::size_t i = first; i <= last; ++i) {
    count_ += used_[i] ? 0 : 1;
    used_[i] = 1;
  }
}

void CidrPool::release(const Prefix& p) {
  if (!overlaps(p)) return;
  const auto [first, last] = range(p);
  for (std::size_t i = first; i <= last; ++i) {
    count_ -= used_[i] ? 1 : 0;
    used_[i] = 0;
  }
}

Result<NodeIpam> NodeIpam::make(const NodeIpamConfig& config) {
  if (config.cluster_cidrs.empty() || config.cluster_cidrs.size() > 2)
    return fail(ErrorCode::invalid_argument, "--cluster-cidr: one CIDR or one of each family is needed, not {}", config.cluster_cidrs.size());
  if (config.cluster_cidrs.size() == 2 && config.cluster_cidrs[0].address().family() == config.cluster_cidrs[1].address().family())
    return fail(ErrorCode::invalid_argument, "--cluster-cidr: two CIDRs must be of different families");
  NodeIpam out;
  for (const Prefix& p : config.cluster_cidrs) {
    FL_TRY_CTX(CidrPool pool, CidrPool::make(p, p.address().is_v4() ? config.mask_v4 : config.mask_v6), "--cluster-cidr");
    out.pools_.push_back(std::move(pool));
  }
  return out;
}

Result<> NodeIpam::occupy(const std::string& node, const std::vector<std::string>& cidrs) {
  std::vector<Prefix> prefixes;
  for (const auto& text : cidrs) {
    FL_TRY_CTX(const Prefix p, Prefix::parse(text), "pod CIDR of node {}", node);
    prefixes.push_back(p);
  }
  if (prefixes.empty()) return {};
  if (const auto it = held_.find(node); it != held_.end() && it->second == prefixes) return {};
  release(node);
  for (const Prefix& p : prefixes) {
    for (CidrPool& pool : pools_) pool.occupy(p);
  }
  held_[node] = std::move(prefixes);
  return {};
}

Result<std::vector<Prefix>> NodeIpam::allocate(const std::string& node) {
  if (const auto it = held_.find(node); it != held_.end()) return it->second;
  std::vector<Prefix> out;
  for (CidrPool& pool : pools_) {
    const auto p = pool.allocate();
    if (!p) {
      for (std::size_t i = 0; i < out.size(); ++i) pools_[i].release(out[i]);
      return fail(ErrorCode::resource_exhausted, "no pod CIDR is left for node {}: all {} blocks are in use", node, pool.size());
    }
    out.push_back(*p);
  }
  held_[node] = out;
  return out;
}

void NodeIpam::release(const std::string& node) {
  const auto it = held_.find(node);
  if (it == held_.end()) return;
  for (const Prefix& p : it->second) {
    for (CidrPool& pool : pools_) pool.release(p);
  }
  held_.erase(it);
}

}  // namespace fairlead::controllers
