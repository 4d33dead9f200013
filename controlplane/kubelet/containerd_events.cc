#include "controlplane/kubelet/containerd_events.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <mutex>

#include "controlplane/kubelet/proto/containerd_events.grpc.pb.h"

namespace fairlead::kubelet {
namespace {

namespace events = ::containerd::services::events::v1;
constexpr std::chrono::seconds kRetryAfter{5};

// One Subscribe call. gRPC calls the On... functions on its own threads; done() is told once when all is over.
class Subscription final : public grpc::ClientReadReactor<events::Envelope> {
 public:
  Subscription(std::function<void()> hint, std::function<void()> done) : hint_(std::move(hint)), done_(std::move(done)) {}
  void start(events::Events::Stub& stub) {
    for (const char* topic : {"/tasks/exit", "/tasks/oom"}) request_.add_filters(std::string("topic==\"") + topic + "\"");
    context_.AddMetadata("containerd-namespace", "k8s.io");
    stub.async()->Subscribe(&context_, &request_, this);
    StartRead(&envelope_);
    StartCall();
  }
  void cancel() { context_.TryCancel(); }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    hint_();
    StartRead(&envelope_);
  }
  void OnDone(const grpc::Status&) override { done_(); }

 private:
  std::function<void()> hint_, done_;
  grpc::ClientContext context_;
  events::SubscribeRequest request_;
  events::Envelope envelope_;
};

class Listener final : public ActivityListener {
 public:
  Listener(net::any_io_executor executor, std::shared_ptr<grpc::Channel> channel, std::function<void()> hint)
      : executor_(executor), timer_(executor), stub_(events::Events::NewStub(channel)), hint_(std::move(hint)) {
    subscribe();
  }
  ~Listener() override {
    timer_.cancel();
    std::unique_lock lock(mutex_);
    if (current_) current_->cancel();
    over_.wait(lock, [this] { return !current_; });
  }

 private:
  void subscribe() {
    std::lock_guard lock(mutex_);
    const std::weak_ptr<int> alive = alive_;
    current_ = std::make_unique<Subscription>(
        [this, alive] {
          net::post(executor_, [this, alive] {
            if (alive.lock()) hint_();
          });
        },
        [this, alive] { ended(alive); });
    current_->start(*stub_);
  }
  // On a gRPC thread; the destructor waits for it.
  void ended(const std::weak_ptr<int>& alive) {
    net::post(executor_, [this, alive] {
      if (!alive.lock()) return;
      timer_.expires_after(kRetryAfter);
      timer_.async_wait([this, alive](const boost::system::error_code& ec) {
        if (!ec && alive.lock()) subscribe();
      });
    });
    std::lock_guard lock(mutex_);
    finished_ = std::move(current_);  // destroyed by the next one: gRPC is still inside it
    over_.notify_all();
  }

  net::any_io_executor executor_;
  net::steady_timer timer_;
  std::unique_ptr<events::Events::Stub> stub_;
  std::function<void()> hint_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  std::mutex mutex_;
  std::condition_variable over_;
  std::unique_ptr<Subscription> current_, finished_;
};

}  // namespace

std::unique_ptr<ActivityListener> listen_containerd_events(net::any_io_executor executor, std::shared_ptr<grpc::Channel> channel,
                                                           std::function<void()> hint) {
  return std::make_unique<Listener>(std::move(executor), std::move(channel), std::move(hint));
}

}  // namespace fairlead::kubelet
