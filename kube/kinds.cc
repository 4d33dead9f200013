#include "kube/kinds.h"

#include <algorithm>
#include <cstdlib>
#include <unordered_map>

#include "base/log.h"
#include "kube/api.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/authentication/v1.pb.h"
#include "kube/proto/authorization/v1.pb.h"
#include "kube/proto/autoscaling/v1.pb.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/core/v1/volume.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/events/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "kube/proto/policy/v1.pb.h"
#include "kube/proto/rbac/v1.pb.h"

namespace fairlead::kube {
namespace {

using google::protobuf::Descriptor;
using Names = std::vector<std::string_view>;

const Names kAllVerbs = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"};
const Names kCreateOnly = {"create"};

Subresource status() { return {"status", {}, {}, {"get", "patch", "update"}}; }
Subresource scale() {
  return {"scale", "Scale", "autoscaling/v1", {"get", "patch", "update"}, &autoscalingv1::Scale::default_instance()};
}

// One row: what differs between kinds. The message types follow from the template arguments.
struct Row {
  std::string_view resource;
  std::string_view singular;
  Scope scope = Scope::namespaced;
  bool served = false;
  Names short_names = {};
  Names categories = {};
  std::vector<Subresource> subresources = {};
  Names verbs = kAllVerbs;
};

Kind base_kind(std::string_view group, std::string_view version, std::string_view kind, Row row) {
  Kind k;
  k.group = group;
  k.version = version;
  k.kind = kind;
  k.resource = row.resource;
  k.singular = row.singular;
  k.scope = row.scope;
  k.served = row.served;
  k.short_names = std::move(row.short_names);
  k.categories = std::move(row.categories);
  k.subresources = std::move(row.subresources);
  k.verbs = std::move(row.verbs);
  return k;
}

template <typename Object, typename List>
Kind kind(std::string_view group, Row row) {
  Kind k = base_kind(group, "v1", Object::descriptor()->name(), std::move(row));
  k.prototype = &Object::default_instance();
  k.list_prototype = &List::default_instance();
  return k;
}

// A kind that is a question to the apiserver: it can be created and is answered, never stored.
template <typename Object>
Kind review(std::string_view group, Row row) {
  row.verbs = kCreateOnly;
  Kind k = base_kind(group, "v1", Object::descriptor()->name(), std::move(row));
  k.prototype = &Object::default_instance();
  return k;
}

constexpr Scope kCluster = Scope::cluster;
constexpr Scope kNamespaced = Scope::namespaced;

Subresource pod_stream(std::string_view name, std::string_view options, const google::protobuf::Message& prototype) {
  return {name, options, {}, {"create", "get"}, &prototype, false};
}

std::vector<Subresource> pod_subresources() {
  return {
      status(),
      {"binding", "Binding", {}, kCreateOnly, &corev1::Binding::default_instance()},
      {"log", {}, {}, {"get"}},
      {"ephemeralcontainers", {}, {}, {"get", "patch", "update"}, nullptr, false},
      {"resize", {}, {}, {"get", "patch", "update"}, nullptr, false},
      {"eviction", "Eviction", "policy/v1", kCreateOnly, &policyv1::Eviction::default_instance()},
      pod_stream("attach", "PodAttachOptions", corev1::PodAttachOptions::default_instance()),
      pod_stream("exec", "PodExecOptions", corev1::PodExecOptions::default_instance()),
      pod_stream("portforward", "PodPortForwardOptions", corev1::PodPortForwardOptions::default_instance()),
  };
}

std::vector<Kind> core_kinds() {
  using namespace corev1;
  const Names namespace_verbs = {"create", "delete", "get", "list", "patch", "update", "watch"};
  return {
      review<Binding>("", {"bindings", "binding"}),
      kind<ConfigMap, ConfigMapList>("", {"configmaps", "configmap", kNamespaced, true, {"cm"}}),
      kind<Endpoints, EndpointsList>("", {"endpoints", "endpoints", kNamespaced, true, {"ep"}}),
      kind<Event, EventList>("", {"events", "event", kNamespaced, true, {"ev"}}),
      kind<LimitRange, LimitRangeList>("", {"limitranges", "limitrange", kNamespaced, false, {"limits"}}),
      kind<Namespace, NamespaceList>(
          "",
          {"namespaces", "namespace", kCluster, true, {"ns"}, {}, {status(), {"finalize", {}, {}, {"update"}}}, namespace_verbs}),
      kind<Node, NodeList>("", {"nodes", "node", kCluster, true, {"no"}, {}, {status()}}),
      kind<PersistentVolumeClaim, PersistentVolumeClaimList>(
          "", {"persistentvolumeclaims", "persistentvolumeclaim", kNamespaced, false, {"pvc"}, {}, {status()}}),
      kind<PersistentVolume, PersistentVolumeList>(
          "", {"persistentvolumes", "persistentvolume", kCluster, false, {"pv"}, {}, {status()}}),
      kind<Pod, PodList>("", {"pods", "pod", kNamespaced, true, {"po"}, {"all"}, pod_subresources()}),
      kind<PodTemplate, PodTemplateList>("", {"podtemplates", "podtemplate"}),
      kind<ReplicationController, ReplicationControllerList>(
          "", {"replicationcontrollers", "replicationcontroller", kNamespaced, false, {"rc"}, {"all"}, {scale(), status()}}),
      kind<ResourceQuota, ResourceQuotaList>("",
                                             {"resourcequotas", "resourcequota", kNamespaced, false, {"quota"}, {}, {status()}}),
      kind<Secret, SecretList>("", {"secrets", "secret", kNamespaced, true}),
      kind<ServiceAccount, ServiceAccountList>("", {"serviceaccounts",
                                                    "serviceaccount",
                                                    kNamespaced,
                                                    true,
                                                    {"sa"},
                                                    {},
                                                    {{"token", "TokenRequest", "authentication.k8s.io/v1", kCreateOnly,
                                                      &authenticationv1::TokenRequest::default_instance()}}}),
      kind<Service, ServiceList>("", {"services", "service", kNamespaced, true, {"svc"}, {"all"}, {status()}}),
  };
}

std::vector<Kind> apps_kinds() {
  using namespace appsv1;
  constexpr auto g = "apps";
  return {
      kind<ControllerRevision, ControllerRevisionList>(g, {"controllerrevisions", "controllerrevision"}),
      kind<DaemonSet, DaemonSetList>(g, {"daemonsets", "daemonset", kNamespaced, false, {"ds"}, {"all"}, {status()}}),
      kind<Deployment, DeploymentList>(
          g, {"deployments", "deployment", kNamespaced, true, {"deploy"}, {"all"}, {scale(), status()}}),
      kind<ReplicaSet, ReplicaSetList>(g, {"replicasets", "replicaset", kNamespaced, true, {"rs"}, {"all"}, {scale(), status()}}),
      kind<StatefulSet, StatefulSetList>(
          g, {"statefulsets", "statefulset", kNamespaced, false, {"sts"}, {"all"}, {scale(), status()}}),
  };
}

std::vector<Kind> networking_kinds() {
  using namespace networkingv1;
  constexpr auto g = "networking.k8s.io";
  return {
      kind<IngressClass, IngressClassList>(g, {"ingressclasses", "ingressclass", kCluster, true}),
      kind<Ingress, IngressList>(g, {"ingresses", "ingress", kNamespaced, true, {"ing"}, {}, {status()}}),
      kind<IPAddress, IPAddressList>(g, {"ipaddresses", "ipaddress", kCluster, true, {"ip"}}),
      kind<NetworkPolicy, NetworkPolicyList>(g, {"networkpolicies", "networkpolicy", kNamespaced, false, {"netpol"}}),
      kind<ServiceCIDR, ServiceCIDRList>(g, {"servicecidrs", "servicecidr", kCluster, true, {}, {}, {status()}}),
  };
}

std::vector<Kind> other_kinds() {
  using namespace rbacv1;
  constexpr auto rbac = "rbac.authorization.k8s.io";
  constexpr auto authn = "authentication.k8s.io";
  constexpr auto authz = "authorization.k8s.io";
  return {
      kind<autoscalingv1::HorizontalPodAutoscaler, autoscalingv1::HorizontalPodAutoscalerList>(
          "autoscaling",
          {"horizontalpodautoscalers", "horizontalpodautoscaler", kNamespaced, false, {"hpa"}, {"all"}, {status()}}),
      kind<coordinationv1::Lease, coordinationv1::LeaseList>("coordination.k8s.io", {"leases", "lease", kNamespaced, true}),
      kind<discoveryv1::EndpointSlice, discoveryv1::EndpointSliceList>("discovery.k8s.io",
                                                                       {"endpointslices", "endpointslice", kNamespaced, true}),
      kind<eventsv1::Event, eventsv1::EventList>("events.k8s.io", {"events", "event", kNamespaced, true, {"ev"}}),
      kind<policyv1::PodDisruptionBudget, policyv1::PodDisruptionBudgetList>(
          "policy", {"poddisruptionbudgets", "poddisruptionbudget", kNamespaced, false, {"pdb"}, {}, {status()}}),
      kind<ClusterRoleBinding, ClusterRoleBindingList>(rbac, {"clusterrolebindings", "clusterrolebinding", kCluster}),
      kind<ClusterRole, ClusterRoleList>(rbac, {"clusterroles", "clusterrole", kCluster}),
      kind<RoleBinding, RoleBindingList>(rbac, {"rolebindings", "rolebinding"}),
      kind<Role, RoleList>(rbac, {"roles", "role"}),
      review<authenticationv1::SelfSubjectReview>(authn, {"selfsubjectreviews", "selfsubjectreview", kCluster}),
      review<authenticationv1::TokenReview>(authn, {"tokenreviews", "tokenreview", kCluster}),
      review<authorizationv1::LocalSubjectAccessReview>(authz, {"localsubjectaccessreviews", "localsubjectaccessreview"}),
      review<authorizationv1::SelfSubjectAccessReview>(authz, {"selfsubjectaccessreviews", "selfsubjectaccessreview", kCluster}),
      review<authorizationv1::SelfSubjectRulesReview>(authz, {"selfsubjectrulesreviews", "selfsubjectrulesreview", kCluster}),
      review<authorizationv1::SubjectAccessReview>(authz, {"subjectaccessreviews", "subjectaccessreview", kCluster}),
  };
}

std::string gvk_key(std::string_view api_version, std::string_view kind) { return fmt::format("{}#{}", api_version, kind); }
std::string gvr_key(std::string_view group, std::string_view version, std::string_view resource) {
  return fmt::format("{}/{}#{}", group, version, resource);
}

struct Table {
  std::vector<Kind> kinds;
  std::unordered_map<std::string, const Kind*> by_kind;
  std::unordered_map<std::string, const Kind*> by_resource;
  std::unordered_map<const Descriptor*, const Kind*> by_type;
  std::unordered_map<const Descriptor*, TypeName> names;
  std::unordered_map<std::string, const google::protobuf::Message*> prototypes;

