// A cluster's state from files or from its API, once, for the commands that look without running: plan, verify.
#pragma once

#include <string>
#include <vector>

#include "base/asio.h"
#include "kube/client.h"
#include "proxy/config.h"
#include "proxy/from_api.h"
#include "proxy/settings.h"
#include "proxy/state.h"

namespace fairlead::proxy {

struct ClusterState {
  HostFacts facts;
  ProxyState state;
  Problems problems;  // "Service default/web: ..."
  // The plan of this node.
  Plan plan(const Config& config);
};

// YAML or JSON with Services, EndpointSlices, Nodes and ServiceCIDRs, also in Lists; other kinds are skipped. Folders are
// read with all that is in them. `node`: which node it is planned for; empty: the only one, or none.
Result<> read_manifests(const std::vector<std::string>& paths, const std::string& node, const Config& config, ClusterState& out);
// The same from text; `name` stands in messages.
Result<> read_manifest(std::string_view text, const std::string& name, const std::string& node, const Config& config, ClusterState& out);

Task<Result<>> read_cluster(std::shared_ptr<kube::Client> client, std::string node, const Config& config, ClusterState& out);

}  // namespace fairlead::proxy
