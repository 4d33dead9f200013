// Pools from the API: an HTTPS server that lists and watches custom resources of metallb.io, as a cluster with MetalLB's
// definitions does.
#include "lb/pool_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/files.h"
#include "base/pki.h"
#include "lb/pool_watch.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::lb {
namespace {

using kube::test::FakeApiserver;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class PoolsFromApi : public testing::Test {
 protected:
  PoolsFromApi() {
    const auto ca = pki::make_ca("ca", std::chrono::hours(1));
    const auto server = pki::make_server(*ca, {"api", {}}, {{"localhost"}, {IpAddress::v4(127, 0, 0, 1)}}, std::chrono::hours(1));
    EXPECT_TRUE(make_dirs(dir_));
    EXPECT_TRUE(write_file_atomic(dir_ + "/tls.crt", server->certificate_pem));
    EXPECT_TRUE(write_file_atomic(dir_ + "/tls.key", server->key_pem));
    api_ = std::make_unique<FakeApiserver>(io_.get_executor(), http::TlsOptions{dir_ + "/tls.crt", dir_ + "/tls.key", {}});
    api_->intercept = [this](const http::Request& r) { return answer(r); };
    kube::RestConfig config;
    config.server = api_->url();
    config.ca_pem = ca->certificate_pem;
    client_ = *kube::make_client(io_.get_executor(), config, "pools-test/1");
  }
  ~PoolsFromApi() override {
    if (watch_) stop();
    api_.reset();
    io_.restart();
    io_.poll();
    std::filesystem::remove_all(dir_);
  }

  // A list is what there is; a watch tells of what came since, and ends, so that the client asks again.
  std::optional<http::Response> answer(const http::Request& r) {
    for (const auto& [resource, objects] : served_) {
      const auto path = fmt::format("/apis/metallb.io/{}/namespaces/metallb-system/{}", resource == "bgppeers" ? "v1beta2" : "v1beta1", resource);
      if (r.target.substr(0, r.target.find('?')) != path) continue;
      ++calls_[resource];
      http::Response out;
      out.headers.set("Content-Type", "application/json");
      if (r.target.find("sendInitialEvents=true") != std::string::npos) return kube::test::status_response(422, "Invalid", "sendInitialEvents: Forbidden");
      if (r.target.find("watch=") == std::string::npos) {
        out.body = fmt::format(R"({{"kind":"List","apiVersion":"metallb.io/v1beta1","metadata":{{"resourceVersion":"{}"}},"items":[)", version_);
        for (const auto& [name, o] : objects) out.body += (out.body.ends_with('[') ? "" : ",") + o.json;
        out.body += "]}";
        return out;
      }
      const auto at = r.target.find("resourceVersion=");
      const auto from = at == std::string::npos ? 0 : std::stoull(r.target.substr(at + 16));
      for (const auto& [name, o] : objects)
        if (o.version > from) out.body += fmt::format("{{\"type\":\"{}\",\"object\":{}}}\n", o.fresh ? "ADDED" : "MODIFIED", o.json);
      return out;
    }
    // A kind that the cluster has no definition of.
    return kube::test::status_response(404, "NotFound", "the server could not find the requested resource");
  }
  void put(const std::string& kind, const std::string& resource, const std::string& name, const std::string& spec) {
    auto& all = served_[resource];
    const bool fresh = !all.contains(name);
    ++version_;
    all[name] = {version_, fresh,
                 fmt::format(R"({{"apiVersion":"metallb.io/{}","kind":"{}","metadata":{{"name":"{}","namespace":"metallb-system","uid":"u-{}","resourceVersion":"{}"}},"spec":{}}})",
                             resource == "bgppeers" ? "v1beta2" : "v1beta1", kind, name, name, version_, spec)};
  }
  void start() {
    watch_ = std::make_unique<PoolWatch>(make_pool_source(client_, {.dir = {}, .ns = "metallb-system"}));
    ASSERT_TRUE(watch_->start());
    EXPECT_FALSE(watch_->known()) << "what has not been listed is neither empty nor anything else";
  }
  void stop() {
    bool done = false;
    net::co_spawn(
        io_,
        [](PoolWatch* w, bool* d) -> Task<> {
          co_await w->stop();
          *d = true;
        }(watch_.get(), &done),
        net::detached);
    EXPECT_TRUE(until([&] { return done; }));
    watch_.reset();
  }
  bool until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.restart();
      io_.run_for(std::chrono::milliseconds(5));
      if (watch_) watch_->look();
    }
    return true;
  }

  struct Object {
    std::uint64_t version = 0;
    bool fresh = true;
    std::string json;
  };
  std::string dir_ = fmt::format("/tmp/fairlead-pools-api-{}", ::getpid());
  net::io_context io_;
  std::unique_ptr<FakeApiserver> api_;
  std::shared_ptr<kube::Client> client_;
  std::unique_ptr<PoolWatch> watch_;
  std::map<std::string, std::map<std::string, Object>> served_;  // by resource, by name
  std::map<std::string, int> calls_;
  std::uint64_t version_ = 10;
};

