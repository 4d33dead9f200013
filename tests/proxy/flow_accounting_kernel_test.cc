// Packets and bytes per service and endpoint against a judge that has nothing to do with it: counters of nft in the path of the
// packets, in nftables mode and in both iptables modes; known lengths of datagrams besides.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "iptables/dataplane.h"
#include "netlink/conntrack.h"
#include "nftables/dataplane.h"
#include "proxy/flow_reader.h"
#include "tests/proxy/world_net.h"

namespace fairlead::proxy::testing {
namespace {

using namespace std::chrono_literals;

struct Count {
  std::uint64_t packets = 0, bytes = 0;
  bool operator==(const Count&) const = default;
};
std::ostream& operator<<(std::ostream& o, const Count& c) { return o << c.packets << " packets, " << c.bytes << " bytes"; }

constexpr std::uint64_t kIpUdp = 28;  // headers of IPv4 and UDP

class FlowAccountingOnTheKernel : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!testnet::available()) GTEST_SKIP() << "needs root";
    net = std::make_unique<WorldNet>();
    ASSERT_TRUE(net->node.sh("sysctl -qw net.netfilter.nf_conntrack_acct=1"));
    net->node.in([&] {
      auto d = GetParam() == "nftables"       ? nftables::open_dataplane()
               : GetParam() == "iptables-nft" ? iptables::open_dataplane({.backend = iptables::Backend::nft})
                                              : iptables::open_dataplane({.backend = iptables::Backend::legacy});
      ASSERT_TRUE(d) << d.error().message;
      dataplane = std::move(*d);
      auto c = netlink::Conntrack::open();
      ASSERT_TRUE(c) << c.error().message;
      conntrack.emplace(std::move(*c));
    });
    // Judges: every packet of both directions passes "forward" once; "ct original" is what the client asked for.
    ASSERT_TRUE(net->node.sh("nft 'add table ip judge; add chain ip judge c { type filter hook forward priority 100; };"
                             "add rule ip judge c ct original ip daddr 10.96.0.2 counter comment \"udp\";"
                             "add rule ip judge c ct original ip daddr 10.96.0.3 counter comment \"tcp\"'"));
    Snapshot w{global_plan(), node_facts(), {}};
    w.global.ipv6 = false;
    const auto add = [&](const std::string& name, const std::string& vip, Port port, Protocol protocol, Port target) {
      auto s = make_service(name, vip, port, protocol);
      w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints({{"10.244.0.3", "n1"}}, target, protocol)};
    };
    add("udp", "10.96.0.2", 53, Protocol::udp, 5353);
    add("tcp", "10.96.0.3", 80, Protocol::tcp, 8080);
    now = plan(w);
    Result<ApplyReport> applied = ApplyReport{};
    net->node.in([&] { applied = dataplane->apply(now.full_delta()); });
    ASSERT_TRUE(applied) << applied.error().message;
  }
  void TearDown() override {
    reader.reset();
    if (dataplane) dataplane->on_foreign_change({});
  }
  void start(std::chrono::milliseconds interval) {
    net->node.in([&] {
      auto r = FlowReader::start(interval);
      ASSERT_TRUE(r) << r.error().message;
      reader = std::move(*r);
    });
    reader->plan(now.full_delta());
    ASSERT_TRUE(until([&] { return reader->listings() > 0; }));
  }
  static bool until(const std::function<bool()>& f) {
    for (int i = 0; i < 2000 && !f(); ++i) std::this_thread::sleep_for(10ms);
    return f();
  }
  Count counted(const std::string& service, const std::string& backend = {}) const {
    std::vector<Traffic> all;
    reader->append_to(all);
    Count out;
    for (const auto& t : all)
      if (t.service == "default/" + service && (backend.empty() ? t.backend.port == 0 : t.backend.to_string() == backend))
        out.packets += t.packets, out.bytes += t.bytes;
    return out;
  }
  Count judged(const std::string& what) const {
    const auto text = net->node.sh("nft list table ip judge").value_or("");
    Count out;
    const auto end = text.find("comment \"" + what + "\"");
    const auto at = text.rfind("packets ", end);
    EXPECT_TRUE(end != std::string::npos && at != std::string::npos) << text;
    std::sscanf(text.c_str() + at, "packets %lu bytes %lu", &out.packets, &out.bytes);
    return out;
  }
  // Ends every flow of a protocol, as their time limits would.
  void end_flows(Protocol protocol) {
    std::vector<netlink::Flow> all;
    ASSERT_TRUE(conntrack->list(Family::v4, protocol, [&] { all.clear(); }, [&](const netlink::Flow& f) { all.push_back(f); }));
    for (const auto& f : all) ASSERT_TRUE(conntrack->forget(f));
  }
  // Questions of one byte from a pod, answered from another; the bytes that this means on the wire.
  Count talk(Protocol protocol, const SocketAddress& to, int times) {
    Count c;
    for (int i = 0; i < times; ++i) {
      const auto a = testnet::ask(net->here2, protocol, to, nullptr, 10s);
      EXPECT_TRUE(a) << (a ? "" : a.error().message);
      if (!a) continue;
      c.packets += 2;
      c.bytes += kIpUdp + 1 + kIpUdp + a->server.to_string().size() + 1 + a->client.to_string().size();
    }
    return c;
  }
  std::unique_ptr<WorldNet> net;
  std::unique_ptr<Dataplane> dataplane;
  std::optional<netlink::Conntrack> conntrack;
  std::unique_ptr<FlowReader> reader;
  Plan now;
};

