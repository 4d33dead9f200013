// NetConf: the network configuration that arrives on stdin, checked and completed. Every error names the field.
// Pure. Unknown keys are ignored, as the specification asks (runtimes and other plugins add their own).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cni/capabilities.h"
#include "cni/ipam/ranges.h"
#include "cni/request.h"
#include "cni/result.h"
#include "netlink/link.h"

namespace fairlead::cni {

inline constexpr const char* kPluginName = "fairlead-cni";
inline constexpr const char* kDefaultDataDir = "/var/lib/cni/fairlead";
inline constexpr const char* kDefaultHostsDir = "/run/fairlead/hosts";

// The host's interface with the gateway address of a VLAN, as the reference bridge plugin names it.
inline std::string vlan_gateway_name(const std::string& bridge, std::uint16_t vlan) { return fmt::format("{}.{}", bridge, vlan); }

// What this call is for. One program stands in for several, told apart by the configuration alone.
enum class Role {
  network,   // type fairlead-cni: attach the container
  ipam,      // ipam.type fairlead-cni under another plugin's type: hand out an address, touch no link
  loopback,  // type loopback: set lo up (containerd calls this before the networks)
};

enum class Wiring { routed, bridge };

struct IpamConf {
  bool builtin = true;
  std::string type;                     // of a delegated plugin
  std::vector<RangeSet> ranges;         // built-in only
  std::vector<ResultRoute> routes;
  std::string data_dir = kDefaultDataDir;
  std::string host_local_dir;           // import the leases of host-local from here, once
  std::optional<Dns> dns;               // from resolvConf, read by the caller
  std::string resolv_conf;              // path
  std::uint32_t reuse_delay_s = 30;
};

struct BridgeConf {
  std::string name = "fairlead0";
  bool hairpin = false;
  bool promiscuous = false;
  bool port_isolation = false;
  bool is_gateway = true;               // the bridge gets the gateway address
  std::uint16_t vlan = 0;               // access port of this VLAN
  std::vector<netlink::BridgeVlan> vlan_trunk;
  bool preserve_default_vlan = false;
};

// Settings of the container's link.
struct TuningConf {
  bool promiscuous = false, all_multicast = false;
  std::uint32_t tx_queue_len = 0;
};

struct NetConf {
  Version version = kNewest;
  std::string name;
  std::string type;
  Role role = Role::network;
  Wiring wiring = Wiring::routed;
  BridgeConf bridge;
  std::uint32_t mtu = 0;                // 0: the kernel's default
  bool ip_masq = false;
  bool mac_spoof_check = false;
  bool default_route = true;            // isDefaultGateway
  IpamConf ipam;
  Dns dns;
  TuningConf tuning;
  std::string hosts_dir = kDefaultHostsDir;    // where aliases are written
  std::string node_id;                         // differs between nodes and boots; the caller fills it in
  std::map<std::string, std::string> sysctls;  // of the container: key with "/" -> value
  Capabilities runtime;
  std::vector<IpAddress> requested_ips;        // runtimeConfig.ips, args.cni.ips
  std::optional<netlink::MacAddress> mac;      // runtimeConfig.mac, args.cni.mac, mac
  std::optional<Attachment> prev_result;
  struct Valid {
    std::string container_id, ifname;
  };
  std::vector<Valid> valid_attachments;        // GC
  bool has_valid_attachments = false;
  // A field that asks for something this plugin can not do. ADD, CHECK and STATUS answer with it; DEL and GC go on, because
  // what was attached has to go in any case.
  std::optional<CniError> unsupported;
  std::string text;                            // as it came, for a delegated plugin
};

// Version and name first, so that an error can be written in the version asked for.
CniResult<NetConf> parse_config(std::string_view text);
// The cniVersion of a text that may be broken: for the error message about it.
std::string version_for_error(std::string_view text);

}  // namespace fairlead::cni
