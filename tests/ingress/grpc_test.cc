// gRPC as its own library speaks it: a client, the router's TLS listener with certificates by name, and a server behind TLS that is
// checked. One answer, streams both ways at once, trailers and errors, deadlines, what the router itself says, and a server that
// goes away under its clients.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/pki.h"
#include "tests/ingress/echo.grpc.pb.h"
#include "tests/ingress/serving.h"

namespace fairlead::ingress {
namespace {

using testing::Echo;
using testing::Text;
using ::testing::HasSubstr;

class EchoService final : public Echo::Service {
 public:
  grpc::Status Unary(grpc::ServerContext* context, const Text* in, Text* out) override {
    ++calls;
    for (const auto& [name, value] : context->client_metadata())
      if (name == "x-asked") context->AddInitialMetadata("x-answered", std::string(value.data(), value.size()));
    context->AddTrailingMetadata("x-trailer", "at the end");
    if (in->text() == "sleep")
      while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    out->set_text(in->text());
    return in->status() == 0 ? grpc::Status::OK : grpc::Status(static_cast<grpc::StatusCode>(in->status()), "as asked: \xc3\xa4%", "details");
  }
  grpc::Status Upload(grpc::ServerContext*, grpc::ServerReader<Text>* in, Text* out) override {
    Text t;
    std::size_t n = 0;
    while (in->Read(&t)) {
      n += t.text().size();
      if (t.status() != 0) return {static_cast<grpc::StatusCode>(t.status()), "enough"};  // while the client still sends
    }
    out->set_text(std::to_string(n));
    return grpc::Status::OK;
  }
  grpc::Status Chat(grpc::ServerContext*, grpc::ServerReaderWriter<Text, Text>* stream) override {
    Text t;
    while (stream->Read(&t))
      if (!stream->Write(t)) break;
    return grpc::Status::OK;
  }
  std::atomic<int> calls{0};
};

class Grpc : public ::testing::Test {
 protected:
  Grpc() {
    start_server(0);
    const auto tls = prefix();
    const auto annotations = fmt::format("{{{0}backend-protocol: GRPCS, {0}proxy-ssl-secret: ca, {0}proxy-ssl-verify: \"on\", {0}proxy-ssl-server-name: \"on\", {0}proxy-body-size: \"0\"}}", tls);
    WorkerOptions o;
    o.https = {{IpAddress::v4(127, 0, 0, 1), 0}};
    router = std::make_unique<Serving>(service_yaml("echo", {"127.0.0.1"}, "default", port) + ingress_yaml("echo", "echo.example", "/", "Prefix", "echo", annotations, "tls: [{hosts: [echo.example, other.example], secretName: front}]") +
                                           secret_yaml("ca", ca.certificate_pem, "", "") + secret_yaml("front", "", front.certificate_pem, front.key_pem),
                                       o);
    stub = Echo::NewStub(channel("echo.example"));
  }
  ~Grpc() override {
    stub.reset();
    server->Shutdown(std::chrono::system_clock::now());
  }
  void start_server(int at) {
    grpc::SslServerCredentialsOptions o;
    o.pem_key_cert_pairs.push_back({back.key_pem, back.certificate_pem});
    grpc::ServerBuilder b;
    b.AddListeningPort(fmt::format("127.0.0.1:{}", at), grpc::SslServerCredentials(o), &port);
    b.RegisterService(&service);
    server = b.BuildAndStart();
    ASSERT_TRUE(server);
  }
  std::shared_ptr<grpc::Channel> channel(const std::string& name) const {
    grpc::ChannelArguments a;
    a.SetSslTargetNameOverride(name);
    a.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel(router->router().bound().at(1).to_string(), grpc::SslCredentials({ca.certificate_pem, "", ""}), a);
  }
  static void soon(grpc::ClientContext& c) { c.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60)); }

  pki::KeyPair ca = *pki::make_ca("grpc", std::chrono::hours(1));
  pki::KeyPair back = *pki::make_server(ca, {"echo", {}}, {{"echo.default.svc"}, {}}, std::chrono::hours(1));
  pki::KeyPair front = *pki::make_server(ca, {"front", {}}, {{"echo.example", "other.example"}, {}}, std::chrono::hours(1));
  EchoService service;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
  std::unique_ptr<Serving> router;
  std::unique_ptr<Echo::Stub> stub;
};

