#include "controlplane/controllers/node_ipam_controller.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/log.h"

namespace fairlead::controllers {
namespace {

std::vector<std::string> cidrs_of(const corev1::Node& node) {
  if (!node.spec().podcidrs().empty()) return {node.spec().podcidrs().begin(), node.spec().podcidrs().end()};
  if (!node.spec().podcidr().empty()) return {node.spec().podcidr()};
  return {};
}

}  // namespace

NodeIpamController::NodeIpamController(const Context& context, NodeIpam ipam)
    : QueueController(context, "node-ipam-controller", 1), nodes_(ctx_.stores.nodes()), ipam_(std::move(ipam)) {
  nodes_.on_change([this](const kube::Change<corev1::Node>& c) { queue_.add(c.key); });
}

void NodeIpamController::run() {
  // What is in use comes first: nothing is given out before every node has been asked.
  for (const auto& [name, node] : nodes_.all()) {
    if (auto r = ipam_.occupy(name, cidrs_of(*node)); !r) log::error("node IPAM: {}", r.error().message);
  }
  QueueController::run();
}

Task<Result<kube::Next>> NodeIpamController::reconcile(std::string key) {
  const auto node = nodes_.get(key);
  if (!node) {
    ipam_.release(key);
    co_return kube::Next{};
  }
  if (const auto have = cidrs_of(*node); !have.empty()) {
    if (auto r = ipam_.occupy(key, have); !r) log::error("node IPAM: {}", r.error().message);
    co_return kube::Next{};
  }
  if (is_deleting(node->metadata())) co_return kube::Next{};
  auto cidrs = ipam_.allocate(key);
  if (!cidrs) {
    events_.normal(kube::reference_to(*node), "CIDRNotAvailable", fmt::format("Node {} status is now: CIDRNotAvailable", key));
    co_return fail(std::move(cidrs).error());
  }
  boost::json::array all;
  for (const Prefix& p : *cidrs) all.emplace_back(p.to_string());
  boost::json::object spec{{"podCIDR", cidrs->front().to_string()}, {"podCIDRs", all}};
  // The uid makes this fail for another node of the same name. The fields cannot be changed once they are set.
  boost::json::object body{{"metadata", {{"uid", node->metadata().uid()}}}, {"spec", std::move(spec)}};
  auto r = co_await ctx_.client->patch<corev1::Node>("", key, kube::PatchType::strategic, boost::json::serialize(body));
  if (r) {
    nodes_.wrote(*r);
    log::info("node {} got pod CIDR {}", key, boost::json::serialize(all));
    co_return kube::Next{};
  }
  events_.normal(kube::reference_to(*node), "CIDRAssignmentFailed", fmt::format("Node {} status is now: CIDRAssignmentFailed", key));
  co_return fail(std::move(r).error());
}

}  // namespace fairlead::controllers
