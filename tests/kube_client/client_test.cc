// The Kubernetes client against a scripted apiserver.
#include "kube/client.h"

#include <gmock/gmock.h>

#include "base/files.h"
#include "kube/api_error.h"
#include "kube/object.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/watch_frames.h"
#include "tests/base/asio_test_util.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::kube {
namespace {

using namespace std::chrono_literals;
using fairlead::test::Loop;
using fairlead::test::value;
using test::FakeApiserver;
using test::status_response;
using testing::ElementsAre;
using testing::HasSubstr;

corev1::ConfigMap config_map(const std::string& name, const std::string& data, const std::string& ns = "default") {
  corev1::ConfigMap c;
  c.mutable_metadata()->set_namespace_(ns);
  c.mutable_metadata()->set_name(name);
  (*c.mutable_data())["k"] = data;
  return c;
}

std::shared_ptr<Client> connect(Loop& loop, const FakeApiserver& api, RestConfig config = {}, ClientTuning tuning = {}) {
  config.server = api.url();
  return value(make_client(loop.executor(), config, "tester/1.0", tuning));
}

class EachFormat : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Format, EachFormat, testing::Values(true, false),
                         [](const auto& i) { return i.param ? "protobuf" : "json"; });

TEST_P(EachFormat, CreateGetUpdateListDelete) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.protobuf = GetParam();
  const auto client = connect(loop, api);
  loop.run([&]() -> Task<> {
    const auto a = config_map("a", "1");
    auto created = value(co_await client->create<corev1::ConfigMap>(a));
    EXPECT_EQ(created.metadata().resourceversion(), "101");
    auto again = co_await client->create<corev1::ConfigMap>(a);
    EXPECT_EQ(again.error().code, ErrorCode::already_exists);
    EXPECT_EQ(again.error().message, "configmaps \"default/a\" already exists");
    (*created.mutable_data())["k"] = "2";
    const auto stale = created;
    const auto updated = value(co_await client->update<corev1::ConfigMap>(created));
    EXPECT_EQ(updated.data().at("k"), "2");
    auto conflict = co_await client->update<corev1::ConfigMap>(stale);
    EXPECT_EQ(conflict.error().code, ErrorCode::conflict);
    const auto read = value(co_await client->get<corev1::ConfigMap>("default", "a"));
    EXPECT_EQ(read.SerializeAsString(), updated.SerializeAsString());
    const auto all = value(co_await client->list<corev1::ConfigMap>("default"));
    EXPECT_EQ(all.size(), 1u);
    const auto deleted = co_await client->delete_object(kind_of<corev1::ConfigMap>(), "default", "a", {});
    EXPECT_TRUE(deleted);
    auto gone = co_await client->get<corev1::ConfigMap>("default", "a");
    EXPECT_EQ(gone.error().code, ErrorCode::not_found);
  });
}

TEST(Client, SpeaksJsonToAServerThatRefusesProtobufAndRemembersIt) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.protobuf = false;
  const auto client = connect(loop, api);
  loop.run([&]() -> Task<> {
    const auto a = config_map("a", "1"), b = config_map("b", "1");
    value(co_await client->create<corev1::ConfigMap>(a));
    EXPECT_EQ(api.requests.size(), 2u);  // refused, then JSON
    value(co_await client->create<corev1::ConfigMap>(b));
    EXPECT_EQ(api.requests.size(), 3u);
  });
}

TEST(Client, ListsInPagesAndStartsOverWhenTheSnapshotExpires) {
  Loop loop;
  FakeApiserver api(loop.executor());
  for (int i = 0; i < 25; ++i) api.put(config_map(fmt::format("c{:02}", i), "x"));
  const auto client = connect(loop, api);
  ListOptions by_ten;
  by_ten.page_size = 10;
  loop.run([&]() -> Task<> {
    const auto all = value(co_await client->list<corev1::ConfigMap>("", by_ten));
    EXPECT_EQ(all.size(), 25u);
    EXPECT_EQ(all.front().metadata().name(), "c00");
    EXPECT_EQ(all.back().metadata().name(), "c24");
    EXPECT_EQ(api.requests.size(), 3u);
    api.requests.clear();
    api.intercept = [](const http::Request& r) -> std::optional<http::Response> {
      if (r.target.find("continue=") == std::string::npos) return std::nullopt;
      return status_response(410, "Expired", "The provided continue parameter is too old");
    };
    const auto whole = value(co_await client->list<corev1::ConfigMap>("", by_ten));
    EXPECT_EQ(whole.size(), 25u);
    EXPECT_EQ(api.requests.size(), 3u);
    EXPECT_EQ(api.requests.back(), "GET /api/v1/configmaps");
  });
}

