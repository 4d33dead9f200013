// The BGP state machine as stories: a router in the test's hands says something, time passes, and what we answer is read.
#include "lb/bgp/peer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fairlead::lb::bgp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

IpAddress ip(std::string_view t) { return IpAddress::parse(t).value(); }
Prefix block(std::string_view t) { return Prefix::parse(t).value(); }
Routes routes(std::initializer_list<const char*> blocks) {
  Routes out;
  for (const auto* b : blocks) out[block(b)] = {};
  return out;
}

constexpr auto A = Side::active;
constexpr auto P = Side::passive;

PeerConfig config() {
  PeerConfig c;
  c.my_asn = 64512;
  c.peer_asn = 64500;
  c.address = ip("192.0.2.254");
  c.router_id = ip("192.0.2.1").v4_host_order();
  return c;
}
Open router_open() {
  Open o;
  o.asn = 64500;
  o.hold_time = 9;
  o.router_id = ip("192.0.2.254").v4_host_order();
  o.families = {Family::v4};
  return o;
}

// What a message says, in one word and its content.
std::string name_of(const Bytes& bytes) {
  const auto m = decode(bytes, true).value();
  struct Visitor {
    std::string operator()(const Open&) { return "open"; }
    std::string operator()(const Keepalive&) { return "keepalive"; }
    std::string operator()(const RouteRefresh&) { return "refresh"; }
    std::string operator()(const Notification& n) { return fmt::format("notification {}/{}", static_cast<int>(n.code), n.subcode); }
    std::string operator()(const Update& u) {
      if (u.end_of_rib) return fmt::format("end-of-rib {}", fairlead::to_string(*u.end_of_rib));
      std::string out;
      for (const auto& p : u.withdrawn) out += " -" + p.to_string();
      for (const auto& p : u.announced) out += " +" + p.to_string();
      return "update" + out;
    }
  };
  return std::visit(Visitor{}, m);
}

class BgpPeer : public testing::Test {
 protected:
  using Says = std::vector<std::string>;

  void make(PeerConfig c) { peer_.emplace(std::move(c), random_, now_); }
  Says on(PeerEvent e) {
    Says out;
    for (const auto& a : peer_->on(e, now_)) out.push_back(describe(a));
    return out;
  }
  static std::string describe(const PeerAction& a) {
    struct Visitor {
      std::string operator()(const action::Connect&) { return "connect"; }
      std::string operator()(const action::Send& s) { return std::string(s.side == A ? "" : "passive ") + name_of(s.bytes); }
      std::string operator()(const action::Close& c) { return c.side == A ? "close" : "passive close"; }
      std::string operator()(const action::Tell& t) { return "tell " + t.text; }
    };
    return std::visit(Visitor{}, a);
  }
  Says hear(Side s, const Bytes& bytes) { return on(event::Received{s, bytes}); }
  Says connected(Side s = A) { return on(event::Connected{s, {{Family::v4, ip("192.0.2.1")}, {Family::v6, ip("2001:db8::1")}}}); }
  Says tick() { return on(event::Tick{}); }
  Says wait(milliseconds d) {
    now_ += d;
    return tick();
  }
  void establish(Open theirs = router_open()) {
    if (!peer_) make(config());
    ASSERT_THAT(tick(), ElementsAre("connect"));
    ASSERT_THAT(connected(), ElementsAre("open"));
    ASSERT_THAT(hear(A, encode(theirs)), ElementsAre("keepalive"));
    last_ = hear(A, encode_keepalive());
    ASSERT_TRUE(peer_->established());
  }

  void on_routes() {
    make(config());
    on(event::SetRoutes{routes({"198.51.100.1/32"})});
    establish();
  }

  SeededRandom random_{1};
  SteadyTime now_{std::chrono::hours(1)};
  std::optional<Peer> peer_;
  Says last_;
};

