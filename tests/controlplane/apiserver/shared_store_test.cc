// Two API servers, each a process of its own, on one store: our `fairlead etcd` and Debian's etcd. They serve one cluster: no
// address and no port is handed out twice whatever they are asked at the same time, what one has answered the other shows, and
// when one is killed the other goes on with nothing lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/files.h"
#include "base/pki.h"
#include "controlplane/apiserver/services/claims.h"
#include "kube/codec.h"
#include "tests/base/asio_test_util.h"
#include "tests/controlplane/apiserver/shared_store.h"

namespace fairlead::apiserver {
namespace {

using etcd::await;
using ::testing::HasSubstr;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kAddresses = 29;  // of a /27: without network, broadcast, and the one of default/kubernetes
constexpr int kPorts = 20;

class SharedStoreTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !etcd::RealEtcd::available()) GTEST_SKIP() << "etcd-server is not installed";
    const auto year = std::chrono::hours(24 * 365);
    const auto ca = pki::make_ca("test-ca", year).value();
    const auto pair = pki::make_server(ca, {"kube-apiserver", {}}, {{"localhost"}, {IpAddress::v4(127, 0, 0, 1)}}, year).value();
    ca_ = ca.certificate_pem;
    ASSERT_TRUE(write_file_atomic(dir_.path() + "/server.crt", pair.certificate_pem));
    ASSERT_TRUE(write_file_atomic(dir_.path() + "/server.key", pair.key_pem, 0600));
    ASSERT_TRUE(write_file_atomic(dir_.path() + "/tokens.csv", "test-token,admin,1,\"system:masters\"\n", 0600));
    store_ = std::make_unique<SharedStore>(GetParam());
    start(0);
    start(1);
  }
  void TearDown() override {
    for (auto& c : clients_) c.reset();
    loop_.idle(milliseconds(10));
    for (auto& s : servers_) s.reset();
    store_.reset();
  }
  void start(int i) {
    servers_[i].emplace(dir_.path(), store_->url(), i + 1);
    clients_[i] = servers_[i]->client(loop_.executor(), ca_);
  }
  Answer ask(int server, std::string method, std::string target, std::string body = {}) {
    Answer out;
    auto r = request(std::move(method), std::move(target), std::move(body));
    loop_.run([&]() -> Task<> { out = co_await send(clients_[server], std::move(r)); }, seconds(90));
    return out;
  }
  static std::string service(const std::string& name, const std::string& more = {}) {
    return "{'metadata':{'name':'" + name + "'},'spec':{'type':'NodePort'," + more + "'ports':[{'port':80}]}}";
  }
  // Addresses and ports as the store has them: claims, and what Services say.
  struct Held {
    std::multiset<std::string> addresses, ports;
    bool operator==(const Held&) const = default;
  };
  std::multiset<std::string> names_under(const std::string& prefix) {
    std::multiset<std::string> out;
    for (const auto& kv : store_->keys(prefix)) out.insert(kv.key.substr(prefix.size()));
    return out;
  }
  Held claimed() {
    return {names_under("/registry/ipaddresses/"), names_under("/registry/fairlead/nodeports/")};
  }
  Held used() {
    Held h;
    for (const auto& kv : store_->keys("/registry/services/specs/")) {
      corev1::Service s;
      EXPECT_TRUE(kube::from_protobuf(kv.value, s));
      for (const auto& ip : services::addresses_of(s.spec())) h.addresses.insert(ip.to_string());
      for (const auto p : services::ports_of(s.spec())) h.ports.insert(std::to_string(p));
    }
    return h;
  }
  void expect_claims_agree(const char* when) {
    const auto c = claimed(), u = used();
    EXPECT_EQ(c.addresses, u.addresses) << when;
    EXPECT_EQ(c.ports, u.ports) << when;
  }

  // Many writers that create and delete; each notes what it was given, and whether somebody still has it.
  struct Churn {
    std::map<std::string, std::string> held;  // address or port -> service
    std::set<std::string> acknowledged;       // services that were created and not deleted since
    std::vector<std::string> wrong;
    int created = 0, full = 0, failed = 0;
    bool stop = false;
    int running = 0;
  };
  Task<> churn(std::shared_ptr<http::Client> client, Churn& c, std::string worker, int rounds) {
    std::vector<std::array<std::string, 3>> mine;  // name, address, port
    for (int i = 0; (rounds == 0 || i < rounds) && !c.stop; ++i) {
      const auto name = fmt::format("{}-{}", worker, i);
      auto made = co_await send(client, request("POST", "/api/v1/namespaces/default/services", service(name)));
      if (made.status == 201) {
        ++c.created;
        mine.push_back({name, made.at("/spec/clusterIP"), made.at("/spec/ports/0/nodePort")});
        c.acknowledged.insert(name);
        for (const auto* what : {&mine.back()[1], &mine.back()[2]})
          if (const auto [it, first] = c.held.emplace(*what, name); !first) c.wrong.push_back(*what + " for " + name + " and " + it->second);
      } else if (made.status == 422 && made.body.find("range is full") != std::string::npos) {
        ++c.full;
      } else if (made.status != 0) {
        c.wrong.push_back(made.body);
      } else {
        ++c.failed;
        co_return void(--c.running);  // its server is gone
      }
      if (mine.size() < 2 && made.status == 201) continue;
      if (mine.empty()) continue;
      const auto [gone, ip, port] = mine.front();
      mine.erase(mine.begin());
      c.held.erase(ip);
      c.held.erase(port);
      c.acknowledged.erase(gone);
      auto deleted = co_await send(client, request("DELETE", "/api/v1/namespaces/default/services/" + gone));
      if (deleted.status != 200 && deleted.status != 0) c.wrong.push_back(deleted.body);
    }
    --c.running;
  }
  void run_until(const std::function<bool()>& done, seconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!done() && std::chrono::steady_clock::now() < end) loop_.idle(milliseconds(20));
    EXPECT_TRUE(done()) << "not finished in time";
  }

  etcd::TempDir dir_;
  std::string ca_;
  std::unique_ptr<SharedStore> store_;
  fairlead::test::Loop loop_;
  std::optional<ServerProcess> servers_[2];
  std::shared_ptr<http::Client> clients_[2];
};

