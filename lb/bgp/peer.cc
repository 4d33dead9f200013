#include "lb/bgp/peer.h"

#include <algorithm>

namespace fairlead::lb::bgp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kConnectTimeout{10};
constexpr seconds kOpenHold{60};          // for the router's OPEN, which names no hold time before it has come
constexpr std::uint16_t kRestartTime = 120;  // seconds that a router keeps routes of a speaker that has gone without a word
constexpr milliseconds kFirstRetry{500};

Notification cease_with(std::uint8_t subcode) { return {ErrorClass::cease, subcode, {}}; }

}  // namespace

std::string_view to_string(State s) {
  switch (s) {
    case State::idle: return "Active";
    case State::connect: return "Connect";
    case State::open_sent: return "OpenSent";
    case State::open_confirm: return "OpenConfirm";
    case State::established: return "Established";
  }
  return "";
}

Peer::Peer(PeerConfig config, Random& random, SteadyTime now)
    : config_(std::move(config)), random_(random), now_(now), backoff_(std::min<milliseconds>(kFirstRetry, config_.connect_retry), config_.connect_retry), retry_at_(now), since_(now) {}

PeerActions Peer::on(const PeerEvent& e, SteadyTime now) {
  now_ = now;
  std::visit([this](const auto& one) { handle(one); }, e);
  return std::exchange(out_, {});
}

State Peer::state() const { return std::max(at(Side::active).state, at(Side::passive).state); }

std::size_t Peer::announced() const {
  for (const auto& c : connections_)
    if (c.state == State::established) return c.told.size();
  return 0;
}

SteadyTime Peer::next_tick() const {
  auto next = stopped_ || state() != State::idle ? SteadyTime::max() : retry_at_;
  for (const auto& c : connections_)
    if (c.state != State::idle) next = std::min({next, c.hold_until, c.keepalive_at});
  return next;
}

void Peer::handle(const event::Tick&) {
  for (const auto s : {Side::active, Side::passive}) {
    auto& c = at(s);
    if (c.state == State::connect && now_ >= c.hold_until) {
      out_.emplace_back(action::Close{s});
      handle(event::ConnectFailed{"connect: no answer"});
      continue;
    }
    if (c.state > State::connect && now_ >= c.hold_until) {
      refuse(s, {ErrorClass::hold_timer, 0, {}});
      continue;
    }
    if (c.state >= State::open_confirm && now_ >= c.keepalive_at) send_keepalive(s);
  }
  if (stopped_ || state() != State::idle || now_ < retry_at_) return;
  auto& c = at(Side::active);
  c = {};
  c.state = State::connect;
  c.hold_until = now_ + kConnectTimeout;
  out_.emplace_back(action::Connect{});
}

void Peer::handle(const event::Connected& e) {
  auto& c = at(e.side);
  const bool expected = e.side == Side::active ? c.state == State::connect : c.state == State::idle;
  if (stopped_ || !expected) {
    // One that has come too late, or a second one of the same direction: which of them speaks is not known, so none does.
    out_.emplace_back(action::Close{e.side});
    if (c.state != State::idle) drop(e.side, "a second connection was opened");
    return;
  }
  c = {};
  c.local = e.local;
  c.state = State::open_sent;
  c.hold_until = now_ + kOpenHold;
  ++counters_.opens_sent;
  send(e.side, encode(our_open()));
}

void Peer::handle(const event::ConnectFailed& e) {
  if (at(Side::active).state != State::connect) return;
  at(Side::active) = {};
  last_error_ = e.why;
  retry_later();
}

void Peer::handle(const event::Closed& e) {
  if (at(e.side).state <= State::connect) return;
  drop(e.side, e.why);
}

void Peer::handle(const event::Received& e) {
  auto& c = at(e.side);
  if (c.state <= State::connect) return;
  c.unread.insert(c.unread.end(), e.bytes.begin(), e.bytes.end());
  std::size_t used = 0;
  while (c.state > State::connect) {
    const View rest = View(c.unread).subspan(used);
    const auto length = message_length(rest);
    if (!length) return refuse(e.side, length.error());
    if (*length == 0 || *length > rest.size()) break;
    used += *length;
    const auto m = decode(rest.subspan(0, *length), c.four_byte_asn);
    if (!m) return refuse(e.side, m.error());
    message(e.side, *m);
  }
  if (c.state > State::connect) c.unread.erase(c.unread.begin(), c.unread.begin() + static_cast<std::ptrdiff_t>(used));
}

void Peer::handle(const event::SetRoutes& e) {
  const bool first = !routes_;
  routes_ = e.routes;
  for (const auto s : {Side::active, Side::passive}) {
    if (at(s).state != State::established) continue;
    announce(s);
    if (first)
      for (const auto& [family, hop] : at(s).egress.next_hop) send(s, end_of_rib(family));
  }
}

