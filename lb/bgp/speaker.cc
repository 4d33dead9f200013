#include "lb/bgp/speaker.h"

#include <algorithm>

#include "base/log.h"
#include "kube/proto/coordination/v1.pb.h"
#include "lb/bgp/report.h"

namespace fairlead::lb::bgp {
namespace {

constexpr std::chrono::milliseconds kMissingSecret{1'000};
constexpr std::chrono::seconds kReportGap{2};  // a session that flaps is no reason for many writes

SteadyTime now() { return SystemClock::get().steady(); }

std::string_view reason_of(action::Tell::What w) {
  using What = action::Tell::What;
  switch (w) {
    case What::up: return "BGPSessionUp";
    case What::down: return "BGPSessionDown";
    case What::refused: return "BGPSessionRefused";
    case What::malformed: return "BGPMalformedUpdate";
  }
  return "";
}

// Counters of a session as metrics. The names are those of MetalLB.
struct Counted {
  const char* name;
  const char* help;
  std::uint64_t PeerCounters::*value;
};
constexpr std::array<Counted, 11> kCounters{{
    {"metallb_bgp_updates_total", "UPDATE messages sent to the router", &PeerCounters::updates_sent},
    {"metallb_bgp_updates_total_received", "UPDATE messages received from the router", &PeerCounters::updates_received},
    {"metallb_bgp_opens_sent", "OPEN messages sent", &PeerCounters::opens_sent},
    {"metallb_bgp_opens_received", "OPEN messages received", &PeerCounters::opens_received},
    {"metallb_bgp_notifications_sent", "NOTIFICATION messages sent", &PeerCounters::notifications_sent},
    {"fairlead_lb_bgp_notifications_received", "NOTIFICATION messages received", &PeerCounters::notifications_received},
    {"metallb_bgp_keepalives_sent", "KEEPALIVE messages sent", &PeerCounters::keepalives_sent},
    {"metallb_bgp_keepalives_received", "KEEPALIVE messages received", &PeerCounters::keepalives_received},
    {"fairlead_lb_bgp_route_refresh_received", "ROUTE-REFRESH messages received", &PeerCounters::refreshes_received},
    {"fairlead_lb_bgp_malformed_total", "Messages that were not as they must be", &PeerCounters::malformed},
    {"fairlead_lb_bgp_established_total", "Times that the session came up", &PeerCounters::established},
}};

void set_micro(metav1::MicroTime& out, WallTime t) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
  out.set_seconds(micros / 1'000'000);
  out.set_nanos(static_cast<std::int32_t>(micros % 1'000'000 * 1'000));
}

}  // namespace

struct BgpSpeaker::Impl : std::enable_shared_from_this<BgpSpeaker::Impl> {
  Impl(std::shared_ptr<kube::Client> c, SpeakerOptions o, metrics::Registry& r, kube::EventRecorder& e, References refs, std::function<void()> f)
      : client(std::move(c)), options(std::move(o)), registry(r), events(e), references(std::move(refs)), changed(std::move(f)),
        sessions(client->executor(), options.listen_port, [this](const std::string& peer, const action::Tell& t) { tell(peer, t); }) {}

  void tell(const std::string& peer, const action::Tell& t) {
    const bool up = t.what == action::Tell::What::up;
    log::at(up ? log::Level::info : log::Level::warn, "bgp peer {}: {}", peer, t.text);
    if (const auto node = references.node()) events.event(*node, up ? "Normal" : "Warning", reason_of(t.what), fmt::format("BGPPeer {}: {}", peer, t.text));
  }

  // ---- plan

  void update(Facts facts) {
    facts.passwords = passwords;
    wanted_secrets.clear();
    if (facts.pools)
      for (const auto& p : facts.pools->peers)
        if (!p.password_secret.empty()) wanted_secrets.insert(p.password_secret);
    read_secrets();
    auto next = plan_bgp(facts);
    for (const auto& [peer, problem] : next.problems)
      if (const auto was = plan.problems.find(peer); was == plan.problems.end() || was->second != problem) {
        log::warn("bgp peer {}: {}", peer, problem);
        if (const auto node = references.node()) events.warning(*node, "BGPPeerNotUsable", fmt::format("BGPPeer {}: {}", peer, problem));
      }
    sessions.set(next, facts.links);
    tell_services(next);
    plan = std::move(next);
    publish_announced();
  }

  void tell_services(const BgpPlan& next) {
    const auto missing_in = [](const BgpPlan& p, const IpAddress& ip, const std::string& key) {
      const auto it = p.announced.find(ip);
      return it == p.announced.end() || !it->second.contains(key);
    };
    const auto say = [&](const IpAddress& ip, const std::string& key, const char* reason, const char* verb) {
      log::info("bgp: {} {} of service {}", verb, ip.to_string(), key);
      if (const auto s = references.service(key)) events.normal(*s, reason, fmt::format("{} {} from node \"{}\" with protocol \"bgp\"", verb, ip.to_string(), options.node_name));
    };
    for (const auto& [ip, keys] : next.announced)
      for (const auto& key : keys)
        if (missing_in(plan, ip, key)) say(ip, key, "nodeAssigned", "announcing");
    for (const auto& [ip, keys] : plan.announced)
      for (const auto& key : keys) {
        if (!missing_in(next, ip, key)) continue;
        say(ip, key, "nodeWithdrawn", "withdrawing");
        registry.remove_gauge("metallb_speaker_announced", labels(ip, key));
      }
  }

  metrics::Labels labels(const IpAddress& ip, const std::string& key) const {
    return {{"service", key}, {"protocol", "bgp"}, {"node", options.node_name}, {"ip", ip.to_string()}};
  }

  void publish_announced() {
    for (const auto& [ip, keys] : plan.announced)
      for (const auto& key : keys) registry.gauge("metallb_speaker_announced", "Services announced from this node", labels(ip, key)).set(1);
  }

  // ---- passwords

  void read_secrets() {
    if (reading || wanted_secrets.empty()) return;
    const bool missing = std::any_of(wanted_secrets.begin(), wanted_secrets.end(), [&](const auto& s) { return !passwords.contains(s); });
    // One that is missing may come any time; one that is there changes rarely.
    if (last_read && now() < *last_read + (missing ? std::min<std::chrono::milliseconds>(kMissingSecret, options.secrets_interval) : options.secrets_interval)) return;
    reading = true;
    net::co_spawn(client->executor(), read_all(shared_from_this()), net::detached);
  }

  static Task<> read_all(std::shared_ptr<Impl> self) {
    auto found = self->passwords;
    const auto names = self->wanted_secrets;
    for (const auto& name : names) {
      const auto slash = name.find('/');
      auto secret = co_await self->client->get<corev1::Secret>(name.substr(0, slash), name.substr(slash + 1));
      if (!secret && secret.error().code != ErrorCode::not_found) {
        // What was read before counts while the API is away.
        log::warn("bgp: Secret {}: {}", name, secret.error().message);
        continue;
      }
      found.erase(name);
      if (!secret || secret->type() != "kubernetes.io/basic-auth") continue;
      const auto it = secret->data().find("password");
      if (it != secret->data().end() && !it->second.empty() && it->second.size() <= 80) found[name] = it->second;
    }
    std::erase_if(found, [&](const auto& p) { return !names.contains(p.first); });
    self->reading = false;
    self->last_read = now();
    if (found == self->passwords || self->stopping) co_return;
    self->passwords = std::move(found);
    self->changed();
  }

  // ---- what others see

  void publish() {
    read_secrets();
    std::set<std::string> seen;
    std::vector<SessionReport> reports;
    for (const auto& s : sessions.status()) {
      const auto router = s.router.to_string();
      seen.insert(router);
      const metrics::Labels peer{{"peer", router}};
      registry.gauge("metallb_bgp_session_up", "1: the session with the router is established", peer).set(s.state == State::established ? 1 : 0);
      registry.gauge("metallb_bgp_announced_prefixes_total", "Address blocks that the router has been told of", peer).set(static_cast<double>(s.announced));
      registry.gauge("metallb_bgp_pending_prefixes_total", "Address blocks that the router is to be told of", peer).set(static_cast<double>(s.pending));
      auto& before = counted[s.peer + " " + router];
      for (const auto& c : kCounters) {
        const auto value = s.counters.*c.value;
        // A session that was made anew counts from nothing.
        const auto more = value >= before.*c.value ? value - before.*c.value : value;
        registry.counter(c.name, c.help, peer).inc(static_cast<double>(more));
      }
      before = s.counters;
      reports.push_back({options.node_name, s.peer, router, std::string(to_string(s.state)), s.last_error, s.announced, wall_seconds(s.peer, s.since)});
    }
    for (const auto& router : published)
      if (!seen.contains(router))
        for (const char* name : {"metallb_bgp_session_up", "metallb_bgp_announced_prefixes_total", "metallb_bgp_pending_prefixes_total"}) registry.remove_gauge(name, {{"peer", router}});
    published = std::move(seen);
    report(reports);
  }

  // Taken once for each moment: computed anew it would differ by a second now and then.
  std::int64_t wall_seconds(const std::string& peer, SteadyTime since) {
    auto& known = since_wall[peer];
    if (known.first != since) {
      const auto ago = std::chrono::duration_cast<WallTime::duration>(now() - since);
      known = {since, std::chrono::duration_cast<std::chrono::seconds>((SystemClock::get().wall() - ago).time_since_epoch()).count()};
    }
    return known.second;
  }

  void report(const std::vector<SessionReport>& reports) {
    const bool nothing = reports.empty() && reported.empty();
    auto text = write_reports(reports);
    const bool news = text != reported_text;
    const auto next = last_report + (news ? std::min<std::chrono::milliseconds>(kReportGap, options.report_interval) : options.report_interval);
    if (nothing || writing || stopping || (last_report != SteadyTime{} && now() < next)) return;
    writing = true;
    last_report = now();
    reported = reports;
    reported_text = text;
    net::co_spawn(client->executor(), write_lease(shared_from_this(), std::move(text)), net::detached);
  }

  static Task<> write_lease(std::shared_ptr<Impl> self, std::string text) {
    const auto name = speaker_lease_name(self->options.node_name);
    auto found = co_await self->client->get<coordinationv1::Lease>(self->options.lease_namespace, name);
    coordinationv1::Lease lease;
    Result<coordinationv1::Lease> written;
    if (found) lease = std::move(*found);
    lease.mutable_metadata()->set_namespace_(self->options.lease_namespace);
    lease.mutable_metadata()->set_name(name);
    (*lease.mutable_metadata()->mutable_annotations())[kSessionsAnnotation] = std::move(text);
    lease.mutable_spec()->set_holderidentity(self->options.node_name);
    lease.mutable_spec()->set_leasedurationseconds(static_cast<std::int32_t>(kReportStale.count()));
    set_micro(*lease.mutable_spec()->mutable_renewtime(), SystemClock::get().wall());
    if (found)
      written = co_await self->client->update<coordinationv1::Lease>(std::move(lease));
    else if (found.error().code == ErrorCode::not_found)
      written = co_await self->client->create<coordinationv1::Lease>(std::move(lease));
    else
      written = fail(std::move(found).error());
    self->writing = false;
    if (written) co_return;
    self->reported_text.clear();
    // Once in a while: it is only for people.
    if (self->report_failures++ % 60 == 0) log::warn("bgp: Lease {}/{}: {}", self->options.lease_namespace, name, written.error().message);
  }

  std::shared_ptr<kube::Client> client;
  SpeakerOptions options;
  metrics::Registry& registry;
  kube::EventRecorder& events;
  References references;
  std::function<void()> changed;
  Sessions sessions;
  BgpPlan plan;
  std::set<std::string> wanted_secrets;
  std::map<std::string, std::string> passwords;
  std::optional<SteadyTime> last_read;
  bool reading = false;
  bool stopping = false;
  std::map<std::string, PeerCounters> counted;
  std::set<std::string> published;
  std::vector<SessionReport> reported;
  std::string reported_text;
  SteadyTime last_report{};
  std::map<std::string, std::pair<SteadyTime, std::int64_t>> since_wall;
  bool writing = false;
  std::size_t report_failures = 0;
};

BgpSpeaker::BgpSpeaker(std::shared_ptr<kube::Client> client, SpeakerOptions options, metrics::Registry& registry, kube::EventRecorder& events, References references,
                       std::function<void()> changed)
    : impl_(std::make_shared<Impl>(std::move(client), std::move(options), registry, events, std::move(references), std::move(changed))) {}

BgpSpeaker::~BgpSpeaker() { impl_->stopping = true; }

Result<> BgpSpeaker::start() { return impl_->sessions.start(); }
void BgpSpeaker::update(Facts facts) { impl_->update(std::move(facts)); }
void BgpSpeaker::publish() { impl_->publish(); }

Task<> BgpSpeaker::stop() {
  const auto impl = impl_;
  impl->stopping = true;
  co_await impl->sessions.stop(Farewell::restart);
}

}  // namespace fairlead::lb::bgp
