// EventRecorder: tells people what happened to an object (`kubectl describe`, `kubectl get events`). Writing is in the
// background and best effort: event() never blocks, never fails, and a slow or absent apiserver costs at most a bounded
// queue. Repeats are folded: the same event again raises `count` of the stored one; more than ten different messages with
// one reason about one object within ten minutes become one "(combined from similar events)"; one object can write 25
// events in a burst and then one every five minutes.
//
// EventCorrelator is the pure half (what to write for an event, at a given time); EventRecorder is the writer.
// Threads: all calls on the client's executor. Source: core/v1 Event; the figures are client-go's.
//
//   EventRecorder events(client, {.component = "replicaset-controller"});
//   events.normal(reference_to(rs), "SuccessfulCreate", fmt::format("Created pod: {}", name));
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "base/random.h"
#include "kube/api.h"
#include "kube/client.h"
#include "kube/proto/core/v1/config.pb.h"

namespace fairlead::kube {

// A reference to an object of a registered kind, as Events and Endpoints carry it.
corev1::ObjectReference reference_to(const Kind& kind, const metav1::ObjectMeta& meta);
template <typename T>
corev1::ObjectReference reference_to(const T& object) {
  return reference_to(kind_of<T>(), object.metadata());
}

// What the correlator wants done with an event.
struct EventWrite {
  bool create = true;   // false: the stored event gets a new count, time and message
  std::string key;      // of the folded event; writes with the same key replace each other
  corev1::Event event;  // complete; for an update, metadata names the stored one
};

struct EventLimits {
  std::size_t max_keys = 4096;                       // folded events remembered, least recently used go first
  int max_similar = 10;                              // messages with one reason before they are combined
  std::chrono::seconds similar_window{600};
  double burst = 25;                                 // per object
  double refill_per_second = 1.0 / 300.0;
};

class EventCorrelator {
 public:
  EventCorrelator(std::string component, std::string host, EventLimits limits = {})
      : component_(std::move(component)), host_(std::move(host)), limits_(limits) {}
  // nullopt: over the object's rate, nothing to write.
  std::optional<EventWrite> observe(const corev1::ObjectReference& about, std::string_view type, std::string_view reason,
                                    std::string_view message, SteadyTime steady, WallTime wall);
  // The stored event is gone (or was never written): the next one of this key is created again.
  void forget(const std::string& key);
  std::size_t size() const { return folded_.size(); }

 private:
  struct Similar {
    int messages = 0;
    SteadyTime last{};
    std::unordered_map<std::string, bool> seen;
  };
  struct Bucket {
    double tokens = 0;
    SteadyTime last{};
  };
  struct Folded {
    corev1::Event event;
  };
  template <typename V>
  class Lru {
   public:
    V& get(const std::string& key, std::size_t limit, bool* fresh = nullptr);
    void erase(const std::string& key);
    std::size_t size() const { return index_.size(); }

   private:
    std::list<std::pair<std::string, V>> order_;  // most recent first
    std::unordered_map<std::string, typename std::list<std::pair<std::string, V>>::iterator> index_;
  };

  bool take_token(const std::string& object_key, SteadyTime now);
  bool combine(const std::string& similar_key, std::string_view message, SteadyTime now);

  std::string component_;
  std::string host_;
  EventLimits limits_;
  Lru<Bucket> buckets_;
  Lru<Similar> similar_;
  Lru<Folded> folded_;
  std::uint64_t sequence_ = 0;
};

struct EventRecorderOptions {
  std::string component;          // "default-scheduler", "kubelet"
  std::string host;               // node name, for agents
  std::size_t max_pending = 1000;
  EventLimits limits;
  const Clock* clock = &SystemClock::get();
};

class EventRecorder {
 public:
  EventRecorder(std::shared_ptr<Client> client, EventRecorderOptions options);
  ~EventRecorder();
  EventRecorder(const EventRecorder&) = delete;
  EventRecorder& operator=(const EventRecorder&) = delete;

  void event(const corev1::ObjectReference& about, std::string_view type, std::string_view reason, std::string_view message);
  void normal(const corev1::ObjectReference& about, std::string_view reason, std::string_view message) {
    event(about, "Normal", reason, message);
  }
  void warning(const corev1::ObjectReference& about, std::string_view reason, std::string_view message) {
    event(about, "Warning", reason, message);
  }
  // No new events; pending ones are dropped once the write under way has ended.
  void stop();
  std::uint64_t dropped() const;  // by the bounded queue or the rate limit

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fairlead::kube