TEST_F(BgpPeer, ComesUpAnnouncesAndWithdraws) {
  make(config());
  EXPECT_THAT(on(event::SetRoutes{routes({"198.51.100.1/32", "198.51.100.2/32", "2001:db8:1::1/128"})}), IsEmpty()) << "nobody to tell yet";
  establish();
  EXPECT_THAT(last_, ElementsAre("tell session with 192.0.2.254 (AS 64500) is established; announces IPv4 via 192.0.2.1", "update +198.51.100.1/32 +198.51.100.2/32", "end-of-rib IPv4"))
      << "IPv6 is not of this session's family";
  EXPECT_EQ(peer_->announced(), 2u);
  EXPECT_THAT(on(event::SetRoutes{routes({"198.51.100.2/32", "198.51.100.3/32"})}), ElementsAre("update -198.51.100.1/32", "update +198.51.100.3/32"));
  EXPECT_THAT(on(event::SetRoutes{routes({"198.51.100.2/32", "198.51.100.3/32"})}), IsEmpty());
  EXPECT_THAT(on(event::SetRoutes{{}}), ElementsAre("update -198.51.100.2/32 -198.51.100.3/32"));
  EXPECT_EQ(peer_->counters().updates_sent, 4u);
}

TEST_F(BgpPeer, BeforeRoutesAreKnownNothingIsTold) {
  establish();
  EXPECT_THAT(last_, ElementsAre(HasSubstr("established"))) << "no end-of-rib either: a router that kept our routes must not drop them";
  EXPECT_THAT(on(event::SetRoutes{routes({"198.51.100.1/32"})}), ElementsAre("update +198.51.100.1/32", "end-of-rib IPv4"));
  EXPECT_THAT(on(event::SetRoutes{routes({"198.51.100.1/32", "198.51.100.2/32"})}), ElementsAre("update +198.51.100.2/32"));
}

TEST_F(BgpPeer, BothFamiliesOverOneSession) {
  auto c = config();
  c.dual_stack = true;
  make(c);
  on(event::SetRoutes{routes({"198.51.100.1/32", "2001:db8:1::1/128"})});
  auto theirs = router_open();
  theirs.families = {Family::v4, Family::v6};
  establish(theirs);
  EXPECT_THAT(last_, ElementsAre(HasSubstr("IPv4 via 192.0.2.1, IPv6 via 2001:db8::1"), "update +198.51.100.1/32", "update +2001:db8:1::1/128", "end-of-rib IPv4", "end-of-rib IPv6"));
}

TEST_F(BgpPeer, TimersHoldAndKeepAlive) {
  establish();
  // The router wants 9 s, we 90: 9 it is, and a word every 3.
  EXPECT_THAT(wait(milliseconds(2999)), IsEmpty());
  EXPECT_THAT(wait(milliseconds(1)), ElementsAre("keepalive"));
  EXPECT_THAT(wait(seconds(3)), ElementsAre("keepalive"));
  EXPECT_THAT(hear(A, encode_keepalive()), IsEmpty());
  EXPECT_THAT(wait(seconds(3)), ElementsAre("keepalive"));
  EXPECT_THAT(wait(seconds(6)), ElementsAre("notification 4/0", "close", "tell session with 192.0.2.254 is down: the router was silent for the hold time"));
  EXPECT_EQ(peer_->state(), State::idle);
}

TEST_F(BgpPeer, AHoldTimeOfZeroMeansNoTimers) {
  auto theirs = router_open();
  theirs.hold_time = 0;
  establish(theirs);
  EXPECT_EQ(peer_->next_tick(), SteadyTime::max());
  EXPECT_THAT(wait(std::chrono::hours(24)), IsEmpty());
  EXPECT_TRUE(peer_->established());
}

TEST_F(BgpPeer, AKeepaliveTimeOfItsOwn) {
  auto c = config();
  c.keepalive = seconds(1);
  make(c);
  establish();
  EXPECT_EQ(peer_->next_tick() - now_, seconds(1));
}

TEST_F(BgpPeer, WhoDoesNotAnswerIsTriedAgainLessAndLess) {
  make(config());
  auto earlier = milliseconds(0);
  for (int i = 0; i < 12; ++i) {
    ASSERT_THAT(tick(), ElementsAre("connect")) << i;
    EXPECT_THAT(on(event::ConnectFailed{"connect: Connection refused"}), IsEmpty());
    const auto pause = std::chrono::ceil<milliseconds>(peer_->next_tick() - now_);
    EXPECT_LE(pause, seconds(30));
    EXPECT_GE(pause, i > 8 ? seconds(15) : seconds(0));
    now_ += pause;
    earlier = pause;
  }
  EXPECT_EQ(peer_->last_error(), "connect: Connection refused");
  EXPECT_GT(earlier, seconds(1));
}

