#include "nftables/diff.h"

namespace fairlead::nftables {

void Changes::write_chain(const Chain& c, bool exists) { chains_.emplace_back(c, exists); }

std::size_t Changes::size() const {
  std::size_t n = 0;
  for (const auto& v : added_) n += v.size();
  for (const auto& v : removed_) n += v.size();
  for (const auto& [c, exists] : chains_) n += 1 + c.rules.size();
  return n;
}

void Changes::move_into(Batch& batch) {
  for (auto& [c, exists] : chains_) {
    if (exists) batch.ops.push_back(op::FlushChain{c.name});
    else batch.ops.push_back(op::AddChain{{c.name, c.hook, {}}});
  }
  for (auto& [c, exists] : chains_)
    for (auto& r : c.rules) batch.ops.push_back(op::AddRule{c.name, std::move(r)});
  for (std::size_t i = 0; i < kSetCount; ++i)
    if (!removed_[i].empty())
      batch.ops.push_back(op::DeleteElements{&set_of(static_cast<SetId>(i), batch.family), std::move(removed_[i])});
  for (std::size_t i = 0; i < kSetCount; ++i)
    if (!added_[i].empty())
      batch.ops.push_back(op::AddElements{&set_of(static_cast<SetId>(i), batch.family), std::move(added_[i])});
  *this = Changes{};
}

void diff(const std::vector<PlacedElement>& before, const std::vector<PlacedElement>& after, Changes& out) {
  const auto order = [](const PlacedElement& a, const PlacedElement& b) {
    if (a.set != b.set) return a.set <=> b.set;
    return a.element.key <=> b.element.key;
  };
  auto b = before.begin();
  auto a = after.begin();
  while (b != before.end() || a != after.end()) {
    const auto o = b == before.end()  ? std::strong_ordering::greater
                   : a == after.end() ? std::strong_ordering::less
                                      : order(*b, *a);
    if (o < 0) {
      out.remove(b->set, b->element);
      ++b;
    } else if (o > 0) {
      out.add(a->set, a->element);
      ++a;
    } else {
      if (!(b->element == a->element)) {
        out.remove(b->set, b->element);
        out.add(a->set, a->element);
      }
      ++a;
      ++b;
    }
  }
}

void SharedElements::acquire(const Element& e) {
  auto& entry = entries_[e.key];
  entry.wanted = e;
  entry.go_at.reset();
  ++entry.users;
  touch(entry);
}

void SharedElements::release(const Element& e) {
  const auto it = entries_.find(e.key);
  if (it == entries_.end() || it->second.users == 0) return;
  if (--it->second.users == 0) touch(it->second);
}

bool SharedElements::lingers(Entry& e, const Key& key) {
  if (linger_.count() == 0 || !e.present) return false;
  const auto now = clock_->steady();
  if (!e.go_at) {
    if (lingering_.size() >= kMaxLingering) return false;
    e.go_at = now + linger_;
    lingering_.emplace_back(*e.go_at, key);
  }
  return now < *e.go_at;
}

void SharedElements::settle(Changes& out, bool keep_unused) {
  for (; !lingering_.empty() && lingering_.front().first <= clock_->steady(); lingering_.pop_front())
    touched_.push_back(lingering_.front().second);
  std::vector<Key> later;
  for (const auto& key : touched_) {
    const auto it = entries_.find(key);
    if (it == entries_.end()) continue;
    auto& e = it->second;
    if (e.users == 0 && keep_unused) {
      later.push_back(key);
      continue;
    }
    if (e.users == 0 && lingers(e, key)) continue;
    if (e.present && (e.users == 0 || !(*e.present == e.wanted))) {
      out.remove(set_, *e.present);
      e.present.reset();
    }
    if (e.users == 0) {
      entries_.erase(it);
    } else if (!e.present) {
      out.add(set_, e.wanted);
      e.present = e.wanted;
    }
  }
  touched_ = std::move(later);
}

void SharedElements::clear() {
  entries_.clear();
  touched_.clear();
  lingering_.clear();
}

}  // namespace fairlead::nftables
