// The informer's promise: whatever happens on the way, its copy ends equal to what the apiserver holds, and the changes it
// told add up to that copy.
#include "kube/informer.h"

#include <gmock/gmock.h>

#include <random>

#include "kube/object.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "tests/base/asio_test_util.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::kube {
namespace {

using namespace std::chrono_literals;
using corev1::ConfigMap;
using fairlead::test::Loop;
using fairlead::test::value;
using test::FakeApiserver;
using test::status_response;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ConfigMap config_map(const std::string& name, const std::string& data, const std::string& ns = "default") {
  ConfigMap c;
  c.mutable_metadata()->set_namespace_(ns);
  c.mutable_metadata()->set_name(name);
  c.mutable_metadata()->add_managedfields()->set_manager("someone");
  (*c.mutable_data())["k"] = data;
  return c;
}

// An informer, and the copy that one would make from its changes alone.
struct Watched {
  Watched(Loop& l, FakeApiserver& a, InformerOptions options = {}) : loop(l), api(a) {
    RestConfig config;
    config.server = api.url();
    client = value(make_client(loop.executor(), config, "tester"));
    options.first_backoff = 2ms;
    options.most_backoff = 20ms;
    informer = make_informer<ConfigMap>(client, std::move(options));
    informer->on_change([this](const Change<ConfigMap>& c) {
      const auto text = [](const std::shared_ptr<const ConfigMap>& o) { return o ? o->data().at("k") : std::string("-"); };
      story.push_back(fmt::format("{} {}>{}", c.key, text(c.before), text(c.after)));
      const auto it = told.find(c.key);
      EXPECT_EQ(c.before, it == told.end() ? nullptr : it->second) << "a change must start from what was told before";
      if (c.after)
        told[c.key] = c.after;
      else
        told.erase(c.key);
      EXPECT_EQ(informer->get(c.key), c.after) << "the copy already has the change";
    });
    informer->on_synced([this] { story.push_back("synced"); });
  }
  void start() {
    informer->start();
    loop.run([this]() -> Task<> { co_await informer->wait_synced(); });
  }
  // Waits until the copy equals the server's objects; fails the test when it does not get there.
  void settle() {
    for (int i = 0; i < 2000 && !equal(); ++i) loop.idle(5ms);
    ASSERT_TRUE(equal()) << "the copy did not become what the server holds";
    EXPECT_EQ(told.size(), informer->size());
    for (const auto& [key, object] : told) EXPECT_EQ(informer->get(key), object);
  }
  bool equal() const {
    const auto wanted = api.objects(kind_of<ConfigMap>());
    if (wanted.size() != informer->size()) return false;
    for (const auto& [key, object] : wanted) {
      const auto mine = informer->get(key);
      if (!mine || meta_of(*mine).resourceversion() != meta_of(*object).resourceversion()) return false;
    }
    return true;
  }
  void stop() {
    loop.run([this]() -> Task<> {
      co_await informer->stop();
      co_await api.stop();
    });
  }

