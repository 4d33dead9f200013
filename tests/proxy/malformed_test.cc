// Malformed objects from the API's text to the packet, in all three dataplanes: each is named with the field that is wrong and left out,
// the others are programmed, and the dataplanes agree with the plan about every address, also those of what was left out.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ipvs/dataplane.h"
#include "ipvs/kernel_fake.h"
#include "iptables/dataplane.h"
#include "iptables/kernel_fake.h"
#include "nftables/dataplane.h"
#include "nftables/kernel_fake.h"
#include "proxy/decide.h"
#include "proxy/manifests.h"
#include "tests/proxy/world.h"

namespace fairlead::proxy {
namespace {

using namespace testing;

std::string service(std::string_view name, std::string_view spec) {
  return fmt::format("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {}}}\nspec: {{{}}}\n", name, spec);
}
std::string slice(std::string_view name, std::string_view ports, std::string_view endpoints) {
  return fmt::format("---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {0}-1, labels: {{kubernetes.io/service-name: {0}}}}}\n"
                     "addressType: IPv4\nports: [{1}]\nendpoints: [{2}]\n", name, ports, endpoints);
}

const std::string kManifests =
    service("web", "clusterIP: 10.96.0.1, ports: [{port: 80}]") + slice("web", "{port: 8080}", "{addresses: [10.244.1.2]}") +
    service("bad-address", "clusterIP: 10.96.0.300, ports: [{port: 80}]") + slice("bad-address", "{port: 8080}", "{addresses: [10.244.1.2]}") +
    service("half-address", "clusterIP: 10.96.0.4, clusterIPs: [10.96.0.4, nonsense], ports: [{port: 80}]") +
    slice("half-address", "{port: 8080}", "{addresses: [10.244.1.2]}") +
    service("port-zero", "clusterIP: 10.96.0.2, ports: [{name: a, port: 0}, {name: b, port: 81}, {name: c, port: 70000}]") +
    slice("port-zero", "{name: a, port: 8080}, {name: b, port: 8081}, {name: c, port: 8082}", "{addresses: [10.244.1.2]}") +
    service("twice", "clusterIP: 10.96.0.3, ports: [{name: a, port: 80}, {name: b, port: 80}, {name: c, port: 82}]") +
    slice("twice", "{name: a, port: 8080}, {name: b, port: 8081}, {name: c, port: 8082}", "{addresses: [10.244.1.2]}") +
    service("zz-thief", "clusterIP: 10.96.0.1, ports: [{port: 80}]") + slice("zz-thief", "{port: 6666}", "{addresses: [10.244.1.66]}") +
    service("bad-endpoints", "clusterIP: 10.96.0.5, ports: [{port: 80}]") +
    slice("bad-endpoints", "{port: 8080}", "{addresses: [10.244.1.300]}, {addresses: [10.244.1.3]}, {addresses: [\"fd00::1\"]}, {addresses: [0.0.0.0]}") +
    service("bad-target-port", "clusterIP: 10.96.0.6, ports: [{port: 80}]") + slice("bad-target-port", "{port: 70000}", "{addresses: [10.244.1.2]}") +
    service("huge", "clusterIP: 10.96.0.7, ports: [{port: 80}]") +
    service("last", "clusterIP: 10.96.0.8, ports: [{port: 53, protocol: UDP}]") + slice("last", "{port: 5353, protocol: UDP}", "{addresses: [10.244.1.9]}");

// 100,000 endpoints in slices of a thousand.
void add_huge(ProxyState& state) {
  for (unsigned s = 0; s < 100; ++s) {
    Slice one;
    one.name = fmt::format("huge-{}", s);
    one.ports = {{"", Protocol::tcp, 8080}};
    for (unsigned i = 0; i < 1000; ++i) {
      Endpoint e;
      e.ip = IpAddress::v4(10, 128, 0, 1).plus(s * 1000ull + i);
      one.endpoints.push_back(e);
    }
    state.set_slice("default/" + one.name, std::pair{ServiceKey("default/huge"), one});
  }
}

struct Case {
  std::string name;
  SocketAddress to;
  Protocol protocol;
  std::vector<SocketAddress> endpoints;  // none: refused, or nobody's
};
SocketAddress at(std::string_view address, Port port) { return {ip(address), port}; }
const std::vector<Case> kCases{
    {"a good one", at("10.96.0.1", 80), Protocol::tcp, {at("10.244.1.2", 8080)}},
    {"one good address of two", at("10.96.0.4", 80), Protocol::tcp, {at("10.244.1.2", 8080)}},
    {"beside a port 0", at("10.96.0.2", 81), Protocol::tcp, {at("10.244.1.2", 8081)}},
    {"the port 70000", at("10.96.0.2", 70000 - 65536), Protocol::tcp, {}},
    {"the first of two with one port", at("10.96.0.3", 80), Protocol::tcp, {at("10.244.1.2", 8080)}},
    {"beside them", at("10.96.0.3", 82), Protocol::tcp, {at("10.244.1.2", 8082)}},
    {"the good endpoint among bad ones", at("10.96.0.5", 80), Protocol::tcp, {at("10.244.1.3", 8080)}},
    {"no usable port of the endpoints", at("10.96.0.6", 80), Protocol::tcp, {}},
    {"100,000 endpoints", at("10.96.0.7", 80), Protocol::tcp, {}},
    {"the last one", at("10.96.0.8", 53), Protocol::udp, {at("10.244.1.9", 5353)}},
};

TEST(Malformed, IsNamedAndSkippedAndTheOthersAreProgrammedInEveryDataplane) {
  Config config;
  config.mode = "nftables";
  ClusterState state;
  state.facts.node = node_facts();
  const auto read = read_manifest(kManifests, "manifests", "n1", config, state);
  ASSERT_TRUE(read) << read.error().message;
  add_huge(state.state);
  const Plan p = state.plan(config);
  const std::vector<std::string> named{
      "Service default/bad-address: spec.clusterIP[0]: \"10.96.0.300\"", "Service default/half-address: spec.clusterIPs[1]: \"nonsense\"",
      "Service default/port-zero: spec.ports[0].port: 0 ", "Service default/port-zero: spec.ports[2].port: 70000 ",
      "Service default/twice: ", "Service default/zz-thief: ", "EndpointSlice default/bad-endpoints-1: endpoints[0].addresses[0]: \"10.244.1.300\"",
      "EndpointSlice default/bad-endpoints-1: endpoints[2].addresses[0]: \"fd00::1\"", "EndpointSlice default/bad-endpoints-1: endpoints[3].addresses[0]: \"0.0.0.0\"",
      "EndpointSlice default/bad-target-port-1: ports[0]: 70000/", "Service default/huge: "};
  for (const auto& start : named)
    EXPECT_EQ(std::count_if(state.problems.begin(), state.problems.end(), [&](const std::string& have) { return have.starts_with(start); }), 1) << start;
  EXPECT_EQ(state.problems.size(), named.size()) << fmt::format("{}", fmt::join(state.problems, "\n"));

  nftables::FakeKernel nf;
  iptables::FakeKernel ipt;
  ipvs::FakeKernel vs;
  vs.state(Family::v4).node_addresses = {ip("192.168.7.1")};
  vs.state(Family::v6).node_addresses = {ip("fd07::1")};
  std::vector<std::unique_ptr<Dataplane>> dataplanes;
  dataplanes.push_back(nftables::make_dataplane(nf));
  dataplanes.push_back(iptables::make_dataplane(ipt));
  dataplanes.push_back(ipvs::make_dataplane(vs));
  for (const auto& d : dataplanes) {
    SCOPED_TRACE(std::string(d->name()));
    const auto done = d->apply(p.full_delta());
    ASSERT_TRUE(done) << done.error().message;
    const auto drift = d->verify(p);
    ASSERT_TRUE(drift) << drift.error().message;
    EXPECT_TRUE(drift->empty()) << drift->front();
    for (const auto& c : kCases) {
      const Packet packet{ip("192.168.7.100"), c.to.ip, c.protocol, c.to.port, "lan", false, false};
      const auto want = decide(p, packet);
      const auto got = d->trace(packet);
      ASSERT_TRUE(got) << c.name << ": " << got.error().message;
      EXPECT_EQ(got->endpoints, c.endpoints) << c.name;
      EXPECT_TRUE(*got == want) << c.name << "\ngot:\n" << to_text(*got) << "want:\n" << to_text(want);
    }
  }
}

}  // namespace
}  // namespace fairlead::proxy
