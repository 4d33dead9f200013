#include "cni/check.h"

#include <algorithm>

namespace fairlead::cni {
namespace {

const CreateVeth* veth_of(const AttachPlan& plan) {
  for (const Step& s : plan.steps)
    if (const auto* v = std::get_if<CreateVeth>(&s)) return v;
  return nullptr;
}

template <typename T>
const T* step_of(const AttachPlan& plan) {
  for (const Step& s : plan.steps)
    if (const auto* v = std::get_if<T>(&s)) return v;
  return nullptr;
}

const Interface* reported_pod_link(const Attachment& a, const Request& r) {
  for (const auto& i : a.interfaces)
    if (i.name == r.ifname && !i.sandbox.empty()) return &i;
  return nullptr;
}

bool same_route(const netlink::Route& have, const PodRoute& want) {
  if (have.destination != want.destination || have.next_hops.size() != 1) return false;
  return have.next_hops[0].gateway == want.gateway && (want.metric == 0 || have.metric == want.metric);
}

}  // namespace

std::vector<std::string> differences(const AttachPlan& plan, const Attachment& reported, const Request& r, const Observed& o) {
  std::vector<std::string> out;
  const CreateVeth* veth = veth_of(plan);
  const SetUpPod* pod = step_of<SetUpPod>(plan);
  const Interface* said = reported_pod_link(reported, r);
  if (said == nullptr) out.push_back(fmt::format("prevResult has no interface {} in a sandbox", r.ifname));
  else if (said->sandbox != r.netns) out.push_back(fmt::format("prevResult says sandbox {}, CNI_NETNS is {}", said->sandbox, r.netns));
  if (!o.host_link)
    out.push_back(fmt::format("the host end {} is missing", veth->host_name));
  else if (!o.host_link->up())
    out.push_back(fmt::format("the host end {} is down", veth->host_name));
  if (!o.pod_link) {
    out.push_back(fmt::format("the container has no interface {}", r.ifname));
    return out;
  }
  if (!o.pod_link->up()) out.push_back(fmt::format("interface {} is down", r.ifname));
  if (o.host_link && o.pod_link->peer_index != o.host_link->index) out.push_back(fmt::format("interface {} is not the peer of {}", r.ifname, veth->host_name));
  if (said != nullptr && !said->mac.empty() && o.pod_link->mac && o.pod_link->mac->to_string() != said->mac)
    out.push_back(fmt::format("interface {} has MAC {}, not {}", r.ifname, o.pod_link->mac->to_string(), said->mac));
  for (const auto& a : pod->addresses)
    if (std::none_of(o.pod_addresses.begin(), o.pod_addresses.end(), [&](const netlink::Address& have) { return have.ip == a; }))
      out.push_back(fmt::format("interface {} lacks address {}", r.ifname, a.to_string()));
  for (const auto& want : pod->routes)
    if (std::none_of(o.pod_routes.begin(), o.pod_routes.end(), [&](const netlink::Route& have) { return same_route(have, want); }))
      out.push_back(fmt::format("the container lacks the route to {}", want.destination.to_string()));
  if (const auto* host = step_of<AddHostRoutes>(plan); host && o.host_link)
    for (const auto& ip : host->pods)
      if (std::none_of(o.host_routes.begin(), o.host_routes.end(), [&](const netlink::Route& have) { return have.destination == Prefix(ip, ip.bits()); }))
        out.push_back(fmt::format("the host lacks the route to {}", ip.to_string()));
  return out;
}

}  // namespace fairlead::cni
