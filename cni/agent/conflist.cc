#include "cni/agent/conflist.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "cni/config.h"

namespace fairlead::cni {
namespace {

namespace json = boost::json;

std::string set_of(const char* name, const char* type, Family f, const std::vector<Prefix>& prefixes) {
  std::string elements;
  for (const auto& p : prefixes)
    if (p.family() == f) elements += (elements.empty() ? "" : ", ") + p.to_string();
  std::string out = fmt::format("  set {} {{\n    type {}; flags interval; auto-merge\n", name, type);
  if (!elements.empty()) out += "    elements = { " + elements + " }\n";
  return out + "  }\n";
}

std::string rules(const std::vector<Prefix>& pods, const std::vector<Prefix>& cluster) {
  // Multicast keeps its source: receivers answer to it.
  return set_of("pods4", "ipv4_addr", Family::v4, pods) + set_of("pods6", "ipv6_addr", Family::v6, pods) + set_of("cluster4", "ipv4_addr", Family::v4, cluster) +
         set_of("cluster6", "ipv6_addr", Family::v6, cluster) + R"(  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @pods4 ip daddr != @cluster4 ip daddr != 224.0.0.0/4 masquerade fully-random
    ip6 saddr @pods6 ip6 daddr != @cluster6 ip6 daddr != ff00::/8 masquerade fully-random
  }
)";
}

}  // namespace

std::string render_conflist(const ConflistOptions& o) {
  json::array ranges;
  for (const auto& cidr : o.pod_cidrs) ranges.push_back(json::array{json::object{{"subnet", cidr.to_string()}}});
  json::object ipam{{"type", kPluginName}, {"ranges", ranges}};
  if (!o.data_dir.empty()) ipam["dataDir"] = o.data_dir;
  json::object plugin{{"type", kPluginName}, {"wiring", o.wiring}, {"ipam", ipam},
                      {"capabilities", json::object{{"portMappings", true}, {"bandwidth", true}, {"dns", true}, {"ips", true}, {"mac", true}}}};
  if (o.mtu != 0) plugin["mtu"] = o.mtu;
  // Runtimes that know cniVersions take the highest that both sides have; older ones read cniVersion.
  const json::object list{{"cniVersion", "1.0.0"}, {"cniVersions", json::array{"0.4.0", "1.0.0", "1.1.0"}}, {"name", o.network_name}, {"plugins", json::array{plugin}}};
  return json::serialize(list) + "\n";
}

std::string render_masquerade_removal() { return fmt::format("table inet {0}\ndelete table inet {0}\n", kMasqueradeTable); }

std::string masquerade_mark(const std::vector<Prefix>& pods, const std::vector<Prefix>& cluster) {
  // FNV-1a over the rules themselves: another version of them gets another mark.
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const unsigned char c : rules(pods, cluster)) h = (h ^ c) * 0x100000001b3ull;
  return fmt::format("rules-{:016x}", h);
}

std::string render_masquerade(const std::vector<Prefix>& pods, const std::vector<Prefix>& cluster) {
  return fmt::format("{}table inet {} {{\n  chain {} {{\n  }}\n{}}}\n", render_masquerade_removal(), kMasqueradeTable, masquerade_mark(pods, cluster), rules(pods, cluster));
}

}  // namespace fairlead::cni
