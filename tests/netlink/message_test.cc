// Messages as bytes: what the builder writes the reader finds, and damaged bytes are refused.
#include "netlink/message.h"

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

#include "netlink/link.h"
#include "netlink/qdisc.h"
#include "netlink/route.h"
#include "netlink/sysctl.h"

namespace fairlead::netlink {
namespace {

MessageView only(const Bytes& b) {
  const auto all = split_messages(b);
  EXPECT_TRUE(all.has_value() && all->size() == 1);
  return all->at(0);
}

TEST(Message, NestsAndPads) {
  MessageBuilder m(RTM_NEWLINK, NLM_F_REQUEST);
  m.header(ifinfomsg{});
  m.put_u8(1, 7);
  {
    const auto outer = m.nest(2);
    m.put_string(3, "ab");
    const auto inner = m.nest(4);
    m.put_be16(5, 0x1234);
  }
  m.put_flag(6);
  const Bytes b = std::move(m).finish();
  EXPECT_EQ(b.size() % 4, 0u);
  const MessageView v = only(b);
  const auto parsed = v.as<ifinfomsg>();
  ASSERT_TRUE(parsed);
  const Attributes& a = parsed->second;
  EXPECT_EQ(a.u8(1), 7);
  EXPECT_EQ(a.u16(1), std::nullopt) << "another size is not that attribute";
  EXPECT_EQ(a.nested(2).string(3), "ab");
  EXPECT_EQ(a.nested(2).nested(4).be16(5), 0x1234);
  EXPECT_TRUE(a.has(6));
  EXPECT_FALSE(a.has(7));
  EXPECT_FALSE(a.nested(9).has(1));
}

TEST(Message, EveryTruncationIsAnErrorOrWhole) {
  const Bytes b = build_create_link({.name = "v0", .kind = VethKind{.peer_name = "v1", .peer_mac = *MacAddress::parse("02:00:00:00:00:01")}});
  for (std::size_t n = 0; n < b.size(); ++n) {
    const auto parts = split_messages(ByteView(b).first(n));
    EXPECT_EQ(parts.has_value(), n == 0) << n;
  }
  // A length inside the message that lies.
  for (std::size_t at = 32; at + 2 <= b.size(); at += 4) {
    Bytes damaged = b;
    damaged[at] = 0xff;
    damaged[at + 1] = 0xff;
    const auto m = split_messages(damaged);
    if (m) (void)parse_link(m->at(0));  // must not read outside; the sanitizers watch
  }
}

TEST(Message, AckCarriesTheKernelsText) {
  struct Row {
    const char* name;
    std::uint16_t flags;
    bool capped;
    std::string text;
  };
  for (const Row& r : {Row{"plain", 0, true, ""}, Row{"capped with text", NLM_F_ACK_TLVS | NLM_F_CAPPED, true, "no such thing"},
                       Row{"request echoed, with text", NLM_F_ACK_TLVS, false, "no such thing"}}) {
    MessageBuilder m(NLMSG_ERROR, r.flags);
    nlmsgerr e{};
    e.error = -ENODEV;
    e.msg.nlmsg_len = sizeof(nlmsghdr) + 8;
    m.header(e);
    if (!r.capped) m.inline_struct(std::uint64_t{0});
    if (!r.text.empty()) m.put_string(NLMSGERR_ATTR_MSG, r.text);
    const Bytes b = std::move(m).finish();
    const auto ack = parse_ack(only(b));
    ASSERT_TRUE(ack) << r.name;
    EXPECT_EQ(ack->error, ENODEV) << r.name;
    EXPECT_EQ(ack->message, r.text) << r.name;
    const Error error = ack_error(*ack, "do it");
    EXPECT_EQ(error.code, ErrorCode::not_found);
    EXPECT_EQ(error.message, r.text.empty() ? "do it: No such device" : "do it: No such device (no such thing)");
  }
}

TEST(MacAddress, ParsesStrictly) {
  EXPECT_EQ(MacAddress::parse("02:AB:00:ff:00:01")->to_string(), "02:ab:00:ff:00:01");
  for (const char* bad : {"", "02:00:00:00:00", "02:00:00:00:00:0", "02-00-00-00-00-01", "0g:00:00:00:00:01", "02:00:00:00:00:01:"})
    EXPECT_FALSE(MacAddress::parse(bad)) << bad;
}

TEST(LinkName, WhatTheKernelAccepts) {
  for (const char* good : {"a", "eth0", "eth0.10", "123456789012345"}) EXPECT_TRUE(check_link_name(good)) << good;
  for (const char* bad : {"", ".", "..", "1234567890123456", "a/b", "a b", "a:b", "a\tb"}) EXPECT_FALSE(check_link_name(bad)) << bad;
}

// A route read back is the route written, in all its shapes.
TEST(Route, RoundTrips) {
  const auto v4 = [](const char* s) { return *IpAddress::parse(s); };
  std::vector<Route> rows;
  rows.push_back({.destination = *Prefix::parse("10.1.0.0/16"), .next_hops = {{.gateway = v4("192.168.0.1"), .link = 3}}});
  rows.push_back({.destination = *Prefix::parse("0.0.0.0/0"), .next_hops = {{.gateway = v4("169.254.1.1"), .link = 3, .onlink = true}}});
  rows.push_back({.destination = *Prefix::parse("10.1.2.3/32"), .next_hops = {{.link = 9}}, .source = v4("10.0.0.1"), .table = 1000,
                  .scope = RT_SCOPE_LINK, .metric = 77, .mtu = 1400, .advmss = 1360});
  rows.push_back({.destination = *Prefix::parse("fd00::/64"), .next_hops = {{.gateway = v4("fe80::1"), .link = 2}}});
  rows.push_back({.destination = *Prefix::parse("10.9.0.0/16"), .next_hops = {{.gateway = v4("fe80::1"), .link = 2}}});
  rows.push_back({.destination = *Prefix::parse("10.8.0.0/16"), .next_hops = {}, .type = RTN_BLACKHOLE});
  rows.push_back({.destination = *Prefix::parse("10.7.0.0/16"),
                  .next_hops = {{.gateway = v4("10.0.0.1"), .link = 2, .weight = 1}, {.gateway = v4("10.0.0.2"), .link = 3, .onlink = true, .weight = 5}}});
  for (const Route& r : rows) {
    const Bytes b = build_add_route(r);
    const auto back = parse_route(only(b));
    ASSERT_TRUE(back && *back) << r.to_string();
    EXPECT_EQ(**back, r) << r.to_string() << " came back as " << (*back)->to_string();
  }
}

TEST(Rule, RoundTrips) {
  const Rule r{.family = Family::v6, .priority = 500, .from = Prefix::parse("fd00::/64").value(), .mark = 0x10, .mark_mask = 0xf0,
               .in_link = "eth0", .table = 4242};
  const Bytes b = build_add_rule(r);
  const auto back = parse_rule(only(b));
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, r);
}

TEST(Tbf, SurvivesEveryRate) {
  for (const std::uint64_t rate : {1ull, 125'000ull, 125'000'000ull, 5'000'000'000ull, ~0ull})
    for (const std::uint64_t burst : {1ull, 10'000ull, 268'435'455ull, ~0ull}) {
      const Bytes b = build_add_tbf(4, {.rate = rate, .burst = burst});
      Bytes as_observed = b;
      const auto q = parse_qdisc(only(as_observed));
      ASSERT_TRUE(q && q->tbf);
      EXPECT_EQ(q->tbf->rate, rate);
      EXPECT_EQ(q->link, 4u);
    }
  // 8 Mbit/s with 64 KiB: read back within the clock's grain.
  const Bytes b = build_add_tbf(1, {.rate = 1'000'000, .burst = 65'536, .latency_us = 25'000});
  const auto q = parse_qdisc(only(b));
  EXPECT_NEAR(static_cast<double>(q->tbf->burst), 65'536, 10);
  EXPECT_NEAR(q->tbf->latency_us, 25'000, 20);
}

TEST(Sysctl, KeysStayInside) {
  EXPECT_EQ(sysctl_key("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
  EXPECT_EQ(sysctl_key("net/ipv4/conf/eth0.10/rp_filter"), "net/ipv4/conf/eth0.10/rp_filter");
  EXPECT_EQ(sysctl_key("net.ipv4.conf.eth0/10.rp_filter"), "net/ipv4/conf/eth0.10/rp_filter");
  for (const char* bad : {"", "net/../../etc/passwd", "/net/ipv4", "net//ipv4", ".net", "net..ipv4"}) EXPECT_FALSE(sysctl_key(bad)) << bad;
}

}  // namespace
}  // namespace fairlead::netlink
