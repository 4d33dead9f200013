#include "controlplane/controllers/replicaset.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/controlplane/controllers/make.h"

namespace fairlead::controllers {
namespace {

using std::chrono::seconds;

TestPod own(const std::string& name) { return TestPod(name).owned("ReplicaSet", "web-1", "uid-web-1"); }

ReplicaSetDecision decide(const appsv1::ReplicaSet& rs, const std::vector<TestPod>& pods, WallTime now = epoch) {
  ReplicaSetInput in{std::make_shared<const appsv1::ReplicaSet>(rs), {}, {}, now};
  for (const auto& p : pods) in.pods.push_back(p.get());
  in.related_pods = in.pods;
  auto d = decide_replicaset(in);
  EXPECT_TRUE(d) << d.error().message;
  return std::move(*d);
}

std::string names(const std::vector<PodPtr>& pods) {
  std::string out;
  for (const auto& p : pods) out += (out.empty() ? "" : " ") + p->metadata().name();
  return out;
}

struct Row {
  const char* story;
  int replicas;
  std::vector<TestPod> pods;
  int create;
  const char* remove;
  const char* adopt;
  const char* release;
};

TEST(ReplicaSet, Decisions) {
  const Row rows[] = {
      {"from nothing", 3, {}, 3, "", "", ""},
      {"as wanted", 1, {own("a")}, 0, "", "", ""},
      {"a finished pod is replaced", 1, {own("a").phase("Failed")}, 1, "", "", ""},
      {"a pod being deleted is replaced at once", 1, {own("a").deleting()}, 1, "", "", ""},
      {"never more than 500 at a time", 900, {}, 500, "", "", ""},
      {"scaled to zero", 0, {own("a"), own("b")}, 0, "a b", "", ""},
      {"an orphan that matches is adopted", 1, {TestPod("a")}, 0, "", "a", ""},
      {"a finished orphan is not", 1, {TestPod("a").phase("Succeeded")}, 1, "", "", ""},
      {"an orphan with other labels is not ours", 1, {TestPod("a").label("app", "other")}, 1, "", "", ""},
      {"somebody else's pod is not ours", 1, {TestPod("a").owned("ReplicaSet", "other", "uid-other")}, 1, "", "", ""},
      {"a pod that no longer matches is let go and replaced", 1, {own("a").label("app", "debug")}, 1, "", "", "a"},
  };
  for (const Row& row : rows) {
    const auto d = decide(test_set(row.replicas), row.pods);
    EXPECT_EQ(d.create, row.create) << row.story;
    EXPECT_EQ(names(d.remove), row.remove) << row.story;
    EXPECT_EQ(names(d.adopt), row.adopt) << row.story;
    EXPECT_EQ(names(d.release), row.release) << row.story;
  }
}

TEST(ReplicaSet, BeingDeletedItDoesNothing) {
  auto rs = test_set(3);
  *rs.mutable_metadata()->mutable_deletiontimestamp() = to_time(epoch);
  const auto d = decide(rs, {own("a"), TestPod("b"), own("c").label("app", "x")});
  EXPECT_EQ(d.create, 0);
  EXPECT_EQ(names(d.adopt) + names(d.release) + names(d.remove), "");
  EXPECT_EQ(d.status.replicas(), 1);
}

struct RankRow {
  const char* story;
  TestPod first, second;
};

TEST(ReplicaSet, DeletesTheLeastValuablePodFirst) {
  const WallTime now = epoch + seconds(10'000);
  const RankRow rows[] = {
      {"not on a node before on a node", own("b"), own("a").on("n")},
      {"pending before running", own("b").on("n"), own("a").on("n").phase("Running")},
      {"unknown before running", own("b").on("n").phase("Unknown"), own("a").on("n").phase("Running")},
      {"not ready before ready", own("b").on("n").ready(false), own("a").on("n").ready()},
      {"lower deletion cost", own("b").on("n").ready().annotate("controller.kubernetes.io/pod-deletion-cost", "-5"), own("a").on("n").ready()},
      {"ready for a shorter time", own("b").on("n").ready(true, now - seconds(10)), own("a").on("n").ready(true, now - seconds(9000))},
      {"more restarts", own("b").on("n").ready().restarts(3), own("a").on("n").ready().restarts(1)},
      {"newer", own("b").on("n").ready().created(now - seconds(60)), own("a").on("n").ready()},
      {"nearly as old: by uid, whatever that is", own("a").on("n").ready().created(epoch + seconds(5)), own("b").on("n").ready()},
      {"cost counts after readiness", own("b").on("n").ready(false).annotate("controller.kubernetes.io/pod-deletion-cost", "100"), own("a").on("n").ready()},
  };
  for (const RankRow& row : rows) {
    for (const bool swapped : {false, true}) {
      std::vector<PodPtr> pods{row.first.get(), row.second.get()};
      if (swapped) std::swap(pods[0], pods[1]);
      rank_for_deletion(pods, {}, now);
      EXPECT_EQ(pods[0]->metadata().name(), row.first.pod.metadata().name()) << row.story;
    }
  }
}

TEST(ReplicaSet, DeletesFromTheNodeWithTheMostPods) {
  auto rs = test_set(3);
  const auto d = decide(rs, {own("a").on("x").ready(), own("b").on("x").ready(), own("c").on("y").ready(), own("d").on("z").ready()});
  ASSERT_EQ(d.remove.size(), 1u);
  EXPECT_EQ(d.remove[0]->spec().nodename(), "x");
}

TEST(ReplicaSet, Status) {
  auto rs = test_set(3);
  rs.mutable_spec()->set_minreadyseconds(10);
  rs.mutable_metadata()->set_generation(7);
  (*rs.mutable_spec()->mutable_template_()->mutable_metadata()->mutable_labels())["tier"] = "front";
  const auto now = epoch + seconds(100);
  const auto d = decide(rs,
                        {own("old").label("tier", "front").ready(true, epoch), own("new").ready(true, epoch + seconds(95)), own("pending"),
                         own("ending").deleting(), own("done").phase("Succeeded")},
                        now);
  EXPECT_EQ(d.status.replicas(), 3);
  EXPECT_EQ(d.status.fullylabeledreplicas(), 1);
  EXPECT_EQ(d.status.readyreplicas(), 2);
  EXPECT_EQ(d.status.availablereplicas(), 1);
  EXPECT_EQ(d.status.terminatingreplicas(), 1);
  EXPECT_EQ(d.status.observedgeneration(), 7);
  ASSERT_TRUE(d.again_after) << "the new pod becomes available in 5 s without any event";
  EXPECT_NEAR(static_cast<double>(d.again_after->count()), 5000, 2);
}

TEST(ReplicaSet, ReplicaFailureComesAndGoes) {
  ReplicaSetInput in{std::make_shared<const appsv1::ReplicaSet>(test_set(1)), {}, {}, epoch};
  auto failing = decide_replicaset(in, ReplicaFailure{"FailedCreate", "quota"});
  ASSERT_TRUE(failing);
  ASSERT_EQ(failing->status.conditions_size(), 1);
  EXPECT_EQ(failing->status.conditions(0).reason(), "FailedCreate");
  auto rs = test_set(1);
  *rs.mutable_status() = failing->status;
  in.rs = std::make_shared<const appsv1::ReplicaSet>(rs);
  auto fine = decide_replicaset(in);
  ASSERT_TRUE(fine);
  EXPECT_EQ(fine->status.conditions_size(), 0);
}

TEST(ReplicaSet, PodsComeFromTheTemplate) {
  auto rs = test_set(1);
  rs.mutable_spec()->mutable_template_()->mutable_metadata()->add_finalizers("x/y");
  const auto pod = pod_from_template(rs.spec().template_(), "default", "web-1-", controller_reference(rs));
  EXPECT_EQ(pod.metadata().generatename(), "web-1-");
  EXPECT_EQ(pod.metadata().labels().at("app"), "web");
  EXPECT_EQ(pod.metadata().finalizers(0), "x/y");
  ASSERT_EQ(pod.metadata().ownerreferences_size(), 1);
  EXPECT_EQ(pod.metadata().ownerreferences(0).apiversion(), "apps/v1");
  EXPECT_TRUE(pod.metadata().ownerreferences(0).controller());
  EXPECT_TRUE(pod.metadata().ownerreferences(0).blockownerdeletion());
}

}  // namespace
}  // namespace fairlead::controllers
