// What every daemon serves about itself, in the form that Kubernetes components use:
//   /healthz /livez /readyz   "ok", or 500 with one line per check; ?verbose lists all, ?exclude=NAME leaves one out,
//                             /readyz/NAME asks one alone
//   /metrics                  the Registry in Prometheus's text format, with the process's own figures
// A path that is none of these is not answered, so a daemon with an API of its own asks here first:
//
//   Health health(&registry);
//   health.add_ready("rules", [&] { return applied ? Result<>{} : fail(ErrorCode::failed_precondition, "no sync yet"); });
//   auto server = serve(executor, options, health.handler());
//
// Threads: add checks before serving. Checks run on whatever thread serves the request and must be thread safe and quick.
// Owner: outlives the server that uses its handler.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/http/server.h"
#include "base/metrics.h"

namespace fairlead::http {

using HealthCheck = std::function<Result<>()>;

class Health {
 public:
  explicit Health(metrics::Registry* registry = nullptr);  // null: no /metrics
  ~Health();
  Health(const Health&) = delete;
  Health& operator=(const Health&) = delete;

  void add_live(std::string name, HealthCheck check);   // in all three
  void add_ready(std::string name, HealthCheck check);  // in /readyz alone
  std::optional<Response> handle(const Request& request) const;
  Handler handler();  // the rest is 404

 private:
  struct Check {
    std::string name;
    HealthCheck run;
    bool ready_only = false;
  };
  struct Process;
  Task<Response> answer(Request request) const;
  Response report(std::string_view endpoint, std::string_view one, const Target& target) const;

  metrics::Registry* const registry_;
  std::unique_ptr<Process> process_;
  std::vector<Check> checks_;
};

}  // namespace fairlead::http
