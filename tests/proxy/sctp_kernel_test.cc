// SCTP through a service without an SCTP stack: the first packet of an association, made by hand, must reach an endpoint at its own
// port, with the client's address and a checksum that is right again.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "iptables/dataplane.h"
#include "nftables/dataplane.h"
#include "tests/proxy/world_net.h"

namespace fairlead::proxy::testing {
namespace {

std::uint32_t crc32c(const std::uint8_t* p, std::size_t n) {
  std::uint32_t c = ~0u;
  for (; n > 0; --n, ++p) {
    c ^= *p;
    for (int i = 0; i < 8; ++i) c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
  }
  return ~c;
}

using Init = std::array<std::uint8_t, 32>;  // common header and INIT chunk, RFC 9260

std::uint32_t checksum(Init p) {
  std::memset(&p[8], 0, 4);
  return crc32c(p.data(), p.size());
}
Init make_init(Port from, Port to) {
  Init p{};
  const auto put16 = [&](std::size_t at, std::uint16_t v) { p[at] = static_cast<std::uint8_t>(v >> 8), p[at + 1] = static_cast<std::uint8_t>(v); };
  put16(0, from);
  put16(2, to);
  p[12] = 1;        // INIT
  put16(14, 20);    // its length
  put16(18, 4711);  // initiate tag
  put16(22, 1500);  // receive window
  put16(24, 1);     // streams out
  put16(26, 1);     // streams in
  put16(30, 1);     // first TSN
  const auto c = checksum(p);
  for (std::size_t i = 0; i < 4; ++i) p[8 + i] = static_cast<std::uint8_t>(c >> 8 * i);
  return p;
}

class Sctp : public ::testing::TestWithParam<std::string> {};

TEST_P(Sctp, TheFirstPacketReachesAnEndpoint) {
  if (!testnet::available()) GTEST_SKIP() << "needs root";
  const WorldNet net;
  Snapshot w{global_plan(), node_facts(), {}};
  auto s = make_service("stream", "10.96.0.40", 9000, Protocol::sctp);
  s.ports[0].node_port = 30040;
  w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints({{"10.244.0.3", "n1"}}, 9001, Protocol::sctp)};
  std::unique_ptr<Dataplane> dataplane;
  Fd pod, outside, endpoint;
  net.node.in([&] {
    auto d = GetParam() == "nftables"       ? nftables::open_dataplane()
             : GetParam() == "iptables-nft" ? iptables::open_dataplane({.backend = iptables::Backend::nft})
                                            : iptables::open_dataplane({.backend = iptables::Backend::legacy});
    ASSERT_TRUE(d) << d.error().message;
    dataplane = std::move(*d);
    const auto applied = dataplane->apply(plan(w).full_delta());
    ASSERT_TRUE(applied) << applied.error().message;
  });
  const auto raw = [](Fd& to) { return [&to] { to = Fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP)); }; };
  net.here2.in(raw(pod));
  net.clients.in(raw(outside));
  net.here3.in(raw(endpoint));
  ASSERT_TRUE(pod && outside && endpoint);
  struct Row {
    const Fd& from;
    SocketAddress to;
    bool keeps_source;
  };
  for (const auto& row : {Row{pod, {ip("10.96.0.40"), 9000}, true}, Row{outside, {ip("192.168.7.1"), 30040}, false}}) {
    SCOPED_TRACE(row.to.to_string());
    sockaddr_in to{};
    to.sin_family = AF_INET;
    std::memcpy(&to.sin_addr, row.to.ip.bytes().data(), 4);
    const auto sent = make_init(12345, row.to.port);
    ASSERT_EQ(::sendto(row.from.get(), sent.data(), sent.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to), static_cast<ssize_t>(sent.size()));
    pollfd ready{endpoint.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1) << "nothing came";
    std::array<std::uint8_t, 512> packet{};
    const auto n = ::recv(endpoint.get(), packet.data(), packet.size(), 0);
    ASSERT_EQ(n, static_cast<ssize_t>(20 + sent.size()));
    Init got{};
    std::copy_n(packet.begin() + 20, got.size(), got.begin());
    EXPECT_EQ(got[2] << 8 | got[3], 9001);
    EXPECT_TRUE(std::equal(got.begin() + 12, got.end(), sent.begin() + 12));
    std::uint32_t carried = 0;
    for (std::size_t i = 0; i < 4; ++i) carried |= static_cast<std::uint32_t>(got[8 + i]) << 8 * i;
    EXPECT_EQ(carried, checksum(got));
    const auto source = *IpAddress::from_bytes({packet.data() + 12, 4});
    EXPECT_EQ(source == ip("10.244.0.2"), row.keeps_source) << source.to_string();
    EXPECT_NE(source, ip("192.168.7.100")) << "an outside client is masqueraded";
  }
  dataplane->on_foreign_change({});
}

INSTANTIATE_TEST_SUITE_P(Modes, Sctp, ::testing::Values("nftables", "iptables-nft", "iptables-legacy"), [](const auto& p) {
  std::string name = p.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace fairlead::proxy::testing