  Loop& loop;
  FakeApiserver& api;
  std::shared_ptr<Client> client;
  std::shared_ptr<Informer<ConfigMap>> informer;
  std::map<std::string, std::shared_ptr<const ConfigMap>> told;
  std::vector<std::string> story;
};

class EachServer : public testing::TestWithParam<std::tuple<bool, bool, bool>> {
 protected:
  void configure(FakeApiserver& api) const { std::tie(api.watch_list, api.protobuf, api.gone_in_stream) = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Server, EachServer, testing::Combine(testing::Bool(), testing::Bool(), testing::Bool()),
                         [](const auto& i) {
                           return fmt::format("{}_{}_{}", std::get<0>(i.param) ? "watchlist" : "list",
                                              std::get<1>(i.param) ? "protobuf" : "json",
                                              std::get<2>(i.param) ? "goneInStream" : "goneAsStatus");
                         });

TEST_P(EachServer, TellsTheFirstStateThenEveryChange) {
  Loop loop;
  FakeApiserver api(loop.executor());
  configure(api);
  api.put(config_map("a", "1"));
  api.put(config_map("b", "1"));
  Watched w(loop, api);
  EXPECT_FALSE(w.informer->has_synced());
  w.start();
  EXPECT_TRUE(w.informer->has_synced());
  EXPECT_THAT(w.story, ElementsAre("default/a ->1", "default/b ->1", "synced"));
  EXPECT_THAT(w.informer->get("default/a")->metadata().managedfields(), IsEmpty());
  w.story.clear();
  api.put(config_map("a", "2"));
  api.put(config_map("c", "1"));
  api.remove(kind_of<ConfigMap>(), "default/b");
  w.settle();
  EXPECT_THAT(w.story, ElementsAre("default/a 1>2", "default/c ->1", "default/b 1>-"));
  w.stop();
  w.story.clear();
  EXPECT_EQ(w.informer->size(), 2u) << "the copy stays readable after stop()";
}

TEST_P(EachServer, ResumesWhereItWasWithoutListingAgain) {
  Loop loop;
  FakeApiserver api(loop.executor());
  configure(api);
  api.put(config_map("a", "1"));
  Watched w(loop, api);
  w.start();
  for (const bool clean : {true, false}) {
    SCOPED_TRACE(clean ? "ended" : "cut");
    loop.idle(20ms);
    api.requests.clear();
    clean ? api.finish_watches() : api.drop_watches();
    api.put(config_map("a", clean ? "2" : "3"));
    w.settle();
    for (const auto& r : api.requests) EXPECT_THAT(r, HasSubstr("watch=true"));
    for (const auto& r : api.requests) EXPECT_THAT(r, testing::Not(HasSubstr("sendInitialEvents")));
  }
  w.stop();
}

TEST_P(EachServer, ReportsTheDifferenceAfterExpiry) {
  Loop loop;
  FakeApiserver api(loop.executor());
  configure(api);
  for (const char* name : {"same", "changed", "removed", "replaced"}) api.put(config_map(name, "1"));
  Watched w(loop, api);
  w.start();
  const auto same = w.informer->get("default/same");
  w.story.clear();
  // All of this happens while the informer is away, and the history of it is lost.
  loop.run([&]() -> Task<> { co_await api.stop(); });
  api.put(config_map("changed", "2"));
  api.remove(kind_of<ConfigMap>(), "default/removed");
  api.remove(kind_of<ConfigMap>(), "default/replaced");
  api.put(config_map("replaced", "other"));
  api.put(config_map("new", "1"));
  api.compact();
  loop.idle(50ms);
  EXPECT_EQ(w.informer->size(), 4u) << "the last good copy stays";
  EXPECT_NE(w.informer->last_error(), "");
  api.start();
  w.settle();
  std::sort(w.story.begin(), w.story.end());
  EXPECT_THAT(w.story, ElementsAre("default/changed 1>2", "default/new ->1", "default/removed 1>-", "default/replaced 1>other"));
  EXPECT_EQ(w.informer->get("default/same"), same) << "what did not change is not told and not copied";
  EXPECT_EQ(w.informer->last_error(), "");
  w.stop();
}

TEST_P(EachServer, BookmarksMoveTheStartOfTheNextWatch) {
  Loop loop;
  FakeApiserver api(loop.executor());
  configure(api);
  api.put(config_map("a", "1"));
  Watched w(loop, api);
  w.start();
  loop.idle(20ms);
  // Another kind's changes move the version on; only a bookmark tells this watch.
  corev1::Namespace other;
  other.mutable_metadata()->set_name("other");
  for (int i = 0; i < 10; ++i) api.put(other);
  api.bookmark();
  loop.idle(20ms);
  api.requests.clear();
  api.finish_watches();
  loop.idle(20ms);
  ASSERT_FALSE(api.requests.empty());
  EXPECT_THAT(api.requests.front(), HasSubstr("resourceVersion=111"));
  w.stop();
}

// The same end from any history: random changes, with cuts, duplicates, expiry and restarts thrown in.
TEST_P(EachServer, EndsEqualWhateverTheHistory) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 random(seed);
    const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
    Loop loop;
    FakeApiserver api(loop.executor());
    configure(api);
    Watched w(loop, api);
    for (unsigned i = below(5); i > 0; --i) api.put(config_map("first" + std::to_string(i), "0"));
    w.start();
    for (int step = 0; step < 60; ++step) {
      const auto name = "c" + std::to_string(below(6));
      switch (below(12)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4: api.put(config_map(name, std::to_string(step))); break;
        case 5:
        case 6:
        case 7: api.remove(kind_of<ConfigMap>(), "default/" + name); break;
        case 8: api.resend(1 + below(4)); break;
        case 9: below(2) == 0 ? api.drop_watches() : api.finish_watches(); break;
        case 10: api.bookmark(); break;
        case 11:
          if (below(3) == 0) api.compact(), api.drop_watches();
          break;
      }
      if (below(3) == 0) loop.idle(2ms);
    }
    // Resending ends with the newest event of each object, as a server that replays from an older version does.
    api.put(config_map("last", "x"));
    w.settle();
    w.stop();
  }
}

TEST(Informer, FallsBackToListsWhenTheServerIgnoresInitialEvents) {
  // An old server that does not know sendInitialEvents and answers as to a plain watch, but ends it.
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1"));
  Watched w(loop, api);
  bool first = true;
  api.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    if (!first || r.target.find("sendInitialEvents") == std::string::npos) return std::nullopt;
    first = false;
    http::Response answer;
    answer.headers.set("Content-Type", "application/json");
    answer.body = test::watch_frame("ADDED", *api.objects(kind_of<ConfigMap>()).begin()->second, false);
    return answer;
  };
  w.start();
  w.settle();
  EXPECT_THAT(w.story, ElementsAre("default/a ->1", "synced"));
  EXPECT_THAT(api.requests[1], HasSubstr("GET /api/v1/configmaps?limit=500"));
  w.stop();
}

