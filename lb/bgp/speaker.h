// BgpSpeaker: the BGP half of a node's speaker. Plans from facts what each router is to know (plan.h), keeps the sessions
// (sessions.h), reads the Secrets that hold their passwords, and tells people: Events on the Node (BGPSessionUp,
// BGPSessionDown, BGPSessionRefused, BGPMalformedUpdate) and on Services (nodeAssigned, nodeWithdrawn), metrics under MetalLB's
// names, and a Lease of the node's name whose annotation lists the sessions, for `fairlead lb status`.
//
// Threads: the client's executor. Owner: the speaker. While the API is away the sessions stay as they are.
#pragma once

#include <functional>
#include <memory>

#include "base/metrics.h"
#include "kube/client.h"
#include "kube/events.h"
#include "lb/bgp/sessions.h"

namespace fairlead::lb::bgp {

struct SpeakerOptions {
  std::string node_name;
  Port listen_port = 0;         // 0: routers do not open connections to us
  std::string lease_namespace;  // of the Lease that lists the sessions
  std::chrono::milliseconds report_interval{10'000};
  std::chrono::milliseconds secrets_interval{10'000};
};

// What a speaker looks up of its API objects, to hang Events on.
struct References {
  std::function<std::optional<corev1::ObjectReference>()> node;
  std::function<std::optional<corev1::ObjectReference>(const std::string& key)> service;
};

class BgpSpeaker {
 public:
  // `changed` is called when facts of its own (passwords) have changed and update() is due.
  BgpSpeaker(std::shared_ptr<kube::Client> client, SpeakerOptions options, metrics::Registry& registry, kube::EventRecorder& events, References references, std::function<void()> changed);
  ~BgpSpeaker();
  BgpSpeaker(const BgpSpeaker&) = delete;
  BgpSpeaker& operator=(const BgpSpeaker&) = delete;

  Result<> start();
  void update(Facts facts);
  void publish();  // metrics and the Lease; about once a second
  // restart: another speaker of this node follows soon, so routers with graceful restart keep the routes.
  Task<> stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fairlead::lb::bgp
