// Leader election: the decisions on a manual clock, then several electors on one apiserver.
#include "kube/leader_election.h"

#include <gmock/gmock.h>

#include "tests/base/asio_test_util.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::kube {
namespace {

using namespace std::chrono_literals;
using coordinationv1::Lease;
using fairlead::test::Loop;
using fairlead::test::value;
using test::FakeApiserver;
using testing::ElementsAre;
using Action = LeaseView::Action;

LeaderElectionOptions options_of(std::string identity) {
  LeaderElectionOptions o;
  o.ns = "kube-system";
  o.name = "test";
  o.identity = std::move(identity);
  return o;
}

TEST(LeaseView, Decides) {
  ManualClock clock;
  const auto mine = options_of("me"), theirs = options_of("they");
  LeaseView view(mine);
  view.observe(std::nullopt, clock.steady());
  EXPECT_EQ(view.decide(clock.steady()), Action::create);

  LeaseView other(theirs);
  Lease lease = other.next(Action::create, clock.wall());
  EXPECT_EQ(lease.spec().leasedurationseconds(), 15);
  EXPECT_EQ(lease.spec().leasetransitions(), 0);
  view.observe(lease, clock.steady());
  EXPECT_EQ(view.decide(clock.steady()), Action::wait);
  // Renewed every 10 s: never free, however long it goes on and whatever the other's wall clock says.
  for (int i = 0; i < 10; ++i) {
    clock.advance(10s);
    other.observe(lease, clock.steady());
    lease = other.next(Action::renew, clock.wall() - 24h);
    view.observe(lease, clock.steady());
    EXPECT_EQ(view.decide(clock.steady()), Action::wait);
  }
  // Seen again and again without a change: free after its duration.
  clock.advance(15s);
  view.observe(lease, clock.steady());
  EXPECT_EQ(view.decide(clock.steady()), Action::wait);
  clock.advance(1ms);
  view.observe(lease, clock.steady());
  EXPECT_EQ(view.decide(clock.steady()), Action::take);
  const Lease taken = view.next(Action::take, clock.wall());
  EXPECT_EQ(taken.spec().holderidentity(), "me");
  EXPECT_EQ(taken.spec().leasetransitions(), 1);
  view.observe(taken, clock.steady());
  EXPECT_TRUE(view.holds());
  EXPECT_EQ(view.decide(clock.steady()), Action::renew);
  EXPECT_EQ(view.next(Action::renew, clock.wall()).spec().leasetransitions(), 1);
  // Given back: nobody has to wait.
  other.observe(view.released(clock.wall()), clock.steady());
  EXPECT_EQ(other.decide(clock.steady()), Action::take);
}

TEST(LeaseView, TheHoldersOwnDurationCounts) {
  ManualClock clock;
  auto long_options = options_of("they");
  long_options.lease_duration = 60s;
  LeaseView other(long_options);
  const auto mine = options_of("me");
  LeaseView view(mine);
  view.observe(other.next(Action::create, clock.wall()), clock.steady());
  clock.advance(59s);
  EXPECT_EQ(view.decide(clock.steady()), Action::wait);
  clock.advance(2s);
  EXPECT_EQ(view.decide(clock.steady()), Action::take);
}

struct Candidate {
  Candidate(Loop& loop, const FakeApiserver& api, std::string name, std::vector<std::string>& story) {
    RestConfig config;
    config.server = api.url();
    auto o = options_of(name);
    o.lease_duration = 1s;  // Leases count in seconds
    o.renew_deadline = 300ms;
    o.retry_period = 30ms;
    LeaderCallbacks callbacks;
    callbacks.started = [&story, name] { story.push_back(name + " leads"); };
    callbacks.stopped = [&story, name] { story.push_back(name + " stops"); };
    elector = std::make_unique<LeaderElector>(value(make_client(loop.executor(), config, "tester")), o, callbacks);
    value(elector->start());
  }
  std::unique_ptr<LeaderElector> elector;
};

TEST(LeaderElector, OneLeadsAndGivesTheLeaseBack) {
  Loop loop;
  FakeApiserver api(loop.executor());
  std::vector<std::string> story;
  Candidate a(loop, api, "a", story);
  loop.idle(100ms);
  Candidate b(loop, api, "b", story);
  loop.idle(300ms);
  EXPECT_THAT(story, ElementsAre("a leads"));
  EXPECT_TRUE(a.elector->is_leader());
  EXPECT_EQ(b.elector->leader(), "a");
  loop.run([&]() -> Task<> { co_await a.elector->stop(); });
  loop.idle(200ms);  // much less than the Lease's duration
  EXPECT_THAT(story, ElementsAre("a leads", "a stops", "b leads"));
  loop.run([&]() -> Task<> {
    co_await b.elector->stop();
    co_await api.stop();
  });
}

TEST(LeaderElector, StopsLeadingByItselfBeforeAnotherMayStart) {
  Loop loop;
  FakeApiserver api(loop.executor());
  std::vector<std::string> story;
  Candidate a(loop, api, "a", story);
  loop.idle(100ms);
  Candidate b(loop, api, "b", story);
  // a's writes are refused from now on; b's go through.
  api.intercept = [](const http::Request& r) -> std::optional<http::Response> {
    if (r.method != "PUT") return std::nullopt;
    const std::unique_ptr<Lease> lease = std::make_unique<Lease>();
    if (!from_protobuf(r.body, *lease) || lease->spec().holderidentity() != "a") return std::nullopt;
    return test::status_response(500, "InternalError", "no");
  };
  loop.idle(500ms);
  EXPECT_THAT(story, ElementsAre("a leads", "a stops")) << "within the renew deadline, while the Lease still names it";
  loop.idle(1200ms);
  EXPECT_THAT(story, ElementsAre("a leads", "a stops", "b leads"));
  loop.run([&]() -> Task<> {
    co_await a.elector->stop();
    co_await b.elector->stop();
    co_await api.stop();
  });
}

TEST(LeaderElector, StopsLeadingWhileARequestHangs) {
  Loop loop;
  FakeApiserver api(loop.executor());
  std::vector<std::string> story;
  Candidate a(loop, api, "a", story);
  loop.idle(100ms);
  EXPECT_THAT(story, ElementsAre("a leads"));
  api.intercept = [](const http::Request&) -> std::optional<http::Response> {
    http::Response r;
    r.stream = [](http::BodyWriter& w) -> Task<Result<>> {  // never ends
      co_await w.closed();
      co_return Result<>{};
    };
    return r;
  };
  loop.idle(500ms);
  EXPECT_THAT(story, ElementsAre("a leads", "a stops"));
  loop.run([&]() -> Task<> { co_await api.stop(); });
  loop.run([&]() -> Task<> { co_await a.elector->stop(); });
}

TEST(LeaderElector, RefusesOptionsThatCannotWork) {
  Loop loop;
  RestConfig config;
  config.server = "http://127.0.0.1:1";
  const auto client = value(make_client(loop.executor(), config, "tester"));
  auto o = options_of("a");
  o.renew_deadline = 20s;
  EXPECT_EQ(LeaderElector(client, o, {}).start().error().code, ErrorCode::invalid_argument);
  o = options_of("");
  EXPECT_EQ(LeaderElector(client, o, {}).start().error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace fairlead::kube