TEST_P(SharedStoreTest, ParallelWritersNeverGetOneAddressTwice) {
  Churn c;
  for (int w = 0; w < 16; ++w) {
    ++c.running;
    auto body = churn(clients_[w % 2], c, fmt::format("w{}", w), 25);
    net::co_spawn(loop_.context(), std::move(body), net::detached);
  }
  run_until([&] { return c.running == 0; }, seconds(240));
  EXPECT_THAT(c.wrong, ::testing::IsEmpty());
  EXPECT_EQ(c.failed, 0);
  EXPECT_GT(c.created, 100);
  EXPECT_EQ(c.created + c.full, 16 * 25);
  expect_claims_agree("after the churn");
  // All is released with the last Service: the whole of both ranges can be had again, half through each server.
  for (const auto& name : c.acknowledged) EXPECT_EQ(ask(1, "DELETE", "/api/v1/namespaces/default/services/" + name).status, 200u);
  EXPECT_EQ(claimed().addresses, (std::multiset<std::string>{"10.96.0.1"}));
  EXPECT_THAT(claimed().ports, ::testing::IsEmpty());
  for (int i = 0; i < kAddresses; ++i) {
    auto body = service("all" + std::to_string(i));
    if (i >= kPorts) body = "{'metadata':{'name':'all" + std::to_string(i) + "'},'spec':{'ports':[{'port':80}]}}";
    const auto made = ask(i % 2, "POST", "/api/v1/namespaces/default/services", body);
    EXPECT_EQ(made.status, 201u) << i << " " << made.body;
  }
  const auto none = ask(0, "POST", "/api/v1/namespaces/default/services", "{'metadata':{'name':'more'},'spec':{'ports':[{'port':80}]}}");
  EXPECT_EQ(none.status, 422u);
  EXPECT_THAT(none.body, HasSubstr("failed to allocate a service IP: range is full"));
  expect_claims_agree("when full");
}

