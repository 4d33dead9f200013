// The exact bytes of requests, each next to the command of ipvsadm or ipset that means the same. A change here is a change on the wire: make
// it on purpose. And replies, built as the kernel builds them, read back.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/genetlink.h>
#include <linux/ip_vs.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>

#include "ipvs/layout.h"
#include "ipvs/wire.h"

namespace fairlead::ipvs::wire {
namespace {

IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }

std::string hex(const Bytes& b) {
  std::string out;
  for (std::size_t i = 0; i < b.size(); ++i) out += fmt::format("{}{:02x}", i == 0 ? "" : i % 4 == 0 ? " " : "", b[i]);
  return out;
}

struct Row {
  const char* command;
  Bytes bytes;
  const char* expected;
};

constexpr std::uint16_t kType = 0x20;
const ServerKey kWeb{Protocol::tcp, {ip("10.96.0.1"), 80}}, kSix{Protocol::udp, {ip("fd96::1"), 53}};

TEST(Golden, Requests) {
  const auto set = [](SetId id, Family f = Family::v4) { return set_of(id, f); };
  const std::vector<Row> rows = {
      {"ipvsadm -A -t 10.96.0.1:80 -s rr -p 10800", build_server(kType, Verb::add, {kWeb, "rr", flag::persistent, 10800}),
       "68000000 20000500 00000000 00000000 01010000 54000180 06000100 02000000 06000200 06000000 14000300 0a600001 00000000 "
       "00000000 00000000 06000400 00500000 07000600 72720000 0c000700 01000000 ffffffff 08000800 302a0000 08000900 ffffffff"},
      {"ipvsadm -E -u [fd96::1]:53 -s mh -b mh-fallback", build_server(kType, Verb::edit, {kSix, "mh", flag::scheduler_1, 0}),
       "68000000 20000500 00000000 00000000 02010000 54000180 06000100 0a000000 06000200 11000000 14000300 fd960000 00000000 "
       "00000000 00000001 06000400 00350000 07000600 6d680000 0c000700 08000000 ffffffff 08000800 00000000 08000900 80000000"},
      {"ipvsadm -D -t 10.96.0.1:80", build_server(kType, Verb::remove, {kWeb, "", 0, 0}),
       "44000000 20000500 00000000 00000000 03010000 30000180 06000100 02000000 06000200 06000000 14000300 0a600001 00000000 "
       "00000000 00000000 06000400 00500000"},
      {"ipvsadm -a -t 10.96.0.1:80 -r 10.244.0.2:8080 -m -w 3", build_real(kType, Verb::add, kWeb, {{ip("10.244.0.2"), 8080}, 3, 0}),
       "8c000000 20000500 00000000 00000000 05010000 30000180 06000100 02000000 06000200 06000000 14000300 0a600001 00000000 "
       "00000000 00000000 06000400 00500000 48000280 06000b00 02000000 14000100 0af40002 00000000 00000000 00000000 06000200 "
       "1f900000 08000300 00000000 08000400 03000000 08000500 00000000 08000600 00000000"},
      {"ipvsadm -e -u [fd96::1]:53 -r [fd44::2]:5353 -m -w 0", build_real(kType, Verb::edit, kSix, {{ip("fd44::2"), 5353}, 0, 0}),
       "8c000000 20000500 00000000 00000000 06010000 30000180 06000100 0a000000 06000200 11000000 14000300 fd960000 00000000 "
       "00000000 00000001 06000400 00350000 48000280 06000b00 0a000000 14000100 fd440000 00000000 00000000 00000002 06000200 "
       "14e90000 08000300 00000000 08000400 00000000 08000500 00000000 08000600 00000000"},
      {"ipvsadm -d -t 10.96.0.1:80 -r 10.244.0.2:8080", build_real(kType, Verb::remove, kWeb, {{ip("10.244.0.2"), 8080}, 1, 0}),
       "6c000000 20000500 00000000 00000000 07010000 30000180 06000100 02000000 06000200 06000000 14000300 0a600001 00000000 "
       "00000000 00000000 06000400 00500000 28000280 06000b00 02000000 14000100 0af40002 00000000 00000000 00000000 06000200 "
       "1f900000"},
      {"ipvsadm --set 900 120 300", build_set_timeouts(kType, {900, 120, 300}),
       "2c000000 20000500 00000000 00000000 0c010000 08000400 84030000 08000500 78000000 08000600 2c010000"},
      {"ipvsadm -L (servers)", build_dump_servers(kType),
       "14000000 20000103 00000000 00000000 04010000"},
      {"ipvsadm -L (real servers)", build_dump_real(kType, kWeb),
       "44000000 20000103 00000000 00000000 08010000 30000180 06000100 02000000 06000200 06000000 14000300 0a600001 00000000 "
       "00000000 00000000 06000400 00500000"},
      {"ipset create KUBE-CLUSTER-IP hash:ip,port maxelem 1048576", build_create_set(set(SetId::cluster_ip)),
       "60000000 02060500 00000000 00000000 02000000 05000100 06000000 14000200 4b554245 2d434c55 53544552 2d495000 11000300 "
       "68617368 3a69702c 706f7274 00000000 05000400 01000000 05000500 02000000 0c000780 08001340 00100000"},
      {"ipset create KUBE-6-LOOP-BACK hash:ip,port,ip family inet6 maxelem 1048576", build_create_set(set(SetId::loop_back, Family::v6)),
       "64000000 02060500 00000000 00000000 02000000 05000100 06000000 15000200 4b554245 2d362d4c 4f4f502d 4241434b 00000000 "
       "14000300 68617368 3a69702c 706f7274 2c697000 05000400 01000000 05000500 0a000000 0c000780 08001340 00100000"},
      {"ipset create KUBE-HEALTH-CHECK-NODE-PORT bitmap:port range 0-65535", build_create_set(set(SetId::health_check)),
       "70000000 02060500 00000000 00000000 02000000 05000100 06000000 20000200 4b554245 2d484541 4c54482d 43484543 4b2d4e4f "
       "44452d50 4f525400 10000300 6269746d 61703a70 6f727400 05000400 00000000 05000500 00000000 14000780 06000440 00000000 "
       "06000540 ffff0000"},
      {"ipset destroy KUBE-DROP", build_destroy_set("KUBE-DROP"),
       "2c000000 03060500 00000000 00000000 02000000 05000100 06000000 0e000200 4b554245 2d44524f 50000000"},
      {"ipset -exist add KUBE-CLUSTER-IP 10.96.0.1,tcp:80", build_entry(true, set(SetId::cluster_ip), {ip("10.96.0.1"), Protocol::tcp, 80, {}}),
       "50000000 09060500 00000000 00000000 02000000 05000100 06000000 14000200 4b554245 2d434c55 53544552 2d495000 20000780 "
       "0c000180 08000140 0a600001 06000440 00500000 05000700 06000000"},
      {"ipset -exist del KUBE-6-IPVS-IPS fd96::1", build_entry(false, set(SetId::bound, Family::v6), {ip("fd96::1"), Protocol::tcp, 0, {}}),
       "4c000000 0a060500 00000000 00000000 02000000 05000100 06000000 14000200 4b554245 2d362d49 5056532d 49505300 1c000780 "
       "18000180 14000240 fd960000 00000000 00000000 00000001"},
      {"ipset -exist add KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.1,sctp:80,198.51.100.0/24",
       build_entry(true, set(SetId::ranges), {ip("203.0.113.1"), Protocol::sctp, 80, *Prefix::parse("198.51.100.0/24")}),
       "74000000 09060500 00000000 00000000 02000000 05000100 06000000 23000200 4b554245 2d4c4f41 442d4241 4c414e43 45522d53 "
       "4f555243 452d4349 44520000 34000780 0c000180 08000140 cb007101 06000440 00500000 05000700 84000000 0c001480 08000140 "
       "c6336400 05001500 18000000"},
      {"ipset -exist add KUBE-LOOP-BACK 10.244.0.2,udp:53,10.244.0.2",
       build_entry(true, set(SetId::loop_back), {ip("10.244.0.2"), Protocol::udp, 53, Prefix(ip("10.244.0.2"), 32)}),
       "5c000000 09060500 00000000 00000000 02000000 05000100 06000000 13000200 4b554245 2d4c4f4f 502d4241 434b0000 2c000780 "
       "0c000180 08000140 0af40002 06000440 00350000 05000700 11000000 0c001480 08000140 0af40002"},
      {"ipset -exist add KUBE-HEALTH-CHECK-NODE-PORT 31000", build_entry(true, set(SetId::health_check), {{}, Protocol::tcp, 31000, {}}),
       "48000000 09060500 00000000 00000000 02000000 05000100 06000000 20000200 4b554245 2d484541 4c54482d 43484543 4b2d4e4f "
       "44452d50 4f525400 0c000780 06000440 79180000"},
      {"ipset list -t", build_dump_sets(),
       "24000000 07060103 00000000 00000000 02000000 05000100 06000000 08000640 00000004"},
  };
  for (const auto& row : rows) EXPECT_EQ(hex(row.bytes), row.expected) << row.command;
}

Bytes reply(std::uint8_t cmd, const std::function<void(netlink::MessageBuilder&)>& fill) {
  netlink::MessageBuilder m(kType, NLM_F_MULTI);
  genlmsghdr h{};
  h.cmd = cmd;
  h.version = 1;
  m.header(h);
  fill(m);
  return std::move(m).finish();
}
netlink::MessageView view(const Bytes& b) { return netlink::split_messages(b)->front(); }

TEST(Replies, Servers) {
  const auto address = [](std::string_view text) {
    std::vector<std::uint8_t> b(16);
    const auto a = ip(text);
    std::copy(a.bytes().begin(), a.bytes().end(), b.begin());
    return b;
  };
  const auto server = [&](std::uint16_t protocol, std::uint32_t flags) {
    return reply(IPVS_CMD_NEW_SERVICE, [&](netlink::MessageBuilder& m) {
      const auto nest = m.nest(IPVS_CMD_ATTR_SERVICE);
      m.put_u16(IPVS_SVC_ATTR_AF, AF_INET);
      m.put_u16(IPVS_SVC_ATTR_PROTOCOL, protocol);
      m.put(IPVS_SVC_ATTR_ADDR, address("10.96.0.1"));
      m.put_be16(IPVS_SVC_ATTR_PORT, 80);
      m.put_string(IPVS_SVC_ATTR_SCHED_NAME, "wlc");
      m.put_value(IPVS_SVC_ATTR_FLAGS, ip_vs_flags{flags | flag::hashed, ~0u});
      m.put_u32(IPVS_SVC_ATTR_TIMEOUT, 30);
      const auto stats = m.nest(IPVS_SVC_ATTR_STATS64);
      m.put_u64(IPVS_STATS_ATTR_CONNS, 5);
      m.put_u64(IPVS_STATS_ATTR_INPKTS, 6);
      m.put_u64(IPVS_STATS_ATTR_OUTPKTS, 7);
    });
  };
  const auto seen = parse_server(view(server(IPPROTO_TCP, flag::persistent)));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->server, (VirtualServer{kWeb, "wlc", flag::persistent, 30}));
  EXPECT_EQ(seen->counted.connections, 5u);
  EXPECT_EQ(seen->counted.packets, 13u);
  EXPECT_EQ(parse_server(view(server(IPPROTO_TCP, 0)))->server.persistence_seconds, 0u) << "does not count without the flag";
  EXPECT_FALSE(parse_server(view(server(IPPROTO_ESP, 0)))) << "not a protocol of services";
  const auto by_mark = reply(IPVS_CMD_NEW_SERVICE, [&](netlink::MessageBuilder& m) {
    const auto nest = m.nest(IPVS_CMD_ATTR_SERVICE);
    m.put_u16(IPVS_SVC_ATTR_AF, AF_INET);
    m.put_u32(IPVS_SVC_ATTR_FWMARK, 7);
  });
  EXPECT_FALSE(parse_server(view(by_mark)));