TEST(Informer, FirstStateCutInTheMiddleIsTakenAgain) {
  Loop loop;
  FakeApiserver api(loop.executor());
  for (int i = 0; i < 5; ++i) api.put(config_map("c" + std::to_string(i), "1"));
  Watched w(loop, api);
  int cuts = 2;
  api.intercept = [&](const http::Request&) -> std::optional<http::Response> {
    if (cuts-- <= 0) return std::nullopt;
    http::Response answer;
    answer.headers.set("Content-Type", "application/json");
    const auto object = api.objects(kind_of<ConfigMap>()).begin()->second;
    const auto frame = test::watch_frame("ADDED", *object, false);
    answer.stream = [frame](http::BodyWriter& out) -> Task<Result<>> {
      auto sent = co_await out.write(frame);
      (void)sent;
      co_return fail(ErrorCode::unavailable, "cut");
    };
    return answer;
  };
  w.start();
  w.settle();
  EXPECT_EQ(w.story.back(), "synced");
  EXPECT_EQ(std::count(w.story.begin(), w.story.end(), "synced"), 1);
  w.stop();
}

TEST(Informer, KeepsTryingWhatIsForbiddenOrBusy) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1"));
  Watched w(loop, api);
  int refusals = 3, refused = 0;
  w.informer->on_refused([&] { ++refused; });
  api.intercept = [&](const http::Request&) -> std::optional<http::Response> {
    switch (refusals--) {
      case 3: return status_response(403, "Forbidden", "configmaps is forbidden: User cannot list");
      case 2: return status_response(500, "InternalError", "no");
      case 1: return status_response(429, "TooManyRequests", "busy");
      default: return std::nullopt;
    }
  };
  w.start();
  EXPECT_THAT(w.story, ElementsAre("default/a ->1", "synced"));
  EXPECT_EQ(w.informer->last_error(), "");
  EXPECT_EQ(refused, 1) << "a busy server has not refused";
  w.stop();
}

TEST(Informer, StopBeforeSyncReleasesWaiters) {
  Loop loop;
  FakeApiserver api(loop.executor());
  Watched w(loop, api);
  api.intercept = [](const http::Request&) -> std::optional<http::Response> {
    return status_response(403, "Forbidden", "never");
  };
  w.informer->start();
  loop.idle(20ms);
  bool released = false;
  const auto wait = [&]() -> Task<> {
    co_await w.informer->wait_synced();
    released = true;
  };
  net::co_spawn(loop.context(), wait, net::detached);
  loop.idle(20ms);
  EXPECT_FALSE(released);
  w.stop();
  loop.idle(5ms);
  EXPECT_TRUE(released);
  EXPECT_FALSE(w.informer->has_synced());
}

TEST(Informer, StopsWhenItsLastOwnerGoes) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1"));
  auto w = std::make_unique<Watched>(loop, api);
  w->start();
  loop.idle(10ms);
  w->informer.reset();
  api.put(config_map("a", "2"));  // its handler refers to *w, which goes now
  w.reset();
  loop.idle(20ms);
  const auto asked = api.requests.size();
  api.finish_watches();
  loop.idle(20ms);
  EXPECT_EQ(api.requests.size(), asked) << "nobody watches any more";
  loop.run([&]() -> Task<> { co_await api.stop(); });
}

TEST(Informer, TransformsBeforeItStores) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1"));
  InformerOptions o;
  o.keep_managed_fields = true;
  o.transform = [](Message& m) { (*static_cast<ConfigMap&>(m).mutable_data())["k"] = "short"; };
  Watched w(loop, api, o);
  w.start();
  EXPECT_EQ(w.informer->get("default/a")->data().at("k"), "short");
  EXPECT_EQ(w.informer->get("default/a")->metadata().managedfields_size(), 1);
  w.stop();
}

TEST(Informer, WatchesOneNamespaceAndPassesSelectorsOn) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1", "one"));
  api.put(config_map("a", "1", "two"));
  InformerOptions o;
  o.ns = "one";
  o.label_selector = "app in (a,b)";
  o.field_selector = "metadata.name=a";
  Watched w(loop, api, o);
  w.start();
  EXPECT_THAT(w.story, ElementsAre("one/a ->1", "synced"));
  EXPECT_THAT(api.requests.front(), HasSubstr("GET /api/v1/namespaces/one/configmaps?"));
  EXPECT_THAT(api.requests.front(), HasSubstr("labelSelector=app%20in%20%28a%2Cb%29&fieldSelector=metadata.name%3Da"));
  w.stop();
}

}  // namespace
}  // namespace fairlead::kube