TEST_F(Grpc, OneAnswerWithMetadataBothWays) {
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext c;
    soon(c);
    c.AddMetadata("x-asked", std::to_string(i));
    Text in, out;
    in.set_text(std::string(static_cast<std::size_t>(i) * 5000, 'x'));
    const auto status = stub->Unary(&c, in, &out);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(out.text().size(), in.text().size());
    EXPECT_EQ(c.GetServerInitialMetadata().find("x-answered")->second, std::to_string(i));
    EXPECT_EQ(c.GetServerTrailingMetadata().find("x-trailer")->second, "at the end");
  }
}

TEST_F(Grpc, EveryStatusPassesThrough) {
  for (unsigned code = 1; code <= 16; ++code) {
    grpc::ClientContext c;
    soon(c);
    Text in, out;
    in.set_text("x");
    in.set_status(code);
    const auto status = stub->Unary(&c, in, &out);
    EXPECT_EQ(static_cast<unsigned>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "as asked: \xc3\xa4%");
    EXPECT_EQ(status.error_details(), "details");
  }
}

TEST_F(Grpc, StreamsBothWaysAtOnce) {
  grpc::ClientContext c;
  soon(c);
  auto chat = stub->Chat(&c);
  Text t;
  for (int i = 0; i < 500; ++i) {  // each is answered before the next is sent
    t.set_text(std::to_string(i));
    ASSERT_TRUE(chat->Write(t));
    ASSERT_TRUE(chat->Read(&t)) << i;
    ASSERT_EQ(t.text(), std::to_string(i));
  }
  std::thread writer([&] {
    Text large;
    large.set_text(std::string(100'000, 'y'));
    for (int i = 0; i < 200 && chat->Write(large); ++i) {
    }
    chat->WritesDone();
  });
  int n = 0;
  while (chat->Read(&t)) ++n;
  writer.join();
  EXPECT_EQ(n, 200);
  EXPECT_TRUE(chat->Finish().ok());
}

TEST_F(Grpc, AnEndWhileTheClientStillSends) {
  grpc::ClientContext c;
  soon(c);
  Text out, t;
  auto upload = stub->Upload(&c, &out);
  t.set_text(std::string(10'000, 'z'));
  for (int i = 0; i < 100'000; ++i) {
    t.set_status(i == 10 ? 9 : 0);
    if (!upload->Write(t)) break;
  }
  upload->WritesDone();
  const auto status = upload->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "enough");
}

TEST_F(Grpc, ManyCallsAtOnceFromManyConnections) {
  std::vector<std::thread> clients;
  std::atomic<int> good{0};
  for (int i = 0; i < 8; ++i)
    clients.emplace_back([&, i] {
      grpc::ChannelArguments a;
      a.SetSslTargetNameOverride("echo.example");
      a.SetInt("own", i);  // a connection of its own
      auto mine = Echo::NewStub(grpc::CreateCustomChannel(router->router().bound().at(1).to_string(), grpc::SslCredentials({ca.certificate_pem, "", ""}), a));
      for (int k = 0; k < 50; ++k) {
        grpc::ClientContext c;
        soon(c);
        Text in, out;
        in.set_text(fmt::format("{} {}", i, k));
        if (mine->Unary(&c, in, &out).ok() && out.text() == in.text()) ++good;
      }
    });
  for (auto& t : clients) t.join();
  EXPECT_EQ(good, 400);
}

TEST_F(Grpc, ADeadlineReachesTheServer) {
  grpc::ClientContext c;
  c.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  Text in, out;
  in.set_text("sleep");
  EXPECT_EQ(stub->Unary(&c, in, &out).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(Grpc, WhatTheRouterSaysIsAStatusToo) {
  auto nowhere = Echo::NewStub(channel("other.example"));
  grpc::ClientContext c;
  soon(c);
  Text in, out;
  const auto status = nowhere->Unary(&c, in, &out);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("404"));
}

// The server restarts: calls that it had not begun are made again, and the next ones find it.
TEST_F(Grpc, AServerThatComesBack) {
  const auto call = [&] {
    grpc::ClientContext c;
    soon(c);
    Text in, out;
    in.set_text("x");
    return stub->Unary(&c, in, &out);
  };
  ASSERT_TRUE(call().ok());
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  EXPECT_EQ(call().error_code(), grpc::StatusCode::UNAVAILABLE);
  start_server(port);
  EXPECT_TRUE(eventually([&] { return call().ok(); }));
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(call().ok());
}

}  // namespace
}  // namespace fairlead::ingress
