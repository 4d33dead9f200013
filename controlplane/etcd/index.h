// Index: every key in memory with where its versions are; values stay on disk. A copy-on-write B+tree: one writer changes
// its own tree and publishes it as a Version; readers hold a Version and never wait for the writer. What a Version shows
// is exactly one revision of the store.
//
// Owner: the store's writer thread (every non-const call). Version and the free functions: any thread.
// Memory: nodes and items that a new version replaced are freed when the last older Version is dropped, so a Version
// should be held for one request, not longer.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "controlplane/etcd/record.h"

namespace fairlead::etcd {

struct OldVersion {
  Revision main;
  std::uint32_t sub;
  bool tombstone;
  const OldVersion* older;
};

// The newest version of a key (a tombstone has version 0) and the chain of older ones. The key's bytes follow the struct.
struct Item {
  Revision main;
  std::uint32_t sub;
  std::uint32_t key_size;
  Revision create;
  std::int64_t version;
  LeaseId lease;
  const OldVersion* older;

  bool tombstone() const { return version == 0; }
  RevKey at() const { return {main, sub}; }
  std::string_view key() const { return {reinterpret_cast<const char*>(this + 1), key_size}; }
};

// Which keys: one, [from, to), or everything from `from` on.
struct KeyRange {
  std::string_view from;
  std::string_view to;
  enum class Kind { single, bounded, open } kind = Kind::single;
  static KeyRange of(std::string_view key, std::string_view range_end);
  bool contains(std::string_view k) const;
  bool past(std::string_view k) const;  // k and all greater keys are outside
};

namespace index_detail {
constexpr std::uint32_t kFan = 64;
struct Node {
  std::uint64_t edit;
  std::uint32_t count;
  std::uint32_t leaf;
  std::int64_t live;  // keys below that are not tombstones
};
struct Leaf : Node {
  const Item* items[kFan];
};
struct Separator {
  std::uint32_t size;
  std::string_view key() const { return {reinterpret_cast<const char*>(this + 1), size}; }
};
struct Inner : Node {
  const Separator* lower[kFan];  // lower[i]: smallest key that belongs to child i; lower[0] is unused
  Node* children[kFan];
};
std::uint32_t leaf_position(const Leaf& leaf, std::string_view key);    // first item >= key
std::uint32_t child_position(const Inner& inner, std::string_view key);  // the child that holds key
}  // namespace index_detail

// A tree as it was at one moment. Cheap to copy; valid while the Version (or the writer's edit) it came from is.
class View {
 public:
  explicit View(const index_detail::Node* root = nullptr) : root_(root) {}
  const Item* find(std::string_view key) const;
  // Keys in order, tombstones included; `visit` returns false to stop.
  template <typename F>
  void scan(const KeyRange& range, F&& visit) const {
    if (root_) scan(root_, range, visit);
  }
  std::int64_t count_live(const KeyRange& range) const;  // logarithmic
  std::int64_t live() const { return root_ ? root_->live : 0; }

 private:
  template <typename F>
  static bool scan(const index_detail::Node* n, const KeyRange& range, F& visit) {
    using namespace index_detail;
    if (n->leaf) {
      const auto& leaf = *static_cast<const Leaf*>(n);
      for (auto i = leaf_position(leaf, range.from); i < leaf.count; ++i)
        if (range.past(leaf.items[i]->key()) || !visit(*leaf.items[i])) return false;
      return true;
    }
    const auto& inner = *static_cast<const Inner*>(n);
    for (auto i = child_position(inner, range.from); i < inner.count; ++i) {
      if (i > 0 && range.past(inner.lower[i]->key())) return false;
      if (!scan(inner.children[i], range, visit)) return false;
    }
    return true;
  }
  const index_detail::Node* root_;
};

// One published revision.
class Version {
 public:
  ~Version();
  View view() const { return View(root_); }
  Revision revision() const { return revision_; }
  Revision compacted() const { return compacted_; }

 private:
  friend class Index;
  const index_detail::Node* root_ = nullptr;
  Revision revision_ = 0;
  Revision compacted_ = 0;
  std::shared_ptr<Version> next_;  // keeps the newer ones, so that garbage is freed in order
  std::vector<const void*> garbage_;
};

class Index {
 public:
  Index();
  ~Index();
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  View view() const { return View(root_); }
  void put(std::string_view key, RevKey at, Revision create, std::int64_t version, LeaseId lease);
  void remove(std::string_view key, RevKey at);  // a tombstone
  // Forgets the versions of `key` that nobody can ask for once `at` is compacted; tells which.
  void truncate(std::string_view key, Revision at, std::vector<RevKey>& dropped);
  std::shared_ptr<const Version> publish(Revision revision, Revision compacted);
  std::size_t size() const { return keys_; }        // tombstones included
  std::size_t bytes() const { return bytes_; }      // of the newest tree

 private:
  struct Change;
  Item* make_item(std::string_view key, RevKey at, Revision create, std::int64_t version, LeaseId lease,
                  const OldVersion* older);
  const OldVersion* make_old(RevKey at, bool tombstone, const OldVersion* older);
  const index_detail::Separator* make_separator(std::string_view key);
  index_detail::Node* editable(index_detail::Node* n);
  void replace_root(const Item* item);
  Change set(index_detail::Node*& slot, const Item* item);
  Change set_leaf(index_detail::Node*& slot, const Item* item);
  bool erase(index_detail::Node*& slot, std::string_view key, std::int64_t live_delta);
  void* allocate(std::size_t size);
  void retire(const void* p, std::size_t size);

  index_detail::Node* root_ = nullptr;
  std::uint64_t edit_ = 1;
  std::size_t keys_ = 0;
  std::size_t bytes_ = 0;
  std::vector<const void*> retired_;
  std::shared_ptr<Version> current_;
};

// The version of `item` that was newest at `revision`; main == 0 when the key did not exist then.
RevKey version_at(const Item& item, Revision revision);

}  // namespace fairlead::etcd