void Peer::handle(const event::Stop& e) {
  stopped_ = true;
  for (const auto s : {Side::active, Side::passive}) {
    const auto& c = at(s);
    if (c.state == State::idle) continue;
    const bool kept = e.farewell == Farewell::restart && c.state == State::established && config_.graceful_restart && c.theirs.graceful_restart;
    if (c.state == State::connect || kept) {
      out_.emplace_back(action::Close{s});
      drop(s, "stopped");
    } else {
      refuse(s, cease_with(e.farewell == Farewell::deconfigured ? cease::kDeconfigured : e.farewell == Farewell::changed ? cease::kConfigChange : cease::kShutdown));
    }
  }
}

// ---- messages

void Peer::message(Side s, const Message& m) {
  const auto state = at(s).state;
  const bool fits = std::visit(
      [&](const auto& one) {
        using T = std::decay_t<decltype(one)>;
        if constexpr (std::is_same_v<T, Notification>) return true;
        if constexpr (std::is_same_v<T, Open>) return state == State::open_sent;
        if constexpr (std::is_same_v<T, Keepalive>) return state == State::open_confirm || state == State::established;
        return state == State::established;
      },
      m);
  if (!fits) {
    const auto subcode = static_cast<std::uint8_t>(state == State::open_sent ? 1 : state == State::open_confirm ? 2 : 3);
    return refuse(s, {ErrorClass::state_machine, subcode, {}});
  }
  std::visit([&](const auto& one) { message(s, one); }, m);
}

std::optional<Notification> Peer::judge(const Open& theirs) const {
  const bool internal = theirs.asn == config_.my_asn;
  const bool asn_fits = config_.asn_rule == AsnRule::exactly ? theirs.asn == config_.peer_asn : (config_.asn_rule == AsnRule::internal) == internal;
  if (!asn_fits) return Notification{ErrorClass::open, 2, {}};
  if (theirs.router_id == config_.router_id && internal) return Notification{ErrorClass::open, 3, {}};
  const auto ours = config_.families();
  if (std::none_of(ours.begin(), ours.end(), [&](Family f) { return theirs.families.contains(f); })) return Notification{ErrorClass::open, 7, {}};
  return std::nullopt;
}

// Whether this connection lives on. The other one may have been closed.
bool Peer::resolve_collision(Side s, const Open& theirs) {
  auto& o = at(other(s));
  if (o.state == State::established) {
    if (o.theirs.graceful_restart && config_.graceful_restart) {
      // The router has restarted and we have not noticed: its new connection replaces the old one (RFC 4724 section 5).
      out_.emplace_back(action::Close{other(s)});
      drop(other(s), "the router has opened a new connection");
      return true;
    }
    refuse(s, cease_with(cease::kCollision));
    return false;
  }
  if (o.state != State::open_confirm) return true;
  // The connection that the one with the higher identifier has opened survives; of equal ones (RFC 6286) the one with the
  // higher AS number counts.
  const bool we_win = std::pair(config_.router_id, config_.my_asn) > std::pair(theirs.router_id, theirs.asn);
  const Side survivor = we_win ? Side::active : Side::passive;
  refuse(survivor == s ? other(s) : s, cease_with(cease::kCollision));
  return survivor == s;
}

void Peer::message(Side s, const Open& m) {
  ++counters_.opens_received;
  if (const auto no = judge(m)) {
    last_error_ = no->to_string();
    return refuse(s, *no);
  }
  if (!resolve_collision(s, m)) return;
  auto& c = at(s);
  agree(c, m);
  c.state = State::open_confirm;
  heard(c);
  send_keepalive(s);
}

void Peer::agree(Connection& c, const Open& theirs) {
  c.theirs = theirs;
  c.four_byte_asn = theirs.four_byte_asn;
  c.hold = std::min<milliseconds>(config_.hold_time, seconds(theirs.hold_time));
  c.keepalive = c.hold / 3;
  if (config_.keepalive && config_.keepalive->count() > 0) c.keepalive = std::min<milliseconds>(c.keepalive, *config_.keepalive);
  c.egress.asn = config_.my_asn;
  c.egress.internal = theirs.asn == config_.my_asn;
  c.egress.four_byte_asn = theirs.four_byte_asn;
  for (const auto f : config_.families())
    if (theirs.families.contains(f) && c.local.contains(f)) c.egress.next_hop[f] = c.local.at(f);
}

void Peer::message(Side s, const Keepalive&) {
  ++counters_.keepalives_received;
  heard(at(s));
  if (at(s).state == State::open_confirm) establish(s);
}

