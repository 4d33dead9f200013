#include "ingress/runtime/upstream.h"

#include <algorithm>
#include <unordered_map>

#include "ingress/runtime/backend.h"

namespace fairlead::ingress {
namespace {

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ (x >> 33);
}

}  // namespace

std::uint64_t hash_text(std::string_view text) {
  std::uint64_t h = 1469598103934665603ull;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return mix(h);
}

UpstreamState::~UpstreamState() = default;

void UpstreamState::adopt(const std::shared_ptr<const Upstream>& upstream, std::int64_t now_ms) {
  if (upstream == upstream_) return;
  // The number may have passed on to another service port, or certificates have been replaced.
  const bool same = upstream_ && upstream_->name == upstream->name && upstream_->transport == upstream->transport;
  const bool first = !upstream_;
  std::unordered_map<SocketAddress, std::shared_ptr<EndpointState>> old;
  for (auto& e : endpoints_) old.emplace(e->endpoint.address, e);
  std::vector<std::shared_ptr<EndpointState>> next;
  for (const auto& e : upstream->endpoints) {
    const auto it = same ? old.find(e.address) : old.end();
    if (it != old.end()) {
      next.push_back(std::move(it->second));
      old.erase(it);
      continue;
    }
    auto fresh = std::make_shared<EndpointState>();
    fresh->endpoint = e;
    // Slow start is for those that join others.
    fresh->since = same && !first ? now_ms : now_ms - limits_.slow_start_ms;
    next.push_back(std::move(fresh));
  }
  for (auto& [address, e] : old) {
    e->gone = true;
    const auto connections = e->pool;
    for (auto* c : connections) c->retire();
  }
  endpoints_ = std::move(next);
  if (!same) budget_ = limits_.retry_burst / 2;
  upstream_ = upstream;
}

bool UpstreamState::usable(const EndpointState& e, const Choice& c, std::int64_t now_ms, bool ejected_too) const {
  if (limits_.endpoint_requests != 0 && e.active >= limits_.endpoint_requests) return false;
  if (!ejected_too && e.ejected_until > now_ms) return false;
  return !c.avoid || std::find(c.avoid->begin(), c.avoid->end(), e.endpoint.hash) == c.avoid->end();
}

std::shared_ptr<EndpointState> UpstreamState::choose(const Choice& c, std::int64_t now_ms, bool ejected_too) {
  const std::size_t n = endpoints_.size();
  const auto ok = [&](const EndpointState& e) { return usable(e, c, now_ms, ejected_too); };
  if (c.kind == Choice::Kind::hash) {
    // Highest random weight: an endpoint more or less moves only the keys that it gains or loses.
    std::shared_ptr<EndpointState>* best = nullptr;
    std::uint64_t most = 0;
    for (auto& e : endpoints_) {
      const auto w = mix(e->endpoint.hash ^ c.hash);
      if (ok(*e) && (!best || w > most)) best = &e, most = w;
    }
    return best ? *best : nullptr;
  }
  if (c.kind == Choice::Kind::pinned) {
    for (auto& e : endpoints_)
      if (e->endpoint.hash == c.hash) return ok(*e) ? e : nullptr;
    return nullptr;
  }
  if (c.kind == Choice::Kind::least) {
    // The less loaded of two taken by chance; the next usable ones after them if they are not.
    auto take = [&](std::size_t from) -> std::shared_ptr<EndpointState>* {
      for (std::size_t i = 0; i < n; ++i)
        if (auto& e = endpoints_[(from + i) % n]; ok(*e)) return &e;
      return nullptr;
    };
    auto* a = take(c.chance % n);
    auto* b = take((c.chance >> 32) % n);
    if (!a || !b) return nullptr;
    return (*b)->active < (*a)->active ? *b : *a;
  }
  const auto turn = upstream_->turn->fetch_add(1, std::memory_order_relaxed);
  for (std::size_t i = 0; i < n; ++i) {
    auto& e = endpoints_[(turn + i) % n];
    if (!ok(*e)) continue;
    // One that has just started gets a share that grows with its age; its turn passes on to the next.
    const auto age = now_ms - e->since;
    if (age < limits_.slow_start_ms && i + 1 < n && static_cast<std::int64_t>(mix(c.chance + i) % static_cast<std::uint64_t>(limits_.slow_start_ms)) > std::max(age, limits_.slow_start_ms / 10)) continue;
    return e;
  }
  for (auto& e : endpoints_)
    if (ok(*e)) return e;
  return nullptr;
}

std::shared_ptr<EndpointState> UpstreamState::pick(const Choice& choice, std::int64_t now_ms) {
  if (endpoints_.empty()) return nullptr;
  if (auto e = choose(choice, now_ms, false)) return e;
  if (auto e = choose(choice, now_ms, true)) return e;
  if (choice.kind == Choice::Kind::pinned) return nullptr;
  if (!choice.avoid || choice.avoid->empty()) return nullptr;
  auto again = choice;
  again.avoid = nullptr;
  return choose(again, now_ms, true);
}

void UpstreamState::succeeded(EndpointState& e) {
  e.failures = 0;
  if (e.ejected_until != 0) e.ejected_until = 0, e.ejections = 0;
}

bool UpstreamState::failed(EndpointState& e, std::int64_t now_ms) {
  if (++e.failures < limits_.failures_to_eject || e.ejected_until > now_ms) return false;
  const auto time = std::min(limits_.eject_most_ms, limits_.eject_ms << std::min(e.ejections, 10u));
  e.ejected_until = now_ms + time;
  ++e.ejections;
  return true;
}

void UpstreamState::count_request() { budget_ = std::min(limits_.retry_burst, budget_ + limits_.retry_ratio); }

bool UpstreamState::may_retry() {
  if (budget_ < 1) return false;
  budget_ -= 1;
  return true;
}

}  // namespace fairlead::ingress
