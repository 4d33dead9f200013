#include "controlplane/apiserver/auth/authorizer.h"

#include <fmt/core.h>

#include <algorithm>
#include <span>

namespace fairlead::apiserver {
namespace {

using Names = std::vector<std::string_view>;

// One permission. Lists hold "*" for everything; a resource with a subresource is written "pods/status".
struct Rule {
  Names verbs;
  Names groups;
  Names resources;
  std::string_view ns = {};  // only in this namespace; empty: anywhere
};
struct PathRule {
  Names verbs;
  Names paths;  // a trailing "*" matches the rest
};
struct Role {
  std::string_view subject;  // a group, or a user where `is_user`
  bool is_user = false;
  std::vector<Rule> rules;
  std::vector<PathRule> paths;
};

const Names kRead = {"get", "list", "watch"};
const Names kAll = {"*"};
const Names kEventWrites = {"create", "patch", "update"};
const Names kEventGroups = {"", "events.k8s.io"};
const Names kLease = {"get", "list", "watch", "create", "update", "patch", "delete"};

const std::vector<Role>& roles() {
  static const std::vector<Role> table = {
      {.subject = kUnauthenticated,
       .paths = {{{"get"}, {"/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version", "/version/"}}}},
      {.subject = kAuthenticated,
       .rules = {{{"create"}, {"authorization.k8s.io"}, {"selfsubjectaccessreviews", "selfsubjectrulesreviews"}},
                 {{"create"}, {"authentication.k8s.io"}, {"selfsubjectreviews"}}},
       .paths = {{{"get"},
                  {"/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/version/", "/healthz", "/healthz/*",
                   "/livez", "/livez/*", "/readyz", "/readyz/*", "/swagger-2.0.0.pb-v1", "/"}}}},
      // Node agents. Writes to nodes and to pods are narrowed to the agent's own by node_restriction().
      {.subject = "system:nodes",
       .rules = {{kRead, {""}, {"nodes", "pods", "services", "secrets", "configmaps", "persistentvolumes", "persistentvolumeclaims", "endpoints"}},
                 {{"create", "update", "patch"}, {""}, {"nodes"}},
                 {{"update", "patch"}, {""}, {"nodes/status", "pods/status"}},
                 {{"create", "delete"}, {""}, {"pods"}},
                 {{"create"}, {""}, {"pods/eviction", "serviceaccounts/token"}},
                 {{"get"}, {""}, {"serviceaccounts"}},
                 {kRead, {"discovery.k8s.io"}, {"endpointslices"}},
                 {kRead, {"node.k8s.io"}, {"runtimeclasses"}},
                 {kRead, {"storage.k8s.io"}, {"csidrivers", "csinodes"}},
                 {kRead, {"networking.k8s.io"}, {"servicecidrs"}},
                 {kEventWrites, kEventGroups, {"events"}},
                 {{"create"}, {"authentication.k8s.io"}, {"tokenreviews"}},
                 {{"create"}, {"authorization.k8s.io"}, {"subjectaccessreviews", "localsubjectaccessreviews"}},
                 {kLease, {"coordination.k8s.io"}, {"leases"}, "kube-node-lease"}}},
      {.subject = "system:kube-proxy",
       .is_user = true,
       .rules = {{kRead, {""}, {"nodes", "services", "endpoints"}},
                 {kRead, {"discovery.k8s.io"}, {"endpointslices"}},
                 {kRead, {"networking.k8s.io"}, {"servicecidrs"}},
                 {kEventWrites, kEventGroups, {"events"}}}},
      // The pod network's agents read where the other nodes are.
      {.subject = "system:fairlead-cni-agents", .rules = {{kRead, {""}, {"nodes"}}, {kEventWrites, kEventGroups, {"events"}}}},
      // Load balancer addresses: the controller writes the status of Services, the speakers read who could announce.
      {.subject = "system:fairlead-lb",
       .rules = {{kRead, {""}, {"services", "namespaces", "nodes"}},
                 {{"patch", "update"}, {""}, {"services/status"}},
                 {kRead, {"discovery.k8s.io"}, {"endpointslices"}},
                 {kEventWrites, kEventGroups, {"events"}},
                 {kLease, {"coordination.k8s.io"}, {"leases"}, "kube-system"}}},
      // The ingress router reads the secrets that Ingresses name, one by one; a list of all is a list of a namespace's or a
      // cluster's, so the verb cannot be narrowed down here.
      {.subject = "system:fairlead-ingress",
       .rules = {{kRead, {""}, {"services", "secrets"}},
                 {kRead, {"discovery.k8s.io"}, {"endpointslices"}},
                 {kRead, {"networking.k8s.io"}, {"ingresses", "ingressclasses"}},
                 {{"patch"}, {"networking.k8s.io"}, {"ingresses/status"}},
                 {kEventWrites, kEventGroups, {"events"}}}},
      {.subject = "system:kube-scheduler",
       .is_user = true,
       .rules = {{kRead, {""}, {"nodes", "namespaces", "services", "replicationcontrollers", "persistentvolumes", "persistentvolumeclaims"}},
                 {{"get", "list", "watch", "delete"}, {""}, {"pods"}},
                 {{"create"}, {""}, {"bindings", "pods/binding"}},
                 {{"patch", "update"}, {""}, {"pods/status"}},
                 {kRead, {"apps"}, {"replicasets", "statefulsets"}},
                 {kRead, {"policy"}, {"poddisruptionbudgets"}},
                 {kRead, {"storage.k8s.io"}, {"*"}},
                 {kRead, {"resource.k8s.io"}, {"*"}},
                 {kEventWrites, kEventGroups, {"events"}},
                 {kLease, {"coordination.k8s.io"}, {"leases"}},
                 {{"create"}, {"authentication.k8s.io"}, {"tokenreviews"}},
                 {{"create"}, {"authorization.k8s.io"}, {"subjectaccessreviews"}}}},
      // All controllers in one process. The garbage collector and the namespace controller delete objects of any kind.
      {.subject = "system:kube-controller-manager",
       .is_user = true,
       .rules = {{{"get", "list", "watch", "delete", "deletecollection", "patch", "update"}, {"*"}, {"*"}},
                 {kAll, {""}, {"pods", "endpoints", "namespaces", "namespaces/status", "namespaces/finalize", "serviceaccounts", "secrets",
                               "configmaps", "nodes", "nodes/status", "pods/status", "pods/eviction", "services/status", "serviceaccounts/token"}},
                 {kAll, {"apps"}, {"*"}},
                 {kAll, {"discovery.k8s.io"}, {"endpointslices"}},
                 {kAll, {"networking.k8s.io"}, {"*"}},
                 {kEventWrites, kEventGroups, {"events"}},
                 {kLease, {"coordination.k8s.io"}, {"leases"}},
                 {{"create"}, {"authentication.k8s.io"}, {"tokenreviews"}},
                 {{"create"}, {"authorization.k8s.io"}, {"subjectaccessreviews"}}}},
      {.subject = "system:monitoring", .paths = {{{"get"}, {"/metrics", "/healthz", "/livez", "/readyz"}}}},
  };
  return table;
}

bool lists(const Names& names, std::string_view wanted) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view n) { return n == "*" || n == wanted; });
}

