// BGP messages byte by byte: what we write, what we read, and the answer to each thing that a router can get wrong.
#include "lb/bgp/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace fairlead::lb::bgp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

IpAddress ip(std::string_view t) { return IpAddress::parse(t).value(); }
Prefix block(std::string_view t) { return Prefix::parse(t).value(); }

// "01 02 | 03": what is not a hex digit divides.
Bytes hex(std::string_view text) {
  Bytes out;
  int high = -1;
  for (const char c : text) {
    const int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (v < 0) continue;
    if (high < 0) {
      high = v;
    } else {
      out.push_back(static_cast<std::uint8_t>(high << 4 | v));
      high = -1;
    }
  }
  return out;
}
std::string text(View b) {
  std::string out;
  for (const auto x : b) out += fmt::format("{:02x}", x);
  return out;
}
// A message with a right header around the body.
Bytes message(int type, const Bytes& body) {
  Bytes out(16, 0xff);
  const auto n = body.size() + kHeader;
  out.push_back(static_cast<std::uint8_t>(n >> 8));
  out.push_back(static_cast<std::uint8_t>(n & 0xff));
  out.push_back(static_cast<std::uint8_t>(type));
  out.insert(out.end(), body.begin(), body.end());
  return out;
}
Bytes body_of(const Bytes& m) { return {m.begin() + kHeader, m.end()}; }

Open full_open() {
  Open o;
  o.asn = 4200000001;
  o.hold_time = 90;
  o.router_id = ip("192.0.2.1").v4_host_order();
  o.families = {Family::v4, Family::v6};
  o.graceful_restart = GracefulRestart{true, 120, {{Family::v4, true}, {Family::v6, true}}};
  return o;
}

TEST(BgpMessage, OpenByteByByte) {
  EXPECT_EQ(text(body_of(encode(full_open()))), text(hex("04 5ba0 005a c0000201 22 | 02 20"
                                                         "01 04 0001 00 01"   // IPv4 unicast
                                                         "01 04 0002 00 01"   // IPv6 unicast
                                                         "02 00"              // route refresh
                                                         "40 0a 8078 0001 01 80 0002 01 80"  // graceful restart: restarted, 120 s, forwarding kept
                                                         "41 04 fa56ea01")));  // 4-byte AS number
  Open plain;
  plain.asn = 64512;
  plain.four_byte_asn = plain.route_refresh = false;
  plain.router_id = 1;
  EXPECT_EQ(text(encode(plain)), "ffffffffffffffffffffffffffffffff001d01" "04fc00000000000001" "00");
}

TEST(BgpMessage, ShortOnes) {
  EXPECT_EQ(text(encode_keepalive()), "ffffffffffffffffffffffffffffffff001304");
  EXPECT_EQ(text(encode(Notification{ErrorClass::cease, cease::kShutdown, {}})), "ffffffffffffffffffffffffffffffff0015030602");
  EXPECT_EQ(text(encode(RouteRefresh{2, 1})), "ffffffffffffffffffffffffffffffff00170500020001");
  EXPECT_EQ(text(body_of(end_of_rib(Family::v4))), "00000000");
  EXPECT_EQ(text(body_of(end_of_rib(Family::v6))), "00000006800f03000201");
}

Egress external() {
  Egress e;
  e.asn = 64512;
  e.next_hop = {{Family::v4, ip("192.0.2.1")}, {Family::v6, ip("2001:db8::1")}};
  return e;
}

