#include "proxy/state.h"

#include <algorithm>

namespace fairlead::proxy {

namespace {
constexpr std::size_t kMostTriggerTimes = 10'000;
}

bool ProxyState::set_service(const ServiceKey& key, std::optional<Service> service) {
  return services_.set(key, service ? std::make_shared<const Service>(std::move(*service)) : nullptr);
}

void ProxyState::put_slice(const ServiceKey& service, const std::string& name, std::shared_ptr<const Slice> slice) {
  const auto before = endpoints_.get(service);
  auto next = before ? std::make_shared<ServiceEndpoints>(*before) : std::make_shared<ServiceEndpoints>();
  auto& all = next->slices;
  const auto it = std::lower_bound(all.begin(), all.end(), name, [](const auto& s, const std::string& n) { return s->name < n; });
  const bool found = it != all.end() && (*it)->name == name;
  if (!slice) {
    if (found) all.erase(it);
  } else if (found) {
    *it = std::move(slice);
  } else {
    all.insert(it, std::move(slice));
  }
  endpoints_.set(service, all.empty() ? nullptr : std::move(next));
}

bool ProxyState::set_slice(const std::string& object, std::optional<std::pair<ServiceKey, Slice>> slice,
                           std::optional<WallTime> changed_at) {
  const auto name = std::string(name_of(object));
  const auto owner = owner_of_slice_.find(object);
  // A slice may change hands when its label is edited.
  if (owner != owner_of_slice_.end() && (!slice || slice->first != owner->second)) {
    put_slice(owner->second, name, nullptr);
    owner_of_slice_.erase(owner);
  }
  if (slice) {
    owner_of_slice_[object] = slice->first;
    put_slice(slice->first, name, std::make_shared<const Slice>(std::move(slice->second)));
  }
  if (changed_at && trigger_times_.size() < kMostTriggerTimes) trigger_times_.push_back(*changed_at);
  return pending();
}

std::vector<Planner::Change> ProxyState::take(bool everything) {
  auto keys = services_.take();
  const auto more = endpoints_.take();
  keys.insert(keys.end(), more.begin(), more.end());
  if (everything)
    for (const auto& [key, s] : services_.all()) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  std::vector<Planner::Change> out;
  out.reserve(keys.size());
  for (auto& key : keys) {
    auto service = services_.get(key);
    auto endpoints = endpoints_.get(key);
    out.push_back({std::move(key), std::move(service), std::move(endpoints)});
  }
  return out;
}

}  // namespace fairlead::proxy
