#include "cni/capabilities.h"

#include <algorithm>
#include <set>

namespace fairlead::cni {
namespace {

constexpr std::uint64_t kAnyBurstBits = UINT32_MAX;
constexpr std::uint64_t kLeastBurstBytes = 128 * 1024;  // two of the largest segments

// Letters, digits, '-' and '.', as in RFC 1123; underscores are in use too.
bool is_host_name(std::string_view s) {
  if (s.empty() || s.size() > 253) return false;
  return std::all_of(s.begin(), s.end(), [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '.' || c == '_'; }) && std::isalnum(static_cast<unsigned char>(s[0]));
}

CniResult<RateLimit> parse_limit(const Field& rate_field, const Field& burst_field) {
  CNI_TRY(const auto rate, rate_field.unsigned_integer());
  CNI_TRY(const auto burst, burst_field.unsigned_integer());
  RateLimit l{.rate = rate.value_or(0) / 8, .burst = burst.value_or(0) / 8};
  if (rate.value_or(0) == 0 && burst.value_or(0) == 0) return RateLimit{};
  if (rate.value_or(0) == 0) return rate_field.error("is needed where a burst is given");
  if (l.rate == 0) return rate_field.error("is below 8 bits per second");
  if (burst.value_or(0) == 0) return burst_field.error("is needed where a rate is given");
  if (l.burst == 0) return burst_field.error("is below 8 bits");
  // containerd says "any" for the limits in a pod's annotations; taken at its word, half a gigabyte would pass before the
  // limit is felt.
  if (*burst >= kAnyBurstBits) l.burst = std::max<std::uint64_t>(l.rate / 10, kLeastBurstBytes);
  return l;
}

CniResult<PortMapping> parse_port_mapping(const Field& f) {
  CNI_CHECK(f.expect_object());
  PortMapping m;
  CNI_TRY(const auto host_port, f.get("hostPort").integer(1, 65535));
  if (!host_port) return f.get("hostPort").error("is missing");
  m.host_port = static_cast<Port>(*host_port);
  CNI_TRY(const auto container_port, f.get("containerPort").integer(1, 65535));
  if (!container_port) return f.get("containerPort").error("is missing");
  m.container_port = static_cast<Port>(*container_port);
  CNI_TRY(const auto protocol, f.get("protocol").string_or("tcp"));
  auto p = parse_protocol(protocol);
  if (!p) return f.get("protocol").error(p.error().message);
  m.protocol = *p;
  CNI_TRY(m.host_ip, f.get("hostIP").ip());
  return m;
}

// 0.0.0.0 and :: say every address of that family, none says every address; kubelet sends all three. One address may have a
// mapping of its own beside those.
bool collide(const PortMapping& a, const PortMapping& b) {
  if (a.host_port != b.host_port || a.protocol != b.protocol) return false;
  const auto any = [](const PortMapping& m) { return !m.host_ip || m.host_ip->is_unspecified(); };
  if (any(a) && any(b)) return !a.host_ip || !b.host_ip || a.host_ip == b.host_ip;
  return a.host_ip == b.host_ip;
}

}  // namespace

CniResult<std::vector<PortMapping>> parse_port_mappings(const Field& f) {
  std::vector<PortMapping> out;
  CNI_TRY(const auto items, f.array());
  for (const Field& item : items) {
    CNI_TRY(auto m, parse_port_mapping(item));
    for (const PortMapping& other : out)
      if (collide(m, other)) return item.error(fmt::format("host port {}/{} is mapped twice", m.host_port, to_string(m.protocol)));
    out.push_back(std::move(m));
  }
  return out;
}

CniResult<Capabilities> parse_capabilities(const Field& runtime, const Field& conf) {
  CNI_CHECK(runtime.expect_object());
  Capabilities c;
  CNI_TRY(c.port_mappings, parse_port_mappings(runtime.get("portMappings")));
  const Field bandwidth = runtime.get("bandwidth");
  CNI_CHECK(bandwidth.expect_object());
  // The reference bandwidth plugin takes the limits from the configuration itself as well.
  const Field& limits = bandwidth.present() ? bandwidth : conf;
  CNI_TRY(c.ingress, parse_limit(limits.get("ingressRate"), limits.get("ingressBurst")));
  CNI_TRY(c.egress, parse_limit(limits.get("egressRate"), limits.get("egressBurst")));
  if (const Field dns = runtime.get("dns"); dns.present()) {
    CNI_CHECK(dns.expect_object());
    c.dns.emplace();
    CNI_TRY(c.dns->nameservers, dns.get("servers").strings());
    CNI_TRY(c.dns->search, dns.get("searches").strings());
    CNI_TRY(c.dns->options, dns.get("options").strings());
  }
  CNI_TRY(c.aliases, runtime.get("aliases").strings());
  for (const auto& alias : c.aliases)
    if (!is_host_name(alias)) return runtime.get("aliases").error("\"" + alias + "\" is not a host name");
  return c;
}

}  // namespace fairlead::cni
