#include "controlplane/controllers/deployment.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"
#include "tests/controlplane/controllers/make.h"

namespace fairlead::controllers {
namespace {

using std::chrono::seconds;

// A Deployment with its ReplicaSets; apply() does what a decision says, so that whole rollouts can be played.
struct World {
  appsv1::Deployment d;
  std::map<std::string, appsv1::ReplicaSet> sets;
  bool old_pods_running = false;
  std::map<std::string, int> pods_now;  // by uid; empty: as the status says
  WallTime now = epoch;
  std::vector<std::string> events;
  std::uint64_t created = 0;

  explicit World(appsv1::Deployment deployment) : d(std::move(deployment)) {}

  DeploymentDecision decide() const {
    DeploymentInput in{std::make_shared<const appsv1::Deployment>(d), {}, pods_now, old_pods_running, now};
    for (const auto& [name, rs] : sets) in.sets.push_back(std::make_shared<const appsv1::ReplicaSet>(rs));
    auto r = decide_deployment(in);
    EXPECT_TRUE(r) << r.error().message;
    return std::move(*r);
  }
  void apply(const DeploymentDecision& x) {
    if (x.create) {
      auto rs = *x.create;
      rs.mutable_metadata()->set_uid("uid-" + rs.metadata().name());
      rs.mutable_metadata()->set_generation(1);
      *rs.mutable_metadata()->mutable_creationtimestamp() = to_time(epoch + seconds(created++));
      sets[rs.metadata().name()] = rs;
      if (!x.create_event.empty()) events.push_back(x.create_event);
    }
    for (const auto& u : x.update) {
      auto& rs = sets.at(u.set.metadata().name());
      if (rs.spec().replicas() != u.set.spec().replicas()) rs.mutable_metadata()->set_generation(rs.metadata().generation() + 1);
      rs = u.set;
      if (!u.event.empty()) events.push_back(u.event);
    }
    for (const auto& rs : x.remove) sets.erase(rs->metadata().name());
    if (x.revision) (*d.mutable_metadata()->mutable_annotations())[revision_annotation] = *x.revision;
    *d.mutable_status() = x.status;
  }
  DeploymentDecision step() {
    auto x = decide();
    apply(x);
    return x;
  }
  // The ReplicaSet controller, at once: all wanted pods exist; `available` of them work.
  void pods(appsv1::ReplicaSet& rs, int available) {
    rs.mutable_status()->set_replicas(rs.spec().replicas());
    rs.mutable_status()->set_readyreplicas(available);
    rs.mutable_status()->set_availablereplicas(available);
    rs.mutable_status()->set_observedgeneration(rs.metadata().generation());
  }
  void all_available() {
    for (auto& [name, rs] : sets) pods(rs, rs.spec().replicas());
  }
  void set_image(const std::string& image) {
    d.mutable_spec()->mutable_template_()->mutable_spec()->mutable_containers(0)->set_image(image);
    d.mutable_metadata()->set_generation(d.metadata().generation() + 1);
  }
  void scale(int n) {
    d.mutable_spec()->set_replicas(n);
    d.mutable_metadata()->set_generation(d.metadata().generation() + 1);
  }
  void settle() {
    for (int i = 0; i < 50; ++i) {
      step();
      all_available();
    }
  }
  appsv1::ReplicaSet& of(const std::string& image) {
    for (auto& [name, rs] : sets) {
      if (rs.spec().template_().spec().containers(0).image() == image) return rs;
    }
    ADD_FAILURE() << "no ReplicaSet of " << image;
    std::abort();
  }
  std::string condition(const std::string& type) const {
    const auto* c = find_condition(d.status().conditions(), type);
    return c ? c->status() + " " + c->reason() : "";
  }
};

TEST(Deployment, FirstRollout) {
  World w(test_deployment(3));
  const auto x = w.step();
  ASSERT_TRUE(x.create);
  const auto& rs = *x.create;
  const std::string hash = rs.metadata().labels().at(template_hash_label);
  EXPECT_EQ(rs.metadata().name(), "web-" + hash);
  EXPECT_EQ(rs.spec().selector().matchlabels().at(template_hash_label), hash);
  EXPECT_EQ(rs.spec().template_().metadata().labels().at(template_hash_label), hash);
  EXPECT_EQ(rs.spec().replicas(), 3);
  EXPECT_EQ(rs.metadata().annotations().at(revision_annotation), "1");
  EXPECT_EQ(rs.metadata().annotations().at(desired_replicas_annotation), "3");
  EXPECT_EQ(rs.metadata().annotations().at(max_replicas_annotation), "4");
  EXPECT_EQ(x.create_event, "Scaled up replica set web-" + hash + " from 0 to 3");
  EXPECT_EQ(x.revision, "1");
  EXPECT_EQ(w.condition("Progressing"), "True NewReplicaSetCreated");
  EXPECT_EQ(w.condition("Available"), "False MinimumReplicasUnavailable");
  w.all_available();
  w.step();
  EXPECT_EQ(w.condition("Progressing"), "True NewReplicaSetAvailable");
  EXPECT_EQ(w.condition("Available"), "True MinimumReplicasAvailable");
  EXPECT_EQ(w.d.status().availablereplicas(), 3);
  EXPECT_EQ(w.d.status().observedgeneration(), 1);
  const auto quiet = w.step();
  EXPECT_TRUE(quiet.update.empty() && !quiet.create && !quiet.revision) << "a finished Deployment is left alone";
}

TEST(Deployment, AnUpdateRollsAndARollbackReusesTheOldReplicaSet) {
  World w(test_deployment(4));
  w.settle();
  const std::string first = w.of("web:1").metadata().name();
  w.set_image("web:2");
  w.settle();
  EXPECT_EQ(w.of("web:1").spec().replicas(), 0);
  EXPECT_EQ(w.of("web:2").spec().replicas(), 4);
  EXPECT_EQ(w.of("web:2").metadata().annotations().at(revision_annotation), "2");
  w.set_image("web:1");
  w.settle();
  EXPECT_EQ(w.sets.size(), 2u);
  EXPECT_EQ(w.of("web:1").metadata().name(), first);
  EXPECT_EQ(w.of("web:1").spec().replicas(), 4);
  EXPECT_EQ(w.of("web:1").metadata().annotations().at(revision_annotation), "3");
  EXPECT_EQ(w.of("web:1").metadata().annotations().at(revision_history_annotation), "1");
  EXPECT_EQ(w.d.metadata().annotations().at(revision_annotation), "3");
}

struct LimitsRow {
  int replicas;
  const char *surge, *unavailable;
  int max_surge, max_unavailable;
};
TEST(Deployment, Limits) {
  const LimitsRow rows[] = {{10, "25%", "25%", 3, 2}, {3, "25%", "25%", 1, 0}, {1, "25%", "25%", 1, 0}, {10, "0", "0", 0, 1},
                            {4, "1", "0", 1, 0},       {10, "100%", "100%", 10, 10}, {3, "0%", "10%", 0, 1}};
  for (const auto& row : rows) {
    const auto l = rolling_limits(test_deployment(row.replicas, row.surge, row.unavailable));
    ASSERT_TRUE(l);
    EXPECT_EQ(l->max_surge, row.max_surge) << row.replicas << " " << row.surge << " " << row.unavailable;
    EXPECT_EQ(l->max_unavailable, row.max_unavailable) << row.replicas << " " << row.surge << " " << row.unavailable;
  }
  const auto bad = rolling_limits(test_deployment(1, "x%", "0"));
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("maxSurge"), std::string::npos);
}

TEST(Deployment, UnhealthyOldPodsGoFirst) {
  World w(test_deployment(4, "0", "1"));
  w.settle();
  w.set_image("web:2");
  w.pods(w.of("web:1"), 2);  // two of four do not work
  w.step();
  EXPECT_EQ(w.of("web:1").spec().replicas(), 3) << "one may be missing, and one that does not work is the one";
}

TEST(Deployment, ARolloutBeginsWithSurgeAndUnavailabilityAtOnce) {
  World w(test_deployment(10, "3", "2"));
  w.settle();
  w.set_image("web:2");
  w.step();
  EXPECT_EQ(w.of("web:2").spec().replicas(), 3);
  EXPECT_EQ(w.of("web:1").spec().replicas(), 8);
}

TEST(Deployment, ProportionalScaling) {
  // 15 = 10 + surge 5 in the middle of a rollout, 10 old and 5 new; scaled to 25 there is room for 30.
  World w(test_deployment(10, "50%", "0"));
  w.settle();
  w.set_image("web:2");
  w.step();
  w.pods(w.of("web:1"), 10);
  w.pods(w.of("web:2"), 0);
  ASSERT_EQ(w.of("web:2").spec().replicas(), 5);
  w.scale(20);
  w.step();
  EXPECT_EQ(w.of("web:1").spec().replicas(), 20);
  EXPECT_EQ(w.of("web:2").spec().replicas(), 10);
  EXPECT_EQ(w.of("web:2").metadata().annotations().at(desired_replicas_annotation), "20");
  w.scale(0);
  w.step();
  EXPECT_EQ(w.of("web:1").spec().replicas() + w.of("web:2").spec().replicas(), 0);
}

TEST(Deployment, PausedItScalesButDoesNotRoll) {
  World w(test_deployment(3));
  w.settle();
  w.d.mutable_spec()->set_paused(true);
  w.set_image("web:2");
  w.settle();
  EXPECT_EQ(w.sets.size(), 1u);
  EXPECT_EQ(w.condition("Progressing"), "Unknown DeploymentPaused");
  w.scale(5);
  w.settle();
  EXPECT_EQ(w.of("web:1").spec().replicas(), 5);
  w.d.mutable_spec()->set_paused(false);
  w.step();
  EXPECT_EQ(w.sets.size(), 2u);
}

TEST(Deployment, RecreateWaitsForTheLastOldPod) {
  auto d = test_deployment(3);
  d.mutable_spec()->mutable_strategy()->set_type("Recreate");
  World w(d);
  w.settle();
  w.set_image("web:2");
  w.old_pods_running = true;
  w.settle();
  EXPECT_EQ(w.sets.size(), 1u) << "no new ReplicaSet while an old pod runs";
  EXPECT_EQ(w.of("web:1").spec().replicas(), 0);
  w.old_pods_running = false;
  w.settle();
  EXPECT_EQ(w.of("web:2").spec().replicas(), 3);
  w.scale(6);
  w.settle();
  EXPECT_EQ(w.of("web:2").spec().replicas(), 6);
}

TEST(Deployment, KeepsTheHistoryItIsAskedFor) {
  auto d = test_deployment(1);
  d.mutable_spec()->set_revisionhistorylimit(2);
  World w(d);
  for (int i = 1; i <= 6; ++i) {
    w.set_image("web:" + std::to_string(i));
    w.settle();
  }
  EXPECT_EQ(w.sets.size(), 3u);
  EXPECT_EQ(w.of("web:4").spec().replicas() + w.of("web:5").spec().replicas(), 0);
  EXPECT_EQ(w.of("web:6").spec().replicas(), 1);
}

TEST(Deployment, ProgressDeadline) {
  World w(test_deployment(2));
  w.step();
  for (auto& [name, rs] : w.sets) w.pods(rs, 0);
  w.now += seconds(10);
  w.step();
  EXPECT_EQ(w.condition("Progressing"), "True ReplicaSetUpdated");
  const auto waiting = w.decide();
  ASSERT_TRUE(waiting.again_after);
  EXPECT_EQ(*waiting.again_after, seconds(600));
  w.now += seconds(600);
  w.step();
  EXPECT_EQ(w.condition("Progressing"), "False ProgressDeadlineExceeded");
  EXPECT_FALSE(w.decide().again_after);
  w.all_available();
  w.step();
  EXPECT_EQ(w.condition("Progressing"), "True NewReplicaSetAvailable") << "late is better than never";
}

TEST(Deployment, AFailureOfTheReplicaSetShows) {
  World w(test_deployment(1));
  w.step();
  auto* c = w.sets.begin()->second.mutable_status()->add_conditions();
  c->set_type("ReplicaFailure");
  c->set_status("True");
  c->set_reason("FailedCreate");
  w.step();
  EXPECT_EQ(w.condition("ReplicaFailure"), "True FailedCreate");
  w.sets.begin()->second.mutable_status()->clear_conditions();
  w.step();
  EXPECT_EQ(w.condition("ReplicaFailure"), "");
}

TEST(Deployment, Claims) {
  World w(test_deployment(1));
  w.settle();
  auto orphan = test_set(0, "orphan");
  (*orphan.mutable_metadata()->mutable_labels())["app"] = "web";
  w.sets["orphan"] = orphan;
  EXPECT_EQ(w.decide().adopt.size(), 1u);
  w.sets.erase("orphan");
  (*w.sets.begin()->second.mutable_metadata()->mutable_labels())["app"] = "other";
  EXPECT_EQ(w.decide().release.size(), 1u);
}

TEST(Deployment, TemplateHashIsStableAndIgnoresItself) {
  auto t = test_template();
  const std::string hash = template_hash(t, 0);
  EXPECT_EQ(hash.find_first_not_of("bcdfghjklmnpqrstvwxz2456789"), std::string::npos) << hash;
  EXPECT_NE(template_hash(t, 1), hash);
  (*t.mutable_metadata()->mutable_labels())[template_hash_label] = "old";
  EXPECT_EQ(template_hash(t, 0), hash);
  EXPECT_TRUE(same_template(t, test_template()));
  EXPECT_FALSE(same_template(t, test_template("web:2")));
}

// Pods with lives of their own: the promise of a rolling update is about what really runs, whatever the order of things.
struct LivePods {
  struct One {
    std::string set;
    bool available = false;
  };
  std::vector<One> pods;
  int count(const std::string& set, bool only_available) const {
    return static_cast<int>(std::count_if(pods.begin(), pods.end(), [&](const One& p) {
      return (set.empty() || p.set == set) && (!only_available || p.available);
    }));
  }
};

TEST(Deployment, RandomRolloutsKeepTheirPromises) {
  struct Limits {
    const char *surge, *unavailable;
  };
  for (const Limits limits : {Limits{"25%", "25%"}, Limits{"1", "0"}, Limits{"0", "1"}, Limits{"50%", "50%"}, Limits{"100%", "0"}}) {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      SeededRandom random(seed);
      const int n = 1 + static_cast<int>(random.below(12));
      World w(test_deployment(n, limits.surge, limits.unavailable));
      w.settle();
      LivePods live;
      for (auto& [name, rs] : w.sets) {
        for (int i = 0; i < rs.spec().replicas(); ++i) live.pods.push_back({name, true});
      }
      const auto l = rolling_limits(w.d).value();
      int image = 1;
      const auto report = [&](appsv1::ReplicaSet& rs) {
        rs.mutable_status()->set_replicas(live.count(rs.metadata().name(), false));
        rs.mutable_status()->set_readyreplicas(live.count(rs.metadata().name(), true));
        rs.mutable_status()->set_availablereplicas(live.count(rs.metadata().name(), true));
        rs.mutable_status()->set_observedgeneration(rs.metadata().generation());
      };
      // The ReplicaSet controller for one set, some time: creates or deletes (the unavailable first), then reports.
      const auto replicate = [&](appsv1::ReplicaSet& rs) {
        const std::string& name = rs.metadata().name();
        while (live.count(name, false) < rs.spec().replicas()) live.pods.push_back({name, false});
        while (live.count(name, false) > rs.spec().replicas()) {
          auto victim = std::find_if(live.pods.begin(), live.pods.end(), [&](const auto& p) { return p.set == name && !p.available; });
          if (victim == live.pods.end()) victim = std::find_if(live.pods.begin(), live.pods.end(), [&](const auto& p) { return p.set == name; });
          live.pods.erase(victim);
        }
        report(rs);
      };
      for (int step = 0; step < 150; ++step) {
        switch (random.below(5)) {
          case 0:
          case 4:
            for (const auto& [name, rs] : w.sets) w.pods_now[rs.metadata().uid()] = live.count(name, false);
            if (random.below(20) == 0) w.set_image("web:" + std::to_string(++image));
            w.step();
            break;
          case 1:
          case 2: {
            auto it = w.sets.begin();
            std::advance(it, static_cast<long>(random.below(w.sets.size())));
            replicate(it->second);
            break;
          }
          default: {  // a pod becomes available; nobody has been told yet
            for (auto& p : live.pods) {
              if (!p.available && random.below(2)) {
                p.available = true;
                break;
              }
            }
            break;
          }
        }
        ASSERT_LE(live.count("", false), n + l.max_surge) << "surge, seed " << seed << " step " << step;
        ASSERT_GE(live.count("", true), n - l.max_unavailable) << "availability, seed " << seed << " step " << step;
      }
      w.pods_now.clear();
      for (int i = 0; i < 60; ++i) {  // left alone, it arrives
        w.step();
        for (auto& [name, rs] : w.sets) replicate(rs);
        for (auto& p : live.pods) p.available = true;
        for (auto& [name, rs] : w.sets) report(rs);
      }
      w.step();
      EXPECT_EQ(live.count(w.of("web:" + std::to_string(image)).metadata().name(), true), n) << "seed " << seed;
      EXPECT_EQ(live.count("", false), n) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace fairlead::controllers
