#include "lb/allocations.h"

#include <algorithm>

namespace fairlead::lb {
namespace {

std::string why_not(const Claim& theirs, const Claim& ours) {
  if (theirs.sharing_key.empty()) return "which shares it with nobody";
  if (ours.sharing_key != theirs.sharing_key) return "which has another sharing key";
  for (const auto& p : ours.ports)
    if (theirs.ports.contains(p)) return fmt::format("which also uses port {}/{}", p.first, to_string(p.second));
  if (ours.backends != theirs.backends) return "which keeps traffic on the node for other pods";
  return {};
}

}  // namespace

const Claim* Allocations::find(const std::string& service) const {
  const auto it = claims_.find(service);
  return it == claims_.end() ? nullptr : it->second.get();
}

Result<> Allocations::admits(const std::string& service, const Claim& shape, const IpAddress& ip) const {
  const auto it = holders_.find(ip);
  if (it == holders_.end()) return {};
  for (const auto& h : it->second) {
    if (h.service == service) continue;
    if (auto why = why_not(*h.claim, shape); !why.empty())
      return fail(ErrorCode::already_exists, "{} is held by service {}, {}", ip.to_string(), h.service, why);
  }
  return {};
}

const std::set<IpAddress>& Allocations::with_sharing_key(const std::string& key) const {
  static const std::set<IpAddress> none;
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? none : it->second;
}

std::vector<std::string> Allocations::holders(const IpAddress& ip) const {
  std::vector<std::string> out;
  if (const auto it = holders_.find(ip); it != holders_.end())
    for (const auto& h : it->second)
      if (std::find(out.begin(), out.end(), h.service) == out.end()) out.push_back(h.service);
  return out;
}

std::uint64_t Allocations::used_in(const AddressRange& range) const {
  std::uint64_t n = 0;
  for (auto it = holders_.lower_bound(range.first); it != holders_.end() && range.contains(it->first); ++it) ++n;
  return n;
}

void Allocations::add(const std::string& service, const std::shared_ptr<const Claim>& claim) {
  for (const auto& ip : claim->addresses) {
    holders_[ip].push_back({service, claim});
    used_.insert(ip);
    if (!claim->sharing_key.empty()) by_key_[claim->sharing_key].insert(ip);
  }
}

void Allocations::remove(const std::string& service, const std::shared_ptr<const Claim>& claim) {
  for (const auto& ip : claim->addresses) {
    const auto it = holders_.find(ip);
    auto& all = it->second;
    all.erase(std::find_if(all.begin(), all.end(), [&](const Held& h) { return h.service == service && h.claim == claim; }));
    const auto& key = claim->sharing_key;
    if (!key.empty() && std::none_of(all.begin(), all.end(), [&](const Held& h) { return h.claim->sharing_key == key; })) {
      const auto k = by_key_.find(key);
      k->second.erase(ip);
      if (k->second.empty()) by_key_.erase(k);
    }
    if (all.empty()) {
      holders_.erase(it);
      used_.erase(ip);
    }
  }
}

Transaction::Transaction(Allocations& book, std::string service) : book_(book), service_(std::move(service)) {
  if (const auto it = book_.claims_.find(service_); it != book_.claims_.end()) before_ = now_ = it->second;
}

Transaction::~Transaction() {
  if (open_) revert();
}

void Transaction::replace(std::shared_ptr<const Claim> claim) {
  if (now_ && now_ != before_) book_.remove(service_, now_);
  now_ = std::move(claim);
  if (now_)
    book_.claims_[service_] = now_;
  else
    book_.claims_.erase(service_);
}

Result<> Transaction::hold(Claim claim) {
  for (const auto& ip : claim.addresses) FL_CHECK(book_.admits(service_, claim, ip));
  auto made = std::make_shared<const Claim>(std::move(claim));
  book_.add(service_, made);
  replace(std::move(made));
  return {};
}

void Transaction::release() { replace(nullptr); }

void Transaction::commit() {
  open_ = false;
  if (before_ && before_ != now_) book_.remove(service_, before_);
}

void Transaction::revert() {
  open_ = false;
  if (now_ != before_) replace(before_);
}

}  // namespace fairlead::lb
