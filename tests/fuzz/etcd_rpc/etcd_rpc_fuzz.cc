// What a client may send to the store's gRPC port: any bytes end in answers or in the end of the connection, the same whether
// they come in one piece or in two, and no call is left over.
#include <string>

#include "controlplane/etcd/proto/rpc.pb.h"
#include "controlplane/etcd/rpc/session.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead::etcd;

namespace {

constexpr std::size_t kMessage = 4096;
int served = 0;

class Echo final : public rpc::StreamHandler {
 public:
  explicit Echo(rpc::CallPtr call) : call_(std::move(call)) {}
  void on_message(std::string_view bytes) override {
    FUZZ_CHECK(bytes.size() <= kMessage, "a message is never larger than the limit");
    FUZZ_CHECK(!ended_ && !gone_, "nothing comes after the end");
    ++served;
    etcdserverpb::RangeRequest m;
    m.set_key(std::string(bytes));
    call_->send(m);
  }
  void on_end() override {
    ended_ = true;
    call_->finish({});
  }
  void on_gone() override { gone_ = true; }

 private:
  rpc::CallPtr call_;
  bool ended_ = false, gone_ = false;
};

const rpc::Methods& methods() {
  static const rpc::Methods all = [] {
    rpc::Methods m;
    m.add("/etcdserverpb.KV/Put", rpc::unary<etcdserverpb::PutRequest>([](const rpc::CallPtr& call, const etcdserverpb::PutRequest& r) {
            ++served;
            call->reply(r);
          }));
    rpc::Method stream;
    stream.stream = [](const rpc::CallPtr& call) { return std::make_shared<Echo>(call); };
    m.add("/etcdserverpb.Watch/Watch", std::move(stream));
    return m;
  }();
  return all;
}

class Client final : public rpc::Session {
 public:
  explicit Client(std::shared_ptr<std::atomic<std::size_t>> live) : Session(methods(), {.message_bytes = kMessage}, std::move(live)) {}
  bool take(std::string_view bytes) {
    Events events;
    const bool more = receive(bytes, events);
    dispatch(std::move(events));
    flush();
    return more;
  }
  void flush() {
    while (std::exchange(output_, false)) {
      Events events;
      {
        std::lock_guard lock(mutex_);
        produce(out, SIZE_MAX, events);
      }
      dispatch(std::move(events));
    }
  }
  void end() {
    Events events;
    gone(events);
    dispatch(std::move(events));
  }
  std::string out;

 private:
  void has_output() override { output_ = true; }
  bool output_ = false;
};

int run(std::string_view a, std::string_view b) {
  served = 0;
  const auto live = std::make_shared<std::atomic<std::size_t>>(0);
  {
    const auto client = std::make_shared<Client>(live);
    client->open({});
    if (client->take(a) && !b.empty()) client->take(b);
    client->end();
  }
  FUZZ_CHECK(*live == 0, "no call is left over");
  return served;
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  const int whole = run(bytes, {});
  const int halves = run(bytes.substr(0, bytes.size() / 2), bytes.substr(bytes.size() / 2));
  FUZZ_CHECK(whole == halves, "how bytes are cut makes no difference");
}
