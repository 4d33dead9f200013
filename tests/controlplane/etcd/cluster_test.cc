// A cluster of three real etcd members under the client while writes flow: the leader is killed, a member is frozen, one is cut
// off from the others, one's disk is full; and all come back. No acknowledged write may be lost, and a watch must see every
// revision once. Members live in network namespaces of their own; it needs root.
#include <gtest/gtest.h>
#include <sched.h>

#include "tests/controlplane/etcd/cluster_load.h"
#include "tests/controlplane/etcd/tmpfs.h"
#include "tests/proxy/testnet.h"

namespace fairlead::etcd {
namespace {

// A write that a member took and cannot finish is given up after this long.
constexpr std::chrono::milliseconds kPatience{2'000};

// The namespace between the members, in which the test itself runs.
std::unique_ptr<testnet::Namespace> hub;

// Three namespaces around the hub: member i has 10.0.i.2.
class MemberNets {
 public:
  MemberNets() {
    for (int i = 0; i < 3; ++i) {
      testnet::connect(*hub, fmt::format("v{}", i), fmt::format("10.0.{}.1/24", i), nets_[i], "eth0", fmt::format("10.0.{}.2/24", i));
      EXPECT_TRUE(nets_[i].sh(fmt::format("ip route add default via 10.0.{}.1", i)));
    }
  }
  ~MemberNets() {
    for (int i = 0; i < 3; ++i) (void)hub->sh(fmt::format("ip link del v{}", i));
  }
  // From the other members; clients still reach it.
  void cut_off(int i, bool off) { EXPECT_TRUE(hub->sh(fmt::format("sysctl -qw net.ipv4.conf.v{}.forwarding={}", i, off ? 0 : 1))); }
  RealEtcd::Options options() const {
    RealEtcd::Options o;
    o.members = 3;
    for (int i = 0; i < 3; ++i) {
      o.hosts.push_back(fmt::format("10.0.{}.2", i));
      o.netns.push_back(fmt::format("/proc/{}/fd/{}", ::getpid(), nets_[i].fd()));
    }
    return o;
  }

 private:
  testnet::Namespace nets_[3];
};

int leader_of(const RealEtcd& cluster) {
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < cluster.size(); ++i) {
      auto one = Remote::connect({.endpoints = {cluster.url(i)}, .dial_timeout = std::chrono::milliseconds(500), .request_timeout = std::chrono::milliseconds(1000)});
      if (!one) continue;
      const auto s = await((*one)->status());
      if (s && s->leader != 0 && s->leader == s->member) return i;
    }
    ClusterLoad::pause(100);
  }
  ADD_FAILURE() << "no leader";
  return 0;
}

class RealCluster : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!RealEtcd::available()) GTEST_SKIP() << "etcd-server is not installed";
    if (!hub) GTEST_SKIP() << "needs root, for network namespaces";
  }
};

TEST_F(RealCluster, LeaderKilledMemberFrozenNothingAcknowledgedIsLost) {
  MemberNets nets;
  RealEtcd cluster(nets.options());
  auto kv = cluster.connect(kPatience);
  ASSERT_TRUE(kv);
  ClusterLoad load(kv, 6);
  load.goes_on("at the beginning");
  for (int round = 0; round < 2; ++round) {
    const int killed = leader_of(cluster);
    cluster.kill(killed);
    load.goes_on("after the leader was killed");
    cluster.start(killed);
    load.goes_on("after it came back");
    const int frozen = leader_of(cluster);
    cluster.signal(frozen, SIGSTOP);
    ClusterLoad::pause(3000);
    load.goes_on("while the leader is frozen");
    cluster.signal(frozen, SIGCONT);
    load.goes_on("after it came back");
  }
  load.finish();
}

TEST_F(RealCluster, MemberCutOffFromTheOthersNothingAcknowledgedIsLost) {
  MemberNets nets;
  RealEtcd cluster(nets.options());
  auto kv = cluster.connect(kPatience);
  ASSERT_TRUE(kv);
  ClusterLoad load(kv, 6);
  load.goes_on("at the beginning");
  for (int round = 0; round < 2; ++round) {
    const int leader = leader_of(cluster);
    nets.cut_off(leader, true);  // it still takes our requests, and cannot answer them
    load.goes_on("while the leader is cut off", 100);
    EXPECT_NE(leader_of(cluster), leader);
    nets.cut_off(leader, false);
    load.goes_on("after it came back");
    const int follower = (leader_of(cluster) + 1) % 3;
    nets.cut_off(follower, true);
    ClusterLoad::pause(3000);
    load.goes_on("while a follower is cut off", 100);
    nets.cut_off(follower, false);
    load.goes_on("after it came back");
  }
  load.finish();
}

TEST_F(RealCluster, DiskOfOneMemberFullNothingAcknowledgedIsLost) {
  MemberNets nets;
  auto options = nets.options();
  TempDir disk_dir;
  Tmpfs disk(disk_dir.path(), 400);
  options.data_dirs = {"", disk_dir.path() + "/data", ""};
  RealEtcd cluster(options);
  auto kv = cluster.connect(kPatience);
  ASSERT_TRUE(kv);
  ClusterLoad load(kv, 8'000);
  load.goes_on("at the beginning");
  disk.fill_up();
  // It ends when it next needs a block; the others go on without it.
  for (int i = 0; i < 600 && cluster.running(1); ++i) load.goes_on("while a disk is full", 20);
  EXPECT_FALSE(cluster.running(1)) << "the member never met its full disk";
  cluster.kill(1);
  load.goes_on("without the member whose disk is full", 200);
  disk.empty_out();
  cluster.start(1);
  load.goes_on("after it came back", 200);
  // It has caught up: it answers for itself what the others have.
  auto alone = cluster.connect_to(1);
  ASSERT_TRUE(alone);
  load.finish();
  RangeRequest own;
  own.key = "w/end";
  own.serializable = true;
  bool caught_up = false;
  for (int i = 0; i < 600 && !caught_up; ++i) {
    const auto r = await(alone->range(own));
    caught_up = r && r->count == 1;
    if (!caught_up) ClusterLoad::pause(100);
  }
  EXPECT_TRUE(caught_up);
}

}  // namespace
}  // namespace fairlead::etcd

// The whole program lives between the members; threads made later inherit that.
int main(int argc, char** argv) {
  using namespace fairlead;
  testing::InitGoogleTest(&argc, argv);
  if (testnet::available()) {
    etcd::hub = std::make_unique<testnet::Namespace>();
    if (::setns(etcd::hub->fd(), CLONE_NEWNET) != 0) {
      std::perror("setns");
      return 1;
    }
  }
  const int failed = RUN_ALL_TESTS();
  etcd::hub.reset();
  return failed;
}
