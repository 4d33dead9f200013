// pods/log: the apiserver asks the node agent over HTTPS with its own certificate and passes the bytes on as they come.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/http/client.h"
#include "base/http/server.h"
#include "tests/base/asio_test_util.h"
#include "tests/controlplane/apiserver/test_server.h"

namespace fairlead::apiserver::test {
namespace {

using fairlead::test::Loop;
using ::testing::HasSubstr;

// A node agent that knows one log.
struct FakeAgent {
  Loop& loop;
  std::unique_ptr<http::Server> server;
  std::string last_target, last_user;
  bool client_left = false;
  net::steady_timer more;

  FakeAgent(Loop& l, const std::string& dir) : loop(l), more(l.executor()) {
    http::ServerOptions o;
    o.listen = {IpAddress::v4(127, 0, 0, 1), 0};
    o.tls = http::TlsOptions{dir + "/server.crt", dir + "/server.key", dir + "/ca.crt"};
    auto made = http::serve(loop.executor(), o, [this](http::Request r) { return answer(this, std::move(r)); });
    EXPECT_TRUE(made) << made.error().message;
    server = std::move(*made);
  }
  static Task<http::Response> answer(FakeAgent* self, http::Request r) {
    self->last_target = r.target;
    self->last_user = r.peer.common_name;
    http::Response out;
    if (r.target.find("/missing") != std::string::npos) {
      out.status = 404;
      out.body = "container not found";
      co_return out;
    }
    out.headers.set("Content-Type", "text/plain");
    out.stream = [self](http::BodyWriter& w) { return follow(self, w); };
    co_return out;
  }
  static Task<Result<>> follow(FakeAgent* self, http::BodyWriter& w) {
    auto one = co_await w.write("first line\n");
    if (!one) co_return one;
    if (self->last_target.find("follow=true") == std::string::npos) co_return Result<>{};
    w.on_closed([self] {
      self->client_left = true;
      self->more.cancel();
    });
    self->more.expires_after(std::chrono::milliseconds(200));
    auto [ec] = co_await self->more.async_wait(use_result);
    (void)ec;
    auto two = co_await w.write("second line\n");
    if (!two) co_return two;
    self->more.expires_after(std::chrono::seconds(20));
    co_await self->more.async_wait(use_result);
    co_return Result<>{};
  }
};

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = std::make_unique<TestServer>([](Options& o) {
      const auto dir = o.tls_certificate_file.substr(0, o.tls_certificate_file.rfind('/'));
      const pki::KeyPair ca{*read_file(dir + "/ca.crt"), *read_file(dir + "/ca.key")};
      const auto mine = pki::make_client(ca, {"kube-apiserver-kubelet-client", {"system:masters"}}, std::chrono::hours(1));
      EXPECT_TRUE(write_file_atomic(dir + "/kubelet-client.crt", mine->certificate_pem));
      EXPECT_TRUE(write_file_atomic(dir + "/kubelet-client.key", mine->key_pem));
      o.kubelet_client_certificate_file = dir + "/kubelet-client.crt";
      o.kubelet_client_key_file = dir + "/kubelet-client.key";
      o.kubelet_ca_file = dir + "/ca.crt";
    });
    agent_ = std::make_unique<FakeAgent>(loop_, server_->dir());
    http::ClientOptions o;
    o.base_url = server_->url();
    o.tls.emplace();
    o.tls->ca_pem = server_->ca().certificate_pem;
    const auto pair = pki::make_client(server_->ca(), {"admin", {"system:masters"}}, std::chrono::hours(1));
    o.tls->certificate_pem = pair->certificate_pem;
    o.tls->key_pem = pair->key_pem;
    client_ = *http::make_client(loop_.executor(), o);
    post("/api/v1/namespaces/default/serviceaccounts", R"({"metadata":{"name":"default"}})");
    post("/api/v1/nodes", R"({"metadata":{"name":"n1"}})");
    const auto status = fmt::format(R"({{"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.1"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":{}}}}}}}}})",
                                    agent_->server->address().port);
    EXPECT_EQ(send("PATCH", "/api/v1/nodes/n1/status", status, "application/merge-patch+json").first, 200u);
    post("/api/v1/namespaces/default/pods", R"({"metadata":{"name":"p"},"spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}]}})");
    post("/api/v1/namespaces/default/pods", R"({"metadata":{"name":"two"},"spec":{"nodeName":"n1","containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}]}})");
    post("/api/v1/namespaces/default/pods", R"({"metadata":{"name":"waiting"},"spec":{"containers":[{"name":"c","image":"i"}]}})");
  }
  void TearDown() override {
    loop_.run([&]() -> Task<> { co_await agent_->server->stop(std::chrono::milliseconds(100)); });
  }
  std::pair<unsigned, std::string> send(std::string method, std::string target, std::string body = {}, std::string type = {}) {
    std::pair<unsigned, std::string> out;
    loop_.run([&]() -> Task<> {
      http::Request r;
      r.method = method;
      r.target = target;
      r.body = body;
      if (!type.empty()) r.headers.set("Content-Type", type);
      auto got = co_await client_->request(std::move(r), std::chrono::seconds(10));
      if (!got) throw std::runtime_error(got.error().message);
      out = {got->status, got->body};
    });
    return out;
  }
  void post(std::string target, std::string body) {
    const auto r = send("POST", target, body, "application/json");
    EXPECT_EQ(r.first, 201u) << r.second;
  }
  static constexpr char kPods[] = "/api/v1/namespaces/default/pods/";
  Loop loop_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<FakeAgent> agent_;
  std::shared_ptr<http::Client> client_;
};

