#include "controlplane/etcd/index.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace fairlead::etcd {
using namespace index_detail;

namespace index_detail {

std::uint32_t leaf_position(const Leaf& leaf, std::string_view key) {
  std::uint32_t lo = 0, hi = leaf.count;
  while (lo < hi) {
    const auto mid = (lo + hi) / 2;
    if (leaf.items[mid]->key() < key) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

std::uint32_t child_position(const Inner& inner, std::string_view key) {
  std::uint32_t lo = 1, hi = inner.count;
  while (lo < hi) {
    const auto mid = (lo + hi) / 2;
    if (inner.lower[mid]->key() <= key) lo = mid + 1;
    else hi = mid;
  }
  return lo - 1;
}

}  // namespace index_detail

namespace {

std::size_t item_size(const Item* i) { return sizeof(Item) + i->key_size; }
std::size_t node_size(const Node* n) { return n->leaf ? sizeof(Leaf) : sizeof(Inner); }

// Live keys smaller than `key`.
std::int64_t rank(const Node* n, std::string_view key) {
  std::int64_t sum = 0;
  while (!n->leaf) {
    const auto& inner = *static_cast<const Inner*>(n);
    const auto at = child_position(inner, key);
    for (std::uint32_t i = 0; i < at; ++i) sum += inner.children[i]->live;
    n = inner.children[at];
  }
  const auto& leaf = *static_cast<const Leaf*>(n);
  const auto end = leaf_position(leaf, key);
  for (std::uint32_t i = 0; i < end; ++i) sum += leaf.items[i]->tombstone() ? 0 : 1;
  return sum;
}

void free_tree(const Node* n) {
  if (n->leaf) {
    const auto& leaf = *static_cast<const Leaf*>(n);
    for (std::uint32_t i = 0; i < leaf.count; ++i) {
      for (auto* o = leaf.items[i]->older; o;) std::free(const_cast<OldVersion*>(std::exchange(o, o->older)));
      std::free(const_cast<Item*>(leaf.items[i]));
    }
  } else {
    const auto& inner = *static_cast<const Inner*>(n);
    for (std::uint32_t i = 0; i < inner.count; ++i) {
      if (i > 0) std::free(const_cast<Separator*>(inner.lower[i]));
      free_tree(inner.children[i]);
    }
  }
  std::free(const_cast<Node*>(n));
}

}  // namespace

KeyRange KeyRange::of(std::string_view key, std::string_view range_end) {
  if (range_end.empty()) return {key, {}, Kind::single};
  if (range_end.size() == 1 && range_end[0] == '\0') {
    // key "\0" with range_end "\0" is every key there is
    if (key.size() == 1 && key[0] == '\0') key = {};
    return {key, {}, Kind::open};
  }
  return {key, range_end, Kind::bounded};
}

bool KeyRange::contains(std::string_view k) const {
  switch (kind) {
    case Kind::single: return k == from;
    case Kind::bounded: return k >= from && k < to;
    case Kind::open: return k >= from;
  }
  return false;
}

bool KeyRange::past(std::string_view k) const {
  switch (kind) {
    case Kind::single: return k > from;
    case Kind::bounded: return k >= to;
    case Kind::open: return false;
  }
  return true;
}

const Item* View::find(std::string_view key) const {
  const Node* n = root_;
  if (!n) return nullptr;
  while (!n->leaf) {
    const auto& inner = *static_cast<const Inner*>(n);
    n = inner.children[child_position(inner, key)];
  }
  const auto& leaf = *static_cast<const Leaf*>(n);
  const auto i = leaf_position(leaf, key);
  return i < leaf.count && leaf.items[i]->key() == key ? leaf.items[i] : nullptr;
}

std::int64_t View::count_live(const KeyRange& range) const {
  if (!root_) return 0;
  if (range.kind == KeyRange::Kind::single) {
    const auto* item = find(range.from);
    return item && !item->tombstone() ? 1 : 0;
  }
  if (range.kind == KeyRange::Kind::bounded && range.to <= range.from) return 0;
  const auto below = range.from.empty() ? 0 : rank(root_, range.from);
  return (range.kind == KeyRange::Kind::open ? root_->live : rank(root_, range.to)) - below;
}

Version::~Version() {
  for (const auto* p : garbage_) std::free(const_cast<void*>(p));
  // Unlink newer versions that only this one kept, without recursion: there may be very many.
  auto n = std::move(next_);
  while (n && n.use_count() == 1) n = std::move(n->next_);
}

struct Index::Change {
  std::int64_t live = 0;
  const Separator* lower = nullptr;  // the slot was split: a new right neighbour
  Node* right = nullptr;
};

Index::Index() : current_(std::make_shared<Version>()) {}

Index::~Index() {
  for (const auto* p : retired_) std::free(const_cast<void*>(p));
  if (root_) free_tree(root_);
}

void* Index::allocate(std::size_t size) {
  void* p = std::malloc(size);
  if (!p) throw std::bad_alloc();
  bytes_ += size;
  return p;
}

void Index::retire(const void* p, std::size_t size) {
  bytes_ -= size;
  retired_.push_back(p);
}

Item* Index::make_item(std::string_view key, RevKey at, Revision create, std::int64_t version, LeaseId lease,
                       const OldVersion* older) {
  auto* item = new (allocate(sizeof(Item) + key.size()))
      Item{at.main, at.sub, static_cast<std::uint32_t>(key.size()), create, version, lease, older};
  std::memcpy(reinterpret_cast<char*>(item + 1), key.data(), key.size());
  return item;
}

const OldVersion* Index::make_old(RevKey at, bool tombstone, const OldVersion* older) {
  return new (allocate(sizeof(OldVersion))) OldVersion{at.main, at.sub, tombstone, older};
}

const Separator* Index::make_separator(std::string_view key) {
  auto* s = new (allocate(sizeof(Separator) + key.size())) Separator{static_cast<std::uint32_t>(key.size())};
  std::memcpy(reinterpret_cast<char*>(s + 1), key.data(), key.size());
  return s;
}

Node* Index::editable(Node* n) {
  if (n->edit == edit_) return n;
  auto* copy = static_cast<Node*>(allocate(node_size(n)));
  std::memcpy(static_cast<void*>(copy), n, node_size(n));
  copy->edit = edit_;
  retire(n, node_size(n));
  return copy;
}

void Index::put(std::string_view key, RevKey at, Revision create, std::int64_t version, LeaseId lease) {
  const Item* before = view().find(key);
  const OldVersion* older = before ? make_old(before->at(), before->tombstone(), before->older) : nullptr;
  replace_root(make_item(key, at, create, version, lease, older));
  if (before) retire(before, item_size(before));
}

void Index::remove(std::string_view key, RevKey at) { put(key, at, 0, 0, 0); }

void Index::replace_root(const Item* item) {
  if (!root_) {
    auto* leaf = static_cast<Leaf*>(allocate(sizeof(Leaf)));
    leaf->edit = edit_;
    leaf->count = 0;
    leaf->leaf = 1;
    leaf->live = 0;
    root_ = leaf;
  }
  const auto change = set(root_, item);
  if (!change.right) return;
  auto* top = static_cast<Inner*>(allocate(sizeof(Inner)));
  top->edit = edit_;
  top->count = 2;
  top->leaf = 0;
  top->live = root_->live + change.right->live;
  top->lower[0] = nullptr;
  top->lower[1] = change.lower;
  top->children[0] = root_;
  top->children[1] = change.right;
  root_ = top;
}

Index::Change Index::set_leaf(Node*& slot, const Item* item) {
  auto* leaf = static_cast<Leaf*>(slot = editable(slot));
  const auto i = leaf_position(*leaf, item->key());
  const std::int64_t alive = item->tombstone() ? 0 : 1;
  if (i < leaf->count && leaf->items[i]->key() == item->key()) {
    const std::int64_t delta = alive - (leaf->items[i]->tombstone() ? 0 : 1);
    leaf->items[i] = item;
    leaf->live += delta;
    return {delta};
  }
  ++keys_;
  std::memmove(leaf->items + i + 1, leaf->items + i, (leaf->count - i) * sizeof(Item*));
  leaf->items[i] = item;
  ++leaf->count;
  leaf->live += alive;
  if (leaf->count < kFan) return {alive};
  // Keys that arrive in order leave full leaves behind.
  const std::uint32_t keep = i + 1 == leaf->count ? kFan - 2 : kFan / 2;
  auto* right = static_cast<Leaf*>(allocate(sizeof(Leaf)));
  right->edit = edit_;
  right->leaf = 1;
  right->count = leaf->count - keep;
  right->live = 0;
  std::memcpy(right->items, leaf->items + keep, right->count * sizeof(Item*));
  for (std::uint32_t k = 0; k < right->count; ++k) right->live += right->items[k]->tombstone() ? 0 : 1;
  leaf->count = keep;
  leaf->live -= right->live;
  return {alive, make_separator(right->items[0]->key()), right};
}

Index::Change Index::set(Node*& slot, const Item* item) {
  if (slot->leaf) return set_leaf(slot, item);
  auto* inner = static_cast<Inner*>(slot = editable(slot));
  const auto at = child_position(*inner, item->key());
  const auto below = set(inner->children[at], item);
  inner->live += below.live;
  if (!below.right) return {below.live};
  const auto i = at + 1;
  std::memmove(inner->lower + i + 1, inner->lower + i, (inner->count - i) * sizeof(Separator*));
  std::memmove(inner->children + i + 1, inner->children + i, (inner->count - i) * sizeof(Node*));
  inner->lower[i] = below.lower;
  inner->children[i] = below.right;
  ++inner->count;
  if (inner->count < kFan) return {below.live};
  const std::uint32_t keep = i + 1 == inner->count ? kFan - 2 : kFan / 2;
  auto* right = static_cast<Inner*>(allocate(sizeof(Inner)));
  right->edit = edit_;
  right->leaf = 0;
  right->count = inner->count - keep;
  right->live = 0;
  std::memcpy(right->lower, inner->lower + keep, right->count * sizeof(Separator*));
  std::memcpy(right->children, inner->children + keep, right->count * sizeof(Node*));
  for (std::uint32_t k = 0; k < right->count; ++k) right->live += right->children[k]->live;
  const auto* lower = right->lower[0];
  right->lower[0] = nullptr;
  inner->count = keep;
  inner->live -= right->live;
  return {below.live, lower, right};
}

// Takes the key's item out; true when the node became empty (and was retired).
bool Index::erase(Node*& slot, std::string_view key, std::int64_t live_delta) {
  slot = editable(slot);
  slot->live += live_delta;
  if (slot->leaf) {
    auto* leaf = static_cast<Leaf*>(slot);
    const auto i = leaf_position(*leaf, key);
    std::memmove(leaf->items + i, leaf->items + i + 1, (leaf->count - i - 1) * sizeof(Item*));
    --leaf->count;
  } else {
    auto* inner = static_cast<Inner*>(slot);
    const auto i = child_position(*inner, key);
    if (erase(inner->children[i], key, live_delta)) {
      const auto drop = i == 0 ? 1 : i;  // child 1 becomes the first and loses its separator
      if (drop < inner->count) retire(inner->lower[drop], sizeof(Separator) + inner->lower[drop]->size);
      for (auto k = drop; k + 1 < inner->count; ++k) inner->lower[k] = inner->lower[k + 1];
      std::memmove(inner->children + i, inner->children + i + 1, (inner->count - i - 1) * sizeof(Node*));
      --inner->count;
    }
  }
  if (slot->count > 0) return false;
  retire(slot, node_size(slot));
  slot = nullptr;
  return true;
}

void Index::truncate(std::string_view key, Revision at, std::vector<RevKey>& dropped) {
  const Item* item = view().find(key);
  if (!item) return;
  const auto drop_chain = [&](const OldVersion* o) {
    for (; o; o = o->older) {
      dropped.push_back({o->main, o->sub});
      retire(o, sizeof(OldVersion));
    }
  };
  if (item->tombstone() && item->main < at) {  // a tombstone exactly at `at` is kept for watches that start there
    dropped.push_back(item->at());
    drop_chain(item->older);
    erase(root_, key, 0);
    while (root_ && !root_->leaf && root_->count == 1) {
      retire(root_, sizeof(Inner));
      root_ = static_cast<Inner*>(root_)->children[0];
    }
    --keys_;
    retire(item, item_size(item));
    return;
  }
  if (!item->older) return;
  std::vector<const OldVersion*> keep;
  const OldVersion* o = item->older;
  if (item->main > at) {
    for (; o && o->main > at; o = o->older) keep.push_back(o);
    if (o && !(o->tombstone && o->main < at)) {
      keep.push_back(o);
      o = o->older;
    }
  }
  if (!o) return;
  drop_chain(o);
  const OldVersion* older = nullptr;
  for (auto k = keep.rbegin(); k != keep.rend(); ++k) {
    older = make_old({(*k)->main, (*k)->sub}, (*k)->tombstone, older);
    retire(*k, sizeof(OldVersion));
  }
  replace_root(make_item(key, item->at(), item->create, item->version, item->lease, older));
  retire(item, item_size(item));
}

std::shared_ptr<const Version> Index::publish(Revision revision, Revision compacted) {
  auto v = std::make_shared<Version>();
  v->root_ = root_;
  v->revision_ = revision;
  v->compacted_ = compacted;
  current_->garbage_ = std::move(retired_);
  retired_.clear();
  current_->next_ = v;
  current_ = v;
  ++edit_;
  return v;
}

RevKey version_at(const Item& item, Revision revision) {
  if (item.main <= revision) return item.tombstone() ? RevKey{} : item.at();
  for (const auto* o = item.older; o; o = o->older)
    if (o->main <= revision) return o->tombstone ? RevKey{} : RevKey{o->main, o->sub};
  return {};
}

}  // namespace fairlead::etcd
