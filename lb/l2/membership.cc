#include "lb/l2/membership.h"

namespace fairlead::lb::l2 {
namespace {

constexpr std::string_view kMagic = "FLHB";
constexpr char kVersion = 1;
constexpr unsigned kLeaving = 1, kUnsettled = 2;
constexpr std::size_t kHead = 7;

}  // namespace

std::string Heartbeat::encode() const {
  std::string out(kMagic);
  out += kVersion;
  out += static_cast<char>((leaving ? kLeaving : 0) | (settled ? 0 : kUnsettled));
  out += static_cast<char>(node.size());
  return out + node;
}

std::optional<Heartbeat> Heartbeat::decode(std::string_view b) {
  if (b.size() <= kHead || b.size() > kMaxHeartbeat || !b.starts_with(kMagic) || b[4] != kVersion) return std::nullopt;
  const auto flags = static_cast<unsigned char>(b[5]);
  if (flags > (kLeaving | kUnsettled) || static_cast<unsigned char>(b[6]) != b.size() - kHead) return std::nullopt;
  return Heartbeat{std::string(b.substr(kHead)), (flags & kLeaving) != 0, (flags & kUnsettled) == 0};
}

void Membership::heard(const Heartbeat& h, SteadyTime now) {
  if (h.leaving || !h.settled)
    last_heard_.erase(h.node);
  else
    last_heard_[h.node] = now;
}

void Membership::tick(SteadyTime now) {
  if (now - last_tick_ >= options_.dead_after) {
    // What was heard before says nothing about now; the others have long taken over.
    last_heard_.clear();
    settled_at_ = now + options_.dead_after;
    ++sleeps_;
  }
  last_tick_ = now;
  std::erase_if(last_heard_, [&](const auto& e) { return now - e.second >= options_.dead_after; });
}

std::set<std::string> Membership::alive(SteadyTime now) const {
  std::set<std::string> out;
  for (const auto& [node, when] : last_heard_)
    if (now - when < options_.dead_after) out.insert(node);
  return out;
}

}  // namespace fairlead::lb::l2
