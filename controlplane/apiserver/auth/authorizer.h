// Authorizer: may this user do this? An interface, because full RBAC comes later; TableAuthorizer is a small pure table with
// the identities of the control plane itself and least privilege for each. What no rule allows is denied.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/apiserver/auth/user.h"
#include "controlplane/apiserver/request_info.h"

namespace fairlead::apiserver {

struct Attributes {
  std::string verb;
  bool is_resource = false;
  std::string path;  // for what is not a resource
  std::string group;
  std::string resource;
  std::string subresource;
  std::string ns;
  std::string name;
};
Attributes attributes_of(const RequestInfo& info);

struct Decision {
  bool allowed = false;
  std::string reason;
};

class Authorizer {
 public:
  virtual ~Authorizer() = default;
  virtual Decision authorize(const User& user, const Attributes& attributes) const = 0;
};

std::unique_ptr<Authorizer> make_table_authorizer();

// `pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"` without its start.
std::string denial_text(const User& user, const Attributes& a, std::string_view reason);

}  // namespace fairlead::apiserver
