// Custom resources for clients and servers: a Kind made at run time, and the members of its objects, which are JSON.
//
//   const auto pools = kube::make_custom_kind({"metallb.io", "v1beta1", "IPAddressPool", "ipaddresspools", "ipaddresspool"});
//   FL_CO_TRY(auto list, co_await client->list_of(*pools, "", options));          // or make_informer_core(client, *pools, {})
//   for (const auto& o : list.items) {
//     const auto& pool = static_cast<const kube::CustomObject&>(*o);
//     kube::member(pool, "spec");                                               // boost::json, null when it is not there
//     kube::to_json_object(pool, "metallb.io/v1beta1", "IPAddressPool");        // the whole object
//   }
//
// Values; thread safe. A Kind must outlive the calls and informers that use it: keep the pointer.
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kube/kinds.h"
#include "kube/proto/custom_object.pb.h"

namespace fairlead::kube {

struct CustomKind {
  std::string group;
  std::string version;
  std::string kind;
  std::string resource;
  std::string singular;
  Scope scope = Scope::namespaced;
  std::vector<std::string> short_names = {};
  std::vector<std::string> categories = {};
  bool status = false;  // has the status subresource
};
std::shared_ptr<const Kind> make_custom_kind(CustomKind names);
// apiextensions.k8s.io/v1 CustomResourceDefinition, itself a CustomObject. Lives for ever.
const Kind& definition_kind();

// The kind that a CustomResourceDefinition defines, in the version of the store; null when its names are not accepted.
std::shared_ptr<const Kind> defined_kind(const CustomObject& definition);

// A member other than metadata. Setting null removes it.
boost::json::value member(const CustomObject& object, std::string_view name);
void set_member(CustomObject& object, std::string_view name, const boost::json::value& value);

// The same value with the members of all its objects in the order of their names: equal values are equal texts.
boost::json::value sorted(const boost::json::value& value);

}  // namespace fairlead::kube
