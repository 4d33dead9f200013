// The running service proxy: informers feed the ProxyState, the SyncRunner keeps the dataplane equal to it. One
// strand owns everything; only the dataplane's work is done on the runner's thread.
//
// Nothing is programmed before Services and EndpointSlices are listed completely. When the API goes away, the last good
// rules stay. At the end of the process the rules stay too: connections live on, and the next start adopts them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/asio.h"
#include "base/metrics.h"
#include "kube/client.h"
#include "proxy/config.h"
#include "proxy/dataplane.h"

namespace fairlead::proxy {

struct ProxierOptions {
  Config config;  // finished and valid
  std::string node_name;
  bool ipv4 = true, ipv6 = true;       // what the kernel can do
  bool clean_conntrack = true;         // forget flows to endpoints that have gone
  std::size_t traffic_series = 5'000;  // most services and endpoints with counters in /metrics; reading them costs the kernel a listing
  std::function<void()> on_programmed;  // once, after the first sync
};

class Proxier {
 public:
  // Everything happens on `strand`, which must be that of the client.
  Proxier(net::any_io_executor strand, ProxierOptions options, std::shared_ptr<kube::Client> client,
          std::unique_ptr<Dataplane> dataplane);
  ~Proxier();
  Proxier(const Proxier&) = delete;
  Proxier& operator=(const Proxier&) = delete;

  // Fails only where the configuration asks for it (bindAddressHardFail). Call stop() in any case.
  Result<> start();
  Task<> stop();
  const Plan& plan() const;  // as of now, on the strand

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::proxy
