// The flags of `fairlead ingress` and what they mean.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "ingress/core/compile.h"
#include "ingress/runtime/worker.h"

namespace CLI {
class App;
}

namespace fairlead::ingress {

struct Settings {
  std::vector<std::string> manifests;
  std::string kubeconfig;
  std::vector<std::string> http_listen{"0.0.0.0:80"};
  std::vector<std::string> https_listen{"0.0.0.0:443"};
  std::string health_listen = "127.0.0.1:10254";
  unsigned threads = 0;
  std::vector<std::string> controllers{"fairlead.dev/ingress"};
  bool without_class = false;
  std::string default_backend, default_certificate;
  unsigned https_port = 443;
  bool trust_forwarded = false;
  bool proxy_protocol = false;
  std::vector<std::string> proxy_protocol_from;
  std::string access_log = "json";
  std::string access_log_file;
  unsigned shutdown_seconds = 30;
  unsigned shutdown_delay_seconds = 0;
  std::string log_level = "info";
  unsigned max_connections = 0;
  double slow_start = 0;
  unsigned endpoint_requests = 0;
  std::vector<std::string> status_addresses;
  std::string publish_service;
};

void add_flags(CLI::App& app, Settings& s);
Result<WorkerOptions> worker_options(const Settings& s);
CompileOptions compile_options(const Settings& s, unsigned threads);
unsigned thread_count(const Settings& s);

}  // namespace fairlead::ingress