TEST(BgpMessage, UpdatesByteByByte) {
  const Attributes plain;
  Attributes rich;
  rich.local_pref = 200;
  rich.communities = {64512u << 16 | 100, 0xffffff01};
  rich.large_communities = {{64512, 1, 2}};
  Egress inside = external();
  inside.internal = true;
  Egress old = external();
  old.asn = 4200000001;
  old.four_byte_asn = false;
  struct Row {
    const char* what;
    Routes before, after;
    Egress egress;
    std::vector<std::string> bodies;
  };
  const std::vector<Row> rows = {
      {"an IPv4 address to another AS", {}, {{block("198.51.100.7/32"), plain}}, external(),
       {"0000 0014 | 400101 00 | 400206 0201 0000fc00 | 400304 c0000201 | 20 c6336407"}},
      {"an aggregated block: its bytes alone", {}, {{block("198.51.100.0/24"), plain}}, external(),
       {"0000 0014 | 400101 00 | 400206 0201 0000fc00 | 400304 c0000201 | 18 c63364"}},
      {"inside the AS: empty path, LOCAL_PREF, communities", {}, {{block("198.51.100.7/32"), rich}}, inside,
       {"0000 002f | 400101 00 | 400200 | 400304 c0000201 | 400504 000000c8 | c00808 fc000064 ffffff01 | c0200c 0000fc00 00000001 00000002 | 20 c6336407"}},
      {"inside the AS without a preference of its own", {}, {{block("198.51.100.7/32"), plain}}, inside,
       {"0000 0015 | 400101 00 | 400200 | 400304 c0000201 | 400504 00000064 | 20 c6336407"}},
      {"to a router with two-byte AS numbers: AS_TRANS and AS4_PATH", {}, {{block("198.51.100.7/32"), plain}}, old,
       {"0000 001b | 400101 00 | 400204 0201 5ba0 | 400304 c0000201 | c01106 0201 fa56ea01 | 20 c6336407"}},
      {"IPv6: in MP_REACH_NLRI, first", {}, {{block("2001:db8:1::7/128"), plain}}, external(),
       {"0000 0036 | 800e26 0002 01 10 20010db8000000000000000000000001 00 80 20010db8000100000000000000000007 | 400101 00 | 400206 0201 0000fc00 |"}},
      {"withdrawn", {{block("198.51.100.7/32"), plain}, {block("2001:db8:1::/64"), plain}}, {}, external(),
       {"0005 20 c6336407 0000", "0000 000f | 800f0c 0002 01 40 20010db800010000"}},
      {"one stays, one goes, one comes", {{block("198.51.100.1/32"), plain}, {block("198.51.100.2/32"), plain}}, {{block("198.51.100.2/32"), plain}, {block("198.51.100.3/32"), plain}}, external(),
       {"0005 20 c6336401 0000", "0000 0014 | 400101 00 | 400206 0201 0000fc00 | 400304 c0000201 | 20 c6336403"}},
      {"other attributes: announced again, not withdrawn", {{block("198.51.100.1/32"), rich}}, {{block("198.51.100.1/32"), plain}}, external(),
       {"0000 0014 | 400101 00 | 400206 0201 0000fc00 | 400304 c0000201 | 20 c6336401"}},
      {"nothing changed", {{block("198.51.100.1/32"), rich}}, {{block("198.51.100.1/32"), rich}}, external(), {}},
      {"a family without a next hop is left out", {}, {{block("2001:db8:1::7/128"), plain}}, {.asn = 1, .internal = false, .four_byte_asn = true, .next_hop = {{Family::v4, ip("192.0.2.1")}}}, {}},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.what);
    const auto made = encode_changes(r.before, r.after, r.egress);
    ASSERT_EQ(made.size(), r.bodies.size());
    for (std::size_t i = 0; i < made.size(); ++i) EXPECT_EQ(text(body_of(made[i])), text(hex(r.bodies[i])));
  }
}

TEST(BgpMessage, ManyRoutesShareMessagesThatAreNotTooLong) {
  for (const char* base : {"10.0.0.0", "2001:db8::"}) {
    Routes all;
    for (unsigned i = 0; i < 5000; ++i) all[Prefix(ip(base).plus(i), ip(base).bits())] = {};
    for (const bool come : {true, false}) {
      std::set<Prefix> seen;
      const auto messages = come ? encode_changes({}, all, external()) : encode_changes(all, {}, external());
      EXPECT_LE(messages.size(), 25u);
      for (const auto& m : messages) {
        EXPECT_LE(m.size(), kMaxMessage);
        const auto u = std::get<Update>(decode(m, true).value());
        EXPECT_THAT(u.problems, IsEmpty());
        for (const auto& p : come ? u.announced : u.withdrawn) EXPECT_TRUE(seen.insert(p).second);
      }
      EXPECT_EQ(seen.size(), 5000u);
    }
  }
}

