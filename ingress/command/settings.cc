#include "ingress/command/settings.h"

#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <thread>

#include "ingress/runtime/client_auth.h"
#include "ingress/runtime/tls.h"

namespace fairlead::ingress {

void add_flags(CLI::App& app, Settings& s) {
  app.add_option("--manifests", s.manifests, "serve from YAML files or folders, with no cluster; reloaded on change");
  app.add_option("--kubeconfig", s.kubeconfig, "how to reach the API; default: the pod's service account");
  app.add_option("--http-listen", s.http_listen, "ADDRESS:PORT, may be repeated; empty: none")->capture_default_str();
  app.add_option("--https-listen", s.https_listen, "ADDRESS:PORT, may be repeated; empty: none")->capture_default_str();
  app.add_option("--health-listen", s.health_listen, "/healthz, /readyz, /metrics")->capture_default_str();
  app.add_option("--threads", s.threads, "workers; 0: one per core")->capture_default_str()->check(CLI::Range(0, 256));
  app.add_option("--controller-class", s.controllers, "IngressClass.spec.controller values that are served; add k8s.io/ingress-nginx to take over its classes")->capture_default_str();
  app.add_flag("--watch-ingress-without-class", s.without_class)->description("also serve Ingresses that name no class");
  app.add_option("--default-backend-service", s.default_backend, "NAMESPACE/NAME:PORT for requests that no rule matches; default: 404");
  app.add_option("--default-ssl-certificate", s.default_certificate, "secret NAMESPACE/NAME for names without a certificate of their own");
  app.add_option("--https-port", s.https_port, "where clients reach HTTPS, for redirects")->capture_default_str()->check(CLI::Range(1, 65535));
  app.add_flag("--use-forwarded-headers", s.trust_forwarded)->description("trust X-Forwarded-* of clients (behind another proxy)");
  app.add_flag("--use-proxy-protocol", s.proxy_protocol)->description("each connection begins with a PROXY header (version 1 or 2) that says who the client is; those without one are closed");
  app.add_option("--proxy-protocol-from", s.proxy_protocol_from, "ADDRESS or ADDRESS/LENGTH of load balancers, the only ones that may connect then; may be repeated");
  app.add_option("--access-log", s.access_log)->capture_default_str()->check(CLI::IsMember({"off", "json", "common"}));
  app.add_option("--access-log-file", s.access_log_file, "default: standard output");
  app.add_option("--shutdown-timeout", s.shutdown_seconds, "seconds that requests under way get after SIGTERM")->capture_default_str();
  app.add_option("--shutdown-delay", s.shutdown_delay_seconds, "seconds after SIGTERM in which connections are still accepted, while /readyz fails")->capture_default_str();
  app.add_option("--max-connections", s.max_connections, "client connections of each worker; 0: half of the descriptors")->capture_default_str();
  app.add_option("--slow-start", s.slow_start, "seconds in which a new endpoint's share grows")->capture_default_str()->check(CLI::Range(0.0, 3600.0));
  app.add_option("--endpoint-requests", s.endpoint_requests, "requests at once to one endpoint by each worker; 0: no limit")->capture_default_str();
  app.add_option("--publish-status-address", s.status_addresses, "address or host name for the status of Ingresses; may be repeated");
  app.add_option("--publish-service", s.publish_service, "NAMESPACE/NAME of the Service whose addresses go into the status of Ingresses");
  app.add_option("--log-level", s.log_level)->capture_default_str();
}

unsigned thread_count(const Settings& s) { return s.threads != 0 ? s.threads : std::max(std::thread::hardware_concurrency(), 1u); }

Result<WorkerOptions> worker_options(const Settings& s) {
  WorkerOptions o;
  const auto parse = [](std::string_view flag, const std::vector<std::string>& texts, std::vector<SocketAddress>& out) -> Result<> {
    for (const auto& t : texts) {
      if (t.empty()) continue;
      // Port 0, which is none in an address, asks for any that is free.
      const bool any = t.ends_with(":0");
      FL_TRY_CTX(auto a, SocketAddress::parse(any ? t.substr(0, t.size() - 1) + "1" : t), "{}", flag);
      if (any) a.port = 0;
      out.push_back(a);
    }
    return {};
  };
  FL_CHECK(parse("--http-listen", s.http_listen, o.http));
  FL_CHECK(parse("--https-listen", s.https_listen, o.https));
  if (o.http.empty() && o.https.empty()) return fail(ErrorCode::invalid_argument, "--http-listen and --https-listen are both empty");
  o.https_port = o.https.empty() ? 0 : s.https_port;
  o.trust_forwarded = s.trust_forwarded;
  if (s.proxy_protocol != !s.proxy_protocol_from.empty()) return fail(ErrorCode::invalid_argument, "--use-proxy-protocol and --proxy-protocol-from need each other");
  for (const auto& text : s.proxy_protocol_from) {
    if (text.find('/') == std::string::npos) {
      FL_TRY_CTX(const auto ip, IpAddress::parse(text), "--proxy-protocol-from");
      o.proxy_protocol.emplace_back(ip, ip.bits());
    } else {
      FL_TRY_CTX(const auto prefix, Prefix::parse(text), "--proxy-protocol-from");
      o.proxy_protocol.push_back(prefix);
    }
  }
  o.max_connections = s.max_connections;
  o.upstream_limits.slow_start_ms = static_cast<std::int64_t>(s.slow_start * 1000);
  o.upstream_limits.endpoint_requests = s.endpoint_requests;
  o.access_log = s.access_log == "json" ? AccessLog::json : s.access_log == "common" ? AccessLog::common : AccessLog::off;
  if (!s.access_log_file.empty() && o.access_log != AccessLog::off) {
    o.access_log_fd = ::open(s.access_log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (o.access_log_fd < 0) return fail_errno(errno, "--access-log-file {}", s.access_log_file);
  }
  return o;
}

CompileOptions compile_options(const Settings& s, unsigned threads) {
  CompileOptions o;
  o.controllers = {s.controllers.begin(), s.controllers.end()};
  o.without_class = s.without_class;
  o.any_class_if_none = !s.manifests.empty();
  o.default_backend = s.default_backend;
  o.default_certificate = s.default_certificate;
  o.load_certificate = [](const std::string& chain, const std::string& key) { return load_certificate(chain, key); };
  o.load_authorities = [](const std::string& ca, const std::string& crl) { return load_authorities(ca, crl); };
  o.local_addresses = !s.manifests.empty();
  o.load_connector = [](const BackendTls& tls, bool http2, const std::string& ca, const std::string& chain, const std::string& key) { return load_connector(tls, http2, ca, chain, key); };
  o.threads = threads;
  return o;
}

}  // namespace fairlead::ingress
