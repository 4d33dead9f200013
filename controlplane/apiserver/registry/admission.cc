#include "controlplane/apiserver/registry/admission.h"

#include "controlplane/apiserver/services/claims.h"
#include "controlplane/apiserver/validation/networking.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::apiserver {
namespace {

constexpr std::string_view kTokenMount = "/var/run/secrets/kubernetes.io/serviceaccount";
constexpr std::string_view kMirror = "kubernetes.io/config.mirror";
constexpr std::int64_t kTokenSeconds = 3607;

bool is_pod(const Resource& r) { return r.kind->group.empty() && r.kind->kind == "Pod"; }
bool is_ingress(const Resource& r) { return r.kind->group == "networking.k8s.io" && r.kind->kind == "Ingress"; }

void add_toleration(corev1::PodSpec& spec, std::string_view key) {
  for (const auto& t : spec.tolerations())
    if ((t.key() == key || t.key().empty()) && (t.effect() == "NoExecute" || t.effect().empty())) return;
  auto& t = *spec.add_tolerations();
  t.set_key(std::string(key));
  t.set_operator_("Exists");
  t.set_effect("NoExecute");
  t.set_tolerationseconds(300);
}

// A new node takes no pods until the node lifecycle controller has seen it ready.
void add_not_ready_taint(corev1::Node& node) {
  constexpr char key[] = "node.kubernetes.io/not-ready";
  for (const auto& t : node.spec().taints())
    if (t.key() == key && t.effect() == "NoSchedule") return;
  auto& t = *node.mutable_spec()->add_taints();
  t.set_key(key);
  t.set_effect("NoSchedule");
}

// Built-in classes only; there is no PriorityClass kind yet.
ApiResult<> set_priority(const Resource& r, corev1::Pod& pod) {
  auto& spec = *pod.mutable_spec();
  std::int32_t priority = 0;
  const auto& name = spec.priorityclassname();
  if (name == "system-node-critical")
    priority = 2'000'001'000;
  else if (name == "system-cluster-critical")
    priority = 2'000'000'000;
  else if (!name.empty())
    return api_fail(forbidden(*r.kind, pod.metadata().name(), fmt::format("no PriorityClass with name {} was found", name)));
  if (spec.has_priority() && spec.priority() != priority)
    return api_fail(forbidden(*r.kind, pod.metadata().name(),
                              fmt::format("the integer value of priority ({}) must not be provided in pod spec; priority admission "
                                          "controller computed {} from the given PriorityClass name",
                                          spec.priority(), priority)));
  spec.set_priority(priority);
  if (!spec.has_preemptionpolicy()) spec.set_preemptionpolicy("PreemptLowerPriority");
  return {};
}

bool has_token_mount(const corev1::Container& c) {
  for (const auto& m : c.volumemounts())
    if (m.mountpath() == kTokenMount) return true;
  return false;
}

void add_token_volume(corev1::PodSpec& spec, const std::string& name) {
  auto& v = *spec.add_volumes();
  v.set_name(name);
  auto& projected = *v.mutable_volumesource()->mutable_projected();
  projected.set_defaultmode(0644);
  auto& token = *projected.add_sources()->mutable_serviceaccounttoken();
  token.set_expirationseconds(kTokenSeconds);
  token.set_path("token");
  auto& ca = *projected.add_sources()->mutable_configmap();
  ca.mutable_localobjectreference()->set_name("kube-root-ca.crt");
  auto& ca_item = *ca.add_items();
  ca_item.set_key("ca.crt");
  ca_item.set_path("ca.crt");
  auto& ns = *projected.add_sources()->mutable_downwardapi()->add_items();
  ns.set_path("namespace");
  ns.mutable_fieldref()->set_apiversion("v1");
  ns.mutable_fieldref()->set_fieldpath("metadata.namespace");
}

void mount_token(corev1::PodSpec& spec, Random& random) {
  std::vector<corev1::Container*> wanting;
  for (auto& c : *spec.mutable_initcontainers())
    if (!has_token_mount(c)) wanting.push_back(&c);
  for (auto& c : *spec.mutable_containers())
    if (!has_token_mount(c)) wanting.push_back(&c);
  if (wanting.empty()) return;
  std::string name;
  for (const auto& v : spec.volumes())
    if (v.name().starts_with("kube-api-access-")) name = v.name();
  if (name.empty()) {
    name = "kube-api-access-" + random_suffix(random, 5);
    add_token_volume(spec, name);
  }
  for (auto* c : wanting) {
    auto& m = *c->add_volumemounts();
    m.set_name(name);
    m.set_readonly(true);
    m.set_mountpath(std::string(kTokenMount));
  }
}

}  // namespace

