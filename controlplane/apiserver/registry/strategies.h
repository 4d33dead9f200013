// From a kind to its strategy; a kind without special rules gets the plain one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/ip.h"
#include "controlplane/apiserver/registry/strategy.h"
#include "kube/kinds.h"

namespace fairlead::apiserver {

// What strategies must know about the cluster.
struct ClusterFacts {
  std::vector<Family> service_families = {Family::v4};  // of the service ranges, the default first
  std::string storage_prefix = "/registry";             // of every key
};
std::unique_ptr<Strategy> make_strategy(const kube::Kind& kind, const ClusterFacts& facts);

}  // namespace fairlead::apiserver
