// Router: the workers together. Threads: start(), set_table(), metrics and drain() from one thread; the workers run on their own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "ingress/core/route_table.h"
#include "ingress/runtime/worker.h"

namespace fairlead::ingress {

class Router {
 public:
  // Binds everything or nothing; serves when it returns.
  static Result<std::unique_ptr<Router>> start(const WorkerOptions& options, unsigned threads, std::shared_ptr<const RouteTable> table);
  ~Router();  // at once
  void set_table(std::shared_ptr<const RouteTable> table);
  std::shared_ptr<const RouteTable> table() const { return table_; }
  // Addresses that listen: those of HTTP, then those of HTTPS.
  const std::vector<SocketAddress>& bound() const { return workers_.front()->bound(); }
  void drain();
  bool ended() const;
  // Prometheus text of routes, service ports and workers.
  std::string metrics_text() const;
  std::int64_t connections() const;

 private:
  std::vector<std::unique_ptr<Worker>> workers_;
  std::shared_ptr<const RouteTable> table_;
};

}  // namespace fairlead::ingress