TEST_F(PoolsFromApi, ListedFollowedAndTheLastGoodFormKept) {
  put("IPAddressPool", "ipaddresspools", "first", R"({"addresses":["192.0.2.0/24"]})");
  put("L2Advertisement", "l2advertisements", "all", "{}");
  put("BGPPeer", "bgppeers", "tor", R"({"myASN":64512,"peerASN":64500,"peerAddress":"192.0.2.254","bfdProfile":"fast"})");
  put("BGPAdvertisement", "bgpadvertisements", "all", R"({"communities":["64512:1"]})");
  put("Community", "communities", "none", "{}");
  start();
  ASSERT_TRUE(until([&] { return watch_->known() && watch_->pools().peers.size() == 1 && watch_->pools().bgp.size() == 1 && watch_->pools().l2.size() == 1; }));
  ASSERT_EQ(watch_->pools().pools.size(), 1u);
  const auto first = watch_->news();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].first.kind(), "BGPPeer");
  EXPECT_EQ(first[0].first.namespace_(), "metallb-system");
  EXPECT_EQ(first[0].first.name(), "tor");
  EXPECT_EQ(first[0].first.apiversion(), "metallb.io/v1beta2");
  EXPECT_FALSE(first[0].second.refused);
  EXPECT_THAT(watch_->news(), IsEmpty()) << "told once";
  // A new pool comes; an old one goes bad: it keeps its addresses, and its object is named.
  put("IPAddressPool", "ipaddresspools", "second", R"({"addresses":["198.51.100.0/24"]})");
  ASSERT_TRUE(until([&] { return watch_->pools().pools.size() == 2; }));
  put("IPAddressPool", "ipaddresspools", "first", R"({"addresses":["nonsense"]})");
  ASSERT_TRUE(until([&] { return watch_->stale(); }));
  EXPECT_TRUE(watch_->pools().find("first")->contains(*IpAddress::parse("192.0.2.7")));
  const auto second = watch_->news();
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].first.kind(), "IPAddressPool");
  EXPECT_EQ(second[0].first.name(), "first");
  EXPECT_EQ(second[0].first.uid(), "u-first");
  EXPECT_TRUE(second[0].second.refused);
  EXPECT_THAT(second[0].second.message, HasSubstr("spec.addresses[0]"));
  put("IPAddressPool", "ipaddresspools", "first", R"({"addresses":["192.0.2.0/25"]})");
  ASSERT_TRUE(until([&] { return !watch_->stale(); }));
  // One that overlaps another is refused by name.
  put("IPAddressPool", "ipaddresspools", "third", R"({"addresses":["192.0.2.100-192.0.2.101"]})");
  ASSERT_TRUE(until([&] { return watch_->stale(); }));
  const auto third = watch_->news();
  ASSERT_EQ(third.size(), 1u);
  EXPECT_EQ(third[0].first.name(), "third");
  EXPECT_THAT(third[0].second.message, HasSubstr("overlaps IPAddressPool first"));
  EXPECT_FALSE(watch_->pools().find("first")->contains(*IpAddress::parse("192.0.2.200")));
}

TEST_F(PoolsFromApi, WithoutDefinitionsNothingIsKnownUntilTheyCome) {
  start();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  until([&] { return std::chrono::steady_clock::now() > end; });
  EXPECT_FALSE(watch_->known());
  put("IPAddressPool", "ipaddresspools", "first", R"({"addresses":["192.0.2.0/24"]})");
  EXPECT_TRUE(until([&] { return watch_->known(); })) << "the other kinds may be missing";
  EXPECT_EQ(watch_->pools().pools.size(), 1u);
}

TEST_F(PoolsFromApi, OnceForACommand) {
  put("IPAddressPool", "ipaddresspools", "first", R"({"addresses":["192.0.2.0/24"]})");
  std::optional<Result<std::vector<PoolText>>> read;
  net::co_spawn(io_, read_pools_once(client_, {.dir = {}, .ns = "metallb-system"}), [&](std::exception_ptr, Result<std::vector<PoolText>> r) { read = std::move(r); });
  ASSERT_TRUE(until([&] { return read.has_value(); }));
  ASSERT_TRUE(*read) << read->error().message;
  EXPECT_EQ(parse_pools(**read).set.pools.size(), 1u);
}

TEST(PoolLocation, OneOfBoth) {
  EXPECT_TRUE((PoolLocation{"d", ""}).check());
  EXPECT_TRUE((PoolLocation{"", "ns"}).check());
  EXPECT_FALSE((PoolLocation{"d", "ns"}).check());
  EXPECT_FALSE((PoolLocation{}).check());
}

}  // namespace
}  // namespace fairlead::lb