TEST(Client, MapsEveryAnswerToACode) {
  struct Case {
    unsigned status;
    const char* reason;
    ErrorCode code;
  };
  const Case cases[] = {
      {400, "BadRequest", ErrorCode::invalid_argument},
      {401, "Unauthorized", ErrorCode::unauthenticated},
      {403, "Forbidden", ErrorCode::permission_denied},
      {404, "NotFound", ErrorCode::not_found},
      {405, "MethodNotAllowed", ErrorCode::unimplemented},
      {409, "AlreadyExists", ErrorCode::already_exists},
      {409, "Conflict", ErrorCode::conflict},
      {410, "Gone", ErrorCode::expired},
      {410, "Expired", ErrorCode::expired},
      {413, "RequestEntityTooLarge", ErrorCode::invalid_argument},
      {422, "Invalid", ErrorCode::invalid_argument},
      {429, "TooManyRequests", ErrorCode::unavailable},
      {500, "InternalError", ErrorCode::unavailable},
      {503, "ServiceUnavailable", ErrorCode::unavailable},
      {504, "Timeout", ErrorCode::unavailable},
  };
  Loop loop;
  FakeApiserver api(loop.executor());
  const auto client = connect(loop, api);
  for (const auto& c : cases)
    for (const int form : {0, 1, 2}) {  // Status as JSON, as protobuf, and no Status at all (a proxy in between)
      SCOPED_TRACE(fmt::format("{} {} form {}", c.status, c.reason, form));
      api.intercept = [&](const http::Request&) -> std::optional<http::Response> {
        auto r = status_response(c.status, c.reason, "the reason", form == 1);
        if (form == 2) {
          r.headers.set("Content-Type", "text/html");
          r.body = "<html>";
        }
        return r;
      };
      loop.run([&]() -> Task<> {
        const auto r = co_await client->get<corev1::ConfigMap>("default", "a");
        const auto code = r ? ErrorCode::internal : r.error().code;
        if (form != 2) {
          EXPECT_EQ(code, c.code);
          EXPECT_EQ(r.error().message, "the reason");
        } else if (c.code != ErrorCode::already_exists) {
          EXPECT_EQ(code, c.code);
        }
      });
    }
}

TEST(Client, RetriesWhatTheServerAsksToRetryWithinTheDeadline) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1"));
  int busy = 2;
  api.intercept = [&](const http::Request&) -> std::optional<http::Response> {
    if (busy-- <= 0) return std::nullopt;
    auto r = status_response(busy == 0 ? 503 : 429, "TooManyRequests", "busy");
    r.headers.set("Retry-After", "0");
    return r;
  };
  const auto client = connect(loop, api);
  loop.run([&]() -> Task<> {
    value(co_await client->get<corev1::ConfigMap>("default", "a"));
    EXPECT_EQ(api.requests.size(), 3u);
    // Longer than the deadline: no waiting, the error at once.
    api.intercept = [&](const http::Request&) -> std::optional<http::Response> {
      auto r = status_response(429, "TooManyRequests", "busy for long");
      r.headers.set("Retry-After", "3600");
      return r;
    };
    const auto begin = std::chrono::steady_clock::now();
    const auto r = co_await client->get<corev1::ConfigMap>("default", "a");
    EXPECT_EQ(r.error().message, "busy for long");
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
    // A 503 without Retry-After is the caller's to judge.
    api.requests.clear();
    api.intercept = [&](const http::Request&) -> std::optional<http::Response> { return status_response(503, "", "down"); };
    const auto down = co_await client->get<corev1::ConfigMap>("default", "a");
    EXPECT_EQ(down.error().code, ErrorCode::unavailable);
    EXPECT_EQ(api.requests.size(), 1u);
  });
}

TEST(Client, ReadsARotatedTokenAgainAfter401) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1"));
  const std::string file = testing::TempDir() + "client_test_token." + std::to_string(::getpid());
  value(write_file_atomic(file, "first\n"));
  std::string good = "Bearer first";
  api.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    if (r.headers.value_or("authorization", "") == good) return std::nullopt;
    return status_response(401, "Unauthorized", "Unauthorized");
  };
  RestConfig config;
  config.token = "stale, the file counts";
  config.token_file = file;
  const auto client = connect(loop, api, config);
  loop.run([&]() -> Task<> {
    value(co_await client->get<corev1::ConfigMap>("default", "a"));
    good = "Bearer second";
    value(write_file_atomic(file, "second\n"));
    value(co_await client->get<corev1::ConfigMap>("default", "a"));
    EXPECT_THAT(api.authorizations, ElementsAre("Bearer first", "Bearer first", "Bearer second"));
    good = "Bearer nobody knows";
    const auto r = co_await client->get<corev1::ConfigMap>("default", "a");
    EXPECT_EQ(r.error().code, ErrorCode::unauthenticated);
  });
  ::unlink(file.c_str());
}