TEST_P(SharedStoreTest, OneOfManyGetsTheAddressItAsksFor) {
  for (int round = 0; round < 10; ++round) {
    int won = 0, running = 12;
    std::vector<std::string> wrong;
    const auto body = [&](int i) -> Task<> {
      const auto name = fmt::format("s{}-{}", round, i);
      const auto spec = i % 3 == 0   ? service(name, "'clusterIP':'10.96.0.9',")
                        : i % 3 == 1 ? "{'metadata':{'name':'" + name + "'},'spec':{'type':'NodePort','ports':[{'port':80,'nodePort':30007}]}}"
                                     : "{'metadata':{'name':'" + name + "'},'spec':{'clusterIP':'10.96.0.9','type':'NodePort','ports':[{'port':80,'nodePort':30007}]}}";
      auto made = co_await send(clients_[i % 2], request("POST", "/api/v1/namespaces/default/services", spec));
      if (made.status == 201) {
        ++won;
      } else if (made.status != 422 || (made.body.find("provided IP is already allocated") == std::string::npos &&
                                        made.body.find("provided port is already allocated") == std::string::npos)) {
        wrong.push_back(made.body);
      }
      --running;
    };
    for (int i = 0; i < 12; ++i) net::co_spawn(loop_.context(), body(i), net::detached);
    run_until([&] { return running == 0; }, seconds(60));
    EXPECT_THAT(wrong, ::testing::IsEmpty());
    EXPECT_GE(won, 1);
    EXPECT_LE(won, 2) << "one has the address, one the port, or one has both";
    expect_claims_agree("after a race");
    // The dry run says what a write would meet, on the server that did not write it.
    const auto dry = service("dry", "'clusterIP':'10.96.0.9',");
    const auto holder = claimed().addresses.count("10.96.0.9");
    for (int s = 0; s < 2; ++s) EXPECT_EQ(ask(s, "POST", "/api/v1/namespaces/default/services?dryRun=All", dry).status, holder ? 422u : 201u);
    EXPECT_EQ(ask(round % 2, "DELETE", "/api/v1/namespaces/default/services?labelSelector=%21component").status, 200u);
    EXPECT_THAT(claimed().ports, ::testing::IsEmpty());
  }
}

TEST_P(SharedStoreTest, WhatOneAnswersTheOtherShows) {
  const auto list = ask(1, "GET", "/api/v1/namespaces/default/configmaps");
  std::vector<std::string> seen;
  std::int64_t last = std::stoll(list.at("/metadata/resourceVersion"));
  bool ordered = true, ended = false;
  const auto watch = [&](std::string from) -> Task<> {
    auto r = request("GET", "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=" + from);
    auto stream = co_await clients_[1]->open(std::move(r), seconds(30));
    std::string buffer;
    while (stream && !ended) {
      auto some = co_await (*stream)->read_some(seconds(60));
      if (!some || some->empty()) co_return;
      buffer += *some;
      for (auto end = buffer.find('\n'); end != std::string::npos; end = buffer.find('\n')) {
        const Answer event{200, buffer.substr(0, end)};
        buffer.erase(0, end + 1);
        const auto revision = std::stoll(event.at("/object/metadata/resourceVersion"));
        ordered = ordered && revision > last;
        last = revision;
        seen.push_back(event.at("/type") + " " + event.at("/object/metadata/name"));
        ended = event.at("/object/metadata/name") == "end";
      }
    }
  };
  net::co_spawn(loop_.context(), watch(list.at("/metadata/resourceVersion")), net::detached);
  std::vector<std::string> done;
  for (int i = 0; i < 60; ++i) {
    const auto name = "c" + std::to_string(i);
    const int writer = i % 2;
    const auto made = ask(writer, "POST", "/api/v1/namespaces/default/configmaps", "{'metadata':{'name':'" + name + "'}}");
    ASSERT_EQ(made.status, 201u) << made.body;
    done.push_back("ADDED " + name);
    // At once, by every kind of read: the newest, and not older than the write.
    const auto version = made.at("/metadata/resourceVersion");
    EXPECT_EQ(ask(1 - writer, "GET", "/api/v1/namespaces/default/configmaps/" + name).at("/metadata/resourceVersion"), version);
    EXPECT_THAT(ask(1 - writer, "GET", "/api/v1/namespaces/default/configmaps").body, HasSubstr("\"" + name + "\"")) << "a consistent list";
    EXPECT_EQ(ask(1 - writer, "GET", "/api/v1/namespaces/default/configmaps/" + name + "?resourceVersion=" + version).status, 200u);
    if (i % 3 == 0) {
      ASSERT_EQ(ask(1 - writer, "DELETE", "/api/v1/namespaces/default/configmaps/" + name).status, 200u);
      done.push_back("DELETED " + name);
      EXPECT_THAT(ask(writer, "GET", "/api/v1/namespaces/default/configmaps").body, ::testing::Not(HasSubstr("\"" + name + "\"")));
      EXPECT_EQ(ask(writer, "GET", "/api/v1/namespaces/default/configmaps/" + name).status, 404u);
    }
  }
  ASSERT_EQ(ask(0, "POST", "/api/v1/namespaces/default/configmaps", "{'metadata':{'name':'end'}}").status, 201u);
  done.push_back("ADDED end");
  run_until([&] { return ended; }, seconds(60));
  EXPECT_EQ(seen, done);
  EXPECT_TRUE(ordered);
  // A write on an old version is a conflict whoever made the newer one.
  const auto old = ask(0, "GET", "/api/v1/namespaces/default/configmaps/end").at("/metadata/resourceVersion");
  const auto put = "{'metadata':{'name':'end','resourceVersion':'" + old + "'},'data':{'k':'v'}}";
  EXPECT_EQ(ask(1, "PUT", "/api/v1/namespaces/default/configmaps/end", put).status, 200u);
  EXPECT_EQ(ask(0, "PUT", "/api/v1/namespaces/default/configmaps/end", put).status, 409u);
}