TEST_P(FlowAccountingOnTheKernel, LiveFlowsAndFlowsThatEndAddUpToWhatWentByOnTheWire) {
  talk(Protocol::udp, {ip("10.96.0.2"), 53}, 3);
  const auto before = judged("udp");
  EXPECT_EQ(before.packets, 6u);
  start(20ms);
  EXPECT_EQ(counted("udp"), Count{}) << "what was before";
  auto sent = talk(Protocol::udp, {ip("10.96.0.2"), 53}, 20);
  EXPECT_TRUE(until([&] { return counted("udp") == sent; })) << counted("udp") << ", sent " << sent;
  EXPECT_EQ(counted("udp", "10.244.0.3:5353"), sent);
  EXPECT_EQ(judged("udp"), (Count{before.packets + sent.packets, before.bytes + sent.bytes}));
  end_flows(Protocol::udp);
  const auto more = talk(Protocol::udp, {ip("10.96.0.2"), 53}, 5);
  sent.packets += more.packets, sent.bytes += more.bytes;
  EXPECT_TRUE(until([&] { return counted("udp") == sent; })) << counted("udp") << ", sent " << sent;
  // TCP, whose lengths only the wire knows.
  talk(Protocol::tcp, {ip("10.96.0.3"), 80}, 20);
  EXPECT_TRUE(until([&] { return counted("tcp") == judged("tcp"); })) << counted("tcp") << ", on the wire " << judged("tcp");
  EXPECT_GE(counted("tcp").packets, 100u);
  EXPECT_EQ(counted("tcp", "10.244.0.3:8080"), counted("tcp"));
  const auto listings = reader->listings();
  ASSERT_TRUE(until([&] { return reader->listings() > listings + 5; }));
  EXPECT_EQ(counted("udp"), sent) << "nothing went by";
  EXPECT_EQ(reader->losses(), 0u);
}

// Flows that begin and end between two listings.
TEST_P(FlowAccountingOnTheKernel, ShortFlowsAreCountedWhenTheyEnd) {
  start(1h);
  const auto sent = talk(Protocol::udp, {ip("10.96.0.2"), 53}, 50);
  EXPECT_EQ(counted("udp"), Count{});
  end_flows(Protocol::udp);
  EXPECT_TRUE(until([&] { return counted("udp") == sent; })) << counted("udp") << ", sent " << sent;
  EXPECT_EQ(judged("udp"), sent);
}

TEST_P(FlowAccountingOnTheKernel, SaysWhatIsSwitchedOff) {
  for (const std::string key : {"nf_conntrack_acct", "nf_conntrack_events"}) {
    ASSERT_TRUE(net->node.sh("sysctl -qw net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_events=1 net.netfilter." + key + "=0"));
    net->node.in([&] {
      const auto r = FlowReader::start();
      ASSERT_FALSE(r);
      EXPECT_NE(r.error().message.find("net/netfilter/" + key + " is 0 and must be 1"), std::string::npos) << r.error().message;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, FlowAccountingOnTheKernel, ::testing::Values("nftables", "iptables-nft", "iptables-legacy"), [](const auto& p) {
  std::string name = p.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace fairlead::proxy::testing