TEST(Client, RefusesGarbageInsteadOfAnObject) {
  struct Case {
    const char* type;
    std::string body;
  };
  const Case cases[] = {
      {"application/json", "{\"kind\":"},
      {"application/json", "[]"},
      {"application/json", ""},
      {"application/vnd.kubernetes.protobuf", "k8s"},
      {"application/vnd.kubernetes.protobuf", std::string("k8s\0\xff\xff\xff", 7)},
      {"application/vnd.kubernetes.protobuf", "{\"kind\":\"ConfigMap\"}"},
      {"text/html", "<html>login please</html>"},
  };
  Loop loop;
  FakeApiserver api(loop.executor());
  const auto client = connect(loop, api);
  for (const auto& c : cases) {
    SCOPED_TRACE(c.body);
    api.intercept = [&](const http::Request&) -> std::optional<http::Response> {
      http::Response r;
      r.headers.set("Content-Type", c.type);
      r.body = c.body;
      return r;
    };
    loop.run([&]() -> Task<> {
      const auto r = co_await client->get<corev1::ConfigMap>("default", "a");
      EXPECT_EQ(r ? ErrorCode::not_found : r.error().code, ErrorCode::internal);
    });
  }
}

TEST(Client, RefusesCallsThatNameNothing) {
  Loop loop;
  FakeApiserver api(loop.executor());
  const auto client = connect(loop, api);
  loop.run([&]() -> Task<> {
    const auto no_name = co_await client->get<corev1::ConfigMap>("default", "");
    EXPECT_EQ(no_name.error().code, ErrorCode::invalid_argument);
    const auto no_namespace = co_await client->get<corev1::ConfigMap>("", "a");
    EXPECT_EQ(no_namespace.error().code, ErrorCode::invalid_argument);
    const auto c = config_map("a", "1", "");
    const auto created = co_await client->create<corev1::ConfigMap>(c);
    EXPECT_EQ(created.error().code, ErrorCode::invalid_argument);
    EXPECT_TRUE(api.requests.empty());
  });
}

TEST(Client, SaysWhenTheServerIsAway) {
  Loop loop;
  FakeApiserver api(loop.executor());
  const auto client = connect(loop, api);
  loop.run([&]() -> Task<> {
    co_await api.stop();
    const auto r = co_await client->get<corev1::ConfigMap>("default", "a");
    EXPECT_EQ(r.error().code, ErrorCode::unavailable) << r.error().message;
    api.start();
    api.put(config_map("a", "1"));
    value(co_await client->get<corev1::ConfigMap>("default", "a"));
  });
}

// ---- watch

std::string type_text(const WatchEvent& e) {
  static const char* const names[] = {"added", "modified", "deleted", "bookmark", "initial_events_end"};
  return fmt::format("{} {}@{}", names[static_cast<int>(e.type)], meta_of(*e.object).name(), e.resource_version);
}

TEST_P(EachFormat, WatchTellsWhatHappensInOrder) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.protobuf = GetParam();
  api.put(config_map("a", "1"));
  const auto client = connect(loop, api);
  WatchOptions options;
  options.initial_events = true;
  loop.run([&]() -> Task<> {
    const auto stream = value(co_await client->watch(kind_of<corev1::ConfigMap>(), "", options));
    std::vector<std::string> told;
    for (int i = 0; i < 6; ++i) {
      const auto e = value(co_await stream->next());
      if (!e) break;
      told.push_back(type_text(*e));
      if (i == 1) {
        api.put(config_map("b", "1"));
        api.put(config_map("a", "2"));
        api.bookmark();
        api.remove(kind_of<corev1::ConfigMap>(), "default/b");
        api.finish_watches();
      }
    }
    EXPECT_THAT(told, ElementsAre("added a@101", "initial_events_end @101", "added b@102", "modified a@103", "bookmark @103",
                                  "deleted b@104"));
    const auto end = value(co_await stream->next());
    EXPECT_FALSE(end);
  });
}

