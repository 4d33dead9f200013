// Admission: what must be true beyond the object itself before it is stored, and what is filled in from elsewhere:
//   NamespaceLifecycle        no new objects in a missing or terminating namespace; system namespaces stay
//   ServiceAccount            pods get a service account that exists, and its token volume
//   DefaultTolerationSeconds  pods tolerate not-ready and unreachable nodes for 300 s
//   TaintNodesByCondition     new nodes start with the not-ready taint
//   Priority                  priority of the built-in classes
//   DefaultIngressClass       an Ingress that names no class gets the default one
// And one of our own, which cannot be switched off: an IPAddress that a Service holds is not deleted
// (docs/decisions/0011-service-ranges-and-custom-resources.md).
// (staging/src/k8s.io/apiserver/pkg/admission and plugin/pkg/admission/*; same names as upstream's plugins.)
//
// Threads: any; reads the watch caches, and the store where the cache might lag.
#pragma once

#include <set>
#include <string>

#include "base/random.h"
#include "controlplane/apiserver/api_error.h"
#include "controlplane/apiserver/registry/registry.h"

namespace fairlead::apiserver {

class Admission {
 public:
  Admission(const Resources& resources, Storage& storage, Random& random, std::set<std::string> disabled)
      : resources_(resources), storage_(storage), random_(random), disabled_(std::move(disabled)) {}
  // Before validation. May change the object.
  Task<ApiResult<>> on_create(const Resource& resource, const std::string& ns, Message& object, const WriteOptions& options);
  ApiResult<> on_delete(const Resource& resource, const Message& object, const WriteOptions& options) const;

 private:
  bool on(const std::string& plugin) const { return !disabled_.count(plugin); }
  Task<ApiResult<>> check_namespace(const Resource& resource, std::string ns, std::string name);
  ApiResult<> default_ingress_class(const Resource& resource, Message& object) const;
  ApiResult<> keep_held_address(const Resource& resource, const Message& object) const;
  Task<ApiResult<>> admit_service_account(const Resource& resource, std::string ns, Message& object);

  const Resources& resources_;
  Storage& storage_;
  Random& random_;
  std::set<std::string> disabled_;
};

}  // namespace fairlead::apiserver
