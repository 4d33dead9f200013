#include "kube/work_queue.h"

#include "base/event.h"
#include "base/log.h"
#include "kube/key_scheduler.h"

namespace fairlead::kube {

struct WorkQueue::Impl : std::enable_shared_from_this<WorkQueue::Impl> {
  Impl(net::any_io_executor e, std::string n, Reconcile r)
      : executor(std::move(e)),
        name(std::move(n)),
        reconcile(std::move(r)),
        timer(executor),
        idle(std::make_unique<Event>(executor)) {}

  static SteadyTime now() { return std::chrono::steady_clock::now(); }

  void schedule() {
    if (scheduled || stopping || workers == 0) return;
    scheduled = true;
    net::post(executor, [self = shared_from_this()] {
      self->scheduled = false;
      self->pump();
    });
  }

  // Starts as many reconciles as there are free workers and ready keys, and sets the timer for the delayed ones.
  void pump() {
    while (!stopping && running < workers) {
      auto key = keys.take(now());
      if (!key) break;
      ++running;
      net::co_spawn(executor, work(shared_from_this(), std::move(*key)), net::detached);
    }
    if (stopping) return;
    const auto due = keys.next_due();
    if (!due) return;
    timer.expires_at(*due);
    timer.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
      const auto self = weak.lock();
      if (self && !ec) self->pump();
    });
  }

  static Task<> work(std::shared_ptr<Impl> self, std::string key) {
    Result<Next> r;
    try {
      r = co_await self->reconcile(key);
    } catch (const std::exception& e) {
      r = fail(ErrorCode::internal, "exception: {}", e.what());
    }
    --self->running;
    self->finish(key, r);
    if (self->stopping && self->running == 0) self->idle->set();
    self->pump();
  }

  void finish(const std::string& key, const Result<Next>& r) {
    if (r) {
      keys.done(key);
      if (r->again_after.count() > 0) keys.add_at(key, now() + r->again_after);
      return;
    }
    const auto wait = keys.failed(key, now());
    // Conflicts are the normal way of two writers meeting; the next try reads again.
    const auto level = r.error().code == ErrorCode::conflict ? log::Level::debug : log::Level::warn;
    if (!stopping)
      log::at(level, "{}: {}: {}; try {} in {} ms", name, key, r.error().message, keys.failures(key) + 1, wait.count());
  }

  const net::any_io_executor executor;
  const std::string name;
  const Reconcile reconcile;
  KeyScheduler keys;
  net::steady_timer timer;
  std::unique_ptr<Event> idle;
  int workers = 0;
  int running = 0;
  bool scheduled = false;
  bool stopping = false;
};

WorkQueue::WorkQueue(net::any_io_executor executor, std::string name, Reconcile reconcile)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(name), std::move(reconcile))) {}

WorkQueue::~WorkQueue() {
  impl_->stopping = true;
  impl_->timer.cancel();
}

void WorkQueue::run(int workers) {
  impl_->workers += workers;
  impl_->schedule();
}

Task<> WorkQueue::stop() {
  const auto impl = impl_;
  impl->stopping = true;
  impl->timer.cancel();
  if (impl->running == 0) co_return;
  co_await impl->idle->wait();
}

void WorkQueue::add(std::string key) {
  impl_->keys.add(std::move(key));
  impl_->schedule();
}

void WorkQueue::add_after(std::string key, std::chrono::milliseconds delay) {
  impl_->keys.add_at(std::move(key), Impl::now() + delay);
  impl_->schedule();
}

std::size_t WorkQueue::depth() const { return impl_->keys.ready() + impl_->keys.delayed(); }

}  // namespace fairlead::kube
