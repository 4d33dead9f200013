#include "kube/leader_election.h"

#include "base/event.h"
#include "base/log.h"
#include "base/random.h"
#include "kube/object.h"

namespace fairlead::kube {

using std::chrono::milliseconds;

namespace {

void set_time(metav1::MicroTime& out, WallTime t) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
  out.set_seconds(micros / 1'000'000);
  out.set_nanos(static_cast<std::int32_t>(micros % 1'000'000 * 1'000));
}

std::string content_of(const coordinationv1::Lease& lease) { return lease.spec().SerializeAsString(); }

}  // namespace

void LeaseView::observe(const std::optional<coordinationv1::Lease>& lease, SteadyTime now) {
  const bool same = lease.has_value() == lease_.has_value() && (!lease || content_of(*lease) == content_of(*lease_));
  if (!same) changed_ = now;
  lease_ = lease;
}

std::string LeaseView::holder() const { return lease_ ? lease_->spec().holderidentity() : std::string(); }

LeaseView::Action LeaseView::decide(SteadyTime now) const {
  if (!lease_) return Action::create;
  if (holds()) return Action::renew;
  if (holder().empty()) return Action::take;
  // The holder's own duration counts: it may be configured otherwise than we are.
  const auto own = std::chrono::seconds(lease_->spec().leasedurationseconds());
  const auto duration = own.count() > 0 ? std::chrono::duration_cast<milliseconds>(own) : options_.lease_duration;
  return now - changed_ > duration ? Action::take : Action::wait;
}

coordinationv1::Lease LeaseView::next(Action action, WallTime wall) const {
  coordinationv1::Lease out;
  if (lease_) out = *lease_;
  auto& spec = *out.mutable_spec();
  if (action == Action::create) {
    out.mutable_metadata()->set_namespace_(options_.ns);
    out.mutable_metadata()->set_name(options_.name);
  }
  if (action != Action::renew) {
    spec.set_leasetransitions(action == Action::create ? 0 : spec.leasetransitions() + 1);
    set_time(*spec.mutable_acquiretime(), wall);
  }
  spec.set_holderidentity(options_.identity);
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(options_.lease_duration).count();
  spec.set_leasedurationseconds(static_cast<std::int32_t>(seconds));
  set_time(*spec.mutable_renewtime(), wall);
  return out;
}

coordinationv1::Lease LeaseView::released(WallTime wall) const {
  coordinationv1::Lease out;
  if (lease_) out = *lease_;
  auto& spec = *out.mutable_spec();
  spec.set_holderidentity("");
  spec.set_leasedurationseconds(1);
  set_time(*spec.mutable_renewtime(), wall);
  set_time(*spec.mutable_acquiretime(), wall);
  return out;
}

struct LeaderElector::Impl : std::enable_shared_from_this<LeaderElector::Impl> {
  Impl(std::shared_ptr<Client> c, LeaderElectionOptions o, LeaderCallbacks cb)
      : client(std::move(c)),
        options(std::move(o)),
        callbacks(std::move(cb)),
        clock(options.clock != nullptr ? *options.clock : SystemClock::get()),
        view(options),
        timer(client->executor()),
        deadline(client->executor()),
        ended(client->executor()) {}

  static Task<> run(std::shared_ptr<Impl> self) {
    while (!self->stopping) {
      auto tried = co_await try_once(self);
      if (!tried && tried.error().code != ErrorCode::conflict && tried.error().code != ErrorCode::already_exists)
        log::warn("leader election {}/{}: {}", self->options.ns, self->options.name, tried.error().message);
      self->settle();
      if (self->stopping) break;
      self->timer.expires_after(self->pause());
      auto [ec] = co_await self->timer.async_wait(use_result);
      (void)ec;
      self->settle();
    }
    self->deadline.cancel();
    const bool led = self->leading;
    self->lead(false);
    if (led) co_await release(self);
    self->ended.set();
  }

  static Task<Result<>> try_once(std::shared_ptr<Impl> self) {
    const auto begin = self->clock.steady();
    const auto& o = self->options;
    auto found = co_await self->client->get<coordinationv1::Lease>(o.ns, o.name);
    if (!found && found.error().code != ErrorCode::not_found) co_return fail(std::move(found).error());
    std::optional<coordinationv1::Lease> lease;
    if (found) lease = std::move(*found);
    self->observe(lease);
    const auto action = self->view.decide(self->clock.steady());
    if (action == LeaseView::Action::wait || self->stopping) co_return Result<>{};
    coordinationv1::Lease wanted = self->view.next(action, self->clock.wall());
    Result<coordinationv1::Lease> written;
    if (action == LeaseView::Action::create)
      written = co_await self->client->create<coordinationv1::Lease>(std::move(wanted));
    else
      written = co_await self->client->update<coordinationv1::Lease>(std::move(wanted));
    if (!written) co_return fail(std::move(written).error());
    self->observe(std::optional<coordinationv1::Lease>(std::move(*written)));
    // Counted from before the request: nobody else can have seen it earlier.
    self->renewed = begin;
    self->arm();
    co_return Result<>{};
  }