  Table() {
    for (auto part : {core_kinds(), apps_kinds(), networking_kinds(), other_kinds()}) {
      std::move(part.begin(), part.end(), std::back_inserter(kinds));
    }
    for (const Kind& k : kinds) {
      by_kind.emplace(gvk_key(k.api_version(), k.kind), &k);
      by_resource.emplace(gvr_key(k.group, k.version, k.resource), &k);
      by_type.emplace(k.prototype->GetDescriptor(), &k);
      add_name(*k.prototype, k.api_version(), std::string(k.kind));
      if (k.list_prototype) add_name(*k.list_prototype, k.api_version(), k.list_kind());
    }
    add_name<autoscalingv1::Scale>("autoscaling/v1");
    add_name<policyv1::Eviction>("policy/v1");
    add_name<authenticationv1::TokenRequest>("authentication.k8s.io/v1");
    add_name<corev1::PodAttachOptions>("v1");
    add_name<corev1::PodExecOptions>("v1");
    add_name<corev1::PodLogOptions>("v1");
    add_name<corev1::PodPortForwardOptions>("v1");
    add_name<corev1::List>("v1");
    add_name<metav1::Status>("v1");
    add_name<metav1::APIVersions>("v1");
    add_name<metav1::APIGroup>("v1");
    add_name<metav1::APIGroupList>("v1");
    add_name<metav1::APIResourceList>("v1");
    add_name<metav1::DeleteOptions>("v1");  // of the meta.k8s.io group, but written as v1 by every client
    add_name<metav1::CreateOptions>("meta.k8s.io/v1");
    add_name<metav1::PatchOptions>("meta.k8s.io/v1");
    add_name<metav1::UpdateOptions>("meta.k8s.io/v1");
    add_name<metav1::PartialObjectMetadata>("meta.k8s.io/v1");
    add_name<metav1::PartialObjectMetadataList>("meta.k8s.io/v1");
  }

