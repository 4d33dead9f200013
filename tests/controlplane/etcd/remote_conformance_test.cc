// The conformance suite through the client: against our own server, and against a real etcd.
#include <gtest/gtest.h>

#include "controlplane/etcd/server.h"
#include "tests/controlplane/etcd/kv_suite.h"
#include "tests/controlplane/etcd/real_etcd.h"

namespace fairlead::etcd {
namespace {

struct Ours {
  TempDir dir;
  std::unique_ptr<Store> store;
  std::unique_ptr<Server> server;
  std::shared_ptr<Remote> client;
  ~Ours() {
    client.reset();
    server.reset();
    store.reset();
  }
};

std::shared_ptr<Kv> ours() {
  auto o = std::make_shared<Ours>();
  o->store = Store::open(o->dir.path()).value();
  o->server = Server::start(*o->store, {.listen = {"127.0.0.1:0"}}).value();
  o->client = Remote::connect({.endpoints = {fmt::format("http://127.0.0.1:{}", o->server->port())}}).value();
  auto* kv = o->client.get();
  return std::shared_ptr<Kv>(std::move(o), kv);
}

}  // namespace
}  // namespace fairlead::etcd

int main(int argc, char** argv) {
  using namespace fairlead::etcd;
  testing::InitGoogleTest(&argc, argv);
  register_kv_suite("OverGrpc", ours);
  std::unique_ptr<RealEtcd> etcd;  // one for the whole suite
  std::shared_ptr<Remote> client;
  if (RealEtcd::available())
    register_kv_suite("RealEtcd", [&]() -> std::shared_ptr<Kv> {
      if (!etcd) {
        etcd = std::make_unique<RealEtcd>();
        client = etcd->connect();
      }
      return client;
    }, chosen_etcd().empty());  // Debian's 3.4 has bugs that the suite knows
  else
    std::puts("etcd-server is not installed: the suite runs on our own server only");
  const int failed = RUN_ALL_TESTS();
  client.reset();
  return failed;
}