TEST_F(LogTest, PassesParametersAndBytesOn) {
  const auto r = send("GET", std::string(kPods) + "p/log?tailLines=5&timestamps=true");
  EXPECT_EQ(r.first, 200u);
  EXPECT_EQ(r.second, "first line\n");
  EXPECT_EQ(agent_->last_target, "/containerLogs/default/p/c?timestamps=true&tailLines=5");
  EXPECT_EQ(agent_->last_user, "kube-apiserver-kubelet-client");
}

TEST_F(LogTest, FollowsAndLetsGo) {
  std::string text;
  std::unique_ptr<http::ResponseStream> stream;
  loop_.run([&]() -> Task<> {
    http::Request r;
    r.target = std::string(kPods) + "p/log?follow=true";
    auto opened = co_await client_->open(std::move(r), std::chrono::seconds(10));
    if (!opened) throw std::runtime_error(opened.error().message);
    stream = std::move(*opened);
    while (text.find("second") == std::string::npos) {
      auto piece = co_await stream->read_some(std::chrono::seconds(10));
      if (!piece) throw std::runtime_error(piece.error().message);
      text += *piece;
    }
  });
  EXPECT_EQ(text, "first line\nsecond line\n");
  EXPECT_FALSE(agent_->client_left);
  stream.reset();  // the reader goes: so does the apiserver's connection to the agent
  for (int i = 0; i < 100 && !agent_->client_left; ++i) loop_.idle(std::chrono::milliseconds(20));
  EXPECT_TRUE(agent_->client_left);
}

TEST_F(LogTest, SaysWhatIsWrong) {
  struct Row {
    const char* target;
    unsigned status;
    const char* says;
  };
  for (const Row& r : {Row{"nope/log", 404, "pods \\\"nope\\\" not found"},
                       {"two/log", 400, "a container name must be specified for pod two, choose one of: [a b]"},
                       {"p/log?container=x", 400, "container x is not valid for pod p"},
                       {"p/log?tailLines=-1", 422, "tailLines: Invalid value: \\\"-1\\\": must be greater than or equal to 0"},
                       {"p/log?limitBytes=0", 422, "limitBytes: Invalid value: \\\"0\\\": must be greater than 0"},
                       {"waiting/log", 200, ""}}) {
    const auto got = send("GET", std::string(kPods) + r.target);
    EXPECT_EQ(got.first, r.status) << r.target << " " << got.second;
    EXPECT_THAT(got.second, HasSubstr(r.says)) << r.target;
  }
}

}  // namespace
}  // namespace fairlead::apiserver::test
