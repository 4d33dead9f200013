#include "lb/pool_watch.h"

#include <algorithm>

#include "base/log.h"

namespace fairlead::lb {

void PoolWatch::take(std::vector<PoolText> texts) {
  auto now = parse_pools(texts, read_.set);
  for (const auto& d : now.diagnostics)
    if (std::find(read_.diagnostics.begin(), read_.diagnostics.end(), d) == read_.diagnostics.end()) log::warn("pools: {}", d.to_string());
  texts_ = std::move(texts);
  read_ = std::move(now);
  log::info("pools: {} address pools, {} layer 2 advertisements", read_.set.pools.size(), read_.set.l2.size());
}

Result<> PoolWatch::read_first() {
  FL_TRY(auto texts, read_pool_dir(dir_));
  take(std::move(texts));
  return {};
}

bool PoolWatch::look() {
  auto texts = read_pool_dir(dir_);
  if (!texts) {
    if (!std::exchange(unreadable_, true)) log::warn("pools: {}; they stay as they are", texts.error().message);
    return false;
  }
  unreadable_ = false;
  if (*texts == texts_) return false;
  take(std::move(*texts));
  return true;
}

}  // namespace fairlead::lb
