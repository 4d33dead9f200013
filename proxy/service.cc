#include "proxy/service.h"

#include <deque>
#include <mutex>
#include <unordered_map>

namespace fairlead::proxy {
namespace {

struct AtomPool {
  std::mutex mutex;
  std::deque<std::string> texts{""};
  std::unordered_map<std::string_view, std::uint32_t> ids{{"", 0}};
};

AtomPool& pool() {
  static auto* p = new AtomPool;  // never destroyed: values may outlive main()
  return *p;
}

}  // namespace

Atom::Atom(std::string_view text) {
  if (text.empty()) return;
  auto& p = pool();
  const std::lock_guard lock(p.mutex);
  const auto it = p.ids.find(text);
  if (it != p.ids.end()) {
    id_ = it->second;
    return;
  }
  id_ = static_cast<std::uint32_t>(p.texts.size());
  p.texts.emplace_back(text);
  p.ids.emplace(p.texts.back(), id_);
}

const std::string& Atom::str() const {
  auto& p = pool();
  const std::lock_guard lock(p.mutex);
  return p.texts[id_];
}

std::string_view to_string(Balance b) { return b == Balance::random ? "random" : "maglev"; }

std::uint32_t target_hash(std::string_view name) {
  std::uint32_t h = 2166136261u;
  for (const char c : name) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619u;
  return h;
}

bool names(const Atom& joined, std::string_view one) {
  if (joined.empty() || one.empty()) return false;
  std::string_view rest = joined.str();
  while (true) {
    const auto end = rest.find('\n');
    if (rest.substr(0, end) == one) return true;
    if (end == std::string_view::npos) return false;
    rest.remove_prefix(end + 1);
  }
}

bool ServiceEndpoints::operator==(const ServiceEndpoints& o) const {
  if (slices.size() != o.slices.size()) return false;
  for (std::size_t i = 0; i < slices.size(); ++i)
    if (slices[i] != o.slices[i] && !(*slices[i] == *o.slices[i])) return false;
  return true;
}

}  // namespace fairlead::proxy
