// Counters that only grow, whatever the kernel's do.
#include "proxy/traffic.h"

#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>

namespace fairlead::proxy {
namespace {

Traffic reading(const std::string& service, const std::string& backend, std::uint64_t connections, std::uint64_t packets = 0, std::uint64_t bytes = 0) {
  Traffic t{service, "http", Protocol::tcp, *SocketAddress::parse("10.96.0.1:80"), {}, connections, packets, bytes};
  if (!backend.empty()) t.backend = *SocketAddress::parse(backend);
  return t;
}

TEST(TrafficTotals, GrowThroughRestartsOfTheKernelsCounters) {
  TrafficTotals t;
  const auto of = [&] { return t.totals().at(0).connections; };
  t.update({reading("shop/web", "", 5)});
  EXPECT_EQ(of(), 5u);
  t.update({reading("shop/web", "", 9)});
  EXPECT_EQ(of(), 9u);
  t.update({reading("shop/web", "", 2)});  // the element was written again
  EXPECT_EQ(of(), 11u);
  t.update({reading("shop/web", "", 2)});
  EXPECT_EQ(of(), 11u);
  t.update({reading("shop/web", "", 3), reading("shop/web", "", 4)});  // from two sources
  EXPECT_EQ(of(), 16u);
  t.update({});  // the service has gone
  EXPECT_EQ(t.size(), 0u);
}

TEST(TrafficTotals, Metrics) {
  TrafficTotals t;
  auto node_port = reading("shop/web", "", 2);
  node_port.frontend = *SocketAddress::parse("0.0.0.0:30080");
  t.update({reading("shop/web", "", 5), node_port, reading("shop/web", "10.0.0.1:8080", 4), reading("shop/web", "10.0.0.2:8080", 3)});
  const auto text = t.metrics_text(10);
  const std::string labels = "namespace=\"shop\",service=\"web\",port=\"http\",protocol=\"TCP\"";
  EXPECT_NE(text.find("\nfairlead_proxy_service_connections_total{" + labels + "} 7\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\nfairlead_proxy_endpoint_connections_total{" + labels + ",endpoint=\"10.0.0.1:8080\"} 4\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("packets"), std::string::npos) << "nobody counts them";
  // Too many endpoints: services alone.
  EXPECT_EQ(t.metrics_text(2).find("endpoint_connections"), std::string::npos);
  EXPECT_EQ(t.metrics_text(0), "");
}

TEST(TrafficTotals, PacketsAndBytesWhereTheyAreCounted) {
  TrafficTotals t;
  t.update({reading("shop/web", "", 1, 10, 1000), reading("shop/web", "10.0.0.1:8080", 1, 10, 1000)});
  t.update({reading("shop/web", "", 1, 30, 5000), reading("shop/web", "10.0.0.1:8080", 1, 4, 400)});
  const auto text = t.metrics_text(10);
  const std::string labels = "namespace=\"shop\",service=\"web\",port=\"http\",protocol=\"TCP\"";
  EXPECT_NE(text.find("fairlead_proxy_service_packets_total{" + labels + "} 30\n"), std::string::npos) << text;
  EXPECT_NE(text.find("fairlead_proxy_service_bytes_total{" + labels + "} 5000\n"), std::string::npos) << text;
  EXPECT_NE(text.find("fairlead_proxy_endpoint_bytes_total{" + labels + ",endpoint=\"10.0.0.1:8080\"} 1400\n"), std::string::npos) << text;
  const auto json = boost::json::serialize(t.to_json());
  EXPECT_NE(json.find("\"packets\":30"), std::string::npos) << json;
}

}  // namespace
}  // namespace fairlead::proxy