void Peer::establish(Side s) {
  auto& c = at(s);
  c.state = State::established;
  was_up_ = true;
  since_ = now_;
  last_error_.clear();
  ++counters_.established;
  std::string families;
  for (const auto& [f, hop] : c.egress.next_hop) families += fmt::format("{}{} via {}", families.empty() ? "" : ", ", f == Family::v4 ? "IPv4" : "IPv6", hop.to_string());
  out_.emplace_back(action::Tell{action::Tell::What::up, fmt::format("session with {} (AS {}) is established; announces {}", config_.address.to_string(), c.theirs.asn,
                                                                  families.empty() ? "nothing, as no address of ours could be the next hop" : families)});
  if (!routes_) return;
  announce(s);
  for (const auto& [family, hop] : c.egress.next_hop) send(s, end_of_rib(family));
}

void Peer::message(Side s, const Update& m) {
  ++counters_.updates_received;
  heard(at(s));
  if (m.problems.empty()) return;
  ++counters_.malformed;
  out_.emplace_back(action::Tell{action::Tell::What::malformed, fmt::format("malformed UPDATE from {}: {}; the session stays up", config_.address.to_string(), m.problems.front())});
}

void Peer::message(Side s, const Notification& m) {
  ++counters_.notifications_received;
  out_.emplace_back(action::Close{s});
  drop(s, fmt::format("the router says: {}", m.to_string()));
}

void Peer::message(Side s, const RouteRefresh& m) {
  ++counters_.refreshes_received;
  auto& c = at(s);
  heard(c);
  const auto family = m.family();
  if (!family || !c.egress.next_hop.contains(*family)) return;
  std::erase_if(c.told, [&](const auto& r) { return r.first.family() == *family; });
  announce(s);
}

// ---- what we send

Open Peer::our_open() const {
  Open o;
  o.asn = config_.my_asn;
  o.hold_time = static_cast<std::uint16_t>(config_.hold_time.count());
  o.router_id = config_.router_id;
  o.families = config_.families();
  if (config_.graceful_restart) {
    GracefulRestart g;
    g.restarted = !was_up_;
    g.seconds = kRestartTime;
    // Packets are forwarded by the kernel, whether this process lives or not.
    for (const auto f : o.families) g.families[f] = true;
    o.graceful_restart = g;
  }
  return o;
}

void Peer::announce(Side s) {
  if (!routes_) return;
  auto& c = at(s);
  Routes wanted;
  for (const auto& [prefix, a] : *routes_)
    if (c.egress.next_hop.contains(prefix.family())) wanted.emplace_hint(wanted.end(), prefix, a);
  for (auto& m : encode_changes(c.told, wanted, c.egress)) {
    ++counters_.updates_sent;
    send(s, std::move(m));
  }
  c.told = std::move(wanted);
}

void Peer::send_keepalive(Side s) {
  ++counters_.keepalives_sent;
  auto& c = at(s);
  c.keepalive_at = c.hold.count() == 0 ? SteadyTime::max() : now_ + c.keepalive;
  send(s, encode_keepalive());
}

void Peer::heard(Connection& c) { c.hold_until = c.hold.count() == 0 ? SteadyTime::max() : now_ + c.hold; }

// ---- ends

void Peer::refuse(Side s, const Notification& n) {
  ++counters_.notifications_sent;
  send(s, encode(n));
  out_.emplace_back(action::Close{s});
  // Cease is our own wish, and a silent router makes no error; the others are about what it has sent.
  if (n.code != ErrorClass::cease && n.code != ErrorClass::hold_timer) ++counters_.malformed;
  drop(s, n.code == ErrorClass::hold_timer ? std::string("the router was silent for the hold time") : fmt::format("we said: {}", n.to_string()));
}

void Peer::drop(Side s, const std::string& why) {
  const bool was_up = at(s).state == State::established;
  const bool opening = at(s).state > State::connect;
  const auto up_for = now_ - since_;
  at(s) = {};
  if (was_up) {
    out_.emplace_back(action::Tell{action::Tell::What::down, fmt::format("session with {} is down: {}", config_.address.to_string(), why)});
    // One that stood for a while may be back at once; one that flaps waits longer and longer.
    if (up_for >= std::max<seconds>(config_.hold_time, seconds(10))) backoff_.reset();
    since_ = now_;
  } else if (opening && at(other(s)).state == State::idle && why != last_error_ && !stopped_) {
    out_.emplace_back(action::Tell{action::Tell::What::refused, fmt::format("no session with {}: {}", config_.address.to_string(), why)});
  }
  last_error_ = why;
  if (state() == State::idle) retry_later();
}

void Peer::retry_later() { retry_at_ = now_ + backoff_.next(random_); }

}  // namespace fairlead::lb::bgp
