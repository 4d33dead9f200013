#include "ingress/runtime/reactor.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

namespace fairlead::ingress {

Handler::~Handler() = default;

Reactor::Reactor() : slots_(kSlots, nullptr) { update_clock(); tick_ = now_ms_ / kTick; }
Reactor::~Reactor() = default;

Result<> Reactor::open() {
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return fail_errno(errno, "epoll_create1");
  wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno(errno, "eventfd");
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.ptr = nullptr;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &e) != 0) return fail_errno(errno, "epoll_ctl");
  return {};
}

Result<> Reactor::add(int fd, Handler& handler, std::uint32_t events) {
  epoll_event e{};
  e.events = events;
  e.data.ptr = &handler;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) != 0) return fail_errno(errno, "epoll_ctl");
  handler.watched_ = fd;
  return {};
}

void Reactor::update_clock() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  now_us_ = std::chrono::duration_cast<std::chrono::microseconds>(t).count();
  now_ms_ = now_us_ / 1000;
}

void Reactor::post(std::function<void()> f) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(f));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_.get(), &one, sizeof(one));
}

void Reactor::stop() {
  post([this] { stop_ = true; });
}

void Reactor::later(Handler& h) {
  if (h.later_) return;
  h.later_ = true;
  later_.push_back(&h);
}

void Reactor::bury(std::unique_ptr<Handler> h) { buried_.push_back(std::move(h)); }

void Reactor::link(Handler& h) {
  // Never in a slot that has gone by already; far deadlines come round again and are linked anew.
  const auto tick = std::clamp(h.deadline_ / kTick + 1, tick_ + 1, tick_ + static_cast<std::int64_t>(kSlots) - 1);
  h.slot_time_ = tick * kTick;
  auto& head = slots_[static_cast<std::size_t>(tick) % kSlots];
  h.prev_ = nullptr;
  h.next_ = head;
  if (head) head->prev_ = &h;
  head = &h;
  h.linked_ = true;
  ++timers_;
}

void Reactor::unlink(Handler& h) {
  if (!h.linked_) return;
  if (h.next_) h.next_->prev_ = h.prev_;
  if (h.prev_) h.prev_->next_ = h.next_;
  else slots_[static_cast<std::size_t>(h.slot_time_ / kTick) % kSlots] = h.next_;
  h.prev_ = h.next_ = nullptr;
  h.linked_ = false;
  --timers_;
}

void Reactor::set_timer(Handler& h, std::int64_t milliseconds) {
  if (milliseconds <= 0) {
    h.deadline_ = 0;
    return;
  }
  h.deadline_ = now_ms_ + milliseconds;
  if (h.linked_ && h.slot_time_ <= h.deadline_ + kTick) return;
  unlink(h);
  link(h);
}

void Reactor::forget(Handler& h) {
  if (const int fd = std::exchange(h.watched_, -1); fd >= 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  h.deadline_ = 0;
  unlink(h);
  if (!h.later_) return;
  std::replace(later_.begin(), later_.end(), &h, static_cast<Handler*>(nullptr));
  std::replace(running_.begin(), running_.end(), &h, static_cast<Handler*>(nullptr));
  h.later_ = false;
}

void Reactor::run_timers() {
  const auto until = now_ms_ / kTick;
  while (tick_ < until) {
    ++tick_;
    Handler* h = slots_[static_cast<std::size_t>(tick_) % kSlots];
    // What is due goes to a list of its own first: callbacks may link and unlink any handler.
    std::vector<Handler*> due;
    for (; h; h = h->next_) due.push_back(h);
    for (auto* one : due) {
      if (!one->linked_ || one->slot_time_ != tick_ * kTick) continue;
      unlink(*one);
      if (one->deadline_ == 0) continue;
      if (one->deadline_ > now_ms_) {
        link(*one);
        continue;
      }
      one->deadline_ = 0;
      one->on_timer();
    }
  }
}

void Reactor::run_posted() {
  std::vector<std::function<void()>> work;
  {
    const std::lock_guard lock(mutex_);
    work.swap(posted_);
  }
  for (auto& f : work) f();
}

void Reactor::run_later() {
  // What is deferred meanwhile waits for the next round, so that one busy connection cannot starve the others.
  running_.swap(later_);
  for (auto*& h : running_) {
    if (!h) continue;
    auto* one = h;
    h = nullptr;
    one->later_ = false;
    one->on_later();
  }
  running_.clear();
}

int Reactor::wait_milliseconds() const {
  if (!later_.empty()) return 0;
  return timers_ > 0 ? static_cast<int>(kTick - now_ms_ % kTick) : 1000;
}

void Reactor::run() {
  std::array<epoll_event, 256> events;
  while (!stop_) {
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_milliseconds());
    update_clock();
    for (int i = 0; i < n; ++i) {
      const auto& e = events[static_cast<std::size_t>(i)];
      if (auto* h = static_cast<Handler*>(e.data.ptr)) {
        h->on_events(e.events);
        continue;
      }
      std::uint64_t count = 0;
      [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof(count));
      run_posted();
    }
    run_timers();
    run_later();
    if (round_end_) round_end_();
    buried_.clear();
  }
}

}  // namespace fairlead::ingress
