// Any bytes as what the kernel tells about tracked connections: what was understood has addresses of one family, and can be
// judged by the service proxy.
#include "netlink/conntrack.h"

#include "proxy/conntrack_cleanup.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;

namespace {

const proxy::StaleFlows& judge() {
  static const proxy::StaleFlows flows = [] {
    auto service = std::make_shared<proxy::Service>();
    service->key = "default/dns";
    service->cluster_ips = {IpAddress::v4(10, 96, 0, 10)};
    service->ports = {{"", Protocol::udp, 53, 30053}};
    proxy::StaleFlows f({Protocol::udp, Protocol::tcp});
    f.changed({{service->key, service, nullptr}}, proxy::NodeFacts{"n1", "", {IpAddress::v4(192, 168, 7, 1)}});
    return f;
  }();
  return flows;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  const auto messages = netlink::split_messages({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  if (!messages) return;
  for (const auto& message : *messages) {
    const auto flow = netlink::parse_flow(message);
    if (!flow) continue;
    FUZZ_CHECK(flow->original.source.ip.family() == flow->family, flow->original.source.to_string());
    (void)judge().stale(*flow);
    (void)flow->translated();
  }
}
