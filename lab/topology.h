// The lab as a value: which nodes exist, their names, addresses, folders, and the exact command line of every component
// on them. plan_lab() is pure: the same options give the same plan, so `up`, `status`, `down`, the supervisor and the
// node init processes all derive it again from the stored options instead of handing state around.
//
// One control-plane node and N workers, each a network + mount + pid + uts namespace on this machine, joined by a bridge
// that stands for the LAN. The machine has the first address of the LAN and is an outside client.
#pragma once

#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead::lab {

inline constexpr unsigned kMaxWorkers = 20;
inline constexpr const char* kDefaultStateDir = "/var/lib/fairlead/lab";
inline constexpr const char* kNetnsPrefix = "fairlead-";   // of the names under /run/netns
inline constexpr const char* kLinkAlias = "fairlead-lab";  // marks links as ours
inline constexpr const char* kCgroupName = "fairlead-lab";
inline constexpr const char* kNftTable = "fairlead-lab";

struct Options {
  unsigned workers = 2;
  std::string state_dir = kDefaultStateDir;
  std::string kubeconfig;  // an extra copy for the user; empty: only the one in the state folder
  std::string bridge = "fairlead0";
  Prefix lan;              // the nodes' network
  Prefix pod_cidr;
  Prefix service_cidr;
  std::string bin_dir;     // where fairlead and fairlead-cni are
  std::string images_dir;  // OCI archives imported on every node
  std::string log_level = "info";
  std::string pod_network = "auto";  // between nodes: host-gw, vxlan, auto
};
Options default_options();

// A program on a node. `once` programs run until they succeed, the others are kept running.
struct Component {
  std::string name;
  std::vector<std::string> argv;
  bool once = false;
};

struct Node {
  std::string name;
  bool control_plane = false;
  IpAddress ip;
  std::string netns;                  // name under /run/netns
  std::string host_link;              // the bridge's port for this node
  std::string dir;                    // everything this node writes
  std::string cgroup;                 // parent of its containers' cgroups
  std::vector<Component> components;  // in start order
};

struct Plan {
  Options options;
  IpAddress host_ip;  // the machine's own address on the LAN
  IpAddress api_ip;
  Port api_port = 6443;
  std::vector<Node> nodes;  // the control-plane node first

  std::string server_url() const;
  std::string pki_dir() const { return options.state_dir + "/pki"; }
  std::string admin_kubeconfig() const { return options.state_dir + "/kubeconfig"; }
  std::string pools_dir() const { return options.state_dir + "/lb"; }
  std::string log_file(const Node& node, const std::string& component) const;
  const Node* find(std::string_view node) const;
};

// Names the field and the reason when the options do not make a lab.
Result<Plan> plan_lab(const Options& options);

// The pool of load balancer addresses: the last quarter of the LAN, where no node and no machine is; and how it is announced.
std::string lb_pools(const Plan& plan);

// The containerd configuration of a node (TOML, version 2).
std::string containerd_config(const Plan& plan, const Node& node);

}  // namespace fairlead::lab