Task<ApiResult<>> Admission::check_namespace(const Resource& resource, std::string ns, std::string name) {
  const auto* namespaces = resources_.find("", "v1", "namespaces");
  const auto key = namespaces->key("", ns);
  std::unique_ptr<Message> found;
  if (const auto cached = namespaces->cache->get(key)) {
    found = decode_entry(*namespaces, *cached);
  } else {  // the cache may not have heard of it yet
    auto stored = co_await storage_.get(*namespaces, key, ns);
    if (!stored) co_return api_fail(std::move(stored).error());
    found = std::move(stored->object);
  }
  if (meta_of(*found).has_deletiontimestamp()) {
    auto e = forbidden(*resource.kind, name, fmt::format("unable to create new content in namespace {} because it is being terminated", ns));
    e.causes.push_back({"NamespaceTerminating", fmt::format("namespace {} is being terminated", ns), "metadata.namespace"});
    co_return api_fail(std::move(e));
  }
  co_return ApiResult<>{};
}

Task<ApiResult<>> Admission::admit_service_account(const Resource& resource, std::string ns, Message& object) {
  auto& pod = static_cast<corev1::Pod&>(object);
  auto& spec = *pod.mutable_spec();
  if (pod.metadata().annotations().contains(std::string(kMirror))) co_return ApiResult<>{};
  if (spec.serviceaccountname().empty()) spec.set_serviceaccountname("default");
  spec.set_serviceaccount(spec.serviceaccountname());
  const auto* accounts = resources_.find("", "v1", "serviceaccounts");
  const auto account_name = spec.serviceaccountname();
  const auto key = accounts->key(ns, account_name);
  std::unique_ptr<Message> found;
  // A namespace and its first pod are often created together; the controller that makes the account needs a moment.
  for (int attempt = 0; !found; ++attempt) {
    if (const auto cached = accounts->cache->get(key)) {
      found = decode_entry(*accounts, *cached);
      break;
    }
    auto stored = co_await storage_.get(*accounts, key, account_name);
    if (stored) {
      found = std::move(stored->object);
      break;
    }
    if (attempt == 9)
      co_return api_fail(forbidden(*resource.kind, pod.metadata().name(),
                                   fmt::format("error looking up service account {}/{}: serviceaccount \"{}\" not found", ns,
                                               account_name, account_name)));
    auto slept = co_await sleep_for(std::chrono::milliseconds(100));
    if (!slept) co_return api_fail(from_error(slept.error()));
  }
  const auto& account = static_cast<const corev1::ServiceAccount&>(*found);
  const bool mount = spec.has_automountserviceaccounttoken()      ? spec.automountserviceaccounttoken()
                     : account.has_automountserviceaccounttoken() ? account.automountserviceaccounttoken()
                                                                  : true;
  if (mount && on("ServiceAccountToken")) mount_token(spec, random_);
  if (spec.imagepullsecrets_size() == 0) *spec.mutable_imagepullsecrets() = account.imagepullsecrets();
  co_return ApiResult<>{};
}

