// The paths under /debug/ of the metrics server, as kube-proxy has them with enableProfiling:
//
//   /debug/pprof/                 what there is
//   /debug/pprof/profile          processor time of the next ?seconds=N (30; 1 to 300), for `go tool pprof`
//   /debug/pprof/cmdline          the program and its arguments
//   /debug/flags/v                PUT a number: log verbosity (4 and above: debug)
//
// Go's other profiles (heap, goroutine ...) describe Go's runtime, which is not here: 501 with what to use instead.
// Threads: the executor of the server. stop() ends a profile that is being taken, so that the server can stop.
#pragma once

#include <memory>

#include "base/http/server.h"

namespace fairlead::proxy {

class Profiling {
 public:
  // Answers 404 to everything, with the reason, where profiling is off.
  explicit Profiling(bool enabled) : enabled_(enabled) {}
  http::Handler handler() const;
  void stop() { *stopping_ = true; }

 private:
  bool enabled_;
  std::shared_ptr<bool> stopping_ = std::make_shared<bool>(false);
};

}  // namespace fairlead::proxy
