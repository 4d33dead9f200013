// The conformance suite on the embedded store, with the log table used at once and with everything kept in memory.
#include <gtest/gtest.h>

#include "controlplane/etcd/store.h"
#include "tests/controlplane/etcd/kv_suite.h"
#include "tests/controlplane/etcd/testing.h"

namespace fairlead::etcd {
namespace {

struct Opened {
  TempDir dir;
  std::unique_ptr<Store> store;
};

std::shared_ptr<Kv> open(StoreOptions options) {
  auto o = std::make_shared<Opened>();
  auto store = Store::open(o->dir.path(), std::move(options));
  if (!store) {
    ADD_FAILURE() << store.error().message;
    return nullptr;
  }
  o->store = std::move(*store);
  auto* kv = o->store.get();
  return std::shared_ptr<Kv>(std::move(o), kv);
}

}  // namespace
}  // namespace fairlead::etcd

int main(int argc, char** argv) {
  using namespace fairlead::etcd;
  testing::InitGoogleTest(&argc, argv);
  register_kv_suite("InMemory", [] { return open({}); });
  register_kv_suite("FromDisk", [] {
    StoreOptions o;
    o.flush_bytes = 1;
    o.flush_interval = std::chrono::milliseconds(1);
    o.keep_recent_bytes = 0;
    return open(o);
  });
  return RUN_ALL_TESTS();
}
