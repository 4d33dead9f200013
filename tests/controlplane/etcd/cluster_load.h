// Load on a cluster while a test does things to its members: writers that note what was acknowledged, and a watch that notes
// what it saw. finish() checks that nothing acknowledged is lost and that the watch saw each revision once, in order.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "tests/controlplane/etcd/real_etcd.h"

namespace fairlead::etcd {

class ClusterLoad {
 public:
  ClusterLoad(std::shared_ptr<Remote> kv, std::size_t value_bytes) : kv_(std::move(kv)), value_bytes_(value_bytes) {
    const auto begin = await(kv_->range({.key = "x"})).value().revision;
    for (int i = 0; i < 8; ++i) net::co_spawn(io_, write_keys(i), net::detached);
    net::co_spawn(io_, follow(begin + 1), net::detached);
    loop_ = std::thread([this] { io_.run(); });
  }
  ~ClusterLoad() {
    stop_ = true;
    io_.stop();
    if (loop_.joinable()) loop_.join();
  }

  static void pause(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }
  std::size_t acknowledged() {
    std::lock_guard lock(mutex_);
    return acknowledged_.size();
  }
  // Waits until so many more writes have been acknowledged.
  void goes_on(const char* what, std::size_t more = 50) {
    const auto before = acknowledged();
    for (int i = 0; i < 600 && acknowledged() < before + more; ++i) pause(100);
    EXPECT_GE(acknowledged(), before + more) << "no writes any more: " << what;
  }

  void finish() {
    stop_ = true;
    pause(500);
    std::optional<Result<PutResponse>> end;
    for (int i = 0; i < 50 && !(end && *end); ++i) end = await(kv_->put({.key = "w/end", .value = "x"}));
    ASSERT_TRUE(*end) << end->error().message;
    for (int i = 0; i < 300; ++i) {
      std::unique_lock lock(mutex_);
      if (events_.contains("w/end") || !error_.empty()) break;
      lock.unlock();
      pause(100);
    }
    io_.stop();
    loop_.join();
    EXPECT_EQ(error_, "");
    const auto there = read_all();
    std::size_t unseen = 0;
    for (const auto& [key, revision] : acknowledged_) {
      const auto kv = there.find(key);
      ASSERT_TRUE(kv != there.end()) << "acknowledged and lost: " << key;
      EXPECT_EQ(kv->second, revision);
      const auto e = events_.find(key);
      if (e == events_.end() || e->second != revision) ++unseen;
    }
    EXPECT_EQ(unseen, 0u) << "acknowledged writes that the watch did not see at their revision";
    EXPECT_EQ(events_.size(), there.size()) << "the watch saw what is not there, or missed what is";
    std::printf("%zu writes acknowledged, %d failed, %zu events\n", acknowledged_.size(), failures_.load(), events_.size());
  }

 private:
  Task<> write_keys(int worker) {
    for (int i = 0; !stop_; ++i) {
      PutRequest p;
      p.key = fmt::format("w/{}/{:06}", worker, i);
      p.value = std::string(value_bytes_, static_cast<char>('a' + i % 26));
      const auto key = p.key;
      auto r = co_await kv_->put(std::move(p));
      if (r) {
        std::lock_guard lock(mutex_);
        acknowledged_[key] = r->revision;
      } else {
        ++failures_;  // it may or may not be there: the next key
      }
      auto slept = co_await sleep_for(std::chrono::milliseconds(2));
      if (!slept) co_return;
    }
  }

  Task<> follow(Revision from) {
    WatchRequest request;
    request.key = "w/";
    request.range_end = "w0";
    request.start_revision = from;
    auto stream = co_await kv_->watch(request);
    if (!stream) {
      error_ = stream.error().message;
      co_return;
    }
    Revision last = 0;
    for (;;) {
      auto batch = co_await (*stream)->next();
      std::lock_guard lock(mutex_);
      if (!batch) {
        if (!stop_) error_ = batch.error().message;
        co_return;
      }
      for (const auto& e : batch->events) {
        if (e.kv.mod_revision < last) error_ = "an event came out of order";
        if (!events_.emplace(e.kv.key, e.kv.mod_revision).second) error_ = "an event came twice: " + e.kv.key;
        last = e.kv.mod_revision;
        if (e.kv.key == "w/end") co_return;
      }
    }
  }

  std::map<std::string, Revision> read_all() {
    std::map<std::string, Revision> out;
    RangeRequest page;
    page.key = "w/";
    page.range_end = "w0";
    page.limit = 1000;
    for (;;) {
      auto some = await(kv_->range(page));
      if (!some) {
        ADD_FAILURE() << some.error().message;
        return out;
      }
      for (const auto& kv : some->kvs) out[kv.key] = kv.mod_revision;
      if (!some->more) return out;
      page.key = some->kvs.back().key + '\0';
      page.revision = some->revision;
    }
  }

  std::shared_ptr<Remote> kv_;
  const std::size_t value_bytes_;
  net::io_context io_;
  std::thread loop_;
  std::mutex mutex_;
  std::map<std::string, Revision> acknowledged_, events_;
  std::string error_;
  std::atomic<int> failures_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace fairlead::etcd
