#include "controlplane/kubelet/pod_config.h"

#include <algorithm>

#include "controlplane/kubelet/decide.h"
#include "controlplane/kubelet/proto/cri.pb.h"
#include "controlplane/kubelet/status.h"
#include "kube/quantity.h"

namespace fairlead::kubelet {
namespace {

constexpr std::int64_t kCpuPeriodMicroseconds = 100'000;

// Hidden from and read-only in containers that are not privileged: what leaks or changes the kernel's state.
constexpr const char* kMaskedPaths[] = {"/proc/asound",     "/proc/acpi",        "/proc/interrupts",
                                        "/proc/kcore",      "/proc/keys",        "/proc/latency_stats",
                                        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                                        "/proc/scsi",       "/sys/firmware",     "/sys/devices/virtual/powercap"};
constexpr const char* kReadonlyPaths[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

template <typename Map>
std::int64_t milli_of(const Map& amounts, const char* resource) {
  const auto it = amounts.find(resource);
  if (it == amounts.end()) return 0;
  const auto q = kube::Quantity::parse(it->second.string());
  return q ? q->milli() : 0;
}

bool any_privileged(const corev1::Pod& pod) {
  const auto test = [](const corev1::Container& c) { return c.securitycontext().privileged(); };
  return std::any_of(pod.spec().containers().begin(), pod.spec().containers().end(), test) ||
         std::any_of(pod.spec().initcontainers().begin(), pod.spec().initcontainers().end(), test);
}

void set_namespaces(const corev1::Pod& pod, cri::NamespaceOption* out) {
  out->set_network(pod.spec().hostnetwork() ? cri::NODE : cri::POD);
  out->set_ipc(pod.spec().hostipc() ? cri::NODE : cri::POD);
  out->set_pid(pod.spec().hostpid() ? cri::NODE : pod.spec().shareprocessnamespace() ? cri::POD : cri::CONTAINER);
}

void set_seccomp(const corev1::SeccompProfile& profile, bool given, bool by_default, cri::SecurityProfile* out) {
  out->set_profile_type(by_default ? cri::SecurityProfile::RuntimeDefault : cri::SecurityProfile::Unconfined);
  if (!given) return;
  if (profile.type() == "RuntimeDefault") out->set_profile_type(cri::SecurityProfile::RuntimeDefault);
  if (profile.type() == "Unconfined") out->set_profile_type(cri::SecurityProfile::Unconfined);
  if (profile.type() == "Localhost") {
    out->set_profile_type(cri::SecurityProfile::Localhost);
    out->set_localhost_ref(profile.localhostprofile());
  }
}

void set_dns(const corev1::Pod& pod, const Settings& settings, cri::DNSConfig* out) {
  const std::string& policy = pod.spec().dnspolicy();
  const bool cluster =
      (policy.empty() || policy == "ClusterFirst") ? !pod.spec().hostnetwork() : policy == "ClusterFirstWithHostNet";
  if (cluster && !settings.cluster_dns.empty()) {
    for (const auto& server : settings.cluster_dns) out->add_servers(server);
    for (const auto& prefix : {pod.metadata().namespace_() + ".svc.", std::string("svc."), std::string()})
      out->add_searches(prefix + settings.cluster_domain);
    out->add_options("ndots:5");
  }
  const auto& own = pod.spec().dnsconfig();
  for (const auto& server : own.nameservers())
    if (std::find(out->servers().begin(), out->servers().end(), server) == out->servers().end()) out->add_servers(server);
  for (const auto& search : own.searches())
    if (std::find(out->searches().begin(), out->searches().end(), search) == out->searches().end()) out->add_searches(search);
  for (const auto& option : own.options()) {
    // The pod's own value of an option replaces ours.
    auto* options = out->mutable_options();
    options->erase(
        std::remove_if(options->begin(), options->end(),
                       [&](const std::string& o) { return o == option.name() || o.rfind(option.name() + ":", 0) == 0; }),
        options->end());
    out->add_options(option.value().empty() ? option.name() : option.name() + ":" + option.value());
  }
}

void set_resources(const ContainerPlan& plan, const Settings& settings, cri::LinuxContainerResources* out) {
  const auto& r = plan.container.resources();
  const std::int64_t cpu_limit = milli_of(r.limits(), "cpu");
  const std::int64_t cpu_request = r.requests().contains("cpu") ? milli_of(r.requests(), "cpu") : cpu_limit;
  out->set_cpu_shares(cpu_shares(cpu_request));
  if (cpu_limit > 0) {
    out->set_cpu_period(kCpuPeriodMicroseconds);
    out->set_cpu_quota(cpu_quota(cpu_limit));
  }
  out->set_memory_limit_in_bytes(milli_of(r.limits(), "memory") / 1000);
  out->set_oom_score_adj(oom_score_adjustment(plan.pod, plan.container, settings.memory_bytes));
}

// Who the process runs as: the container's setting, else the pod's, else the image's.
Result<> set_user(const ContainerPlan& plan, cri::LinuxContainerSecurityContext* out) {
  const auto& own = plan.container.securitycontext();
  const auto& pod = plan.pod.spec().securitycontext();
  const bool has_user = own.has_runasuser() || pod.has_runasuser();
  const std::int64_t user = own.has_runasuser() ? own.runasuser() : pod.runasuser();
  if (has_user) out->mutable_run_as_user()->set_value(user);
  const bool non_root = own.has_runasnonroot() ? own.runasnonroot() : pod.runasnonroot();
  if (non_root) {
    if (has_user && user == 0) return fail(ErrorCode::failed_precondition, "container's runAsUser breaks non-root policy");
    const bool numeric = !plan.image_user.empty() && plan.image_user.find_first_not_of("0123456789") == std::string::npos;
    if (!has_user && (plan.image_user == "0" || plan.image_user == "root" || plan.image_user.empty()))
      return fail(ErrorCode::failed_precondition, "container has runAsNonRoot and image will run as root");
    if (!has_user && !numeric)
      return fail(ErrorCode::failed_precondition,
                  "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
                  plan.image_user);
  }
  const bool has_group = own.has_runasgroup() || pod.has_runasgroup();
  if (has_group) {
    // The interface takes a group only together with a user.
    if (!has_user) {
      const bool numeric = !plan.image_user.empty() && plan.image_user.find_first_not_of("0123456789") == std::string::npos;
      out->mutable_run_as_user()->set_value(numeric ? std::stoll(plan.image_user) : 0);
    }
    out->mutable_run_as_group()->set_value(own.has_runasgroup() ? own.runasgroup() : pod.runasgroup());
  }
  for (const std::int64_t g : pod.supplementalgroups()) out->add_supplemental_groups(g);
  if (pod.has_fsgroup()) out->add_supplemental_groups(pod.fsgroup());
  return {};
}

Result<> set_security(const ContainerPlan& plan, const Settings& settings, cri::LinuxContainerSecurityContext* out) {
  const auto& own = plan.container.securitycontext();
  const auto& pod = plan.pod.spec().securitycontext();
  out->set_privileged(own.privileged());
  out->set_readonly_rootfs(own.readonlyrootfilesystem());
  out->set_no_new_privs(own.has_allowprivilegeescalation() && !own.allowprivilegeescalation());
  for (const auto& c : own.capabilities().add()) out->mutable_capabilities()->add_add_capabilities(c);
  for (const auto& c : own.capabilities().drop()) out->mutable_capabilities()->add_drop_capabilities(c);
  set_namespaces(plan.pod, out->mutable_namespace_options());
  set_seccomp(own.has_seccompprofile() ? own.seccompprofile() : pod.seccompprofile(),
              own.has_seccompprofile() || pod.has_seccompprofile(), settings.seccomp_default, out->mutable_seccomp());
  if (!own.privileged() && own.procmount() != "Unmasked") {
    for (const char* path : kMaskedPaths) out->add_masked_paths(path);
    for (const char* path : kReadonlyPaths) out->add_readonly_paths(path);
  }
  return set_user(plan, out);
}

template <typename Labels>
void set_labels(const corev1::Pod& pod, Labels* out) {
  (*out)[kLabelPodName] = pod.metadata().name();
  (*out)[kLabelPodNamespace] = pod.metadata().namespace_();
  (*out)[kLabelPodUid] = pod.metadata().uid();
}

}  // namespace

std::int64_t cpu_shares(std::int64_t milli) { return milli <= 0 ? 2 : std::clamp<std::int64_t>(milli * 1024 / 1000, 2, 262144); }
std::int64_t cpu_quota(std::int64_t milli) {
  return milli <= 0 ? 0 : std::max<std::int64_t>(milli * kCpuPeriodMicroseconds / 1000, 1000);
}

CgroupLimits pod_limits(const corev1::Pod& pod) {
  CgroupLimits out;
  std::int64_t request = 0, cpu = 0, memory = 0;
  bool cpu_limited = true, memory_limited = true;  // a pod has a limit only if all its containers do
  const auto add = [&](const corev1::Container& c) {
    const auto& r = c.resources();
    const std::int64_t limit = milli_of(r.limits(), "cpu"), bytes = milli_of(r.limits(), "memory") / 1000;
    request += r.requests().contains("cpu") ? milli_of(r.requests(), "cpu") : limit;
    cpu += limit;
    memory += bytes;
    cpu_limited = cpu_limited && limit > 0;
    memory_limited = memory_limited && bytes > 0;
  };
  for (const auto& c : pod.spec().containers()) add(c);
  for (const auto& c : pod.spec().initcontainers())
    if (is_sidecar(c)) add(c);
  // Plain init containers run before the others: the pod needs the larger of both.
  for (const auto& c : pod.spec().initcontainers()) {
    if (is_sidecar(c)) continue;
    const auto& r = c.resources();
    const std::int64_t limit = milli_of(r.limits(), "cpu"), bytes = milli_of(r.limits(), "memory") / 1000;
    request = std::max(request, milli_of(r.requests(), "cpu"));
    cpu = std::max(cpu, limit);
    memory = std::max(memory, bytes);
    cpu_limited = cpu_limited && limit > 0;
    memory_limited = memory_limited && bytes > 0;
  }
  out.cpu_shares = cpu_shares(request);
  out.cpu_quota = cpu_limited ? cpu_quota(cpu) : 0;
  out.memory_bytes = memory_limited ? memory : 0;
  return out;
}

std::int64_t oom_score_adjustment(const corev1::Pod& pod, const corev1::Container& container, std::int64_t node_memory_bytes) {
  const std::string qos = qos_class(pod);
  if (qos == "Guaranteed") return -997;
  if (qos == "BestEffort" || node_memory_bytes <= 0) return 1000;
  const std::int64_t request = milli_of(container.resources().requests(), "memory") / 1000;
  // The more of the node a container asked for, the later it is killed.
  const double share = static_cast<double>(request) / static_cast<double>(node_memory_bytes);
  return std::clamp<std::int64_t>(1000 - static_cast<std::int64_t>(1000 * share), 3, 999);
}

std::string pod_hostname(const corev1::Pod& pod) {
  std::string name = pod.spec().hostname().empty() ? pod.metadata().name() : pod.spec().hostname();
  name.resize(std::min<std::size_t>(name.size(), 63));
  while (!name.empty() && (name.back() == '-' || name.back() == '.')) name.pop_back();
  return name;
}

std::string hosts_content(const corev1::Pod& pod, const std::vector<std::string>& pod_ips, const Settings& settings) {
  std::string out =
      "# Written by the node agent for this pod.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
      "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
  const std::string hostname = pod_hostname(pod);
  const std::string full = pod.spec().subdomain().empty() ? ""
                                                          : fmt::format("{}.{}.{}.svc.{}\t", hostname, pod.spec().subdomain(),
                                                                        pod.metadata().namespace_(), settings.cluster_domain);
  for (const std::string& ip : pod_ips) out += fmt::format("{}\t{}{}\n", ip, full, hostname);
  for (const auto& alias : pod.spec().hostaliases()) {
    std::string names;
    for (const auto& n : alias.hostnames()) names += "\t" + n;
    out += alias.ip() + names + "\n";
  }
  return out;
}

std::shared_ptr<const cri::PodSandboxConfig> make_sandbox_config(const corev1::Pod& pod, unsigned attempt,
                                                                 const Settings& settings) {
  auto out = std::make_shared<cri::PodSandboxConfig>();
  auto* metadata = out->mutable_metadata();
  metadata->set_name(pod.metadata().name());
  metadata->set_namespace_(pod.metadata().namespace_());
  metadata->set_uid(pod.metadata().uid());
  metadata->set_attempt(attempt);
  if (!pod.spec().hostnetwork()) out->set_hostname(pod_hostname(pod));
  out->set_log_directory(pod_log_dir(settings, pod.metadata().namespace_(), pod.metadata().name(), pod.metadata().uid()));
  if (pod.spec().dnspolicy() != "Default" || pod.spec().has_dnsconfig()) {
    cri::DNSConfig dns;
    set_dns(pod, settings, &dns);
    if (dns.servers_size() > 0 || dns.searches_size() > 0 || dns.options_size() > 0 || pod.spec().dnspolicy() == "None")
      *out->mutable_dns_config() = std::move(dns);
  }
  for (const auto& [k, v] : pod.metadata().labels()) (*out->mutable_labels())[k] = v;
  set_labels(pod, out->mutable_labels());
  for (const auto& [k, v] : pod.metadata().annotations()) (*out->mutable_annotations())[k] = v;
  const auto add_ports = [&](const corev1::Container& c) {
    for (const auto& p : c.ports()) {
      if (p.hostport() <= 0 || pod.spec().hostnetwork()) continue;
      auto* m = out->add_port_mappings();
      m->set_protocol(p.protocol() == "UDP" ? cri::UDP : p.protocol() == "SCTP" ? cri::SCTP : cri::TCP);
      m->set_container_port(p.containerport());
      m->set_host_port(p.hostport());
      m->set_host_ip(p.hostip());
    }
  };
  for (const auto& c : pod.spec().containers()) add_ports(c);
  for (const auto& c : pod.spec().initcontainers())
    if (is_sidecar(c)) add_ports(c);
  auto* os = out->mutable_linux();
  os->set_cgroup_parent(pod_cgroup(settings, pod));
  for (const auto& s : pod.spec().securitycontext().sysctls()) (*os->mutable_sysctls())[s.name()] = s.value();
  auto* security = os->mutable_security_context();
  set_namespaces(pod, security->mutable_namespace_options());
  security->set_privileged(any_privileged(pod));
  const auto& own = pod.spec().securitycontext();
  if (own.has_runasuser()) security->mutable_run_as_user()->set_value(own.runasuser());
  if (own.has_runasuser() && own.has_runasgroup()) security->mutable_run_as_group()->set_value(own.runasgroup());
  for (const std::int64_t g : own.supplementalgroups()) security->add_supplemental_groups(g);
  // The pause program needs no more than the default profile, whatever the containers run with.
  security->mutable_seccomp()->set_profile_type(cri::SecurityProfile::RuntimeDefault);
  return out;
}

Result<std::shared_ptr<const cri::ContainerConfig>> make_container_config(const ContainerPlan& plan, const Settings& settings) {
  const corev1::Container& c = plan.container;
  auto out = std::make_shared<cri::ContainerConfig>();
  out->mutable_metadata()->set_name(c.name());
  out->mutable_metadata()->set_attempt(plan.attempt);
  out->mutable_image()->set_image(plan.image_id);
  const auto lookup = [&](const std::string& name) -> const std::string* {
    for (const auto& [k, v] : plan.environment)
      if (k == name) return &v;
    return nullptr;
  };
  for (const auto& word : c.command()) out->add_command(expand(word, lookup));
  for (const auto& word : c.args()) out->add_args(expand(word, lookup));
  out->set_working_dir(c.workingdir());
  for (const auto& [k, v] : plan.environment) {
    auto* e = out->add_envs();
    e->set_key(k);
    e->set_value(v);
  }
  for (const MountPoint& m : plan.mounts) {
    auto* mount = out->add_mounts();
    mount->set_container_path(m.container_path);
    mount->set_host_path(m.host_path);
    mount->set_readonly(m.read_only);
    if (m.propagation == "HostToContainer") mount->set_propagation(cri::PROPAGATION_HOST_TO_CONTAINER);
    if (m.propagation == "Bidirectional") mount->set_propagation(cri::PROPAGATION_BIDIRECTIONAL);
  }
  set_labels(plan.pod, out->mutable_labels());
  (*out->mutable_labels())[kLabelContainerName] = c.name();
  auto& annotations = *out->mutable_annotations();
  annotations[kAnnotationRestartCount] = std::to_string(plan.attempt);
  annotations[kAnnotationGracePeriod] = std::to_string(grace_of(plan.pod));
  annotations[kAnnotationMessagePath] = c.terminationmessagepath();
  annotations[kAnnotationMessagePolicy] = c.terminationmessagepolicy();
  out->set_log_path(container_log_path(c.name(), plan.attempt));
  out->set_stdin(c.stdin());
  out->set_stdin_once(c.stdinonce());
  out->set_tty(c.tty());
  set_resources(plan, settings, out->mutable_linux()->mutable_resources());
  FL_CHECK(set_security(plan, settings, out->mutable_linux()->mutable_security_context()));
  return std::shared_ptr<const cri::ContainerConfig>(std::move(out));
}

}  // namespace fairlead::kubelet