TEST_F(BgpPeer, AConnectThatHangsEnds) {
  make(config());
  ASSERT_THAT(tick(), ElementsAre("connect"));
  EXPECT_EQ(peer_->state(), State::connect);
  EXPECT_THAT(wait(seconds(10)), ElementsAre("close"));
  EXPECT_EQ(peer_->last_error(), "connect: no answer");
}

TEST_F(BgpPeer, ARouterThatSaysNothingAfterConnecting) {
  make(config());
  tick();
  connected();
  EXPECT_THAT(wait(seconds(59)), IsEmpty());
  EXPECT_THAT(wait(seconds(1)), ElementsAre("notification 4/0", "close", HasSubstr("no session with 192.0.2.254: the router was silent")));
}

TEST_F(BgpPeer, OpensThatDoNotFit) {
  struct Row {
    const char* what;
    std::function<void(Open&)> change;
    AsnRule rule;
    std::string answer;
  };
  const std::vector<Row> rows = {
      {"another AS", [](Open& o) { o.asn = 64501; }, AsnRule::exactly, "notification 2/2"},
      {"four-byte AS that looks the same in two bytes", [](Open& o) { o.asn = 64500 + 65536; }, AsnRule::exactly, "notification 2/2"},
      {"any other AS will do", [](Open& o) { o.asn = 64501; }, AsnRule::external, "keepalive"},
      {"any other AS, but it is ours", [](Open& o) { o.asn = 64512; }, AsnRule::external, "notification 2/2"},
      {"must be our AS", [](Open& o) { o.asn = 64501; }, AsnRule::internal, "notification 2/2"},
      {"is our AS", [](Open& o) { o.asn = 64512; }, AsnRule::internal, "keepalive"},
      {"our AS with our router id", [](Open& o) { o.asn = 64512; o.router_id = config().router_id; }, AsnRule::internal, "notification 2/3"},
      {"another AS may have our router id (RFC 6286)", [](Open& o) { o.router_id = config().router_id; }, AsnRule::exactly, "keepalive"},
      {"no family in common", [](Open& o) { o.families = {Family::v6}; }, AsnRule::exactly, "notification 2/7"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.what);
    auto c = config();
    c.asn_rule = r.rule;
    make(c);
    tick();
    connected();
    auto o = router_open();
    r.change(o);
    const auto said = hear(A, encode(o));
    ASSERT_FALSE(said.empty());
    EXPECT_EQ(said.front(), r.answer);
    EXPECT_EQ(peer_->state(), r.answer == "keepalive" ? State::open_confirm : State::idle);
  }
}

TEST_F(BgpPeer, MessagesInTheWrongMoment) {
  struct Row {
    State state;
    Bytes message;
    std::string answer;
  };
  const std::vector<Row> rows = {
      {State::open_sent, encode_keepalive(), "notification 5/1"},
      {State::open_sent, end_of_rib(Family::v4), "notification 5/1"},
      {State::open_confirm, encode(router_open()), "notification 5/2"},
      {State::open_confirm, end_of_rib(Family::v4), "notification 5/2"},
      {State::open_confirm, encode(RouteRefresh{1, 1}), "notification 5/2"},
      {State::established, encode(router_open()), "notification 5/3"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(fmt::format("{} {}", to_string(r.state), name_of(r.message)));
    make(config());
    tick();
    connected();
    if (r.state >= State::open_confirm) hear(A, encode(router_open()));
    if (r.state == State::established) hear(A, encode_keepalive());
    ASSERT_EQ(peer_->state(), r.state);
    const auto said = hear(A, r.message);
    ASSERT_GE(said.size(), 2u);
    EXPECT_EQ(said[0], r.answer);
    EXPECT_EQ(said[1], "close");
  }
}

TEST_F(BgpPeer, BytesComeInAnyPieces) {
  Bytes all = encode(router_open());
  for (const auto& m : {encode_keepalive(), end_of_rib(Family::v4), encode_keepalive()}) all.insert(all.end(), m.begin(), m.end());
  for (const std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{19}, std::size_t{20}, all.size()}) {
    make(config());
    tick();
    connected();
    for (std::size_t at = 0; at < all.size(); at += piece) on(event::Received{A, View(all).subspan(at, std::min(piece, all.size() - at))});
    EXPECT_TRUE(peer_->established()) << piece;
    EXPECT_EQ(peer_->counters().keepalives_received, 2u);
    EXPECT_EQ(peer_->counters().updates_received, 1u);
  }
}

