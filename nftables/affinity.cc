#include "nftables/affinity.h"

#include <algorithm>

#include "nftables/layout.h"

namespace fairlead::nftables {

namespace {
constexpr int kAttempts = 5;
}

void AffinitySweeper::expect(const std::vector<Key>& frontends, const PortSlots& slots) {
  std::vector<SocketAddress> all(slots.cluster);
  all.insert(all.end(), slots.local.begin(), slots.local.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  for (const auto& key : frontends) expected_[key] = all;
  swept_once_ = false;
}

void AffinitySweeper::clear() {
  expected_.clear();
  complete_ = false;
  swept_once_ = false;
}

bool AffinitySweeper::wrong(const Element& e) const {
  // ip . proto . port . client; a NodePort is known by proto . port alone.
  const std::size_t ip = family_ == Family::v4 ? 4 : 16;
  if (e.key.size() < ip + 8) return true;
  auto it = expected_.find(Key(e.key.span().first(ip + 8)));
  if (it == expected_.end()) it = expected_.find(Key(e.key.span().subspan(ip, 8)));
  if (it == expected_.end()) return complete_;
  return !std::binary_search(it->second.begin(), it->second.end(), address_in(e.value, family_));
}

Result<> AffinitySweeper::sweep(std::size_t& operations) {
  if (!pending()) return {};
  const auto& set = set_of(SetId::affinity, family_);
  for (int attempt = 0;; ++attempt) {
    FL_TRY_CTX(const auto all, kernel_.elements(family_, kTableName, set), "list session affinity");
    op::DeleteElements gone{&set, {}};
    for (const auto& one : all)
      if (wrong(one.element)) gone.elements.push_back(one.element);
    const std::size_t count = gone.elements.size();
    if (count == 0) break;
    Batch batch{family_, std::string(kTableName), {std::move(gone)}};
    const auto done = kernel_.commit(batch);
    if (done) {
      operations += count;
      break;
    }
    // One of them timed out between the listing and the removal.
    if (done.error().code != ErrorCode::not_found || attempt + 1 == kAttempts) return fail(done.error());
  }
  if (swept_once_) clear();
  else swept_once_ = true;
  return {};
}

}  // namespace fairlead::nftables
