#include "lab/topology.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "base/files.h"
#include "lab/state.h"

namespace fairlead::lab {
namespace {

Options test_options() {
  auto o = default_options();
  o.bin_dir = "/opt/bin";
  o.images_dir = "/opt/images";
  return o;
}

TEST(Plan, NodesHaveDistinctNamesAddressesAndFolders) {
  const auto p = plan_lab(test_options());
  ASSERT_TRUE(p) << p.error().message;
  ASSERT_EQ(p->nodes.size(), 3u);
  EXPECT_EQ(p->server_url(), "https://172.29.7.10:6443");
  EXPECT_EQ(p->host_ip.to_string(), "172.29.7.1");
  const struct {
    const char* name;
    const char* ip;
    const char* link;
  } rows[] = {{"control-plane", "172.29.7.10", "fl-cp"}, {"worker-1", "172.29.7.11", "fl-w1"}, {"worker-2", "172.29.7.12", "fl-w2"}};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(p->nodes[i].name, rows[i].name);
    EXPECT_EQ(p->nodes[i].ip.to_string(), rows[i].ip);
    EXPECT_EQ(p->nodes[i].host_link, rows[i].link);
    EXPECT_EQ(p->nodes[i].dir, std::string("/var/lib/fairlead/lab/nodes/") + rows[i].name);
    EXPECT_EQ(p->nodes[i].control_plane, i == 0);
  }
}

TEST(Plan, OnlyTheControlPlaneNodeRunsTheControlPlaneAndIsTainted) {
  const auto p = plan_lab(test_options());
  for (const auto& n : p->nodes) {
    std::vector<std::string> names;
    std::string kubelet;
    for (const auto& c : n.components) {
      names.push_back(c.name);
      if (c.name == "kubelet")
        for (const auto& a : c.argv) kubelet += a + " ";
    }
    EXPECT_EQ(std::count(names.begin(), names.end(), "control-plane"), n.control_plane ? 1 : 0);
    EXPECT_THAT(names, testing::IsSupersetOf({"containerd", "kubelet", "proxy", "cni-agent", "lb-speaker", "ingress", "images"}));
    EXPECT_EQ(kubelet.find("NoSchedule") != std::string::npos, n.control_plane);
  }
}

TEST(Plan, LoadBalancerAddressesAreWhereNobodyElseIs) {
  const struct {
    const char* lan;
    const char* range;
  } rows[] = {{"172.29.7.0/24", "172.29.7.192-172.29.7.254"}, {"10.1.0.64/26", "10.1.0.112-10.1.0.126"}, {"10.0.0.0/8", "10.192.0.0-10.255.255.254"}};
  for (const auto& r : rows) {
    auto o = test_options();
    o.workers = kMaxWorkers;
    o.lan = *Prefix::parse(r.lan);
    o.pod_cidr = *Prefix::parse("192.168.0.0/16");
    o.service_cidr = *Prefix::parse("172.16.0.0/16");
    const auto p = plan_lab(o);
    ASSERT_TRUE(p) << p.error().message;
    EXPECT_THAT(lb_pools(*p), testing::HasSubstr(std::string("  - ") + r.range + "\n"));
    for (const auto& n : p->nodes) EXPECT_LT(n.ip, *IpAddress::parse(std::string(r.range).substr(0, std::string(r.range).find('-'))));
  }
}

TEST(Plan, BadOptionsNameTheFlag) {
  const struct {
    const char* says;
    void (*spoil)(Options&);
  } rows[] = {
      {"--nodes", [](Options& o) { o.workers = 21; }},
      {"--state-dir", [](Options& o) { o.state_dir = "relative"; }},
      {"--state-dir", [](Options& o) { o.state_dir = "/" + std::string(80, 'x'); }},
      {"--bridge", [](Options& o) { o.bridge = "a-name-that-is-too-long"; }},
      {"--lan", [](Options& o) { o.lan = *Prefix::parse("10.0.0.0/30"); }},
      {"--lan", [](Options& o) { o.lan = *Prefix::parse("fd00::/64"); }},
      {"overlaps", [](Options& o) { o.service_cidr = *Prefix::parse("10.244.0.0/20"); }},
  };
  for (const auto& r : rows) {
    auto o = test_options();
    r.spoil(o);
    const auto p = plan_lab(o);
    ASSERT_FALSE(p) << r.says;
    EXPECT_THAT(p.error().message, testing::HasSubstr(r.says));
  }
}

TEST(State, RoundTripsAndNamesDamage) {
  State s;
  s.options = test_options();
  s.options.state_dir = testing::TempDir() + "fairlead-state-" + std::to_string(::getpid());
  ASSERT_TRUE(make_dirs(s.options.state_dir));
  s.created = "2026-01-01T00:00:00Z";
  s.supervisor = *identify(::getpid());
  s.node_inits["worker-1"] = {42, 4242};
  ASSERT_TRUE(save_state(s));
  const auto back = load_state(s.options.state_dir);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->supervisor, s.supervisor);
  EXPECT_EQ(back->node_inits, s.node_inits);
  EXPECT_EQ(back->options.lan, s.options.lan);
  EXPECT_EQ(load_state("/nonexistent").error().code, ErrorCode::not_found);
  auto text = *read_file(s.options.state_dir + "/lab.json");
  text.replace(text.find("172.29.7.0/24"), 13, "172.29.7.1/24");
  ASSERT_TRUE(write_file_atomic(s.options.state_dir + "/lab.json", text));
  EXPECT_THAT(load_state(s.options.state_dir).error().message, testing::HasSubstr("lan"));
  ASSERT_TRUE(write_file_atomic(s.options.state_dir + "/lab.json", "{"));
  EXPECT_EQ(load_state(s.options.state_dir).error().code, ErrorCode::data_loss);
}

TEST(State, AReusedPidIsNotOurs) {
  auto me = *identify(::getpid());
  EXPECT_TRUE(alive(me));
  me.start_time += 1;
  EXPECT_FALSE(alive(me));
  EXPECT_FALSE(alive({}));
}

TEST(State, LockIsExclusive) {
  const auto dir = testing::TempDir() + "fairlead-lock-" + std::to_string(::getpid());
  auto first = lock_lab(dir);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(lock_lab(dir).error().code, ErrorCode::unavailable);
  first->reset();
  EXPECT_TRUE(lock_lab(dir));
  ::unlink(lock_path(dir).c_str());
}

}  // namespace
}  // namespace fairlead::lab
