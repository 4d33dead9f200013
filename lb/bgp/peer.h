// Peer: the state machine of BGP towards one router, without I/O. on(event, now) -> actions is a pure function of what the
// machine has seen: it reads no clock, opens no socket, and the owner (sessions.h) carries out what it answers.
//
// It announces and never learns: routes from the router are read, checked and forgotten. A connection may be opened by us
// (active) or by the router (passive); when both do, one survives (RFC 4271 section 6.8). Routes are given with SetRoutes and
// go out when the session is established; before the first SetRoutes nothing is announced and, with graceful restart, the
// router is not told that it has seen everything, so a speaker that has just started takes no route away from it.
// A router that refuses or resets again and again is tried less and less often, up to connect_retry.
//
// Threads: a value of its owner. Time is steady time; durations as named.
// Source: RFC 4271 section 8 (with DelayOpen and damping by back-off), RFC 4724, RFC 7606, RFC 8538 is not announced.
#pragma once

#include <chrono>
#include <functional>

#include "base/backoff.h"
#include "base/clock.h"
#include "lb/bgp/message.h"

namespace fairlead::lb::bgp {

enum class AsnRule : std::uint8_t { exactly, internal, external };  // what the router's AS number must be

struct PeerConfig {
  std::uint32_t my_asn = 0;
  AsnRule asn_rule = AsnRule::exactly;
  std::uint32_t peer_asn = 0;  // for `exactly`
  IpAddress address;
  Port port = 179;
  std::optional<IpAddress> source;
  std::string vrf;
  std::uint32_t router_id = 0;
  std::chrono::seconds hold_time{90};            // 0: no keepalives
  std::optional<std::chrono::seconds> keepalive;  // a third of the hold time that both agree on, or less
  std::chrono::seconds connect_retry{30};         // the longest pause between attempts
  bool graceful_restart = false;
  bool multihop = false;
  bool dual_stack = false;  // routes of both families, not of the session's own alone
  std::string password;     // TCP MD5
  bool operator==(const PeerConfig&) const = default;
  std::set<Family> families() const { return dual_stack ? std::set{Family::v4, Family::v6} : std::set{address.family()}; }
};

enum class Side : std::uint8_t { active, passive };  // who opened the connection: we, the router
enum class State : std::uint8_t { idle, connect, open_sent, open_confirm, established };
std::string_view to_string(State s);  // "Idle", "Connect", ... as routers print them; Idle between attempts is "Active"

enum class Farewell : std::uint8_t {
  shutdown,      // Cease, administrative shutdown: the router withdraws at once
  deconfigured,  // Cease, peer de-configured
  changed,       // Cease, other configuration change
  restart,       // no word, where graceful restart was agreed on: the router keeps the routes and waits for us
};

namespace event {
struct Tick {};
struct Connected {
  Side side;
  std::map<Family, IpAddress> local;  // our addresses on the link of the connection, next hops of what we announce
};
struct ConnectFailed {
  std::string why;
};
struct Received {
  Side side;
  View bytes;
};
struct Closed {
  Side side;
  std::string why;
};
struct SetRoutes {
  Routes routes;
};
struct Stop {
  Farewell farewell;
};
}  // namespace event
using PeerEvent = std::variant<event::Tick, event::Connected, event::ConnectFailed, event::Received, event::Closed, event::SetRoutes, event::Stop>;

namespace action {
struct Connect {};
struct Send {
  Side side;
  Bytes bytes;
};
struct Close {
  Side side;  // what was sent before goes out first
};
// Something worth telling: up and down of the session, errors in what the router sends.
struct Tell {
  enum class What : std::uint8_t { up, down, refused, malformed } what;
  std::string text;
};
}  // namespace action
using PeerAction = std::variant<action::Connect, action::Send, action::Close, action::Tell>;
using PeerActions = std::vector<PeerAction>;

struct PeerCounters {
  std::uint64_t opens_sent = 0, opens_received = 0, notifications_sent = 0, notifications_received = 0, updates_sent = 0, updates_received = 0, keepalives_sent = 0,
                keepalives_received = 0, refreshes_received = 0, malformed = 0, established = 0;
};

class Peer {
 public:
  Peer(PeerConfig config, Random& random, SteadyTime now);

  PeerActions on(const PeerEvent& e, SteadyTime now);
  // When a Tick is due; it may come later, and earlier ones do nothing.
  SteadyTime next_tick() const;

  State state() const;
  bool established() const { return state() == State::established; }
  SteadyTime since() const { return since_; }  // of the last coming up or going down
  std::size_t announced() const;               // address blocks that the router has been told of
  const std::string& last_error() const { return last_error_; }
  const PeerCounters& counters() const { return counters_; }
  const PeerConfig& config() const { return config_; }

 private:
  struct Connection {
    State state = State::idle;
    Bytes unread;
    std::map<Family, IpAddress> local;
    Open theirs;
    bool four_byte_asn = false;
    SteadyTime hold_until = SteadyTime::max();
    SteadyTime keepalive_at = SteadyTime::max();
    std::chrono::milliseconds hold{0}, keepalive{0};
    Routes told;
    Egress egress;
  };
  Connection& at(Side s) { return connections_[static_cast<std::size_t>(s)]; }
  const Connection& at(Side s) const { return connections_[static_cast<std::size_t>(s)]; }
  static Side other(Side s) { return s == Side::active ? Side::passive : Side::active; }

  void handle(const event::Tick&);
  void handle(const event::Connected& e);
  void handle(const event::ConnectFailed& e);
  void handle(const event::Received& e);
  void handle(const event::Closed& e);
  void handle(const event::SetRoutes& e);
  void handle(const event::Stop& e);

  void message(Side s, const Message& m);
  void message(Side s, const Open& m);
  void message(Side s, const Update& m);
  void message(Side s, const Notification& m);
  void message(Side s, const Keepalive& m);
  void message(Side s, const RouteRefresh& m);
  std::optional<Notification> judge(const Open& theirs) const;
  bool resolve_collision(Side s, const Open& theirs);
  void agree(Connection& c, const Open& theirs);
  void establish(Side s);
  Open our_open() const;
  void announce(Side s);

  void send(Side s, Bytes bytes) { out_.emplace_back(action::Send{s, std::move(bytes)}); }
  void send_keepalive(Side s);
  // Ends the connection: with a word to the router, or without.
  void refuse(Side s, const Notification& n);
  void drop(Side s, const std::string& why);
  void retry_later();
  void heard(Connection& c);

  PeerConfig config_;
  Random& random_;
  SteadyTime now_;
  std::array<Connection, 2> connections_;  // by Side
  std::optional<Routes> routes_;
  Backoff backoff_;
  SteadyTime retry_at_;
  SteadyTime since_;
  bool stopped_ = false;
  bool was_up_ = false;  // in this process: then we have not restarted
  std::string last_error_;
  PeerCounters counters_;
  PeerActions out_;
};

}  // namespace fairlead::lb::bgp
