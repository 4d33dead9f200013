#include "controlplane/apiserver/defaults/pod_defaults.h"

#include "kube/api.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/quantity.h"

namespace fairlead::apiserver {
namespace {

constexpr int kFileMode = 0644;

void default_http_get(corev1::HTTPGetAction& a) {
  if (a.path().empty()) a.set_path("/");
  if (a.scheme().empty()) a.set_scheme("HTTP");
}

void default_probe(corev1::Probe& p) {
  if (p.timeoutseconds() == 0) p.set_timeoutseconds(1);
  if (p.periodseconds() == 0) p.set_periodseconds(10);
  if (p.successthreshold() == 0) p.set_successthreshold(1);
  if (p.failurethreshold() == 0) p.set_failurethreshold(3);
  if (!p.has_handler()) return;
  if (p.handler().has_httpget()) default_http_get(*p.mutable_handler()->mutable_httpget());
  if (p.handler().has_grpc() && !p.handler().grpc().has_service()) p.mutable_handler()->mutable_grpc()->set_service("");
}

template <typename C>
void default_container(C& c) {
  if (c.imagepullpolicy().empty()) c.set_imagepullpolicy(image_tag(c.image()) == "latest" ? "Always" : "IfNotPresent");
  if (c.terminationmessagepath().empty()) c.set_terminationmessagepath("/dev/termination-log");
  if (c.terminationmessagepolicy().empty()) c.set_terminationmessagepolicy("File");
  for (auto& p : *c.mutable_ports())
    if (p.protocol().empty()) p.set_protocol("TCP");
  for (auto& e : *c.mutable_env())
    if (e.valuefrom().has_fieldref() && e.valuefrom().fieldref().apiversion().empty())
      e.mutable_valuefrom()->mutable_fieldref()->set_apiversion("v1");
  if (c.has_livenessprobe()) default_probe(*c.mutable_livenessprobe());
  if (c.has_readinessprobe()) default_probe(*c.mutable_readinessprobe());
  if (c.has_startupprobe()) default_probe(*c.mutable_startupprobe());
  if (c.has_lifecycle()) {
    auto& l = *c.mutable_lifecycle();
    if (l.poststart().has_httpget()) default_http_get(*l.mutable_poststart()->mutable_httpget());
    if (l.prestop().has_httpget()) default_http_get(*l.mutable_prestop()->mutable_httpget());
  }
}

void default_downward_items(google::protobuf::RepeatedPtrField<corev1::DownwardAPIVolumeFile>& items) {
  for (auto& i : items)
    if (i.has_fieldref() && i.fieldref().apiversion().empty()) i.mutable_fieldref()->set_apiversion("v1");
}

void default_projection(corev1::VolumeProjection& p) {
  if (p.has_downwardapi()) default_downward_items(*p.mutable_downwardapi()->mutable_items());
  if (p.has_serviceaccounttoken() && !p.serviceaccounttoken().has_expirationseconds())
    p.mutable_serviceaccounttoken()->set_expirationseconds(3600);
}

void default_volume(corev1::Volume& v) {
  auto& s = *v.mutable_volumesource();
  std::vector<const google::protobuf::FieldDescriptor*> set;
  s.GetReflection()->ListFields(s, &set);
  if (set.empty()) s.mutable_emptydir();
  if (s.has_secret() && !s.secret().has_defaultmode()) s.mutable_secret()->set_defaultmode(kFileMode);
  if (s.has_configmap() && !s.configmap().has_defaultmode()) s.mutable_configmap()->set_defaultmode(kFileMode);
  if (s.has_hostpath() && !s.hostpath().has_type()) s.mutable_hostpath()->set_type("");
  if (s.has_downwardapi()) {
    if (!s.downwardapi().has_defaultmode()) s.mutable_downwardapi()->set_defaultmode(kFileMode);
    default_downward_items(*s.mutable_downwardapi()->mutable_items());
  }
  if (s.has_projected()) {
    if (!s.projected().has_defaultmode()) s.mutable_projected()->set_defaultmode(kFileMode);
    for (auto& p : *s.mutable_projected()->mutable_sources()) default_projection(p);
  }
}

template <typename C>
void default_host_ports(C& container) {
  for (auto& p : *container.mutable_ports())
    if (p.hostport() == 0) p.set_hostport(p.containerport());
}

// A limit without a request asks for as much as it may use.
void requests_from_limits(corev1::Container& c) {
  if (!c.has_resources()) return;
  auto& r = *c.mutable_resources();
  for (const auto& [name, limit] : r.limits())
    if (!r.requests().contains(name)) (*r.mutable_requests())[name] = limit;
}

}  // namespace

std::string_view image_tag(std::string_view image) {
  const auto at = image.find('@');
  if (at != std::string_view::npos) return {};
  const auto slash = image.rfind('/');
  const auto colon = image.find(':', slash == std::string_view::npos ? 0 : slash);
  return colon == std::string_view::npos ? std::string_view("latest") : image.substr(colon + 1);
}

void default_pod_spec(corev1::PodSpec& s) {
  if (s.dnspolicy().empty()) s.set_dnspolicy("ClusterFirst");
  if (s.restartpolicy().empty()) s.set_restartpolicy("Always");
  if (!s.has_securitycontext()) s.mutable_securitycontext();
  if (!s.has_terminationgraceperiodseconds()) s.set_terminationgraceperiodseconds(30);
  if (s.schedulername().empty()) s.set_schedulername("default-scheduler");
  if (!s.serviceaccountname().empty()) s.set_serviceaccount(s.serviceaccountname());
  if (s.serviceaccountname().empty() && !s.serviceaccount().empty()) s.set_serviceaccountname(s.serviceaccount());
  for (auto& v : *s.mutable_volumes()) default_volume(v);
  for (auto& c : *s.mutable_initcontainers()) default_container(c);
  for (auto& c : *s.mutable_containers()) default_container(c);
  for (auto& c : *s.mutable_ephemeralcontainers()) default_container(*c.mutable_ephemeralcontainercommon());
  if (s.hostnetwork()) {
    for (auto& c : *s.mutable_containers()) default_host_ports(c);
    for (auto& c : *s.mutable_initcontainers()) default_host_ports(c);
  }
}

void default_pod(corev1::Pod& pod) {
  auto& s = *pod.mutable_spec();
  for (auto& c : *s.mutable_containers()) requests_from_limits(c);
  for (auto& c : *s.mutable_initcontainers()) requests_from_limits(c);
  if (!s.has_enableservicelinks()) s.set_enableservicelinks(true);
  default_pod_spec(s);
}

std::string_view qos_class(const corev1::PodSpec& spec) {
  bool any = false, all_equal = true;
  const auto look = [&](const auto& containers) {
    for (const auto& c : containers) {
      for (const char* name : {"cpu", "memory"}) {
        const auto& requests = c.resources().requests();
        const auto& limits = c.resources().limits();
        const auto r = requests.find(name), l = limits.find(name);
        const auto value = [&](const auto& it, const auto& map) {
          if (it == map.end()) return kube::Quantity();
          return kube::Quantity::parse(it->second.string()).value_or(kube::Quantity());
        };
        const auto request = value(r, requests), limit = value(l, limits);
        if (!request.is_zero() || !limit.is_zero()) any = true;
        if (limit.is_zero() || request != limit) all_equal = false;
      }
    }
  };
  look(spec.containers());
  look(spec.initcontainers());
  if (!any) return "BestEffort";
  return all_equal ? "Guaranteed" : "Burstable";
}

}  // namespace fairlead::apiserver
