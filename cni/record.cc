#include "cni/record.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace fairlead::cni {
namespace {

namespace json = boost::json;

json::object to_json(const PortMapping& m) {
  json::object o{{"hostPort", m.host_port}, {"containerPort", m.container_port}, {"protocol", std::string(to_string(m.protocol))}};
  if (m.host_ip) o["hostIP"] = m.host_ip->to_string();
  return o;
}

CniResult<NatAddress> parse_pod(const Field& f) {
  CNI_CHECK(f.expect_object());
  CNI_TRY(const auto ip, f.get("ip").ip());
  CNI_TRY(const auto neighbours, f.get("neighbours").prefix());
  CNI_TRY(const auto network, f.get("network").prefix());
  if (!ip || !neighbours || !network) return f.error("needs ip, neighbours and network");
  if (neighbours->family() != ip->family() || network->family() != ip->family()) return f.error("is of two families");
  return NatAddress{*ip, *neighbours, *network};
}

}  // namespace

std::string to_text(const AttachmentRecord& r) {
  if (r.empty()) return "";
  json::object o;
  if (!r.nat.empty()) {
    json::array ports, pods;
    for (const auto& m : r.nat.mappings) ports.push_back(to_json(m));
    for (const auto& p : r.nat.pods)
      pods.push_back(json::object{{"ip", p.ip.to_string()}, {"neighbours", p.neighbours.to_string()}, {"network", p.network.to_string()}});
    o["portMappings"] = std::move(ports);
    o["pods"] = std::move(pods);
    o["masquerade"] = r.nat.masquerade;
  }
  if (!r.hosts_file.empty()) o["hostsFile"] = r.hosts_file;
  if (!r.delegated.empty()) o["delegated"] = r.delegated;
  return json::serialize(o);
}

CniResult<AttachmentRecord> parse_record(std::string_view text) {
  CNI_TRY(const auto doc, parse_json(text));
  const Field root(doc);
  AttachmentRecord r;
  CNI_TRY(r.nat.mappings, parse_port_mappings(root.get("portMappings")));
  CNI_TRY(r.nat.masquerade, root.get("masquerade").boolean_or(false));
  CNI_TRY(const auto pods, root.get("pods").array());
  for (const Field& f : pods) {
    CNI_TRY(const auto p, parse_pod(f));
    r.nat.pods.push_back(p);
  }
  CNI_TRY(r.hosts_file, root.get("hostsFile").string_or(""));
  CNI_TRY(r.delegated, root.get("delegated").string_or(""));
  return r;
}

}  // namespace fairlead::cni
