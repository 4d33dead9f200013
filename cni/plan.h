// AttachPlan: what an ADD will do, as a list of values: ordered, printable, each step with its undo. attach_plan() is the
// only place that knows how a pod is wired; the executor (execute.h) only carries steps out. Pure.
//
// Two wirings:
//   routed   the pod has a /32 (/128); its default route leads to a link-local gateway that the host answers for, and the
//            host has one route per pod to the pod's own link. No bridge, no broadcast domain, no learning.
//   bridge   the pod has an address of the subnet and hangs on a bridge that holds the gateway address.
//
// Names: the host end of a pod's link is "fl" and 13 hex digits of a hash over container id and interface, so DEL finds it
// with nothing but the request; its alias says whose it is, in words.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cni/config.h"
#include "cni/ipam/leases.h"
#include "cni/record.h"
#include "netlink/link.h"

namespace fairlead::cni {

// The gateway of routed pods. IPv4: any address that ARP resolves; one for the whole host, on its loopback link, which
// answers on every pod's link. IPv6: on every pod's link, because neighbour discovery does not look at other links.
IpAddress routed_gateway(Family f);  // 169.254.1.1, fe80::1

struct PodRoute {
  Prefix destination;
  std::optional<IpAddress> gateway;
  std::uint32_t mtu = 0, advmss = 0, metric = 0, table = 0;
  bool on_link = false;    // scope link: the destination itself is on the link
  bool operator==(const PodRoute&) const = default;
};

// Loopback addresses of the host on which host ports are served, so that their packets may pass the link.
struct LocalhostPorts {
  bool v4 = false, v6 = false;
  bool operator==(const LocalhostPorts&) const = default;
};

// Undo of each: see the comment. "None" where the object is shared or goes with another one.
struct EnsureForwarding {  // undo: none (shared)
  bool v4 = false, v6 = false;
  bool operator==(const EnsureForwarding&) const = default;
};
struct EnsureHostGateway {  // the routed IPv4 gateway on lo. Undo: none (shared)
  IpAddress ip;
  bool operator==(const EnsureHostGateway&) const = default;
};
struct EnsureBridge {  // undo: none (shared)
  std::string name;
  netlink::MacAddress mac;
  std::uint32_t mtu = 0;
  bool vlan_filtering = false;
  bool promiscuous = false;
  std::vector<InterfaceAddress> addresses;
  LocalhostPorts localhost;
  bool operator==(const EnsureBridge&) const = default;
};
struct CreateVeth {  // both ends down. Undo: delete the host end, with it the pod's end and all routes over it
  std::string host_name, pod_name;
  netlink::MacAddress host_mac, pod_mac;
  std::uint32_t mtu = 0;
  std::string bridge;      // born as a port of this bridge; empty: none
  bool operator==(const CreateVeth&) const = default;
};
struct NameHostLink {  // says whose it is. Undo: none (goes with the link)
  std::string name, alias;
  bool ipv6 = false;       // the host speaks IPv6 over it
  bool operator==(const NameHostLink&) const = default;
};
// Takes the host's end up. After the pod's end: a link that is up without a carrier costs a grace period when the carrier is
// found missing, and makes a bridge go through all its ports then, and again when the carrier comes.
struct OpenHostLink {  // undo: none (goes with the link)
  std::string name;
  std::optional<IpAddress> v6_gateway;
  LocalhostPorts localhost;
  bool operator==(const OpenHostLink&) const = default;
};
// A VLAN's gateway is an interface of its own, one end of a veth whose other end is a port of the bridge in that VLAN.
struct EnsureVlanGateway {  // undo: none (shared)
  std::string bridge, name, port_name;
  std::uint16_t vlan = 0;
  netlink::MacAddress mac;
  std::uint32_t mtu = 0;
  LocalhostPorts localhost;
  std::vector<InterfaceAddress> addresses;
  bool operator==(const EnsureVlanGateway&) const = default;
};
struct SetBridgePort {  // undo: none (goes with the link)
  std::string name;
  netlink::BridgePort port;
  std::uint16_t vlan = 0;
  std::vector<netlink::BridgeVlan> trunk;
  bool keep_default_vlan = false;
  std::optional<netlink::MacAddress> only_from;  // frames with another source address are dropped
};
struct AddHostRoutes {  // undo: none (goes with the link)
  std::string link;
  std::vector<IpAddress> pods;
  bool operator==(const AddHostRoutes&) const = default;
};
struct SetUpPod {  // inside the pod. Undo: none (goes with the link)
  std::string ifname;
  std::vector<InterfaceAddress> addresses;
  std::vector<PodRoute> routes;
  bool promiscuous = false, all_multicast = false;
  std::uint32_t tx_queue_len = 0;   // 0: the kernel's default
  bool operator==(const SetUpPod&) const = default;
};
struct SetPodSysctls {  // undo: none (the namespace is the pod's)
  std::string ifname;   // IFNAME in a key stands for it
  std::map<std::string, std::string> values;
  bool operator==(const SetPodSysctls&) const = default;
};

struct LimitToPod {  // what the pod receives: a token bucket where the host sends. Undo: none (goes with the link)
  std::string link;
  RateLimit limit;
  bool operator==(const LimitToPod&) const = default;
};
struct LimitFromPod {  // what the pod sends: redirected to a link of its own, whose bucket shapes it. Undo: delete that link
  std::string link, ifb;
  RateLimit limit;
  std::uint32_t mtu = 0;
  bool operator==(const LimitFromPod&) const = default;
};

struct AddNat {  // host ports and masquerading, one transaction per family. Undo: take out what is this pod's
  PodNat nat;
  bool operator==(const AddNat&) const = default;
};
struct WriteHosts {  // a file in the form of hosts(5) that tells resolvers the aliases. Undo: remove it
  std::string path, text;
  bool operator==(const WriteHosts&) const = default;
};
// A link that has just come up drops packets until the kernel's link watcher has run. Undo: none
struct AwaitCarrier {
  std::vector<std::string> links;
  bool operator==(const AwaitCarrier&) const = default;
};

using Step = std::variant<EnsureForwarding, EnsureHostGateway, EnsureBridge, EnsureVlanGateway, CreateVeth, NameHostLink, OpenHostLink, SetBridgePort, AddHostRoutes, SetUpPod,
                          SetPodSysctls, LimitToPod, LimitFromPod, AddNat, WriteHosts, AwaitCarrier>;
std::string to_string(const Step& s);

struct AttachPlan {
  std::vector<Step> steps;
  Attachment attachment;       // what the ADD reports when all steps are done
  std::string to_string() const;
};

CniResult<AttachPlan> attach_plan(const NetConf& c, const Request& r, const std::vector<AssignedIp>& ips, const std::vector<ResultRoute>& routes);
// Only the link, without addresses: what an IPAM plugin that talks over the link (dhcp) needs to be there first. The full
// plan may be carried out afterwards, without its CreateVeth.
CniResult<AttachPlan> link_plan(const NetConf& c, const Request& r);
// The steps whose undo takes an attachment away, known from its owner and from what was recorded about it.
std::vector<Step> detach_steps(const Owner& owner, const AttachmentRecord& record);
// What has to be recorded before the plan is carried out.
AttachmentRecord record_of(const AttachPlan& plan);

std::string host_link_name(const Owner& owner);
std::string ifb_name(const Owner& owner);
std::string host_link_alias(const std::string& network, const Owner& owner);
// The owner and network an alias speaks of; nullopt when it is not one of ours.
struct AliasOwner {
  std::string network;
  Owner owner;
};
std::optional<AliasOwner> parse_alias(std::string_view alias);
// Locally administered, the same for the same owner and end, so that a repeated ADD makes the same link.
netlink::MacAddress derived_mac(const Owner& owner, std::string_view end);

}  // namespace fairlead::cni
