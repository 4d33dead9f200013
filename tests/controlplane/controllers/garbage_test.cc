#include "controlplane/controllers/garbage.h"

#include <gtest/gtest.h>

#include "controlplane/controllers/namespace_controller.h"
#include "tests/controlplane/controllers/make.h"

namespace fairlead::controllers {
namespace {

using Action = GarbageDecision::Action;

metav1::ObjectMeta meta(const std::string& uid, const std::vector<std::string>& owners = {}, const std::vector<std::string>& finalizers = {},
                        bool deleting = false, bool block = false) {
  metav1::ObjectMeta m;
  m.set_uid(uid);
  m.set_name(uid);
  m.set_namespace_("default");
  for (const auto& o : owners) {
    auto* r = m.add_ownerreferences();
    r->set_uid(o);
    r->set_name(o);
    r->set_blockownerdeletion(block);
  }
  for (const auto& f : finalizers) m.add_finalizers(f);
  if (deleting) *m.mutable_deletiontimestamp() = to_time(epoch);
  return m;
}

struct Row {
  const char* story;
  std::vector<OwnerState> owners;
  std::vector<std::string> finalizers;
  bool dependents, dependents_deleting;
  Action action;
  const char* references;  // dropped
  bool unblock;
};

TEST(Garbage, Decisions) {
  using enum OwnerState;
  const Row rows[] = {
      {"no owner", {}, {}, false, false, Action::keep, "", false},
      {"its owner lives", {solid}, {}, false, false, Action::keep, "", false},
      {"its owner is gone", {absent}, {}, false, false, Action::delete_background, "", false},
      {"all owners are gone", {absent, absent}, {}, true, false, Action::delete_background, "", false},
      {"one owner is gone, one lives", {solid, absent}, {}, false, false, Action::drop_references, "o1", false},
      {"one owner waits for it, one lives", {waiting, solid}, {}, false, false, Action::drop_references, "o0", false},
      {"its owner waits for it", {waiting}, {}, false, false, Action::delete_background, "", false},
      {"its owner waits, it has dependents itself", {waiting}, {}, true, false, Action::delete_foreground, "", false},
      {"a cycle of waiting", {waiting}, {}, true, true, Action::delete_foreground, "", true},
      {"gone owner, wants its dependents spared", {absent}, {"orphan"}, true, false, Action::delete_orphan, "", false},
      {"gone owner, foreground asked before", {absent}, {"foregroundDeletion"}, true, false, Action::delete_foreground, "", false},
  };
  for (const Row& row : rows) {
    std::vector<std::string> owners;
    for (std::size_t i = 0; i < row.owners.size(); ++i) owners.push_back("o" + std::to_string(i));
    const auto d = decide_garbage(meta("x", owners, row.finalizers), row.owners, row.dependents, row.dependents_deleting);
    EXPECT_EQ(d.action, row.action) << row.story;
    EXPECT_EQ(d.unblock, row.unblock) << row.story;
    EXPECT_EQ(d.references, *row.references ? std::vector<std::string>{row.references} : std::vector<std::string>{}) << row.story;
  }
}

struct GraphTest : testing::Test {
  OwnerGraph graph;
  const kube::Kind& kind = kube::kind_of<corev1::Pod>();
  std::vector<std::string> see(const metav1::ObjectMeta& m) { return graph.observe(kind, m); }
  using Uids = std::vector<std::string>;
};

TEST_F(GraphTest, AnObjectWithLivingOwnersIsOfNoInterest) {
  EXPECT_EQ(see(meta("owner")), Uids{});
  EXPECT_EQ(see(meta("pod", {"owner"})), Uids{});
  EXPECT_EQ(graph.dependents("owner"), Uids{"pod"});
}

TEST_F(GraphTest, AnOwnerThatIsNotKnownMustBeLookedFor) {
  EXPECT_EQ(see(meta("pod", {"owner"})), Uids{"pod"});
  see(meta("owner"));
  EXPECT_EQ(graph.dependents("owner"), Uids{"pod"}) << "known although the dependent came first";
}

TEST_F(GraphTest, WhenAnOwnerGoesItsDependentsAreLookedAt) {
  see(meta("owner"));
  see(meta("a", {"owner"}));
  see(meta("b", {"owner"}));
  EXPECT_EQ(graph.remove("owner"), (Uids{"a", "b"}));
  EXPECT_EQ(graph.remove("owner"), Uids{});
}

TEST_F(GraphTest, ForegroundDeletionLooksAtDependentsAndBackAtTheOwner) {
  see(meta("owner"));
  see(meta("a", {"owner"}, {}, false, true));
  see(meta("b", {"owner"}));
  auto touched = see(meta("owner", {}, {foreground_finalizer}, true));
  EXPECT_EQ(std::set<std::string>(touched.begin(), touched.end()), (std::set<std::string>{"a", "b", "owner"}));
  EXPECT_EQ(graph.blocking_dependents("owner"), Uids{"a"});
  EXPECT_EQ(graph.remove("a"), Uids{"owner"}) << "the owner may be able to go now";
  EXPECT_TRUE(graph.blocking_dependents("owner").empty());
}

TEST_F(GraphTest, LosingAnOwnerReferenceForgetsTheDependency) {
  see(meta("owner"));
  see(meta("a", {"owner"}));
  see(meta("a"));
  EXPECT_TRUE(graph.dependents("owner").empty());
  EXPECT_EQ(graph.remove("owner"), Uids{});
}

TEST(NamespaceStatus, SaysWhatIsLeft) {
  NamespaceContent content;
  content.left.push_back({"pods", 2, {"example.com/hold", "example.com/hold"}});
  content.waiting_for_pods = true;
  const auto s = namespace_status({}, content, epoch);
  EXPECT_EQ(s.phase(), "Terminating");
  const auto* remaining = find_condition(s.conditions(), "NamespaceContentRemaining");
  ASSERT_TRUE(remaining);
  EXPECT_EQ(remaining->status(), "True");
  EXPECT_EQ(remaining->message(), "Some resources are remaining: pods has 2 resource instances");
  EXPECT_EQ(find_condition(s.conditions(), "NamespaceFinalizersRemaining")->message(),
            "Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances");
  EXPECT_EQ(find_condition(s.conditions(), "NamespaceDeletionContentFailure")->status(), "False");
  const auto later = namespace_status(s, {}, epoch + std::chrono::seconds(9));
  EXPECT_EQ(find_condition(later.conditions(), "NamespaceContentRemaining")->status(), "False");
  EXPECT_EQ(later.conditions_size(), 5);
}

}  // namespace
}  // namespace fairlead::controllers
