// The node agent's HTTPS server (10250), which the apiserver asks for logs: /containerLogs/<namespace>/<pod>/<container>,
// /pods, /runningpods/, /healthz, /metrics. All but health ask for a client certificate of the cluster's CA whose user may do
// so: the apiserver's client, or a member of system:masters.
//
// exec, attach and port-forward are not served yet: they will hand the upgraded connection to the runtime's streaming server.
//
// Threads: handlers run on connections' strands of the same single-threaded context as the agent.
#pragma once

#include <memory>

#include "base/http/health.h"
#include "base/http/server.h"
#include "controlplane/kubelet/agent.h"

namespace fairlead::kubelet {

struct ApiServerIdentity {
  std::string user = "kube-apiserver-kubelet-client";
};

class NodeServer {
 public:
  NodeServer(Agent& agent, http::Health& health) : agent_(agent), health_(health) {}
  http::Handler handler();

 private:
  Task<http::Response> answer(http::Request request);
  http::Response logs(const http::Target& target);
  http::Response pods() const;

  Agent& agent_;
  http::Health& health_;
};

// Whether this client may read what the agent serves. Pure.
Result<> authorize(const http::Peer& peer);

}  // namespace fairlead::kubelet
