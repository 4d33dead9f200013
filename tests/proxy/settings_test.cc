// From configuration and node to settings: who is a pod, where NodePorts listen; and what is set on the host.
#include "proxy/settings.h"

#include <gtest/gtest.h>

#include "proxy/host_setup.h"
#include "tests/proxy/world.h"

namespace fairlead::proxy {
namespace {

using testing::cidr;
using testing::ip;

HostFacts facts() {
  HostFacts f;
  f.node.ips = {ip("192.168.7.1"), ip("fd07::1")};
  f.pod_cidrs = {cidr("10.244.3.0/24"), cidr("fd44:3::/64")};
  return f;
}

TEST(Settings, DetectLocalModes) {
  using Kind = LocalDetector::Kind;
  Config c;
  c.mode = "nftables";
  c.cluster_cidr = "10.244.0.0/16,fd44::/48";
  EXPECT_EQ(make_global_plan(c, facts()).local, (LocalDetector{Kind::cidrs, {cidr("10.244.0.0/16"), cidr("fd44::/48")}, {}}));
  c.detect_local_mode = "ClusterCIDR";
  EXPECT_EQ(make_global_plan(c, facts()).local.cidrs.size(), 2u);
  c.detect_local_mode = "NodeCIDR";
  EXPECT_EQ(make_global_plan(c, facts()).local, (LocalDetector{Kind::cidrs, facts().pod_cidrs, {}}));
  c.detect_local_mode = "BridgeInterface";
  c.bridge_interface = "cbr0";
  EXPECT_EQ(make_global_plan(c, facts()).local, (LocalDetector{Kind::interface_name, {}, "cbr0"}));
  c.detect_local_mode = "InterfaceNamePrefix";
  c.interface_name_prefix = "veth";
  EXPECT_EQ(make_global_plan(c, facts()).local, (LocalDetector{Kind::interface_prefix, {}, "veth"}));
  Config nothing;
  EXPECT_EQ(make_global_plan(nothing, facts()).local.kind, Kind::none);
}

TEST(Settings, NodePortAddresses) {
  struct Row {
    std::string mode;
    std::vector<std::string> addresses;
    bool all;
    std::vector<Prefix> prefixes;
    bool loopback;
  };
  const std::vector<Prefix> primary{cidr("192.168.7.1/32"), cidr("fd07::1/128")};
  const Prefix every6 = cidr("::/0");
  for (const auto& row : std::vector<Row>{
           {"nftables", {}, false, primary, false},
           {"nftables", {"primary"}, false, primary, false},
           {"iptables", {"primary"}, false, primary, true},
           {"iptables", {}, true, {}, true},
           {"ipvs", {}, true, {}, false},
           {"nftables", {"0.0.0.0/0", "::/0"}, true, {}, false},
           {"nftables", {"192.168.0.0/16"}, false, {cidr("192.168.0.0/16"), every6}, false},
       }) {
    Config c;
    c.mode = row.mode;
    c.node_port_addresses = row.addresses;
    const auto n = make_global_plan(c, facts()).node_ports;
    const auto about = row.mode + " " + (row.addresses.empty() ? "(default)" : row.addresses[0]);
    EXPECT_EQ(n.all, row.all) << about;
    EXPECT_EQ(n.prefixes, row.prefixes) << about;
    EXPECT_EQ(n.loopback, row.loopback) << about;
  }
  Config c;
  c.mode = "nftables";
  c.bind_address = "192.168.7.9";
  EXPECT_EQ(make_global_plan(c, facts()).node_ports.prefixes[0], cidr("192.168.7.9/32")) << "the bind address is the primary one";
  c.mode = "iptables";
  c.iptables.localhost_node_ports = false;
  EXPECT_FALSE(make_global_plan(c, facts()).node_ports.loopback);
}

TEST(HostSetup, WhatIsSet) {
  const auto value = [](const Config& c, unsigned cpus, const std::string& key) {
    for (const auto& s : plan_host(c, cpus))
      if (s.key == key) return s.value + (s.at_least ? " at least" : "");
    return std::string("left alone");
  };
  const std::string max = "net/netfilter/nf_conntrack_max", hash = "/sys/module/nf_conntrack/parameters/hashsize";
  Config c;
  struct Row {
    int per_core, min;
    unsigned cpus;
    std::string max, hash;
  };
  for (const auto& row : std::vector<Row>{
           {32768, 131072, 2, "131072", "32768 at least"},
           {32768, 131072, 8, "262144", "65536 at least"},
           {32768, 131072, 64, "1048576", "262144 at least"},  // above a million it stops growing
           {32768, 2000000, 64, "1048576", "262144 at least"},
           {0, 131072, 8, "left alone", "left alone"},
       }) {
    c.conntrack.max_per_core = row.per_core;
    c.conntrack.min = row.min;
    EXPECT_EQ(value(c, row.cpus, max), row.max) << row.cpus;
    EXPECT_EQ(value(c, row.cpus, hash), row.hash) << row.cpus;
  }
  c = {};
  const std::string at = "net/netfilter/nf_conntrack_";
  EXPECT_EQ(value(c, 1, at + "tcp_timeout_established"), "86400");
  EXPECT_EQ(value(c, 1, at + "tcp_timeout_close_wait"), "3600");
  for (const std::string key : {"udp_timeout", "udp_timeout_stream", "tcp_be_liberal", "acct", "events"}) EXPECT_EQ(value(c, 1, at + key), "left alone") << key;
  EXPECT_EQ(value(c, 1, "/proc/self/oom_score_adj"), "-999");
  c.conntrack.udp_timeout = std::chrono::seconds(7);
  c.conntrack.udp_stream_timeout = std::chrono::minutes(2);
  c.conntrack.tcp_established_timeout = c.conntrack.tcp_close_wait_timeout = {};
  c.conntrack.tcp_be_liberal = true;
  c.flow_accounting = true;
  EXPECT_EQ(value(c, 1, at + "udp_timeout"), "7");
  EXPECT_EQ(value(c, 1, at + "udp_timeout_stream"), "120");
  EXPECT_EQ(value(c, 1, at + "tcp_timeout_established"), "left alone");
  EXPECT_EQ(value(c, 1, at + "tcp_be_liberal"), "1");
  EXPECT_EQ(value(c, 1, at + "acct"), "1");
  EXPECT_EQ(value(c, 1, at + "events"), "1 at least");
  c.mode = "ipvs";
  EXPECT_EQ(value(c, 1, at + "acct"), "left alone") << "IPVS counts by itself";
}

}  // namespace
}  // namespace fairlead::proxy
