#include "tests/ingress/world.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "ingress/command/manifests.h"

namespace fairlead::ingress {

Objects objects_from(const std::string& yaml) {
  char folder[] = "/tmp/fairlead-ingress-test-XXXXXX";
  if (!::mkdtemp(folder)) std::abort();
  std::ofstream(std::string(folder) + "/a.yaml") << yaml;
  Manifests manifests({folder});
  Diagnostics problems;
  auto read = manifests.load(true, problems);
  std::filesystem::remove_all(folder);
  if (!read) {
    std::fprintf(stderr, "%s\n", read.error().message.c_str());
    std::abort();
  }
  return std::move(*read);
}

std::string service_yaml(const std::string& name, const std::vector<std::string>& addresses, const std::string& ns, int port) {
  std::string endpoints;
  for (const auto& a : addresses) endpoints += fmt::format("{}{{addresses: [\"{}\"]}}", endpoints.empty() ? "" : ", ", a);
  return fmt::format(R"(---
apiVersion: v1
kind: Service
metadata: {{name: {0}, namespace: {1}}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {0}-x, namespace: {1}, labels: {{kubernetes.io/service-name: {0}}}}}
addressType: IPv4
ports: [{{name: http, port: {3}, protocol: TCP}}]
endpoints: [{2}]
)", name, ns, endpoints, port);
}

std::string ingress_yaml(const std::string& name, const std::string& host, const std::string& path, const std::string& type, const std::string& service,
                         const std::string& annotations, const std::string& extra) {
  return fmt::format(R"(---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {0}, namespace: default, annotations: {5}}}
spec:
  {6}
  rules:
  - {1}
    http: {{paths: [{{path: "{2}", pathType: {3}, backend: {{service: {{name: {4}, port: {{number: 80}}}}}}}}]}}
)", name, host.empty() ? "host: ''" : "host: \"" + host + "\"", path, type, service, annotations, extra);
}

std::string secret_yaml(const std::string& name, const std::string& ca, const std::string& chain, const std::string& key) {
  std::string out = fmt::format("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {}, namespace: default}}\nstringData:\n", name);
  const auto add = [&](const char* field, const std::string& pem) {
    if (pem.empty()) return;
    out += fmt::format("  {}: |\n    ", field);
    for (const char c : pem) {
      out += c;
      if (c == '\n') out += "    ";
    }
    out += '\n';
  };
  add("ca.crt", ca);
  add("tls.crt", chain);
  add("tls.key", key);
  return out;
}

}  // namespace fairlead::ingress