bool path_matches(std::string_view pattern, std::string_view path) {
  if (pattern.ends_with('*')) return path.starts_with(pattern.substr(0, pattern.size() - 1));
  return pattern == path;
}

bool allows(const Role& role, const Attributes& a) {
  if (!a.is_resource) {
    for (const auto& r : role.paths)
      if (lists(r.verbs, a.verb) && std::any_of(r.paths.begin(), r.paths.end(), [&](auto p) { return path_matches(p, a.path); })) return true;
    return false;
  }
  const auto resource = a.subresource.empty() ? a.resource : a.resource + "/" + a.subresource;
  for (const auto& r : role.rules)
    if (lists(r.verbs, a.verb) && lists(r.groups, a.group) && lists(r.resources, resource) && (r.ns.empty() || r.ns == a.ns)) return true;
  return false;
}

// A node agent may write only its own Node and Lease. (Pods are checked against the object when they are written.)
bool node_restriction(const User& user, const Attributes& a) {
  constexpr std::string_view prefix = "system:node:";
  if (!user.name.starts_with(prefix)) return false;
  const auto node = std::string_view(user.name).substr(prefix.size());
  const bool write = a.verb != "get" && a.verb != "list" && a.verb != "watch";
  if (!write || a.name.empty()) return true;
  if (a.resource == "nodes" || a.resource == "leases") return a.name == node;
  return true;
}

class TableAuthorizer final : public Authorizer {
 public:
  Decision authorize(const User& user, const Attributes& a) const override {
    if (user.in_group(kMasters)) return {true, ""};
    for (const auto& role : roles()) {
      if (role.is_user ? user.name != role.subject : !user.in_group(role.subject)) continue;
      if (!allows(role, a)) continue;
      if (role.subject == "system:nodes" && !node_restriction(user, a))
        return {false, fmt::format("a node agent may only change its own {}", a.resource)};
      return {true, ""};
    }
    return {false, ""};
  }
};

}  // namespace

Attributes attributes_of(const RequestInfo& i) {
  return {i.verb, i.is_resource, i.path, i.group, i.resource, i.subresource, i.ns, i.name};
}

std::unique_ptr<Authorizer> make_table_authorizer() { return std::make_unique<TableAuthorizer>(); }

std::string denial_text(const User& user, const Attributes& a, std::string_view reason) {
  std::string out;
  if (!a.is_resource) {
    out = fmt::format("User \"{}\" cannot {} path \"{}\"", user.name, a.verb, a.path);
  } else {
    const auto resource = a.subresource.empty() ? a.resource : a.resource + "/" + a.subresource;
    out = fmt::format("User \"{}\" cannot {} resource \"{}\" in API group \"{}\"", user.name, a.verb, resource, a.group);
    out += a.ns.empty() ? " at the cluster scope" : fmt::format(" in the namespace \"{}\"", a.ns);
  }
  return reason.empty() ? out : fmt::format("{}: {}", out, reason);
}

}  // namespace fairlead::apiserver
