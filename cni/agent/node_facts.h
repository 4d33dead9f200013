// NodeFacts from a Node object. What cannot be read is left out and said in `problem`.
#pragma once

#include "cni/agent/network.h"
#include "kube/api.h"
#include "kube/proto/core/v1/node.pb.h"

namespace fairlead::cni {
struct ReadNode {
  NodeFacts facts;
  std::string problem;
};
ReadNode node_facts(const corev1::Node& node);
}  // namespace fairlead::cni
