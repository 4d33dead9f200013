#include "ingress/runtime/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace fairlead::ingress {
namespace {

std::string escaped(std::string_view s) {
  std::string out;
  for (const char c : s) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') out += "\\n";
    else out += c;
  }
  return out;
}

void family(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

std::string labels_of(const Route& r) {
  return fmt::format("ingress=\"{}\",host=\"{}\",path=\"{}\",service=\"{}\"", escaped(r.ingress), escaped(r.host), escaped(r.path), r.target.upstream ? escaped(r.target.upstream->name) : "");
}

void write_routes(std::string& out, const RouteTable& table) {
  static constexpr std::string_view kClasses[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
  family(out, "fairlead_ingress_requests_total", "counter", "Requests by route and class of the answer; none: the client went away before it.");
  for (const auto& r : table.routes)
    for (std::size_t i = 0; i < 6; ++i)
      if (const auto n = r->stats->sum([&](const auto& c) -> const Count& { return c.by_class[i]; }); n > 0)
        out += fmt::format("fairlead_ingress_requests_total{{{},code=\"{}\"}} {}\n", labels_of(*r), kClasses[i], n);
  family(out, "fairlead_ingress_request_bytes_total", "counter", "Bytes of request bodies by route.");
  for (const auto& r : table.routes)
    if (const auto n = r->stats->sum([](const auto& c) -> const Count& { return c.bytes_in; }); n > 0) out += fmt::format("fairlead_ingress_request_bytes_total{{{}}} {}\n", labels_of(*r), n);
  family(out, "fairlead_ingress_response_bytes_total", "counter", "Bytes of response bodies by route.");
  for (const auto& r : table.routes)
    if (const auto n = r->stats->sum([](const auto& c) -> const Count& { return c.bytes_out; }); n > 0) out += fmt::format("fairlead_ingress_response_bytes_total{{{}}} {}\n", labels_of(*r), n);
  family(out, "fairlead_ingress_request_duration_seconds", "histogram", "From the request's head to the last byte of its answer, by route.");
  for (const auto& r : table.routes) {
    std::uint64_t total = 0;
    std::string lines;
    const auto labels = labels_of(*r);
    for (std::size_t i = 0; i <= kLatencyBounds.size(); ++i) {
      total += r->stats->sum([&](const auto& c) -> const Count& { return c.latency[i]; });
      lines += fmt::format("fairlead_ingress_request_duration_seconds_bucket{{{},le=\"{}\"}} {}\n", labels, i < kLatencyBounds.size() ? fmt::format("{}", kLatencyBounds[i]) : "+Inf", total);
    }
    if (total == 0) continue;
    const auto micros = r->stats->sum([](const auto& c) -> const Count& { return c.latency_micros; });
    out += lines + fmt::format("fairlead_ingress_request_duration_seconds_sum{{{0}}} {1}\nfairlead_ingress_request_duration_seconds_count{{{0}}} {2}\n", labels, static_cast<double>(micros) / 1e6, total);
  }
}

// One of each service port: all its transports share the counters.
std::vector<const Upstream*> service_ports(const RouteTable& table) {
  std::set<const UpstreamStats*> seen;
  std::vector<const Upstream*> out;
  for (const auto& u : table.upstreams)
    if (seen.insert(u->stats.get()).second) out.push_back(u.get());
  return out;
}

void write_upstreams(std::string& out, const RouteTable& table) {
  const auto ports = service_ports(table);
  const auto all = [&](std::string_view name, std::string_view help, auto field) {
    family(out, name, "counter", help);
    for (const auto* u : ports)
      if (const auto n = u->stats->sum(field); n > 0) out += fmt::format("{}{{service=\"{}\"}} {}\n", name, escaped(u->name), n);
  };
  using C = UpstreamCounters;
  all("fairlead_ingress_backend_requests_total", "Requests that went to a service port.", [](const C& c) -> const Count& { return c.requests; });
  all("fairlead_ingress_backend_failures_total", "Tries that failed, by service port.", [](const C& c) -> const Count& { return c.failures; });
  all("fairlead_ingress_backend_retries_total", "Tries after the first, by service port.", [](const C& c) -> const Count& { return c.retries; });
  all("fairlead_ingress_backend_ejections_total", "Endpoints taken out for a time after failures in a row.", [](const C& c) -> const Count& { return c.ejections; });
  all("fairlead_ingress_backend_refused_total", "Requests that no endpoint would take.", [](const C& c) -> const Count& { return c.refused; });
  family(out, "fairlead_ingress_backend_endpoints", "gauge", "Endpoints that may get requests, by service port.");
  for (const auto* u : ports) out += fmt::format("fairlead_ingress_backend_endpoints{{service=\"{}\"}} {}\n", escaped(u->name), u->endpoints.size());
}

}  // namespace

Result<std::unique_ptr<Router>> Router::start(const WorkerOptions& options, unsigned threads, std::shared_ptr<const RouteTable> table) {
  auto router = std::make_unique<Router>();
  const auto limiter = std::make_shared<Limiter>();
  auto worker_options = options;
  for (unsigned i = 0; i < std::max(threads, 1u); ++i) {
    auto worker = std::make_unique<Worker>(i, worker_options, limiter);
    FL_CHECK(worker->open(table));
    // A port that was left open has been chosen by the first.
    if (i == 0)
      for (std::size_t n = 0; n < worker->bound().size(); ++n)
        (n < options.http.size() ? worker_options.http[n] : worker_options.https[n - options.http.size()]) = worker->bound()[n];
    router->workers_.push_back(std::move(worker));
  }
  router->table_ = std::move(table);
  for (auto& w : router->workers_) w->start();
  return router;
}

Router::~Router() {
  for (auto& w : workers_) w->stop();
  for (auto& w : workers_) w->join();
}

void Router::set_table(std::shared_ptr<const RouteTable> table) {
  for (auto& w : workers_) w->set_table(table);
  table_ = std::move(table);
}

void Router::drain() {
  for (auto& w : workers_) w->drain();
}

bool Router::ended() const {
  return std::all_of(workers_.begin(), workers_.end(), [](const auto& w) { return w->ended(); });
}

std::int64_t Router::connections() const {
  std::int64_t n = 0;
  for (const auto& w : workers_) n += w->counters().connections.load();
  return n;
}

std::string Router::metrics_text() const {
  std::string out;
  const auto total = [&](std::string_view name, std::string_view help, auto field) {
    family(out, name, "counter", help);
    std::uint64_t n = 0;
    for (const auto& w : workers_) n += (w->counters().*field).get();
    out += fmt::format("{} {}\n", name, n);
  };
  using C = WorkerCounters;
  family(out, "fairlead_ingress_connections", "gauge", "Client connections that are open.");
  out += fmt::format("fairlead_ingress_connections {}\n", connections());
  total("fairlead_ingress_accepted_total", "Client connections accepted.", &C::accepted);
  total("fairlead_ingress_refused_total", "Client connections closed at once, over the limit.", &C::refused);
  total("fairlead_ingress_proxy_protocol_rejected_total", "Connections closed for want of a good PROXY header from a trusted address.", &C::proxy_rejected);
  total("fairlead_ingress_tls_handshakes_total", "TLS handshakes completed.", &C::handshakes);
  total("fairlead_ingress_tls_handshake_failures_total", "TLS handshakes that failed.", &C::handshake_failures);
  total("fairlead_ingress_heads_total", "Request heads read.", &C::requests);
  total("fairlead_ingress_bad_requests_total", "Requests refused as malformed.", &C::bad_requests);
  total("fairlead_ingress_client_timeouts_total", "Clients that were too slow.", &C::timeouts);
  total("fairlead_ingress_auth_requests_total", "Questions to authentication services.", &C::auth_asked);
  total("fairlead_ingress_auth_kept_total", "Requests decided by a kept verdict of an authentication service.", &C::auth_kept);
  total("fairlead_ingress_auth_denied_total", "Requests that an authentication service refused.", &C::auth_denied);
  total("fairlead_ingress_auth_faults_total", "Requests refused because an authentication service could not be asked.", &C::auth_faults);
  total("fairlead_ingress_mirrored_total", "Requests copied to a mirror.", &C::mirrors);
  total("fairlead_ingress_mirrors_dropped_total", "Copies not made or not finished: too many, or a mirror that does not keep up.", &C::mirrors_dropped);
  family(out, "fairlead_ingress_routes", "gauge", "Routes in the table.");
  out += fmt::format("fairlead_ingress_routes {}\n", table_->routes.size());
  write_upstreams(out, *table_);
  write_routes(out, *table_);
  return out;
}

}  // namespace fairlead::ingress
