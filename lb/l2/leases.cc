#include "lb/l2/leases.h"

#include "base/asio.h"
#include "base/log.h"

namespace fairlead::lb::l2 {

std::string lease_name(const IpAddress& ip) {
  std::string out = "fairlead-lb";
  if (ip.is_v4()) {
    for (const auto b : ip.bytes()) out += fmt::format("-{}", b);
    return out;
  }
  out += "-";
  for (const auto b : ip.bytes()) out += fmt::format("{:02x}", b);
  return out;
}

struct AddressLeases::Impl : std::enable_shared_from_this<AddressLeases::Impl> {
  Impl(std::shared_ptr<kube::Client> c, AddressLeaseOptions o, std::function<void()> f) : client(std::move(c)), options(std::move(o)), changed(std::move(f)) {}

  void want(const std::set<IpAddress>& addresses) {
    wanted = addresses;
    for (auto it = electors.begin(); it != electors.end();) {
      if (wanted.contains(it->first)) {
        ++it;
        continue;
      }
      leaving.insert(it->first);
      net::co_spawn(client->executor(), give_back(shared_from_this(), it->first, std::move(it->second)), net::detached);
      it = electors.erase(it);
    }
    for (const auto& ip : wanted)
      // One whose Lease is being given back is asked for again when that is done.
      if (!electors.contains(ip) && !leaving.contains(ip)) take(ip);
  }

  void take(const IpAddress& ip) {
    kube::LeaderElectionOptions o;
    o.ns = options.ns;
    o.name = lease_name(ip);
    o.identity = options.node;
    o.lease_duration = options.duration;
    o.renew_deadline = options.duration * 2 / 3;
    o.retry_period = options.duration / 8;
    const auto tell = [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self && !self->stopping) self->changed();
    };
    kube::LeaderCallbacks callbacks;
    callbacks.started = tell;
    callbacks.stopped = tell;
    auto elector = std::make_unique<kube::LeaderElector>(client, std::move(o), std::move(callbacks));
    if (const auto started = elector->start(); !started) return log::error("lease of {}: {}", ip.to_string(), started.error().message);
    electors[ip] = std::move(elector);
  }

  static Task<> give_back(std::shared_ptr<Impl> self, IpAddress ip, std::unique_ptr<kube::LeaderElector> elector) {
    co_await elector->stop();
    self->leaving.erase(ip);
    if (!self->stopping && self->wanted.contains(ip)) self->take(ip);
  }

  std::shared_ptr<kube::Client> client;
  AddressLeaseOptions options;
  std::function<void()> changed;
  std::set<IpAddress> wanted, leaving;
  std::map<IpAddress, std::unique_ptr<kube::LeaderElector>> electors;
  bool stopping = false;
};

AddressLeases::AddressLeases(std::shared_ptr<kube::Client> client, AddressLeaseOptions options, std::function<void()> changed)
    : impl_(std::make_shared<Impl>(std::move(client), std::move(options), std::move(changed))) {}

AddressLeases::~AddressLeases() { impl_->stopping = true; }

void AddressLeases::want(const std::set<IpAddress>& addresses) { impl_->want(addresses); }

bool AddressLeases::holds(const IpAddress& ip, SteadyTime now) const {
  const auto it = impl_->electors.find(ip);
  if (it == impl_->electors.end()) return false;
  const auto until = it->second->leads_until();
  return until && now < *until;
}

Task<> AddressLeases::stop() {
  const auto impl = impl_;
  impl->stopping = true;
  impl->want({});
  // All at once; each has its own deadline at the API, and nobody waits for an API that is away.
  const std::chrono::milliseconds poll{10};
  for (int i = 0; i < 100 && !impl->leaving.empty(); ++i) co_await sleep_for(poll);
}

}  // namespace fairlead::lb::l2