Bytes update_with(const Bytes& attributes, const Bytes& nlri) {
  Bytes m(16, 0xff);
  const auto n = kHeader + 4 + attributes.size() + nlri.size();
  for (const auto b : {n >> 8, n & 0xff, std::size_t{2}, std::size_t{0}, std::size_t{0}, attributes.size() >> 8, attributes.size() & 0xff}) m.push_back(static_cast<std::uint8_t>(b));
  m.insert(m.end(), attributes.begin(), attributes.end());
  m.insert(m.end(), nlri.begin(), nlri.end());
  return m;
}

TEST_F(BgpPeer, MalformedUpdates) {
  on_routes();
  // ORIGIN 9: its routes count as withdrawn, the session stays, and somebody is told.
  EXPECT_THAT(hear(A, update_with({0x40, 1, 1, 9}, {24, 198, 51, 100})), ElementsAre("tell malformed UPDATE from 192.0.2.254: ORIGIN: malformed; the session stays up"));
  EXPECT_TRUE(peer_->established());
  EXPECT_EQ(peer_->counters().malformed, 1u);
  // A route of 99 bits: nothing after it can be told apart.
  EXPECT_THAT(hear(A, update_with({}, {99, 1})), ElementsAre("notification 3/10", "close", HasSubstr("is down: we said: UPDATE message error: invalid network field")));
  EXPECT_EQ(peer_->counters().malformed, 2u);
}

TEST_F(BgpPeer, GarbageEndsTheSessionAtItsFirstBytes) {
  on_routes();
  EXPECT_THAT(hear(A, Bytes(5, 'G')), ElementsAre("notification 1/1", "close", HasSubstr("connection not synchronized")));
}

