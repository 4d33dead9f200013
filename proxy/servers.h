// The proxy's HTTP servers: health (10256), metrics (10249) and one listener per healthCheckNodePort. Answers come from
// callbacks, so this file knows sockets and paths only. Everything on one executor.
// Errors: an address that cannot be bound is reported through on_problem and, for services, tried again at the next update.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/http/server.h"
#include "proxy/health.h"
#include "proxy/plan.h"

namespace fairlead::proxy {

http::Response to_response(HealthAnswer a);

// Paths of kube-proxy's metrics server; each gives content type and body. Other paths are for `others`.
using Page = std::function<std::pair<std::string, std::string>()>;
Result<std::unique_ptr<http::Server>> serve_pages(net::any_io_executor executor, const SocketAddress& listen, std::map<std::string, Page> pages,
                                                  http::Handler others = {});
// /healthz and /livez
Result<std::unique_ptr<http::Server>> serve_health(net::any_io_executor executor, const SocketAddress& listen,
                                                   std::function<HealthAnswer()> healthz, std::function<HealthAnswer()> livez);

// Where health check node ports listen: everywhere, or on this host's addresses that take NodePorts. Pure.
std::vector<IpAddress> health_listen_addresses(const GlobalPlan& global, const std::vector<IpAddress>& local);
// All addresses of this network namespace.
std::vector<IpAddress> local_addresses();

class ServiceHealthServers {
 public:
  using OnProblem = std::function<void(const ServiceKey&, const std::string&)>;
  ServiceHealthServers(net::any_io_executor executor, std::function<bool()> proxy_healthy, OnProblem on_problem);
  ~ServiceHealthServers();
  // Opens, closes and updates listeners; the services whose plan is in the delta, or all of them.
  void update(const PlanDelta& delta);
  Task<> stop();

 private:
  struct Listener;
  void close(const ServiceKey& key);
  net::any_io_executor executor_;
  std::function<bool()> proxy_healthy_;
  OnProblem on_problem_;
  std::map<ServiceKey, std::unique_ptr<Listener>> listeners_;
};

}  // namespace fairlead::proxy