TEST_P(EachFormat, WatchErrors) {
  struct Case {
    const char* story;
    std::function<std::string(bool)> bytes;
    ErrorCode code;
    const char* message;
  };
  const auto status = [](const char* reason, int code) {
    metav1::Status s;
    s.set_status("Failure");
    s.set_reason(reason);
    s.set_code(code);
    s.set_message("told in the stream");
    return s;
  };
  const Case cases[] = {
      {"410 in the stream", [&](bool p) { return test::watch_frame("ERROR", status("Expired", 410), p); }, ErrorCode::expired,
       "told in the stream"},
      {"500 in the stream", [&](bool p) { return test::watch_frame("ERROR", status("InternalError", 500), p); },
       ErrorCode::unavailable, "told"},
      {"unknown type", [&](bool p) { return test::watch_frame("RENAMED", config_map("a", "1"), p); }, ErrorCode::internal,
       "unknown type \"RENAMED\""},
      {"no name", [&](bool p) { return test::watch_frame("ADDED", config_map("", "1"), p); }, ErrorCode::internal,
       "without a name"},
      {"cut in the middle", [&](bool p) { return test::watch_frame("ADDED", config_map("a", "1"), p).substr(0, 30); },
       ErrorCode::unavailable, "in the middle of an event"},
      {"garbage", [&](bool p) { return p ? std::string("\0\0\0\5hello", 9) : std::string("hello\n"); }, ErrorCode::internal, ""},
      {"far too long", [&](bool p) { return p ? std::string("\x7f\xff\xff\xff....") : "{" + std::string(kMaxWatchFrame, ' '); },
       ErrorCode::internal, "bytes"},
  };
  const bool proto = GetParam();
  for (const auto& c : cases) {
    SCOPED_TRACE(c.story);
    Loop loop;
    FakeApiserver api(loop.executor());
    const auto client = connect(loop, api);
    const std::string bytes = c.bytes(proto);
    api.intercept = [&](const http::Request&) -> std::optional<http::Response> {
      http::Response r;
      r.headers.set("Content-Type", proto ? "application/vnd.kubernetes.protobuf;stream=watch" : "application/json");
      r.body = bytes;
      return r;
    };
    loop.run([&]() -> Task<> {
      const auto stream = value(co_await client->watch(kind_of<corev1::ConfigMap>(), "", {}));
      const auto e = co_await stream->next();
      EXPECT_FALSE(e);
      if (!e) {
        EXPECT_EQ(e.error().code, c.code);
        EXPECT_THAT(e.error().message, HasSubstr(c.message));
      }
    });
  }
}

TEST(Watch, ThatIsRefusedGivesTheServersReason) {
  Loop loop;
  FakeApiserver api(loop.executor());
  api.put(config_map("a", "1"));
  api.compact();
  const auto client = connect(loop, api);
  WatchOptions options;
  options.resource_version = "5";
  loop.run([&]() -> Task<> {
    const auto r = co_await client->watch(kind_of<corev1::ConfigMap>(), "", options);
    EXPECT_EQ(r.error().code, ErrorCode::expired);
    EXPECT_EQ(r.error().message, "too old resource version");
  });
}

// ---- frames, without a network

TEST(WatchFrames, JsonInAnyPieces) {
  const std::string text = R"({"type":"ADDED","object":{"a":"}{\"[","b":[1,{"c":"\\"}]}})"
                           "\n \r\n"
                           R"({"type":"X"}{"type":"Y"})";
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    WatchFrames frames(WatchFrames::Format::json);
    std::vector<std::string> got;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      frames.add(text.substr(at, piece));
      for (;;) {
        const auto f = value(frames.next());
        if (!f) break;
        got.emplace_back(*f);
      }
    }
    ASSERT_THAT(
        got, ElementsAre(R"({"type":"ADDED","object":{"a":"}{\"[","b":[1,{"c":"\\"}]}})", R"({"type":"X"})", R"({"type":"Y"})"))
        << "pieces of " << piece;
    EXPECT_TRUE(frames.at_boundary());
  }
}

TEST(WatchFrames, ProtobufInAnyPieces) {
  std::string text;
  for (const std::size_t n : {0u, 1u, 300u}) {
    text += std::string{0, 0, static_cast<char>(n >> 8), static_cast<char>(n)} + std::string(n, 'x');
  }
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    WatchFrames frames(WatchFrames::Format::protobuf);
    std::vector<std::size_t> got;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      frames.add(text.substr(at, piece));
      for (;;) {
        const auto f = value(frames.next());
        if (!f) break;
        got.push_back(f->size());
      }
    }
    ASSERT_THAT(got, ElementsAre(0u, 1u, 300u)) << "pieces of " << piece;
    EXPECT_TRUE(frames.at_boundary());
  }
}

}  // namespace
}  // namespace fairlead::kube