TEST_P(SharedStoreTest, OneIsKilledTheOtherGoesOn) {
  const auto endpoints = [&] { return ask(1, "GET", "/api/v1/namespaces/default/endpoints/kubernetes").body; };
  // Both are behind default/kubernetes within a round of its repair.
  run_until([&] { return endpoints().find("192.0.2.1") != std::string::npos && endpoints().find("192.0.2.2") != std::string::npos; }, seconds(60));
  Churn c;
  for (int w = 0; w < 12; ++w) {
    ++c.running;
    auto body = churn(clients_[w % 2], c, fmt::format("k{}", w), 0);
    net::co_spawn(loop_.context(), std::move(body), net::detached);
  }
  run_until([&] { return c.created > 60; }, seconds(120));
  servers_[0]->kill(SIGKILL);
  const int before = c.created;
  run_until([&] { return c.created > before + 60; }, seconds(120));
  c.stop = true;
  run_until([&] { return c.running == 0; }, seconds(120));
  EXPECT_THAT(c.wrong, ::testing::IsEmpty());
  EXPECT_GT(c.failed, 0) << "the killed server had writers";
  expect_claims_agree("after the kill: a Service and its claims are there together or not at all");
  const auto there = names_under("/registry/services/specs/default/");
  for (const auto& name : c.acknowledged) EXPECT_TRUE(there.count(name)) << "acknowledged and lost: " << name;
  run_until([&] { return endpoints().find("192.0.2.1") == std::string::npos; }, seconds(90));
  EXPECT_THAT(endpoints(), HasSubstr("192.0.2.2"));
}

TEST_P(SharedStoreTest, ClaimsAreRepairedAtStart) {
  ASSERT_EQ(ask(0, "POST", "/api/v1/namespaces/default/services", service("old", "'clusterIP':'10.96.0.7',")).status, 201u);
  const auto before = claimed();
  // As a store looks that was written before there were claims, with one that nobody has any more.
  for (const auto* prefix : {"/registry/ipaddresses/", "/registry/fairlead/nodeports/"}) {
    etcd::DeleteRangeRequest del;
    del.key = prefix;
    del.range_end = etcd::prefix_end(prefix);
    ASSERT_TRUE(await(store_->kv().delete_range(del)));
  }
  etcd::PutRequest stray;
  stray.key = "/registry/fairlead/nodeports/30019";
  stray.value = "default/gone";
  ASSERT_TRUE(await(store_->kv().put(stray)));
  clients_[0].reset();
  servers_[0].reset();
  start(0);
  EXPECT_EQ(claimed(), before);
  const auto thief = ask(1, "POST", "/api/v1/namespaces/default/services", service("thief", "'clusterIP':'10.96.0.7',"));
  EXPECT_EQ(thief.status, 422u) << thief.body;
}

