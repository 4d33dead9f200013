// Session: gRPC over HTTP/2 with one client (RFC 9113, by libnghttp2, which stays in session.cc). No sockets here: bytes in,
// calls out; answers in, bytes out.
//
// Bounded: the size of a request, what waits of unfinished requests and of answers that the client does not read, the size of
// heads (nghttp2), and what costs a client little and us much (resets, acknowledgements, settings, continuations).
//
// Threads: any. receive() by one thread at a time, dispatch() of what it gave in that order. has_output() is called with the
// session locked and must only take a note.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "controlplane/etcd/rpc/call.h"

struct nghttp2_session;

namespace fairlead::etcd::rpc {

struct Limits {
  std::size_t message_bytes = 2u << 20;
  std::uint32_t streams = 0x7fffffff;
  std::size_t partial_bytes = 64u << 20;    // of unfinished requests
  std::size_t backlog_bytes = 512u << 20;   // of answers; beyond it new calls are refused
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  // `live` counts the calls that somebody still holds, a service included.
  Session(const Methods& methods, const Limits& limits, std::shared_ptr<std::atomic<std::size_t>> live);
  virtual ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  void open(std::string common_name);  // once, before everything else

  class Stream;
  struct Event {
    enum class Kind { open, message, end, drained, gone } kind;
    std::shared_ptr<Stream> stream;
    std::string bytes;
  };
  using Events = std::vector<Event>;
  // False: nothing more can come of this connection; what produce() still gives is the last.
  bool receive(std::string_view bytes, Events& events);
  // Calls the services. Not with the session locked.
  static void dispatch(Events events);
  void drain();              // no new calls
  void gone(Events& events);  // the client went away: ends all calls
  bool established() const { return established_; }  // the client has spoken HTTP/2

 protected:
  // With the lock held.
  virtual void has_output() = 0;
  void produce(std::string& out, std::size_t most, Events& events);  // appends about `most` bytes
  bool finished() const;
  std::mutex mutex_;

 private:
  friend class Stream;
  struct Callbacks;
  Stream* find(std::int32_t id);

  const Methods& methods_;
  const Limits limits_;
  const std::shared_ptr<std::atomic<std::size_t>> live_;
  std::string common_name_;
  nghttp2_session* http2_ = nullptr;
  std::unordered_map<std::int32_t, std::shared_ptr<Stream>> streams_;
  Stream* heading_ = nullptr;  // whose head is being read
  Events* events_ = nullptr;   // where callbacks of nghttp2 put what happens
  std::size_t partial_ = 0, backlog_ = 0;
  std::atomic<bool> established_{false};
  bool broken_ = false, over_ = false;
};

}  // namespace fairlead::etcd::rpc
