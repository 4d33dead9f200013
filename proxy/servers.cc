#include "proxy/servers.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <set>

namespace fairlead::proxy {

http::Response to_response(HealthAnswer a) {
  http::Response r;
  r.status = a.status;
  r.body = std::move(a.body);
  for (auto& [name, value] : a.headers) r.headers.set(name, value);
  return r;
}

Result<std::unique_ptr<http::Server>> serve_pages(net::any_io_executor executor, const SocketAddress& listen, std::map<std::string, Page> pages,
                                                  http::Handler others) {
  http::ServerOptions o;
  o.listen = listen;
  auto shared = std::make_shared<std::map<std::string, Page>>(std::move(pages));
  return http::serve(std::move(executor), o, [shared, others](http::Request request) -> Task<http::Response> {
    http::Response r;
    const auto target = http::Target::parse(request.target);
    const auto it = target ? shared->find(target->path) : shared->end();
    if (it == shared->end() && others) {
      auto other = co_await others(std::move(request));
      co_return other;
    }
    if (it == shared->end()) {
      r.status = 404;
      r.body = "not found\n";
      co_return r;
    }
    auto [type, body] = it->second();
    r.headers.set("Content-Type", type);
    r.headers.set("X-Content-Type-Options", "nosniff");
    r.body = std::move(body);
    co_return r;
  });
}

Result<std::unique_ptr<http::Server>> serve_health(net::any_io_executor executor, const SocketAddress& listen,
                                                   std::function<HealthAnswer()> healthz, std::function<HealthAnswer()> livez) {
  http::ServerOptions o;
  o.listen = listen;
  return http::serve(std::move(executor), o, [healthz, livez](http::Request request) -> Task<http::Response> {
    const auto target = http::Target::parse(request.target);
    http::Response r;
    if (target && target->path == "/healthz") r = to_response(healthz());
    else if (target && target->path == "/livez") r = to_response(livez());
    else r.status = 404;
    co_return r;
  });
}

std::vector<IpAddress> local_addresses() {
  std::vector<IpAddress> out;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) < 0) return out;
  for (const auto* i = list; i; i = i->ifa_next) {
    if (!i->ifa_addr) continue;
    Result<IpAddress> ip = fail(ErrorCode::not_found, "no address");
    if (i->ifa_addr->sa_family == AF_INET)
      ip = IpAddress::from_bytes({reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr), 4});
    else if (i->ifa_addr->sa_family == AF_INET6)
      ip = IpAddress::from_bytes({reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in6*>(i->ifa_addr)->sin6_addr), 16});
    if (ip) out.push_back(*ip);
  }
  ::freeifaddrs(list);
  return out;
}

std::vector<IpAddress> health_listen_addresses(const GlobalPlan& g, const std::vector<IpAddress>& local) {
  std::vector<IpAddress> out;
  for (const Family f : {Family::v4, Family::v6}) {
    if (!g.enabled(f)) continue;
    if (g.node_ports.all) {
      out.push_back(f == Family::v4 ? IpAddress{} : *IpAddress::parse("::"));
      continue;
    }
    for (const auto& ip : local)
      if (ip.family() == f && !ip.is_link_local() && g.node_ports.contains(ip)) out.push_back(ip);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

struct ServiceHealthServers::Listener {
  Port port = 0;
  // Shared with the handlers, which may run for a moment after the listener has gone.
  struct Counts {
    std::uint32_t v4 = 0, v6 = 0;
  };
  std::shared_ptr<Counts> counts = std::make_shared<Counts>();
  std::map<IpAddress, std::unique_ptr<http::Server>> servers;
};

ServiceHealthServers::ServiceHealthServers(net::any_io_executor executor, std::function<bool()> proxy_healthy, OnProblem on_problem)
    : executor_(std::move(executor)), proxy_healthy_(std::move(proxy_healthy)), on_problem_(std::move(on_problem)) {}
ServiceHealthServers::~ServiceHealthServers() = default;

void ServiceHealthServers::close(const ServiceKey& key) {
  const auto it = listeners_.find(key);
  if (it == listeners_.end()) return;
  // A server must be stopped before it is destroyed; the coroutine owns them until then.
  auto servers = std::make_shared<std::map<IpAddress, std::unique_ptr<http::Server>>>(std::move(it->second->servers));
  listeners_.erase(it);
  net::co_spawn(
      executor_, [servers]() -> Task<> {
        for (auto& [ip, s] : *servers) co_await s->stop();
      },
      net::detached);
}

void ServiceHealthServers::update(const PlanDelta& delta) {
  if (delta.full) {
    std::set<ServiceKey> kept;
    for (const auto& [key, plan] : delta.services)
      if (plan && plan->health_check_node_port) kept.insert(key);
    std::vector<ServiceKey> gone;
    for (const auto& [key, l] : listeners_)
      if (!kept.contains(key)) gone.push_back(key);
    for (const auto& key : gone) close(key);
  }
  std::optional<std::vector<IpAddress>> addresses;
  for (const auto& [key, plan] : delta.services) {
    const auto old = listeners_.find(key);
    if (!plan || !plan->health_check_node_port) {
      close(key);
      continue;
    }
    if (old != listeners_.end() && old->second->port != plan->health_check_node_port) close(key);
    auto& l = listeners_[key];
    if (!l) l = std::make_unique<Listener>();
    l->port = plan->health_check_node_port;
    l->counts->v4 = plan->local_ready_v4;
    l->counts->v6 = plan->local_ready_v6;
    if (!addresses) addresses = health_listen_addresses(*delta.global, local_addresses());
    for (const auto& ip : *addresses) {
      if (l->servers.contains(ip)) continue;
      http::ServerOptions o;
      o.listen = {ip, l->port};
      auto server = http::serve(executor_, o, [key = key, counts = l->counts, v4 = ip.is_v4(), healthy = proxy_healthy_](http::Request) -> Task<http::Response> {
        co_return to_response(service_health(key, v4 ? counts->v4 : counts->v6, healthy()));
      });
      if (server) l->servers[ip] = std::move(*server);
      else on_problem_(key, server.error().message);
    }
  }
}

Task<> ServiceHealthServers::stop() {
  while (!listeners_.empty()) {
    auto l = std::move(listeners_.begin()->second);
    listeners_.erase(listeners_.begin());
    for (auto& [ip, s] : l->servers) co_await s->stop();
  }
}

}  // namespace fairlead::proxy