  static Task<> release(std::shared_ptr<Impl> self) {
    coordinationv1::Lease lease = self->view.released(self->clock.wall());
    auto r = co_await self->client->update<coordinationv1::Lease>(std::move(lease));
    if (!r) log::debug("leader election {}/{}: release: {}", self->options.ns, self->options.name, r.error().message);
  }

  void observe(const std::optional<coordinationv1::Lease>& lease) {
    const auto before = view.holder();
    view.observe(lease, clock.steady());
    const auto after = view.holder();
    if (before != after && callbacks.leader_changed) callbacks.leader_changed(after);
  }

  // Leads exactly while the Lease names us and our last renewal is young enough.
  void settle() {
    const bool fresh = renewed && clock.steady() - *renewed < options.renew_deadline;
    if (leading && !view.holds())
      log::warn("leader election {}/{}: {} leads now", options.ns, options.name, view.holder());
    else if (leading && !fresh)
      log::warn("leader election {}/{}: could not renew in time", options.ns, options.name);
    lead(view.holds() && fresh);
  }

  // Leading ends in time even while a request hangs.
  void arm() {
    deadline.expires_after(std::chrono::ceil<milliseconds>(*renewed + options.renew_deadline - clock.steady()));
    deadline.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
      const auto self = weak.lock();
      if (self && !ec) self->settle();
    });
  }

  void lead(bool on) {
    if (on == leading) return;
    leading = on;
    const auto& f = on ? callbacks.started : callbacks.stopped;
    if (f) f();
  }

  milliseconds pause() const {
    auto wait = options.retry_period;
    if (leading && renewed) {
      // Never sleep past the moment at which leading ends.
      const auto left = std::chrono::duration_cast<milliseconds>(*renewed + options.renew_deadline - clock.steady());
      return std::max(std::min(wait, left), milliseconds(1));
    }
    // Followers are spread, so that they do not all try in the same moment.
    return wait + milliseconds(SystemRandom::get().below(static_cast<std::uint64_t>(wait.count() / 5 + 1)));
  }

  const std::shared_ptr<Client> client;
  const LeaderElectionOptions options;
  const LeaderCallbacks callbacks;
  const Clock& clock;
  LeaseView view;
  net::steady_timer timer;
  net::steady_timer deadline;
  Event ended;
  std::optional<SteadyTime> renewed;
  bool leading = false;
  bool started = false;
  bool stopping = false;
};

LeaderElector::LeaderElector(std::shared_ptr<Client> client, LeaderElectionOptions options, LeaderCallbacks callbacks)
    : impl_(std::make_shared<Impl>(std::move(client), std::move(options), std::move(callbacks))) {}

LeaderElector::~LeaderElector() {
  impl_->stopping = true;
  impl_->timer.cancel();
}

Result<> LeaderElector::start() {
  const auto& o = impl_->options;
  if (o.ns.empty() || o.name.empty() || o.identity.empty())
    return fail(ErrorCode::invalid_argument, "leader election: namespace, name and identity are needed");
  if (!(o.retry_period.count() > 0 && o.retry_period < o.renew_deadline && o.renew_deadline < o.lease_duration))
    return fail(ErrorCode::invalid_argument, "leader election: 0 < retry period < renew deadline < lease duration must hold");
  if (impl_->started) return {};
  impl_->started = true;
  net::co_spawn(impl_->client->executor(), Impl::run(impl_), [impl = impl_](std::exception_ptr) { impl->ended.set(); });
  return {};
}

Task<> LeaderElector::stop() {
  const auto impl = impl_;
  impl->stopping = true;
  impl->timer.cancel();
  if (!impl->started) co_return;
  co_await impl->ended.wait();
}

bool LeaderElector::is_leader() const { return impl_->leading; }
std::optional<SteadyTime> LeaderElector::leads_until() const {
  if (!impl_->leading || !impl_->renewed) return std::nullopt;
  return *impl_->renewed + impl_->options.renew_deadline;
}
std::string LeaderElector::leader() const { return impl_->view.holder(); }

}  // namespace fairlead::kube