  const auto real = reply(IPVS_CMD_NEW_DEST, [&](netlink::MessageBuilder& m) {
    const auto nest = m.nest(IPVS_CMD_ATTR_DEST);
    m.put_u16(IPVS_DEST_ATTR_ADDR_FAMILY, AF_INET6);
    m.put(IPVS_DEST_ATTR_ADDR, address("fd44::2"));
    m.put_be16(IPVS_DEST_ATTR_PORT, 8080);
    m.put_u32(IPVS_DEST_ATTR_WEIGHT, 4);
    m.put_u32(IPVS_DEST_ATTR_ACTIVE_CONNS, 2);
    m.put_u32(IPVS_DEST_ATTR_INACT_CONNS, 3);
  });
  const auto r = parse_real(view(real));
  ASSERT_TRUE(r);
  EXPECT_EQ(r->real, (RealServer{{ip("fd44::2"), 8080}, 4, 0}));
  EXPECT_EQ(r->real.connections, 5u);
}

TEST(Replies, Sets) {
  const auto spec = set_of(SetId::ranges, Family::v4);
  const auto message = [&](bool damaged) {
    netlink::MessageBuilder m(NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_LIST, NLM_F_MULTI);
    m.header(nfgenmsg{});
    m.put_u8(IPSET_ATTR_PROTOCOL, 6);
    m.put_string(IPSET_ATTR_SETNAME, spec.name);
    m.put_string(IPSET_ATTR_TYPENAME, "hash:ip,port,net");
    m.put_u8(IPSET_ATTR_FAMILY, AF_INET);
    {
      const auto data = m.nest(IPSET_ATTR_DATA);
      m.put_be32(IPSET_ATTR_MAXELEM | NLA_F_NET_BYTEORDER, 65536);
    }
    {
      const auto all = m.nest(IPSET_ATTR_ADT);
      const auto one = m.nest(IPSET_ATTR_DATA);
      const auto put_ip = [&](std::uint16_t type, std::string_view text) {
        const auto nest = m.nest(type);
        m.put(IPSET_ATTR_IPADDR_IPV4 | NLA_F_NET_BYTEORDER, ip(text).bytes());
      };
      put_ip(IPSET_ATTR_IP, "203.0.113.1");
      if (!damaged) put_ip(IPSET_ATTR_IP2, "198.51.100.0");
      m.put_u8(IPSET_ATTR_CIDR2, 24);
      m.put_be16(IPSET_ATTR_PORT | NLA_F_NET_BYTEORDER, 443);
      m.put_u8(IPSET_ATTR_PROTO, IPPROTO_TCP);
    }
    return std::move(m).finish();
  };
  const auto whole = message(false);
  const auto seen = parse_set(view(whole), &spec);
  ASSERT_TRUE(seen);
  ASSERT_TRUE(seen->spec);
  EXPECT_TRUE(seen->spec->same_shape(spec));
  EXPECT_EQ(seen->spec->most_elements, 65536u);
  ASSERT_EQ(seen->entries.size(), 1u);
  EXPECT_EQ(seen->entries[0], (Entry{ip("203.0.113.1"), Protocol::tcp, 443, *Prefix::parse("198.51.100.0/24")}));
  EXPECT_TRUE(parse_set(view(whole), nullptr)->entries.empty());
  const auto bytes = message(true);
  EXPECT_FALSE(parse_set(view(bytes), &spec)) << "an entry that cannot be read is not left out in silence";
}

}  // namespace
}  // namespace fairlead::ipvs::wire