TEST(BgpMessage, WhatIsWrittenIsRead) {
  EXPECT_EQ(decode(encode(full_open()), true).value(), Message(full_open()));
  EXPECT_EQ(decode(encode_keepalive(), true).value(), Message(Keepalive{}));
  EXPECT_EQ(decode(encode(RouteRefresh{2, 1}), true).value(), Message(RouteRefresh{2, 1}));
  const Notification n{ErrorClass::update, 9, {1, 2, 3}};
  EXPECT_EQ(decode(encode(n), true).value(), Message(n));
  for (const auto f : {Family::v4, Family::v6}) EXPECT_EQ(std::get<Update>(decode(end_of_rib(f), true).value()).end_of_rib, f);
  // Attributes of an iBGP route come back as they were.
  Attributes rich;
  rich.local_pref = 7;
  rich.communities = {1, 2, 3};
  rich.large_communities = {{1, 2, 3}, {4, 5, 6}};
  Egress e = external();
  e.internal = true;
  const auto u = std::get<Update>(decode(encode_changes({}, {{block("2001:db8::/64"), rich}}, e).at(0), true).value());
  EXPECT_EQ(u.attributes, rich);
  EXPECT_EQ(u.next_hop_v6, ip("2001:db8::1"));
  EXPECT_THAT(u.announced, ElementsAre(block("2001:db8::/64")));
}

std::string answer(const Decoded& d) {
  return d ? "" : fmt::format("{}/{} {}", static_cast<int>(d.error().code), d.error().subcode, text(d.error().data));
}

TEST(BgpMessage, HeadersThatAreWrong) {
  auto marker = encode_keepalive();
  marker[3] = 0;
  auto short_one = encode_keepalive();
  short_one[17] = 18;
  auto long_one = encode_keepalive();
  long_one[16] = 0x10;
  long_one[17] = 0x01;
  struct Row {
    const char* what;
    Bytes bytes;
    std::string answer;
  };
  const std::vector<Row> rows = {
      {"marker", marker, "1/1 "},
      {"shorter than a header", short_one, "1/2 0012"},
      {"longer than 4096", long_one, "1/2 1001"},
      {"unknown type", message(9, {}), "1/3 09"},
      {"type 0", message(0, {}), "1/3 00"},
      {"keepalive with a body", message(4, {0}), "1/2 0014"},
      {"OPEN too short", message(1, Bytes(9)), "1/2 001c"},
      {"UPDATE too short", message(2, Bytes(3)), "1/2 0016"},
      {"NOTIFICATION too short", message(3, {6}), "1/2 0014"},
      {"ROUTE-REFRESH of another length", message(5, Bytes(3)), "1/2 0016"},
  };
  for (const auto& r : rows) EXPECT_EQ(answer(decode(r.bytes, true)), r.answer) << r.what;
  // A marker is judged by its first bytes already, the rest waits for them.
  EXPECT_EQ(message_length(View(marker).subspan(0, 4)).error().subcode, 1);
  EXPECT_EQ(message_length(Bytes(18, 0xff)).value(), 0u);
  EXPECT_EQ(message_length({}).value(), 0u);
}

TEST(BgpMessage, OpensThatAreWrong) {
  struct Row {
    const char* what;
    const char* body;
    std::string answer;
  };
  const Row rows[] = {
      {"good, without parameters", "04 fc00 005a c0000201 00", ""},
      {"version 3", "03 fc00 005a c0000201 00", "2/1 0004"},
      {"AS 0", "04 0000 005a c0000201 00", "2/2 "},
      {"AS 0 in four bytes", "04 fc00 005a c0000201 08 02 06 41 04 00000000", "2/2 "},
      {"router id 0", "04 fc00 005a 00000000 00", "2/3 "},
      {"hold time 1", "04 fc00 0001 c0000201 00", "2/6 "},
      {"hold time 2", "04 fc00 0002 c0000201 00", "2/6 "},
      {"hold time 0 is none", "04 fc00 0000 c0000201 00", ""},
      {"parameter that is no capability", "04 fc00 005a c0000201 04 01 02 0000", "2/4 "},
      {"parameters longer than the message", "04 fc00 005a c0000201 08 02 06", "2/0 "},
      {"parameters shorter than the message", "04 fc00 005a c0000201 00 02 00", "2/0 "},
      {"parameter longer than the parameters", "04 fc00 005a c0000201 02 02 06", "2/0 "},
      {"capability longer than its parameter", "04 fc00 005a c0000201 04 02 02 41 04", "2/0 "},
      {"4-byte AS number of 2 bytes", "04 fc00 005a c0000201 06 02 04 41 02 fc00", "2/0 "},
      {"graceful restart of 1 byte", "04 fc00 005a c0000201 05 02 03 40 01 00", "2/0 "},
      {"unknown capability is skipped", "04 fc00 005a c0000201 06 02 04 c8 02 ffff", ""},
      {"long form (RFC 9072)", "04 fc00 005a c0000201 ff ff 0005 02 0002 02 00", ""},
      {"long form that ends early", "04 fc00 005a c0000201 ff ff 00", "2/0 "},
  };
  for (const auto& r : rows) EXPECT_EQ(answer(decode(message(1, hex(r.body)), true)), r.answer) << r.what;
  EXPECT_EQ(std::get<Open>(decode(message(1, hex("04 fc00 005a c0000201 00")), true).value()).families, std::set<Family>{Family::v4}) << "no multiprotocol capability means IPv4";
  EXPECT_TRUE(std::get<Open>(decode(message(1, hex("04 fc00 005a c0000201 08 02 06 01 04 0001 00 85")), true).value()).families.empty()) << "flow rules are not unicast";
}

