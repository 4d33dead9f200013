// Attachment: what an ADD reports, in one shape for all versions; to_json() writes the shape of the version asked for and
// parse_attachment() reads a prevResult of any supported version. Source: SPEC.md "ADD Success", per version.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "cni/error.h"
#include "cni/json.h"
#include "cni/version.h"

namespace fairlead::cni {

struct Interface {
  std::string name;
  std::string mac;
  std::uint32_t mtu = 0;      // from 1.1.0
  std::string sandbox;        // path of the namespace; empty: on the host
  std::string socket_path;    // from 1.1.0
  std::string pci_id;         // from 1.1.0
  bool operator==(const Interface&) const = default;
};

struct AssignedIp {
  InterfaceAddress address;
  std::optional<IpAddress> gateway;
  std::optional<unsigned> interface;  // index into interfaces; none in an IPAM result
  bool operator==(const AssignedIp&) const = default;
};

struct ResultRoute {
  Prefix destination;
  std::optional<IpAddress> gateway;   // none: the runtime's default gateway
  std::optional<std::uint32_t> mtu, advmss, priority, table, scope;  // from 1.1.0
  bool operator==(const ResultRoute&) const = default;
};

struct Dns {
  std::vector<std::string> nameservers;
  std::string domain;
  std::vector<std::string> search, options;
  bool empty() const { return nameservers.empty() && domain.empty() && search.empty() && options.empty(); }
  bool operator==(const Dns&) const = default;
};

struct Attachment {
  std::vector<Interface> interfaces;
  std::vector<AssignedIp> ips;
  std::vector<ResultRoute> routes;
  Dns dns;
  bool operator==(const Attachment&) const = default;
};

boost::json::object to_json(const Attachment& a, Version version);
boost::json::object to_json(const CniError& e, std::string_view version);
CniResult<Attachment> parse_attachment(const Field& f);
CniResult<Dns> parse_dns(const Field& f);
CniResult<std::vector<ResultRoute>> parse_routes(const Field& f);

}  // namespace fairlead::cni
