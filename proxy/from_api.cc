#include "proxy/from_api.h"

#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "kube/object.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"

namespace fairlead::proxy {
namespace {

constexpr std::uint32_t kDefaultAffinity = 10'800, kMostAffinity = 86'400;
constexpr std::size_t kMostProblems = 20;

template <typename... A>
void report(Problems& problems, fmt::format_string<A...> f, A&&... a) {
  if (problems.size() < kMostProblems) problems.push_back(fmt::format(f, std::forward<A>(a)...));
}

bool is_port(std::int64_t n) { return n >= 1 && n <= 65535; }

std::vector<IpAddress> read_ips(const auto& texts, std::string_view field, Problems& problems) {
  std::vector<IpAddress> out;
  int i = 0;
  for (const auto& text : texts) {
    if (auto ip = parse_ip_leniently(text)) {
      if (std::find(out.begin(), out.end(), *ip) == out.end()) out.push_back(*ip);
    } else {
      report(problems, "{}[{}]: {}", field, i, ip.error().message);
    }
    ++i;
  }
  return out;
}

void read_ports(const corev1::ServiceSpec& spec, Service& out, Problems& problems) {
  for (int i = 0; i < spec.ports_size(); ++i) {
    const auto& p = spec.ports(i);
    ServicePort port;
    port.name = p.name();
    if (!p.protocol().empty()) {
      const auto protocol = parse_protocol(p.protocol());
      if (!protocol) {
        report(problems, "spec.ports[{}].protocol: {}", i, protocol.error().message);
        continue;
      }
      port.protocol = *protocol;
    }
    if (!is_port(p.port())) {
      report(problems, "spec.ports[{}].port: {} is not a port", i, p.port());
      continue;
    }
    port.port = static_cast<Port>(p.port());
    if (p.nodeport() != 0 && !is_port(p.nodeport())) report(problems, "spec.ports[{}].nodePort: {} is not a port", i, p.nodeport());
    else port.node_port = static_cast<Port>(p.nodeport());
    const bool taken = std::any_of(out.ports.begin(), out.ports.end(), [&](const ServicePort& o) {
      return o.protocol == port.protocol && (o.port == port.port || o.name == port.name);
    });
    if (taken) {
      report(problems, "spec.ports[{}]: {}/{} is there twice", i, p.port(), fairlead::to_string(port.protocol));
      continue;
    }
    out.ports.push_back(std::move(port));
  }
}

void read_load_balancer(const corev1::Service& in, Service& out, Problems& problems) {
  const auto& ingress = in.status().loadbalancer().ingress();
  for (int i = 0; i < ingress.size(); ++i) {
    const auto& one = ingress[i];
    if (one.ip().empty() || (!one.ipmode().empty() && one.ipmode() != "VIP")) continue;
    if (auto ip = parse_ip_leniently(one.ip())) out.load_balancer_vips.push_back(*ip);
    else report(problems, "status.loadBalancer.ingress[{}].ip: {}", i, ip.error().message);
  }
  bool any_v4 = false, any_v6 = false, open_v4 = false, open_v6 = false, malformed = false;
  const auto& ranges = in.spec().loadbalancersourceranges();
  for (int i = 0; i < ranges.size(); ++i) {
    const auto p = parse_prefix_leniently(ranges[i]);
    if (!p) {
      report(problems, "spec.loadBalancerSourceRanges[{}]: {}", i, p.error().message);
      malformed = true;
      continue;
    }
    const bool v4 = p->family() == Family::v4;
    (v4 ? any_v4 : any_v6) = true;
    if (p->length() == 0) (v4 ? open_v4 : open_v6) = true;
    out.source_ranges.push_back(*p);
  }
  std::sort(out.source_ranges.begin(), out.source_ranges.end());
  out.source_ranges.erase(std::unique(out.source_ranges.begin(), out.source_ranges.end()), out.source_ranges.end());
  // A list of which nothing can be read lets nobody in: the owner wanted a restriction.
  const bool nothing = malformed && !any_v4 && !any_v6;
  out.restricted_v4 = (any_v4 && !open_v4) || nothing;
  out.restricted_v6 = (any_v6 && !open_v6) || nothing;
}

void read_affinity(const corev1::ServiceSpec& spec, Service& out, Problems& problems) {
  if (spec.sessionaffinity() != "ClientIP") return;
  out.affinity_seconds = kDefaultAffinity;
  if (!spec.sessionaffinityconfig().clientip().has_timeoutseconds()) return;
  const auto t = spec.sessionaffinityconfig().clientip().timeoutseconds();
  if (t >= 1 && static_cast<std::uint32_t>(t) <= kMostAffinity) out.affinity_seconds = static_cast<std::uint32_t>(t);
  else report(problems, "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {} is not in 1 to {}", t, kMostAffinity);
}

// "web-0=3,10.0.0.7=1"
void read_weights(std::string_view text, Service& out, Problems& problems) {
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto one = trim(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    const auto eq = one.rfind('=');
    unsigned weight = 0;
    const auto number = eq == std::string_view::npos ? std::string_view() : one.substr(eq + 1);
    const auto [end, ec] = std::from_chars(number.data(), number.data() + number.size(), weight);
    if (number.empty() || ec != std::errc{} || end != number.data() + number.size() || weight > 1000) {
      report(problems, "metadata.annotations[{}]: \"{}\" is not TARGET=WEIGHT with a weight of 0 to 1000", kWeightsAnnotation, one);
      continue;
    }
    out.weights.emplace_back(std::string(trim(one.substr(0, eq))), static_cast<std::uint16_t>(weight));
  }
}

void read_annotations(const corev1::Service& in, Service& out, Problems& problems) {
  const auto& annotations = in.metadata().annotations();
  if (const auto it = annotations.find(std::string(kBalanceAnnotation)); it != annotations.end()) {
    if (it->second == "maglev") out.balance = Balance::maglev;
    else if (it->second != "random")
      report(problems, "metadata.annotations[{}]: \"{}\" is not random or maglev", kBalanceAnnotation, it->second);
  }
  if (const auto it = annotations.find(std::string(kWeightsAnnotation)); it != annotations.end()) read_weights(it->second, out, problems);
}

}  // namespace

Result<IpAddress> parse_ip_leniently(std::string_view text) {
  auto strict = IpAddress::parse(text);
  if (strict) return strict;
  static constexpr std::string_view kMapped = "::ffff:";
  if (text.size() > kMapped.size() && text.find('.') != std::string_view::npos &&
      std::equal(kMapped.begin(), kMapped.end(), text.begin(), [](char a, char b) { return a == (b >= 'A' && b <= 'F' ? b + 32 : b); }))
    text.remove_prefix(kMapped.size());
  std::string plain;
  for (std::size_t i = 0; i < text.size() && text.find(':') == std::string_view::npos;) {
    auto dot = std::min(text.find('.', i), text.size());
    auto part = text.substr(i, dot - i);
    while (part.size() > 1 && part.front() == '0') part.remove_prefix(1);
    plain += (i ? "." : "") + std::string(part);
    i = dot + 1;
  }
  if (auto ip = IpAddress::parse(plain); ip && !text.ends_with('.')) return ip;
  return strict;
}

Result<Prefix> parse_prefix_leniently(std::string_view text) {
  text = trim(text);
  const auto slash = text.find('/');
  unsigned length = 0;
  const auto tail = slash == std::string_view::npos ? std::string_view() : text.substr(slash + 1);
  const auto [end, ec] = std::from_chars(tail.data(), tail.data() + tail.size(), length);
  if (tail.empty() || ec != std::errc{} || end != tail.data() + tail.size())
    return fail(ErrorCode::invalid_argument, "\"{}\" is not an address block (as in 10.0.0.0/8)", text);
  FL_TRY(const auto ip, parse_ip_leniently(text.substr(0, slash)));
  if (length > ip.bits()) return fail(ErrorCode::invalid_argument, "\"{}\": prefix length must be 0 to {}", text, ip.bits());
  return Prefix(ip, length);
}

std::optional<Service> read_service(const corev1::Service& in, const ReadOptions& options, Problems& problems) {
  const auto& spec = in.spec();
  if (in.metadata().labels().contains(std::string(kServiceProxyNameLabel)) || spec.type() == "ExternalName") return std::nullopt;
  if (spec.clusterip() == "None" || (spec.clusterip().empty() && spec.clusterips_size() == 0)) return std::nullopt;
  Service out;
  out.key = kube::key_of(in.metadata());
  auto ips = spec.clusterips_size() ? read_ips(spec.clusterips(), "spec.clusterIPs", problems)
                                    : read_ips(std::initializer_list<std::string>{spec.clusterip()}, "spec.clusterIP", problems);
  for (const auto& ip : ips) {
    if (ip.is_unspecified() || std::any_of(out.cluster_ips.begin(), out.cluster_ips.end(),
                                           [&](const IpAddress& o) { return o.family() == ip.family(); }))
      report(problems, "spec.clusterIPs: {} is not usable", ip.to_string());
    else out.cluster_ips.push_back(ip);
  }
  read_ports(spec, out, problems);
  if (out.cluster_ips.empty() || out.ports.empty()) return std::nullopt;
  if (options.external_ips) out.external_ips = read_ips(spec.externalips(), "spec.externalIPs", problems);
  read_load_balancer(in, out, problems);
  if (spec.internaltrafficpolicy() == "Local") out.internal_policy = TrafficPolicy::local;
  if (spec.externaltrafficpolicy() == "Local") out.external_policy = TrafficPolicy::local;
  read_affinity(spec, out, problems);
  if (is_port(spec.healthchecknodeport())) out.health_check_node_port = static_cast<Port>(spec.healthchecknodeport());
  read_annotations(in, out, problems);
  return out;
}

static Atom join(const auto& items) {
  std::vector<std::string_view> sorted;
  for (const auto& i : items) sorted.push_back(i.name());
  std::sort(sorted.begin(), sorted.end());
  std::string s;
  for (const auto& i : sorted) (s += s.empty() ? "" : "\n") += i;
  return Atom(s);
}

std::optional<ReadSlice> read_slice(const discoveryv1::EndpointSlice& in, Problems& problems) {
  const auto& labels = in.metadata().labels();
  const auto service = labels.find(std::string(kServiceNameLabel));
  if (service == labels.end() || service->second.empty() || labels.contains(std::string(kHeadlessLabel))) return std::nullopt;
  ReadSlice out;
  out.service = kube::key_of(in.metadata().namespace_(), service->second);
  out.slice.name = in.metadata().name();
  if (in.addresstype() == "IPv6") out.slice.family = Family::v6;
  else if (in.addresstype() != "IPv4") return std::nullopt;
  for (int i = 0; i < in.ports_size(); ++i) {
    const auto& p = in.ports(i);
    if (!p.has_port() || p.port() == 0) continue;
    const auto protocol = p.protocol().empty() ? Result<Protocol>(Protocol::tcp) : parse_protocol(p.protocol());
    if (!protocol || !is_port(p.port())) {
      report(problems, "ports[{}]: {}/{} is not a port", i, p.port(), p.protocol());
      continue;
    }
    out.slice.ports.push_back({p.name(), *protocol, static_cast<Port>(p.port())});
  }
  out.slice.endpoints.reserve(static_cast<std::size_t>(in.endpoints_size()));
  for (int i = 0; i < in.endpoints_size(); ++i) {
    const auto& e = in.endpoints(i);
    if (e.addresses_size() == 0) continue;
    const auto ip = parse_ip_leniently(e.addresses(0));
    if (!ip || ip->family() != out.slice.family || ip->is_unspecified()) {
      report(problems, "endpoints[{}].addresses[0]: \"{}\" is not an {} address", i, e.addresses(0), in.addresstype());
      continue;
    }
    Endpoint one;
    one.ip = *ip;
    const auto& c = e.conditions();
    one.ready = !c.has_ready() || c.ready();
    one.serving = !c.has_serving() || c.serving();
    one.terminating = c.terminating();
    one.node = Atom(e.nodename());
    one.zone_hints = join(e.hints().forzones());
    one.node_hints = join(e.hints().fornodes());
    if (e.targetref().kind() == "Pod") one.target = target_hash(e.targetref().name());
    out.slice.endpoints.push_back(std::move(one));
  }
  return out;
}

NodeFacts read_node(const corev1::Node& in) {
  NodeFacts n;
  n.name = in.metadata().name();
  const auto& labels = in.metadata().labels();
  if (const auto it = labels.find(std::string(kZoneLabel)); it != labels.end()) n.zone = it->second;
  for (const std::string_view type : {"InternalIP", "ExternalIP"})
    for (const auto& a : in.status().addresses())
      if (a.type() == type)
        if (const auto ip = parse_ip_leniently(a.address())) n.ips.push_back(*ip);
  return n;
}

std::vector<Prefix> read_pod_cidrs(const corev1::Node& in) {
  std::vector<Prefix> out;
  for (const auto& text : in.spec().podcidrs())
    if (const auto p = parse_prefix_leniently(text)) out.push_back(*p);
  if (out.empty() && !in.spec().podcidr().empty())
    if (const auto p = parse_prefix_leniently(in.spec().podcidr())) out.push_back(*p);
  return out;
}

std::vector<Prefix> read_service_cidr(const networkingv1::ServiceCIDR& in) {
  std::vector<Prefix> out;
  for (const auto& text : in.spec().cidrs())
    if (const auto p = parse_prefix_leniently(text)) out.push_back(*p);
  return out;
}

}  // namespace fairlead::proxy