TEST(BgpMessage, UpdatesThatAreWrong) {
  const std::string good = "40010100 4002060201 0000fde8 400304c0000201";
  const std::string route = "18c63364";
  const auto update = [](const std::string& attributes, const std::string& routes) {
    const auto a = hex(attributes), r = hex(routes);
    Bytes b{0, 0, static_cast<std::uint8_t>(a.size() >> 8), static_cast<std::uint8_t>(a.size() & 0xff)};
    b.insert(b.end(), a.begin(), a.end());
    b.insert(b.end(), r.begin(), r.end());
    return b;
  };
  struct Row {
    const char* what;
    Bytes body;
    std::string answer;   // the session's end
    bool withdraw;        // else
    std::string problem;  // "" : none
  };
  const std::vector<Row> rows = {
      {"good", update(good, route), "", false, ""},
      {"withdrawn routes longer than the message", hex("0005 0000"), "3/1 ", false, ""},
      {"withdrawn route of 33 bits", hex("0006 21 0000000000 0000"), "3/1 ", false, ""},
      {"attributes longer than the message", hex("0000 0005 4001"), "3/1 ", false, ""},
      {"route of 33 bits", update(good, "21c633640000"), "3/10 ", false, ""},
      {"route that ends early", update(good, "18c633"), "3/10 ", false, ""},
      {"unknown well-known attribute", update(good + "40630100", route), "3/2 4063", false, ""},
      {"unknown optional attribute", update(good + "c0630100", route), "", false, ""},
      {"MP_REACH_NLRI twice", update(good + "800e050001010000 800e050001010000", ""), "3/9 ", false, ""},
      {"MP_REACH_NLRI with a next hop of 5 bytes", update(good + "800e0a00020105000000000000", ""), "3/9 ", false, ""},
      {"MP_REACH_NLRI with a route that ends early", update(good + "800e17000201 10 20010db8000000000000000000000001 00 40 20", ""), "3/9 ", false, ""},
      {"MP_REACH_NLRI with wrong flags", update(good + "400e050001010000", ""), "3/4 400e", false, ""},
      {"MP_UNREACH_NLRI twice", update("800f03000201 800f03000201", ""), "3/1 ", false, ""},
      {"MP_UNREACH_NLRI of 2 bytes", update("800f020002", ""), "3/9 ", false, ""},
      {"ORIGIN 3", update("40010103 4002060201 0000fde8 400304c0000201", route), "", true, "ORIGIN: malformed"},
      {"ORIGIN of 2 bytes", update("4001020000 4002060201 0000fde8 400304c0000201", route), "", true, "ORIGIN: malformed"},
      {"AS_PATH with an empty segment", update("40010100 4002020200 400304c0000201", route), "", true, "AS_PATH: malformed"},
      {"AS_PATH segment longer than the path", update("40010100 4002060202 0000fde8 400304c0000201", route), "", true, "AS_PATH: malformed"},
      {"NEXT_HOP of 3 bytes", update("40010100 4002060201 0000fde8 400303c00002", route), "", true, "NEXT_HOP: malformed"},
      {"NEXT_HOP missing", update("40010100 4002060201 0000fde8", route), "", true, "NEXT_HOP is missing"},
      {"AS_PATH missing", update("40010100 400304c0000201", route), "", true, "AS_PATH is missing"},
      {"ORIGIN with optional flag", update("c0010100 4002060201 0000fde8 400304c0000201", route), "", true, "ORIGIN: wrong flags 0xc0"},
      {"communities of 3 bytes", update(good + "c00803000000", route), "", true, "COMMUNITIES: malformed"},
      {"communities of 0 bytes", update(good + "c00800", route), "", true, "COMMUNITIES: malformed"},
      {"large communities of 4 bytes", update(good + "c0200400000000", route), "", true, "LARGE_COMMUNITY: malformed"},
      {"MULTI_EXIT_DISC of 3 bytes", update(good + "800403000000", route), "", true, "MULTI_EXIT_DISC: malformed"},
      {"AGGREGATOR of 5 bytes", update(good + "c007050000000000", route), "", false, "AGGREGATOR: malformed; the attribute is ignored"},
      {"ATOMIC_AGGREGATE of 1 byte", update(good + "40060100", route), "", false, "ATOMIC_AGGREGATE: malformed; the attribute is ignored"},
      {"ORIGIN twice: the first counts", update(good + "40010103", route), "", false, "attribute 1 appears twice; the first one counts"},
      {"list that ends within an attribute", update(good + "c008", route), "", true, "the attribute list ends within an attribute"},
      {"attribute longer than the list", update(good + "c00808fc000064", route), "", true, "attribute 8 is longer than the attribute list"},
      {"extended length that ends early", update(good + "d00800", route), "", true, "the attribute list ends within an attribute"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.what);
    const auto d = decode(message(2, r.body), true);
    EXPECT_EQ(answer(d), r.answer);
    if (!d) continue;
    const auto& u = std::get<Update>(*d);
    EXPECT_EQ(u.treat_as_withdraw, r.withdraw);
    EXPECT_EQ(u.problems.empty() ? "" : u.problems.front(), r.problem);
    EXPECT_THAT(u.announced, ElementsAre(block("198.51.100.0/24"))) << "the routes are known in any case";
  }
  // Two-byte AS numbers where the router has no others.
  EXPECT_EQ(std::get<Update>(decode(message(2, update("40010100 4002040201fde8 400304c0000201", route)), false).value()).as_path, std::vector<std::uint32_t>{65000});
}