TEST_P(SharedStoreTest, AFullStoreIsServedAndCanBeTidied) {
  if (GetParam()) GTEST_SKIP() << "the alarm is raised by hand, in our own store";
  ASSERT_EQ(ask(0, "POST", "/api/v1/namespaces/default/services", service("old")).status, 201u);
  store_->raise_no_space();
  clients_[0].reset();
  servers_[0].reset();
  start(0);
  EXPECT_EQ(ask(0, "GET", "/api/v1/namespaces/default/services/old").status, 200u);
  const auto refused = ask(0, "POST", "/api/v1/namespaces/default/services", service("new"));
  EXPECT_GE(refused.status, 400u);
  EXPECT_THAT(refused.body, HasSubstr("database space exceeded"));
  EXPECT_EQ(ask(0, "DELETE", "/api/v1/namespaces/default/services/old").status, 200u);
  expect_claims_agree("after the deletion");
}

INSTANTIATE_TEST_SUITE_P(OnOurs, SharedStoreTest, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDebiansEtcd, SharedStoreTest, ::testing::Values(true));

// ---- the command line

struct Ran {
  int code = -1;
  std::string text;
};
Ran run_apiserver(std::vector<std::string> flags) {
  const char* bin = ::getenv("FAIRLEAD_BIN");
  ProcessOptions o;
  o.argv = {std::string(bin ? bin : "build/release/bin") + "/fairlead", "apiserver", "--tls-cert-file", "/nowhere", "--tls-private-key-file", "/nowhere"};
  o.argv.insert(o.argv.end(), flags.begin(), flags.end());
  const auto r = run_command(o, {}, seconds(120));
  return r ? Ran{r->status.code, r->stdout_text + r->stderr_text} : Ran{-1, r.error().message};
}

TEST(StoreFlags, SayWhatIsWrong) {
  struct Row {
    std::vector<std::string> flags;
    int code;
    std::string says;
  };
  const Row rows[] = {
      {{"--etcd-servers", "http://127.0.0.1:1", "--data-dir", "/tmp/x"}, 2, "--data-dir excludes --etcd-servers"},
      {{"--etcd-cafile", "/ca"}, 2, "--etcd-cafile, --etcd-certfile and --etcd-keyfile need --etcd-servers"},
      {{"--etcd-servers", "https://127.0.0.1:1", "--etcd-certfile", "/c"}, 2, "--etcd-certfile and --etcd-keyfile belong together"},
      {{"--etcd-servers", "ftp://127.0.0.1:1"}, 1, "--etcd-servers: etcd endpoint ftp://127.0.0.1:1: must be http://, https:// or unix://"},
      {{"--etcd-servers", "http://127.0.0.1:1,https://127.0.0.1:2"}, 1, "--etcd-servers: etcd endpoint https://127.0.0.1:2: mixes http and https"},
      {{"--etcd-servers", "https://127.0.0.1:1", "--etcd-cafile", "/nowhere/ca"}, 1, "--etcd-servers: etcd CA file: "},
      {{"--etcd-servers", "http://127.0.0.1:1", "--etcd-prefix", "registry"}, 2, "--etcd-prefix 'registry': want a path"},
      {{"--etcd-servers", "http://127.0.0.1:1"}, 1, "--etcd-servers: no connection to etcd at ipv4:127.0.0.1:1 within"},
  };
  for (const auto& row : rows) {
    const auto r = run_apiserver(row.flags);
    EXPECT_EQ(r.code, row.code) << r.text;
    EXPECT_THAT(r.text, HasSubstr(row.says));
  }
}

// ---- TLS towards a real etcd that wants client certificates

