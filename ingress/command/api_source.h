// Objects from the API: informers for Ingress, IngressClass, Service and EndpointSlice, and one informer for each secret and
// ConfigMap that an Ingress names (never the collections). What the router found goes back: addresses into the status of the Ingresses that are
// ours, diagnostics as Events on them. The last good copy stays while the API is away.
//
// Thread: the client's executor. Changes that come together are told once: 5 ms after the first.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/asio.h"
#include "ingress/core/compile.h"
#include "kube/client.h"

namespace fairlead::ingress {

struct ApiSourceOptions {
  std::vector<std::string> status_addresses;  // addresses or host names; empty: those of publish_service
  std::string publish_service;                // "ns/name"
};

class ApiSource {
 public:
  ApiSource(std::shared_ptr<kube::Client> client, ApiSourceOptions options);
  ~ApiSource();
  // Completes when the first full copy is there, without secrets.
  Task<> start(std::function<void()> changed);
  Task<> stop();
  const Objects& objects() const;
  // Secrets and ConfigMaps that the Ingresses name are followed from now on. Their coming is told as a change.
  void follow(const Compiled& compiled);
  // True: each of them has been looked for.
  bool named_known() const;
  // What became of Compiled::names; told as a change.
  void set_names(std::map<std::string, std::vector<IpAddress>> names);
  // Writes status and Events for what compile() made of objects().
  void publish(const Compiled& compiled);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// The addresses as Ingress.status.loadBalancer.ingress has them, as the body of a merge patch; empty when `have` says so already.
std::string status_patch(const std::vector<std::string>& addresses, const networkingv1::Ingress& have);

}  // namespace fairlead::ingress