TEST(BgpMessage, CutAnywhereItIsNeverRead) {
  const auto m = encode(full_open());
  for (std::size_t n = 0; n < m.size(); ++n) {
    const View part = View(m).subspan(0, n);
    const auto length = message_length(part);
    ASSERT_TRUE(length);
    EXPECT_TRUE(*length == 0 || *length > n);
    EXPECT_FALSE(decode(part, true));
  }
}

TEST(BgpMessage, NotificationsForPeople) {
  const auto with = [](ErrorClass c, std::uint8_t s, Bytes d = {}) { return Notification{c, s, std::move(d)}.to_string(); };
  EXPECT_EQ(with(ErrorClass::open, 2), "OPEN message error: bad peer AS");
  EXPECT_EQ(with(ErrorClass::update, 1), "UPDATE message error: malformed attribute list");
  EXPECT_EQ(with(ErrorClass::hold_timer, 0), "hold timer expired");
  EXPECT_EQ(with(ErrorClass::cease, cease::kShutdown, {3, 'b', 'y', 'e'}), "cease: administrative shutdown (\"bye\")");
  EXPECT_EQ(with(ErrorClass::cease, cease::kShutdown, {9, 'b', 'y'}), "cease: administrative shutdown") << "a length that lies";
  EXPECT_EQ(with(ErrorClass::cease, cease::kReset, {2, '\x1b', 'x'}), "cease: administrative reset (\"?x\")");
  EXPECT_EQ(with(ErrorClass::cease, 99), "cease: subcode 99");
  EXPECT_EQ(with(static_cast<ErrorClass>(77), 1), "error 77, 1");
  EXPECT_LE(encode(Notification{ErrorClass::update, 1, Bytes(5000)}).size(), kMaxMessage);
}

}  // namespace
}  // namespace fairlead::lb::bgp
