#include "lb/request.h"

#include <algorithm>
#include <string_view>

#include "base/text.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::lb {
namespace {

constexpr std::string_view kPrefix = "metallb.io/";
constexpr std::string_view kOldPrefix = "metallb.universe.tf/";

struct Annotation {
  std::string name;
  std::string value;
};

Annotation annotation(const corev1::Service& s, std::string_view name) {
  for (const auto prefix : {kPrefix, kOldPrefix}) {
    auto full = std::string(prefix) + std::string(name);
    if (const auto it = s.metadata().annotations().find(full); it != s.metadata().annotations().end()) return {std::move(full), it->second};
  }
  return {};
}

Result<std::vector<IpAddress>> parse_wanted(const Annotation& a, const std::string& field) {
  if (!a.name.empty() && !field.empty()) return fail(ErrorCode::invalid_argument, "spec.loadBalancerIP: and annotation {} are both set; use one", a.name);
  const std::string where = a.name.empty() ? "spec.loadBalancerIP" : "metadata.annotations[" + a.name + "]";
  std::string_view rest = a.name.empty() ? std::string_view(field) : std::string_view(a.value);
  std::vector<IpAddress> out;
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    FL_TRY_CTX(const auto ip, IpAddress::parse(trim(rest.substr(0, comma))), "{}", where);
    for (const auto& other : out)
      if (other.family() == ip.family()) return fail(ErrorCode::invalid_argument, "{}: more than one {} address", where, to_string(ip.family()));
    out.push_back(ip);
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
  }
  if (out.empty() && !a.name.empty()) return fail(ErrorCode::invalid_argument, "{}: is empty", where);
  return out;
}

std::vector<Family> families_of(const corev1::ServiceSpec& spec) {
  std::vector<Family> out;
  for (const auto& f : spec.ipfamilies()) out.push_back(f == "IPv6" ? Family::v6 : Family::v4);
  if (!out.empty()) return out;
  // An apiserver without dual stack: the cluster addresses tell.
  for (const auto& text : spec.clusterips())
    if (const auto ip = IpAddress::parse(text)) out.push_back(ip->family());
  if (out.empty())
    if (const auto ip = IpAddress::parse(spec.clusterip())) out.push_back(ip->family());
  if (out.empty()) out.push_back(Family::v4);
  return out;
}

// Services whose traffic stays on the node share an address only when they are the same pods.
std::string backends_of(const corev1::ServiceSpec& spec) {
  if (spec.externaltrafficpolicy() != "Local") return {};
  const std::map<std::string, std::string> sorted(spec.selector().begin(), spec.selector().end());
  std::string out = "local:";
  for (const auto& [k, v] : sorted) out += k + "=" + v + ",";
  return out;
}

}  // namespace

std::vector<IpAddress> read_ingress(const corev1::LoadBalancerStatus& status) {
  std::vector<IpAddress> out;
  for (const auto& i : status.ingress())
    if (const auto ip = IpAddress::parse(i.ip())) out.push_back(*ip);
  return out;
}

ServiceRequest read_request(const corev1::Service& s, const std::map<std::string, std::string>& namespace_labels) {
  ServiceRequest r;
  const auto& spec = s.spec();
  r.ns = s.metadata().namespace_();
  r.key = r.ns + "/" + s.metadata().name();
  r.labels = {s.metadata().labels().begin(), s.metadata().labels().end()};
  r.namespace_labels = namespace_labels;
  r.load_balancer = spec.type() == "LoadBalancer" && !s.metadata().has_deletiontimestamp();
  r.load_balancer_class = spec.loadbalancerclass();
  r.families = families_of(spec);
  if (spec.ipfamilypolicy() == "PreferDualStack") r.family_policy = FamilyPolicy::prefer_dual;
  if (spec.ipfamilypolicy() == "RequireDualStack") r.family_policy = FamilyPolicy::require_dual;
  r.pool = annotation(s, "address-pool").value;
  r.shape.sharing_key = annotation(s, "allow-shared-ip").value;
  r.shape.backends = backends_of(spec);
  for (const auto& p : spec.ports())
    r.shape.ports.emplace(static_cast<Port>(p.port()), parse_protocol(p.protocol().empty() ? "TCP" : p.protocol()).value_or(Protocol::tcp));
  r.status = read_ingress(s.status().loadbalancer());
  if (auto wanted = parse_wanted(annotation(s, "loadBalancerIPs"), spec.loadbalancerip()))
    r.wanted = std::move(*wanted);
  else
    r.problem = wanted.error().message;
  return r;
}

}  // namespace fairlead::lb
