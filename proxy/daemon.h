// The running service proxy: informers feed the ProxyState, the SyncRunner keeps the dataplane equal to it. One
// single-threaded io_context owns everything; only the dataplane's work is done on the runner's thread.
//
// Nothing is programmed before Services and EndpointSlices are listed completely. When the API goes away, the last good
// rules stay. At the end of the process the rules stay too: connections live on, and the next start adopts them.
#pragma once

#include <memory>
#include <string>

#include "base/asio.h"
#include "base/metrics.h"
#include "kube/client.h"
#include "proxy/config.h"
#include "proxy/dataplane.h"

namespace fairlead::proxy {

class Daemon {
 public:
  // `config` is finished and valid.
  Daemon(net::io_context& io, Config config, std::string node_name, std::shared_ptr<kube::Client> client,
         std::unique_ptr<Dataplane> dataplane);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  Task<Result<>> run();  // until stop()
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::proxy
