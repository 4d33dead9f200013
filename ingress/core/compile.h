// compile(): API objects -> RouteTable. Total: whatever the objects hold, it returns a table of all that is right and a
// diagnostic for all that is not; a bad Ingress breaks no other. Pure but for a cache of what it made of objects that have not
// changed since (told by their address), so that a change among thousands of Ingresses costs little.
// Thread: one at a time. Rules: ingress/README.md; conflicts are won by the oldest Ingress, then by namespace/name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/result.h"
#include "ingress/core/diagnostic.h"
#include "ingress/core/route_table.h"
#include "kube/api.h"

namespace k8s::io::api::networking::v1 {
class Ingress;
class IngressClass;
}  // namespace k8s::io::api::networking::v1
namespace k8s::io::api::core::v1 {
class Service;
class Secret;
class ConfigMap;
}  // namespace k8s::io::api::core::v1
namespace k8s::io::api::discovery::v1 {
class EndpointSlice;
}

namespace fairlead::ingress {

// Keys are "namespace/name", or "name" for classes. Objects are shared and immutable.
struct Objects {
  template <typename T>
  using Of = std::map<std::string, std::shared_ptr<const T>>;
  Of<networkingv1::Ingress> ingresses;
  Of<networkingv1::IngressClass> classes;
  Of<corev1::Service> services;
  Of<discoveryv1::EndpointSlice> slices;
  Of<corev1::Secret> secrets;
  Of<corev1::ConfigMap> config_maps;
  // Addresses of names that Compiled::names asked for. Looked for and not found: an empty list.
  std::map<std::string, std::vector<IpAddress>> names;
};

using CertificateLoader =
    std::function<Result<std::shared_ptr<const ServerCertificate>>(const std::string& chain_pem, const std::string& key_pem)>;
// Of a backend's TLS: the settings with their name filled in, and PEM texts, empty where there are none.
using ConnectorLoader = std::function<Result<std::shared_ptr<const TlsConnector>>(const BackendTls& tls, bool http2, const std::string& ca_pem,
                                                                                  const std::string& chain_pem, const std::string& key_pem)>;

// Certificates of authorities, and perhaps a list of what they revoked (empty: none).
using AuthoritiesLoader = std::function<Result<std::shared_ptr<const ClientAuthorities>>(const std::string& ca_pem, const std::string& crl_pem)>;

struct CompileOptions {
  std::set<std::string> controllers;    // IngressClass.spec.controller values that are ours
  bool without_class = false;           // take Ingresses that name no class even if no class of ours is the default
  bool any_class_if_none = false;       // no cluster: without any IngressClass object, take every Ingress
  std::string default_backend;          // "ns/service:port"; empty: 404
  std::string default_certificate;      // secret "ns/name"; empty: the fallback
  std::shared_ptr<const ServerCertificate> fallback_certificate;
  CertificateLoader load_certificate;
  AuthoritiesLoader load_authorities;
  // Names and URLs may lead to this machine (loopback, link-local). Not with a cluster, whose tenants could reach through the
  // router what only the router may reach.
  bool local_addresses = false;
  ConnectorLoader load_connector;
  unsigned threads = 1;                 // slots of counters
};

struct Compiled {
  std::shared_ptr<const RouteTable> table;
  Diagnostics diagnostics;
  std::set<std::string> secrets;      // that the Ingresses name
  std::set<std::string> config_maps;  // the same
  std::set<std::string> names;        // DNS names whose addresses are needed
  std::set<std::string> taken;    // Ingresses that are ours
};

class Compiler {
 public:
  explicit Compiler(CompileOptions options);
  ~Compiler();
  Compiled compile(const Objects& objects);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead::ingress
