#include "lb/pool_watch.h"

#include <algorithm>

#include "base/log.h"

namespace fairlead::lb {
namespace {

bool contains(const std::vector<Diagnostic>& all, const Diagnostic& d) { return std::find(all.begin(), all.end(), d) != all.end(); }

}  // namespace

void PoolWatch::take(std::vector<PoolText> texts) {
  auto now = parse_pools(texts, read_.set);
  for (const auto& d : now.diagnostics)
    if (!contains(read_.diagnostics, d)) log::warn("pools: {}", d.to_string());
  texts_ = std::move(texts);
  read_ = std::move(now);
  known_ = true;
  log::info("pools: {} address pools, {} layer 2 advertisements, {} BGP peers, {} BGP advertisements", read_.set.pools.size(), read_.set.l2.size(), read_.set.peers.size(), read_.set.bgp.size());
}

Result<> PoolWatch::start() {
  source_->start();
  FL_TRY(auto texts, source_->read());
  if (texts) take(std::move(*texts));
  return {};
}

bool PoolWatch::look() {
  auto texts = source_->read();
  if (!texts) {
    if (!std::exchange(unreadable_, true)) log::warn("pools: {}; they stay as they are", texts.error().message);
    return false;
  }
  unreadable_ = false;
  if (!*texts || (known_ && **texts == texts_)) return false;
  take(std::move(**texts));
  return true;
}

std::vector<std::pair<corev1::ObjectReference, Diagnostic>> PoolWatch::news() {
  std::vector<std::pair<corev1::ObjectReference, Diagnostic>> out;
  for (const auto& d : read_.diagnostics) {
    if (contains(told_, d)) continue;
    if (const auto about = source_->reference(d.object)) out.emplace_back(*about, d);
  }
  told_ = read_.diagnostics;
  return out;
}

}  // namespace fairlead::lb
