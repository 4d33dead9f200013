// Reactor: one epoll instance, its timers and its thread. Everything of a worker lives on it; other threads reach it by post().
// Descriptors are registered once, edge triggered, so a request costs no epoll_ctl. Timers are coarse (50 ms) and lazy: moving a
// deadline further away is one store. Handlers are deleted at the end of a round, so a callback may end its own object.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace fairlead::ingress {

class Reactor;

class Handler {
 public:
  virtual ~Handler();
  virtual void on_events(std::uint32_t events) = 0;  // EPOLLIN and so on
  virtual void on_timer() {}
  virtual void on_later() {}

 private:
  friend class Reactor;
  std::int64_t deadline_ = 0;  // 0: none
  std::int64_t slot_time_ = 0;
  Handler* prev_ = nullptr;
  Handler* next_ = nullptr;
  bool linked_ = false;
  bool later_ = false;
  int watched_ = -1;  // the descriptor given to add()
};

class Reactor {
 public:
  Reactor();
  ~Reactor();
  Result<> open();
  void run();   // until stop()
  void stop();  // any thread

  Result<> add(int fd, Handler& handler, std::uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  void post(std::function<void()> f);  // any thread
  void later(Handler& handler);        // on_later() at the end of this round
  void bury(std::unique_ptr<Handler> handler);
  // Milliseconds from now; 0 takes the timer away.
  void set_timer(Handler& handler, std::int64_t milliseconds);
  // It is about to go; before its descriptor is closed. Closing alone does not end the events: a child process that is just being
  // started holds the same open file for a moment.
  void forget(Handler& handler);
  std::int64_t now_ms() const { return now_ms_; }       // steady, of this round
  std::int64_t now_us() const { return now_us_; }
  // Called once a round after all events and deferred work.
  void set_round_end(std::function<void()> f) { round_end_ = std::move(f); }

 private:
  static constexpr std::int64_t kTick = 50;
  static constexpr std::size_t kSlots = 2048;
  void update_clock();
  void link(Handler& h);
  void unlink(Handler& h);
  void run_timers();
  void run_posted();
  void run_later();
  int wait_milliseconds() const;

  Fd epoll_, wake_;
  std::int64_t now_ms_ = 0, now_us_ = 0, tick_ = 0;
  std::vector<Handler*> slots_;
  std::size_t timers_ = 0;
  std::vector<Handler*> later_, running_;
  std::vector<std::unique_ptr<Handler>> buried_;
  std::function<void()> round_end_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  bool stop_ = false;
};

}  // namespace fairlead::ingress