TEST_F(BgpPeer, ARouterThatFlapsIsTriedLessAndLess) {
  on_routes();
  milliseconds pause{0};
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(on(event::Closed{A, "Connection reset by peer"}), ElementsAre("tell session with 192.0.2.254 is down: Connection reset by peer"));
    pause = std::chrono::ceil<milliseconds>(peer_->next_tick() - now_);
    EXPECT_LE(pause, i == 0 ? milliseconds(500) : milliseconds(30'000));
    now_ += pause;
    last_.clear();
    establish();
    EXPECT_THAT(last_, testing::Contains("update +198.51.100.1/32")) << "everything is told anew";
  }
  EXPECT_GE(pause, seconds(15));
  // One that has stood for a while is tried at once again.
  for (int i = 0; i < 40; ++i) {
    hear(A, encode_keepalive());
    wait(seconds(3));
  }
  on(event::Closed{A, "Connection reset by peer"});
  EXPECT_LE(peer_->next_tick() - now_, milliseconds(500));
}

TEST_F(BgpPeer, WhatTheRouterSaysWhenItEndsTheSession) {
  on_routes();
  EXPECT_THAT(hear(A, encode(Notification{ErrorClass::cease, cease::kShutdown, {4, 'w', 'o', 'r', 'k'}})),
              ElementsAre("close", "tell session with 192.0.2.254 is down: the router says: cease: administrative shutdown (\"work\")"));
  EXPECT_EQ(peer_->last_error(), "the router says: cease: administrative shutdown (\"work\")");
}

TEST_F(BgpPeer, RouteRefreshTellsEverythingAgain) {
  on_routes();
  EXPECT_THAT(hear(A, encode(RouteRefresh{1, 1})), ElementsAre("update +198.51.100.1/32"));
  EXPECT_THAT(hear(A, encode(RouteRefresh{2, 1})), IsEmpty()) << "IPv6 is not spoken here";
  EXPECT_THAT(hear(A, encode(RouteRefresh{1, 128})), IsEmpty()) << "nor VPN routes";
}

TEST_F(BgpPeer, GracefulRestart) {
  auto c = config();
  c.graceful_restart = true;
  make(c);
  tick();
  const auto opened = peer_->on(event::Connected{A, {{Family::v4, ip("192.0.2.1")}}}, now_);
  const auto first = std::get<Open>(decode(std::get<action::Send>(opened.at(0)).bytes, true).value());
  ASSERT_TRUE(first.graceful_restart);
  EXPECT_TRUE(first.graceful_restart->restarted) << "whoever knew this process's forerunner may keep its routes";
  EXPECT_TRUE(first.graceful_restart->families.at(Family::v4));
  auto theirs = router_open();
  theirs.graceful_restart = GracefulRestart{false, 120, {{Family::v4, true}}};
  hear(A, encode(theirs));
  hear(A, encode_keepalive());
  ASSERT_TRUE(peer_->established());
  // The session breaks, this process lives: it has not restarted.
  on(event::Closed{A, "Connection reset by peer"});
  wait(seconds(1));
  const auto again = peer_->on(event::Connected{A, {{Family::v4, ip("192.0.2.1")}}}, now_);
  EXPECT_FALSE(std::get<Open>(decode(std::get<action::Send>(again.at(0)).bytes, true).value()).graceful_restart->restarted);
  hear(A, encode(theirs));
  hear(A, encode_keepalive());
  EXPECT_THAT(on(event::Stop{Farewell::restart}), ElementsAre("close", HasSubstr("is down"))) << "not a word: the router is to keep the routes";
  EXPECT_THAT(wait(std::chrono::hours(1)), IsEmpty()) << "stopped is stopped";
}

TEST_F(BgpPeer, Farewells) {
  struct Row {
    Farewell farewell;
    bool ours, theirs;
    std::string word;
  };
  const std::vector<Row> rows = {
      {Farewell::shutdown, true, true, "notification 6/2"},      {Farewell::deconfigured, true, true, "notification 6/3"}, {Farewell::changed, true, true, "notification 6/6"},
      {Farewell::restart, false, true, "notification 6/2"},      {Farewell::restart, true, false, "notification 6/2"},     {Farewell::restart, true, true, "close"},
  };
  for (const auto& r : rows) {
    auto c = config();
    c.graceful_restart = r.ours;
    auto theirs = router_open();
    if (r.theirs) theirs.graceful_restart = GracefulRestart{};
    make(c);
    establish(theirs);
    EXPECT_EQ(on(event::Stop{r.farewell}).at(0), r.word) << static_cast<int>(r.farewell) << r.ours << r.theirs;
  }
}

TEST_F(BgpPeer, ARouterMayOpenTheConnection) {
  make(config());
  on(event::SetRoutes{routes({"198.51.100.1/32"})});
  EXPECT_THAT(connected(P), ElementsAre("passive open"));
  EXPECT_THAT(hear(P, encode(router_open())), ElementsAre("passive keepalive"));
  EXPECT_THAT(hear(P, encode_keepalive()), ElementsAre(HasSubstr("established"), "passive update +198.51.100.1/32", "passive end-of-rib IPv4"));
  EXPECT_THAT(wait(seconds(1)), IsEmpty()) << "no second connection";
}

TEST_F(BgpPeer, TwoConnectionsAtOnceOneSurvives) {
  for (const bool we_are_higher : {false, true}) {
    SCOPED_TRACE(we_are_higher);
    auto c = config();
    if (we_are_higher) c.router_id = ip("203.0.113.1").v4_host_order();
    make(c);
    tick();
    connected(A);
    connected(P);
    hear(A, encode(router_open()));
    const auto said = hear(P, encode(router_open()));
    if (we_are_higher) {
      EXPECT_THAT(said, ElementsAre("passive notification 6/7", "passive close"));
      hear(A, encode_keepalive());
    } else {
      EXPECT_THAT(said, ElementsAre("notification 6/7", "close", "passive keepalive"));
      hear(P, encode_keepalive());
    }
    EXPECT_TRUE(peer_->established());
    EXPECT_EQ(peer_->counters().established, 1u);
  }
}

TEST_F(BgpPeer, AConnectionBesideAnEstablishedOne) {
  establish();
  connected(P);
  EXPECT_THAT(hear(P, encode(router_open())), ElementsAre("passive notification 6/7", "passive close"));
  EXPECT_TRUE(peer_->established());
  // With graceful restart it means that the router has restarted and we did not notice.
  auto c = config();
  c.graceful_restart = true;
  auto theirs = router_open();
  theirs.graceful_restart = GracefulRestart{};
  make(c);
  establish(theirs);
  connected(P);
  EXPECT_THAT(hear(P, encode(theirs)), ElementsAre("close", HasSubstr("the router has opened a new connection"), "passive keepalive"));
  hear(P, encode_keepalive());
  EXPECT_TRUE(peer_->established());
}

TEST_F(BgpPeer, LateAndDoubleEventsDoNoHarm) {
  make(config());
  EXPECT_THAT(connected(A), ElementsAre("close")) << "nobody asked for it";
  EXPECT_THAT(on(event::Closed{A, "x"}), IsEmpty());
  EXPECT_THAT(hear(A, encode_keepalive()), IsEmpty());
  EXPECT_THAT(on(event::ConnectFailed{"x"}), IsEmpty());
  establish();
  EXPECT_THAT(connected(A), ElementsAre("close", HasSubstr("is down: a second connection was opened")));
  on(event::Stop{Farewell::shutdown});
  EXPECT_THAT(connected(P), ElementsAre("passive close"));
  EXPECT_THAT(on(event::Stop{Farewell::shutdown}), IsEmpty());
  EXPECT_THAT(on(event::SetRoutes{routes({"198.51.100.1/32"})}), IsEmpty());
}

// Whatever a router does in whatever order: no more than one session, no message after the end of a connection, and a machine
// that always has something to wait for.
TEST_F(BgpPeer, AnythingInAnyOrder) {
  const auto seed = std::getenv("FAIRLEAD_SEED") ? std::stoull(std::getenv("FAIRLEAD_SEED")) : std::random_device{}();
  SCOPED_TRACE(fmt::format("FAIRLEAD_SEED={}", seed));
  SeededRandom chance(seed);
  auto c = config();
  c.graceful_restart = true;
  auto theirs = router_open();
  theirs.graceful_restart = GracefulRestart{};
  const std::vector<Bytes> says = {encode(router_open()), encode(theirs), encode_keepalive(), end_of_rib(Family::v4), encode(RouteRefresh{1, 1}), update_with({0x40, 1, 1, 9}, {8, 10}), Bytes(3, 0),
                                   encode(Notification{ErrorClass::cease, 4, {}})};
  std::size_t sessions = 0;
  for (int round = 0; round < 300; ++round) {
    make(c);
    std::array<bool, 2> open{};
    for (int i = 0; i < 60; ++i) {
      const auto side = chance.below(2) == 0 ? A : P;
      PeerEvent e = event::Tick{};
      switch (chance.below(8)) {
        case 0: e = event::Connected{side, {{Family::v4, ip("192.0.2.1")}}}; break;
        case 1: e = event::Closed{side, "reset"}; break;
        case 2: e = event::SetRoutes{routes(chance.below(2) == 0 ? std::initializer_list<const char*>{"10.0.0.0/8"} : std::initializer_list<const char*>{})}; break;
        case 3: now_ += milliseconds(chance.below(5000)); break;
        default: e = event::Received{side, says[chance.below(says.size())]}; break;
      }
      if (std::holds_alternative<event::Connected>(e)) open[static_cast<std::size_t>(side)] = true;
      if (std::holds_alternative<event::Closed>(e)) open[static_cast<std::size_t>(side)] = false;
      const auto before = peer_->counters().established;
      for (const auto& a : peer_->on(e, now_)) {
        const auto* sent = std::get_if<action::Send>(&a);
        ASSERT_TRUE(!sent || open[static_cast<std::size_t>(sent->side)]) << "a message after the end";
        if (const auto* s = std::get_if<action::Close>(&a)) open[static_cast<std::size_t>(s->side)] = false;
      }
      ASSERT_TRUE(peer_->next_tick() < SteadyTime::max()) << "it would wait for ever";
      sessions += peer_->counters().established - before;
    }
  }
  EXPECT_GT(sessions, 0u);
}

}  // namespace
}  // namespace fairlead::lb::bgp
