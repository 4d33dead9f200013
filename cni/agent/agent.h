// The node agent's network part: waits for the pod CIDRs of its Node, tells the container runtime about them (a CNI
// network list, written atomically), keeps the routes to the other nodes' pods, and masquerades what leaves the cluster.
//
// Recovery: nothing is remembered. Every pass reads what is there (routes by protocol number, VTEP by name, table by name)
// and changes the difference, additions before removals; so a restart, an event lost, or somebody's meddling all end in
// the same state. Other people's routes are never touched: where one is in the way, that is reported and retried.
// When the agent stops everything stays, so pods keep their network; cleanup() takes it away.
//
// Threads: everything on the client's executor. Kernel calls block it for well under a millisecond each.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "base/asio.h"
#include "base/daemon.h"
#include "cni/agent/conflist.h"
#include "cni/agent/network.h"
#include "kube/client.h"

namespace fairlead::cni {

struct AgentOptions {
  std::string node_name;
  std::string conf_dir = "/etc/cni/net.d";
  std::string conf_name = "10-fairlead.conflist";
  std::vector<Prefix> cluster_cidrs;
  bool masquerade = true;
  std::uint32_t mtu = 0;                       // of pods; 0: from the node's link and backend
  std::string wiring = "routed";
  std::string data_dir;
  NetworkOptions network;
  std::chrono::milliseconds settle{50};        // changes within this time are handled together
  std::chrono::milliseconds resync{30'000};
};

// What one pass did.
struct PassReport {
  bool configured = false;        // the conflist is there and right
  std::vector<std::string> problems;
  std::size_t changes = 0;
};

// One pass over the kernel of the calling thread's namespace and the conflist; the whole agent without the API.
Result<PassReport> reconcile_network(const AgentOptions& o, const NodeFacts& self, const std::vector<NodeFacts>& peers);
// Takes away routes, VTEP, table and conflist.
Result<> cleanup(const AgentOptions& o);
// The kernel features that are missing for these options, in words. Without a needed one the agent does not start; without
// an optional one the pods that ask for it fail. Tries them in a namespace that is thrown away.
struct MissingFeatures {
  std::vector<std::string> needed, optional;
};
Result<MissingFeatures> missing_kernel_features(const AgentOptions& o);

// Runs until the daemon is asked to stop.
Task<Result<>> run_agent(Daemon& daemon, std::shared_ptr<kube::Client> client, AgentOptions options);

}  // namespace fairlead::cni