  template <typename T>
  void add_name(std::string api_version) {
    add_name(T::default_instance(), std::move(api_version), T::descriptor()->name());
  }
  void add_name(const google::protobuf::Message& prototype, std::string api_version, std::string kind) {
    prototypes[gvk_key(api_version, kind)] = &prototype;
    names[prototype.GetDescriptor()] = {std::move(api_version), std::move(kind)};
  }
};

const Table& table() {
  static const Table* t = new Table();  // outlives every static that may use it
  return *t;
}

template <typename Map, typename Key>
auto find_pointer(const Map& map, const Key& key) -> decltype(map.begin()->second) {
  const auto it = map.find(key);
  return it == map.end() ? nullptr : it->second;
}

// Percent-encodes what may not stand in one path segment (RFC 3986, section 3.3). Names of RBAC kinds may hold ':'.
void append_segment(std::string& out, std::string_view text) {
  constexpr std::string_view safe = "-._~:@!$&'()*+,;=";
  for (const char c : text) {
    const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (alnum || safe.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
}

}  // namespace

bool Kind::has_verb(std::string_view verb) const { return std::find(verbs.begin(), verbs.end(), verb) != verbs.end(); }

const Subresource* Kind::find_subresource(std::string_view name) const {
  const auto it = std::find_if(subresources.begin(), subresources.end(), [&](const Subresource& s) { return s.name == name; });
  return it == subresources.end() ? nullptr : &*it;
}

std::span<const Kind> kinds() { return table().kinds; }

const Kind* find_kind(std::string_view api_version, std::string_view kind) {
  return find_pointer(table().by_kind, gvk_key(api_version, kind));
}

const Kind* find_resource(std::string_view group, std::string_view version, std::string_view resource) {
  return find_pointer(table().by_resource, gvr_key(group, version, resource));
}

const Kind* find_kind_of(const Descriptor& type) { return find_pointer(table().by_type, &type); }

const Kind& kind_of(const Descriptor& type) {
  const Kind* k = find_kind_of(type);
  if (!k) {
    log::error("kind_of: {} is not in the table of kinds", type.full_name());
    std::abort();
  }
  return *k;
}

const TypeName* type_name_of(const Descriptor& type) {
  const auto it = table().names.find(&type);
  return it == table().names.end() ? nullptr : &it->second;
}

const google::protobuf::Message* find_prototype(std::string_view api_version, std::string_view kind) {
  return find_pointer(table().prototypes, gvk_key(api_version, kind));
}

std::string resource_path(const Kind& kind, std::string_view ns, std::string_view name, std::string_view subresource) {
  std::string path =
      kind.group.empty() ? fmt::format("/api/{}", kind.version) : fmt::format("/apis/{}/{}", kind.group, kind.version);
  if (kind.namespaced() && !ns.empty()) {
    path += "/namespaces/";
    append_segment(path, ns);
  }
  path += '/';
  path += kind.resource;
  if (name.empty()) return path;
  path += '/';
  append_segment(path, name);
  if (subresource.empty()) return path;
  path += '/';
  path += subresource;
  return path;
}

}  // namespace fairlead::kube
