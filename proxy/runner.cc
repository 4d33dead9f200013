#include "proxy/runner.h"

#include <boost/asio/thread_pool.hpp>

#include "base/log.h"

namespace fairlead::proxy {

using std::chrono::milliseconds;

namespace {
constexpr std::chrono::seconds kTidyAfter{1};
}

struct SyncRunner::Worker {
  net::thread_pool pool{1};
};

SyncRunner::SyncRunner(net::any_io_executor strand, Dataplane& dataplane, ProxyState& state, Planner& planner, const Clock& clock,
                       RunnerOptions options)
    : strand_(std::move(strand)),
      dataplane_(dataplane),
      state_(state),
      planner_(planner),
      clock_(clock),
      options_(options),
      timer_(strand_),
      full_timer_(strand_),
      tidy_timer_(strand_),
      worker_(std::make_unique<Worker>()) {
  dataplane_.on_foreign_change([this, alive = std::weak_ptr(alive_)] {
    net::post(strand_, [this, alive] {
      if (alive.expired()) return;
      log::warn("{}: somebody else changed our rules; comparing them with the plan", dataplane_.name());
      request_full();
    });
  });
}

SyncRunner::~SyncRunner() {
  alive_.reset();
  worker_->pool.join();
  dataplane_.on_foreign_change({});
}

void SyncRunner::begin() {
  begun_ = true;
  request_full();
}

void SyncRunner::notify() {
  if (!wanted_ && queued_) queued_();
  wanted_ = true;
  schedule();
}

void SyncRunner::request_full() {
  full_ = true;
  notify();
}

void SyncRunner::on_worker(std::function<std::function<void()>()> f) {
  net::post(worker_->pool, [this, f = std::move(f), alive = std::weak_ptr(alive_)] {
    auto then = f();
    net::post(strand_, [then = std::move(then), alive] {
      if (!alive.expired() && then) then();
    });
  });
}

void SyncRunner::schedule() {
  if (!begun_ || running_ || !wanted_ || scheduled_) return;
  const auto now = clock_.steady();
  scheduled_ = true;
  const auto go = [this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    scheduled_ = false;
    if (!running_ && wanted_) start();
  };
  if (now >= not_before_) {
    // By a detour through the queue, so that a burst of events that are already there goes out as one.
    net::post(strand_, go);
    return;
  }
  timer_.expires_after(not_before_ - now);
  timer_.async_wait([go](const boost::system::error_code& ec) {
    if (!ec) go();
  });
}

void SyncRunner::start() {
  running_ = true;
  wanted_ = false;
  const bool full = std::exchange(full_, false);
  const auto begin = clock_.steady();
  not_before_ = begin + options_.min_interval;
  const std::size_t services = state_.pending_services(), endpoints = state_.pending_endpoints();
  auto changes = state_.take(full);
  auto delta = planner_.update(changes);
  unconfirmed_changes_.insert(unconfirmed_changes_.end(), std::make_move_iterator(changes.begin()), std::make_move_iterator(changes.end()));
  for (auto& [key, plan] : delta.services) unconfirmed_[key] = std::move(plan);
  auto times = state_.take_trigger_times();
  unconfirmed_times_.insert(unconfirmed_times_.end(), times.begin(), times.end());
  PlanDelta job = full ? planner_.current().full_delta() : PlanDelta{planner_.current().global, false, false, {}};
  job.relist = std::exchange(relist_, false);
  if (!full) job.services.assign(unconfirmed_.begin(), unconfirmed_.end());
  auto work = [this, job = std::move(job), brought = std::exchange(unconfirmed_changes_, {}), node = planner_.node(), begin, full, services,
               endpoints, alive = std::weak_ptr(alive_)]() mutable {
    auto report = dataplane_.apply(job);
    const auto took = clock_.steady() - begin;
    if (report && after_apply_) after_apply_(brought, node);
    net::post(strand_, [=, this, report = std::move(report), job = std::move(job), brought = std::move(brought)]() mutable {
      if (alive.expired()) return;
      if (!report) {
        full_ |= full;  // the job was everything, and so must the next one be
        unconfirmed_changes_.insert(unconfirmed_changes_.begin(), std::make_move_iterator(brought.begin()), std::make_move_iterator(brought.end()));
      }
      finish({std::move(report), services, endpoints, std::move(job), {}, took});
    });
  };
  net::post(worker_->pool, std::move(work));
}

void SyncRunner::finish(SyncResult result) {
  running_ = false;
  if (result.report) {
    // Only what was in the job is confirmed; the strand may have planned nothing newer meanwhile, as it plans in start().
    unconfirmed_.clear();
    result.trigger_times = std::exchange(unconfirmed_times_, {});
    retry_wait_ = {};
    if (result.report->call_again) {
      tidy_timer_.expires_after(kTidyAfter);
      tidy_timer_.async_wait([this, alive = std::weak_ptr(alive_)](const boost::system::error_code& ec) {
        if (!ec && !alive.expired()) notify();
      });
    }
    full_timer_.expires_after(options_.full_interval);
    full_timer_.async_wait([this, alive = std::weak_ptr(alive_)](const boost::system::error_code& ec) {
      if (ec || alive.expired()) return;
      relist_ = true;
      request_full();
    });
  } else {
    retry_wait_ = std::min<std::chrono::nanoseconds>(retry_wait_.count() ? retry_wait_ * 2 : milliseconds(50), options_.retry_interval);
    not_before_ = std::max(not_before_, clock_.steady() + retry_wait_);
    log::error("{}: {}; trying again in {} ms", dataplane_.name(), result.report.error().message,
               std::chrono::duration_cast<milliseconds>(retry_wait_).count());
    wanted_ = true;
  }
  if (handler_) handler_(result);
  schedule();
}

}  // namespace fairlead::proxy
