// Containers of a pod: names, images, ports, environment, mounts, probes, resources, security context.
#include <fmt/core.h>

#include <set>
#include <tuple>

#include "controlplane/apiserver/validation/pod.h"
#include "kube/quantity.h"

namespace fairlead::apiserver {
namespace {

using HostPort = std::tuple<std::string, std::string, int>;

void check_ports(const google::protobuf::RepeatedPtrField<corev1::ContainerPort>& ports, const field::Path& path, field::ErrorList& out) {
  std::set<std::string> names;
  for (int i = 0; i < ports.size(); ++i) {
    const auto& p = ports[i];
    const auto at = path.index(i);
    if (!p.name().empty()) {
      const auto complaints = check_port_name(p.name());
      for (const auto& c : complaints) out.invalid(at.child("name"), p.name(), c);
      if (complaints.empty() && !names.insert(p.name()).second) out.duplicate(at.child("name"), p.name());
    }
    if (p.containerport() == 0)
      out.required(at.child("containerPort"));
    else
      for (const auto& c : check_port_number(p.containerport())) out.invalid(at.child("containerPort"), p.containerport(), c);
    if (p.hostport() != 0)
      for (const auto& c : check_port_number(p.hostport())) out.invalid(at.child("hostPort"), p.hostport(), c);
    if (p.protocol().empty())
      out.required(at.child("protocol"));
    else if (p.protocol() != "TCP" && p.protocol() != "UDP" && p.protocol() != "SCTP")
      out.not_supported(at.child("protocol"), p.protocol(), {"SCTP", "TCP", "UDP"});
    if (!p.hostip().empty())
      for (const auto& c : check_ip(p.hostip())) out.invalid(at.child("hostIP"), p.hostip(), c);
  }
}

void check_config_name(const std::string& name, const std::string& key, const field::Path& at, field::ErrorList& out) {
  (void)name;  // empty names are accepted, as upstream still does
  if (key.empty())
    out.required(at.child("key"));
  else
    for (const auto& c : check_config_key(key)) out.invalid(at.child("key"), key, c);
}

void check_field_ref(const corev1::ObjectFieldSelector& f, const field::Path& at, field::ErrorList& out) {
  static constexpr std::string_view plain[] = {"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
                                               "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"};
  if (f.apiversion().empty()) return out.required(at.child("apiVersion"));
  if (f.fieldpath().empty()) return out.required(at.child("fieldPath"));
  const auto& p = f.fieldpath();
  const bool keyed = (p.starts_with("metadata.labels['") || p.starts_with("metadata.annotations['")) && p.ends_with("']");
  if (!keyed && std::find(std::begin(plain), std::end(plain), p) == std::end(plain)) out.not_supported(at.child("fieldPath"), p, plain);
}

void check_env(const google::protobuf::RepeatedPtrField<corev1::EnvVar>& env, const field::Path& path, field::ErrorList& out) {
  for (int i = 0; i < env.size(); ++i) {
    const auto& e = env[i];
    const auto at = path.index(i);
    if (e.name().empty())
      out.required(at.child("name"));
    else
      for (const auto& c : check_env_var_name(e.name())) out.invalid(at.child("name"), e.name(), c);
    if (!e.has_valuefrom()) continue;
    const auto from = at.child("valueFrom");
    const auto& v = e.valuefrom();
    const int sources = v.has_fieldref() + v.has_resourcefieldref() + v.has_configmapkeyref() + v.has_secretkeyref() + v.has_filekeyref();
    if (v.has_fieldref()) check_field_ref(v.fieldref(), from.child("fieldRef"), out);
    if (v.has_resourcefieldref() && v.resourcefieldref().resource().empty()) out.required(from.child("resourceFieldRef").child("resource"));
    if (v.has_configmapkeyref())
      check_config_name(v.configmapkeyref().localobjectreference().name(), v.configmapkeyref().key(), from.child("configMapKeyRef"), out);
    if (v.has_secretkeyref())
      check_config_name(v.secretkeyref().localobjectreference().name(), v.secretkeyref().key(), from.child("secretKeyRef"), out);
    if (sources == 0) out.invalid(from, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
    if (!e.value().empty() && sources > 0) out.invalid(from, "", "may not be specified when `value` is not empty");
    if (sources > 1) out.invalid(from, "", "may not have more than one field specified at a time");
  }
}

void check_env_from(const google::protobuf::RepeatedPtrField<corev1::EnvFromSource>& list, const field::Path& path, field::ErrorList& out) {
  for (int i = 0; i < list.size(); ++i) {
    const auto& e = list[i];
    const auto at = path.index(i);
    if (!e.prefix().empty())
      for (const auto& c : check_env_var_name(e.prefix())) out.invalid(at.child("prefix"), e.prefix(), c);
    if (e.has_configmapref() && e.configmapref().localobjectreference().name().empty()) out.required(at.child("configMapRef").child("name"));
    if (e.has_secretref() && e.secretref().localobjectreference().name().empty()) out.required(at.child("secretRef").child("name"));
    const int sources = e.has_configmapref() + e.has_secretref();
    if (sources == 0) out.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
    if (sources > 1) out.invalid(path, "", "may not have more than one field specified at a time");
  }
}

void check_mounts(const google::protobuf::RepeatedPtrField<corev1::VolumeMount>& mounts, const VolumeNames& volumes, const field::Path& path,
                  field::ErrorList& out) {
  std::set<std::string> points;
  for (int i = 0; i < mounts.size(); ++i) {
    const auto& m = mounts[i];
    const auto at = path.index(i);
    if (m.name().empty()) out.required(at.child("name"));
    if (m.mountpath().empty()) out.required(at.child("mountPath"));
    if (!m.name().empty() && !volumes.count(m.name())) out.not_found(at.child("name"), m.name());
    if (!points.insert(m.mountpath()).second) out.invalid(at.child("mountPath"), m.mountpath(), "must be unique");
    if (!m.subpath().empty() && !m.subpathexpr().empty())
      out.invalid(at.child("subPathExpr"), m.subpathexpr(), "subPathExpr and subPath are mutually exclusive");
    for (const auto& [name, sub] : {std::pair("subPath", &m.subpath()), std::pair("subPathExpr", &m.subpathexpr())}) {
      if (sub->starts_with('/')) out.invalid(at.child(name), *sub, "must be a relative path");
      if (*sub == ".." || sub->starts_with("../") || sub->find("/../") != std::string::npos || sub->ends_with("/.."))
        out.invalid(at.child(name), *sub, "must not contain '..'");
    }
  }
}

int handler_count(const corev1::ProbeHandler& h) { return h.has_exec() + h.has_httpget() + h.has_tcpsocket() + h.has_grpc(); }
int handler_count(const corev1::LifecycleHandler& h) { return h.has_exec() + h.has_httpget() + h.has_tcpsocket() + h.has_sleep(); }

template <typename H>
void check_handler(const H& h, const field::Path& at, field::ErrorList& out) {
  const int n = handler_count(h);
  if (n == 0) return out.required(at, "must specify a handler type");
  const char* names[] = {"exec", "httpGet", "tcpSocket", "grpc"};
  const bool has[] = {h.has_exec(), h.has_httpget(), h.has_tcpsocket(), n > h.has_exec() + h.has_httpget() + h.has_tcpsocket()};
  bool first = true;
  for (int i = 0; i < 4; ++i) {
    if (!has[i]) continue;
    if (!first) out.forbidden(at.child(names[i]), "may not specify more than 1 handler type");
    first = false;
  }
  if (h.has_exec() && h.exec().command_size() == 0) out.required(at.child("exec").child("command"));
  if (h.has_httpget()) {
    const auto p = at.child("httpGet");
    if (h.httpget().path().empty()) out.required(p.child("path"));
    validate_port_or_name(h.httpget().port(), p.child("port"), out);
    if (h.httpget().scheme() != "HTTP" && h.httpget().scheme() != "HTTPS") out.not_supported(p.child("scheme"), h.httpget().scheme(), {"HTTP", "HTTPS"});
  }
  if (h.has_tcpsocket()) validate_port_or_name(h.tcpsocket().port(), at.child("tcpSocket").child("port"), out);
}

void check_probe(const corev1::Probe& p, const field::Path& at, field::ErrorList& out) {
  check_handler(p.handler(), at, out);
  if (p.handler().has_grpc())
    for (const auto& c : check_port_number(p.handler().grpc().port())) out.invalid(at.child("grpc").child("port"), p.handler().grpc().port(), c);
  require_non_negative(p.initialdelayseconds(), at.child("initialDelaySeconds"), out);
  require_non_negative(p.timeoutseconds(), at.child("timeoutSeconds"), out);
  require_non_negative(p.periodseconds(), at.child("periodSeconds"), out);
  require_non_negative(p.successthreshold(), at.child("successThreshold"), out);
  require_non_negative(p.failurethreshold(), at.child("failureThreshold"), out);
  if (p.has_terminationgraceperiodseconds() && p.terminationgraceperiodseconds() <= 0)
    out.invalid(at.child("terminationGracePeriodSeconds"), p.terminationgraceperiodseconds(), "must be greater than 0");
}

template <typename C>
void check_probes(const C& c, const field::Path& at, field::ErrorList& out) {
  if (c.has_livenessprobe()) {
    check_probe(c.livenessprobe(), at.child("livenessProbe"), out);
    if (c.livenessprobe().successthreshold() != 1)
      out.invalid(at.child("livenessProbe").child("successThreshold"), c.livenessprobe().successthreshold(), "must be 1");
  }
  if (c.has_readinessprobe()) {
    check_probe(c.readinessprobe(), at.child("readinessProbe"), out);
    if (c.readinessprobe().has_terminationgraceperiodseconds())
      out.invalid(at.child("readinessProbe").child("terminationGracePeriodSeconds"), c.readinessprobe().terminationgraceperiodseconds(),
                  "must not be set for readinessProbes");
  }
  if (c.has_startupprobe()) {
    check_probe(c.startupprobe(), at.child("startupProbe"), out);
    if (c.startupprobe().successthreshold() != 1)
      out.invalid(at.child("startupProbe").child("successThreshold"), c.startupprobe().successthreshold(), "must be 1");
  }
}

void check_security(const corev1::SecurityContext& s, const field::Path& at, field::ErrorList& out) {
  constexpr std::int64_t max_id = (1LL << 31) - 1;
  const auto id = [&](bool has, std::int64_t v, const char* name) {
    if (has && (v < 0 || v > max_id)) out.invalid(at.child(name), v, "must be between 0 and 2147483647, inclusive");
  };
  id(s.has_runasuser(), s.runasuser(), "runAsUser");
  id(s.has_runasgroup(), s.runasgroup(), "runAsGroup");
  if (s.has_allowprivilegeescalation() && !s.allowprivilegeescalation()) {
    if (s.privileged()) out.invalid_json(at, "{\"allowPrivilegeEscalation\":false,\"privileged\":true}", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    for (const auto& cap : s.capabilities().add())
      if (cap == "CAP_SYS_ADMIN")
        out.invalid_json(at, "{\"allowPrivilegeEscalation\":false}", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
  }
  if (s.has_procmount() && s.procmount() != "Default" && s.procmount() != "Unmasked")
    out.not_supported(at.child("procMount"), s.procmount(), {"Default", "Unmasked"});
}

template <typename C>
void check_container(const C& c, const VolumeNames& volumes, const field::Path& at, field::ErrorList& out) {
  if (c.name().empty())
    out.required(at.child("name"));
  else
    for (const auto& m : check_dns1123_label(c.name())) out.invalid(at.child("name"), c.name(), m);
  if (c.image().empty())
    out.required(at.child("image"));
  else if (c.image().front() == ' ' || c.image().back() == ' ' || c.image().back() == '\n' || c.image().back() == '\t')
    out.invalid(at.child("image"), c.image(), "must not have leading or trailing whitespace");
  if (c.terminationmessagepolicy().empty())
    out.required(at.child("terminationMessagePolicy"));
  else if (c.terminationmessagepolicy() != "File" && c.terminationmessagepolicy() != "FallbackToLogsOnError")
    out.not_supported(at.child("terminationMessagePolicy"), c.terminationmessagepolicy(), {"FallbackToLogsOnError", "File"});
  check_ports(c.ports(), at.child("ports"), out);
  check_env(c.env(), at.child("env"), out);
  check_env_from(c.envfrom(), at.child("envFrom"), out);
  check_mounts(c.volumemounts(), volumes, at.child("volumeMounts"), out);
  if (c.imagepullpolicy().empty())
    out.required(at.child("imagePullPolicy"));
  else if (c.imagepullpolicy() != "Always" && c.imagepullpolicy() != "IfNotPresent" && c.imagepullpolicy() != "Never")
    out.not_supported(at.child("imagePullPolicy"), c.imagepullpolicy(), {"Always", "IfNotPresent", "Never"});
  validate_resources(c.resources(), at.child("resources"), out);
  if (c.has_securitycontext()) check_security(c.securitycontext(), at.child("securityContext"), out);
}

// Two containers that want the same port of the node.
template <typename List>
void check_host_port_conflicts(const List& containers, std::set<HostPort>& taken, const field::Path& path, field::ErrorList& out) {
  for (int i = 0; i < containers.size(); ++i)
    for (int j = 0; j < containers[i].ports_size(); ++j) {
      const auto& p = containers[i].ports(j);
      if (p.hostport() == 0) continue;
      if (!taken.insert({p.protocol(), p.hostip(), p.hostport()}).second)
        out.duplicate(path.index(i).child("ports").index(j).child("hostPort"),
                      fmt::format("{}/{}/{}", p.protocol(), p.hostip(), p.hostport()));
    }
}

template <typename List>
void check_host_network(const List& containers, const field::Path& path, field::ErrorList& out) {
  for (int i = 0; i < containers.size(); ++i)
    for (int j = 0; j < containers[i].ports_size(); ++j) {
      const auto& p = containers[i].ports(j);
      if (p.hostport() != p.containerport())
        out.invalid(path.index(i).child("ports").index(j).child("containerPort"), p.containerport(), "must match `hostPort` when `hostNetwork` is true");
    }
}

}  // namespace

void validate_port_or_name(const intstr::IntOrString& v, const field::Path& path, field::ErrorList& out) {
  if (v.type() == 0) {
    for (const auto& c : check_port_number(v.intval())) out.invalid(path, v.intval(), c);
  } else {
    for (const auto& c : check_port_name(v.strval())) out.invalid(path, v.strval(), c);
  }
}

std::string quantity_or_zero(const google::protobuf::Map<std::string, resource::Quantity>& m, const std::string& name) {
  const auto it = m.find(name);
  return it == m.end() ? "0" : it->second.string();
}

void validate_resources(const corev1::ResourceRequirements& r, const field::Path& path, field::ErrorList& out) {
  const auto each = [&](const google::protobuf::Map<std::string, resource::Quantity>& list, const char* kind) {
    const std::map<std::string, resource::Quantity> sorted(list.begin(), list.end());
    for (const auto& [name, quantity] : sorted) {
      const auto at = path.child(kind).key(name);
      for (const auto& c : check_qualified_name(name)) out.invalid(at, name, c);
      const bool standard = name == "cpu" || name == "memory" || name == "ephemeral-storage" || name.starts_with("hugepages-");
      if (!standard && name.find('/') == std::string::npos) out.invalid(at, name, "must be a standard resource for containers");
      const auto q = kube::Quantity::parse(quantity.string());
      if (!q) {
        out.invalid(at, quantity.string(), q.error().message);
        continue;
      }
      if (q->is_negative()) out.invalid(at, quantity.string(), "must be greater than or equal to 0");
      if (kind != std::string_view("requests")) continue;
      const auto limit = r.limits().find(name);
      if (limit == r.limits().end()) {
        if (name.find('/') != std::string::npos && !name.starts_with("kubernetes.io/")) out.required(path.child("limits"), "Limit must be set for non overcommitable resources");
        continue;
      }
      const auto l = kube::Quantity::parse(limit->second.string());
      if (l && *q > *l) out.invalid(at, quantity.string(), fmt::format("must be less than or equal to {} limit of {}", name, limit->second.string()));
    }
  };
  each(r.limits(), "limits");
  each(r.requests(), "requests");
}

void validate_containers(const corev1::PodSpec& spec, const VolumeNames& volumes, const field::Path& path, field::ErrorList& out) {
  if (spec.containers_size() == 0) out.required(path.child("containers"));
  std::set<std::string> names;
  const auto walk = [&](const auto& containers, const char* list, bool init) {
    for (int i = 0; i < containers.size(); ++i) {
      const auto& c = containers[i];
      const auto at = path.child(list).index(i);
      check_container(c, volumes, at, out);
      if (!c.name().empty() && !names.insert(c.name()).second) out.duplicate(at.child("name"), c.name());
      const bool sidecar = init && c.restartpolicy() == "Always";
      if (c.has_restartpolicy() && init && c.restartpolicy() != "Always" && c.restartpolicy() != "Never" && c.restartpolicy() != "OnFailure")
        out.not_supported(at.child("restartPolicy"), c.restartpolicy(), {"Always", "Never", "OnFailure"});
      if (!init || sidecar) {
        if (c.has_lifecycle()) {
          if (c.lifecycle().has_poststart()) check_handler(c.lifecycle().poststart(), at.child("lifecycle").child("postStart"), out);
          if (c.lifecycle().has_prestop()) check_handler(c.lifecycle().prestop(), at.child("lifecycle").child("preStop"), out);
        }
        check_probes(c, at, out);
        continue;
      }
      for (const auto& [has, name] : {std::pair(c.has_lifecycle(), "lifecycle"), std::pair(c.has_livenessprobe(), "livenessProbe"),
                                      std::pair(c.has_readinessprobe(), "readinessProbe"), std::pair(c.has_startupprobe(), "startupProbe")})
        if (has) out.forbidden(at.child(name), "may not be set for init containers without restartPolicy=Always");
    }
  };
  walk(spec.containers(), "containers", false);
  walk(spec.initcontainers(), "initContainers", true);
  std::set<HostPort> taken;
  check_host_port_conflicts(spec.containers(), taken, path.child("containers"), out);
  if (spec.hostnetwork()) check_host_network(spec.containers(), path.child("containers"), out);
}

}  // namespace fairlead::apiserver