// Of several default classes the newest counts, and of equally old ones the first by name, as upstream.
ApiResult<> Admission::default_ingress_class(const Resource&, Message& object) const {
  auto& ingress = static_cast<networkingv1::Ingress&>(object);
  if (ingress.spec().has_ingressclassname() || ingress.metadata().annotations().contains(kIngressClassAnnotation)) return {};
  const auto* classes = resources_.find("networking.k8s.io", "v1", "ingressclasses");
  const auto all = Selection::make(*classes, "", "", {}, {});
  std::int64_t newest = 0;
  std::string chosen;
  for (const auto& e : classes->cache->list(*all).items) {
    const auto c = decode_entry(*classes, *e);
    const auto& m = meta_of(*c);
    const auto mark = m.annotations().find(kDefaultClassAnnotation);
    if (mark == m.annotations().end() || mark->second != "true") continue;
    if (!chosen.empty() && m.creationtimestamp().seconds() <= newest) continue;
    newest = m.creationtimestamp().seconds();
    chosen = m.name();
  }
  if (!chosen.empty()) ingress.mutable_spec()->set_ingressclassname(chosen);
  return {};
}

ApiResult<> Admission::keep_held_address(const Resource& resource, const Message& object) const {
  const auto& address = static_cast<const networkingv1::IPAddress&>(object);
  const auto& parent = address.spec().parentref();
  if (parent.resource() != "services" || !parent.group().empty()) return {};
  const auto* services = resources_.find("", "v1", "services");
  const auto entry = services->cache->get(services->key(parent.namespace_(), parent.name()));
  if (!entry) return {};
  const auto service = decode_entry(*services, *entry);
  const auto ip = IpAddress::parse(address.metadata().name());
  if (!ip || !services::addresses_of(static_cast<const corev1::Service&>(*service).spec()).count(*ip)) return {};
  return api_fail(forbidden(*resource.kind, address.metadata().name(),
                            fmt::format("service {}/{} has this address", parent.namespace_(), parent.name())));
}

Task<ApiResult<>> Admission::on_create(const Resource& resource, const std::string& ns, Message& object, const WriteOptions& options) {
  if (resource.kind->namespaced() && on("NamespaceLifecycle")) {
    auto ok = co_await check_namespace(resource, ns, meta_of(object).name());
    if (!ok) co_return api_fail(std::move(ok).error());
  }
  if (resource.kind->kind == "Node" && on("TaintNodesByCondition")) add_not_ready_taint(static_cast<corev1::Node&>(object));
  if (is_ingress(resource) && on("DefaultIngressClass")) API_CO_CHECK(default_ingress_class(resource, object));
  if (!is_pod(resource)) co_return ApiResult<>{};
  constexpr std::string_view node_user = "system:node:";
  if (options.user.name.starts_with(node_user)) {
    const auto& pod = static_cast<const corev1::Pod&>(object);
    if (pod.spec().nodename() != options.user.name.substr(node_user.size()) || !pod.metadata().annotations().contains(std::string(kMirror)))
      co_return api_fail(forbidden(*resource.kind, pod.metadata().name(), "a node agent may only create mirror pods of its own node"));
  }
  if (on("ServiceAccount")) {
    auto ok = co_await admit_service_account(resource, ns, object);
    if (!ok) co_return api_fail(std::move(ok).error());
  }
  auto& pod = static_cast<corev1::Pod&>(object);
  if (on("Priority")) API_CO_CHECK(set_priority(resource, pod));
  if (on("DefaultTolerationSeconds")) {
    add_toleration(*pod.mutable_spec(), "node.kubernetes.io/not-ready");
    add_toleration(*pod.mutable_spec(), "node.kubernetes.io/unreachable");
  }
  co_return ApiResult<>{};
}

ApiResult<> Admission::on_delete(const Resource& resource, const Message& object, const WriteOptions& options) const {
  const auto& name = meta_of(object).name();
  if (resource.kind->kind == "Namespace" && (name == "default" || name == "kube-system" || name == "kube-public") && on("NamespaceLifecycle"))
    return api_fail(forbidden(*resource.kind, name, "this namespace may not be deleted"));
  if (resource.kind->group == "networking.k8s.io" && resource.kind->kind == "IPAddress") API_CHECK(keep_held_address(resource, object));
  constexpr std::string_view node_user = "system:node:";
  if (is_pod(resource) && options.user.name.starts_with(node_user) &&
      static_cast<const corev1::Pod&>(object).spec().nodename() != options.user.name.substr(node_user.size()))
    return api_fail(forbidden(*resource.kind, name, "a node agent may only delete pods of its own node"));
  return {};
}

}  // namespace fairlead::apiserver