TEST(StoreTls, ARealEtcdIsReachedWithTheRightCertificatesOnly) {
  if (!etcd::RealEtcd::available()) GTEST_SKIP() << "etcd-server is not installed";
  etcd::TempDir dir;
  const std::chrono::hours day(24);
  const auto file = [&](const std::string& name, const std::string& text) {
    EXPECT_TRUE(write_file_atomic(dir.path() + "/" + name, text, 0600));
    return dir.path() + "/" + name;
  };
  const auto ca = pki::make_ca("etcd-ca", day).value(), other = pki::make_ca("other-ca", day).value();
  const auto server = pki::make_server(ca, {"etcd", {}}, {{"localhost"}, {IpAddress::v4(127, 0, 0, 1)}}, day).value();
  const auto client = pki::make_client(ca, {"apiserver", {}}, day).value(), stranger = pki::make_client(other, {"apiserver", {}}, day).value();
  const etcd::RealEtcd::Options::Tls tls{file("ca.crt", ca.certificate_pem), file("etcd.crt", server.certificate_pem), file("etcd.key", server.key_pem),
                                         file("client.crt", client.certificate_pem), file("client.key", client.key_pem)};
  etcd::RealEtcd::Options o;
  o.tls = tls;
  etcd::RealEtcd real(o);
  auto kv = real.connect();
  ASSERT_TRUE(kv);

  // The API server itself, with its flags: it starts, and what it is given lies in that etcd.
  const auto serving = pki::make_server(ca, {"kube-apiserver", {}}, {{"localhost"}, {IpAddress::v4(127, 0, 0, 1)}}, day).value();
  file("server.crt", serving.certificate_pem);
  file("server.key", serving.key_pem);
  file("tokens.csv", "test-token,admin,1,\"system:masters\"\n");
  {
    ServerProcess apiserver(dir.path(), real.url(0), 1, {"--etcd-cafile", tls.ca, "--etcd-certfile", tls.client_certificate, "--etcd-keyfile", tls.client_key});
    fairlead::test::Loop loop;
    auto http = apiserver.client(loop.executor(), ca.certificate_pem);
    Answer made;
    auto create = request("POST", "/api/v1/namespaces/default/configmaps", "{'metadata':{'name':'over-tls'}}");
    loop.run([&]() -> Task<> { made = co_await send(http, std::move(create)); }, seconds(90));
    EXPECT_EQ(made.status, 201u) << made.body;
    const etcd::RangeRequest key{.key = "/registry/configmaps/default/over-tls"};
    EXPECT_EQ(await(kv->range(key)).value().kvs.size(), 1u);
    http.reset();
    loop.idle(milliseconds(10));
  }

  struct Row {
    const char* what;
    std::string ca, certificate, key, says;
  };
  const auto wrong_ca = file("other.crt", other.certificate_pem);
  const auto stranger_certificate = file("stranger.crt", stranger.certificate_pem), stranger_key = file("stranger.key", stranger.key_pem);
  const Row rows[] = {
      {"another CA", wrong_ca, tls.client_certificate, tls.client_key, "certificate verify failed"},
      {"a certificate of another CA", tls.ca, stranger_certificate, stranger_key, "no connection to etcd"},
      {"no certificate", tls.ca, "", "", "no connection to etcd"},
  };
  for (const auto& row : rows) {
    etcd::RemoteOptions r{.endpoints = real.urls(), .ca_file = row.ca, .certificate_file = row.certificate, .key_file = row.key, .dial_timeout = milliseconds(3000)};
    auto refused = etcd::Remote::connect(r);
    // With TLS 1.3 a client learns only from its first call that its certificate was not taken.
    const etcd::RangeRequest any{.key = "x"};
    if (refused) {
      EXPECT_FALSE(await((*refused)->range(any))) << row.what;
      continue;
    }
    std::string said = refused.error().message;
    for (auto& c : said) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    EXPECT_THAT(said, HasSubstr(row.says)) << row.what;
    EXPECT_THAT(said, HasSubstr(real.url(0).substr(8))) << row.what;
  }
}

}  // namespace
}  // namespace fairlead::apiserver
