// What the runtime asks for beyond the attachment itself (runtimeConfig; CONVENTIONS.md "Dynamic plugin specific fields").
// Rates and bursts are bits per second and bits there; here bytes. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "cni/json.h"
#include "cni/result.h"

namespace fairlead::cni {

struct PortMapping {
  Port host_port = 0;
  Port container_port = 0;
  Protocol protocol = Protocol::tcp;
  std::optional<IpAddress> host_ip;   // none: every address of the host
  auto operator<=>(const PortMapping&) const = default;
};

struct RateLimit {
  std::uint64_t rate = 0;    // bytes per second; 0: no limit
  std::uint64_t burst = 0;   // bytes
  bool operator==(const RateLimit&) const = default;
};

struct Capabilities {
  std::vector<PortMapping> port_mappings;
  RateLimit ingress, egress;          // seen from the container
  std::optional<Dns> dns;
  std::vector<std::string> aliases;
};

CniResult<std::vector<PortMapping>> parse_port_mappings(const Field& f);
CniResult<Capabilities> parse_capabilities(const Field& runtime_config, const Field& conf);

}  // namespace fairlead::cni
