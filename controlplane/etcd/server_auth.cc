// The service Auth. Hashing a password takes tens of milliseconds, so these calls run on a thread of their own, one after
// the other: a change is computed, written, and takes effect once it is durable.
#include <algorithm>
#include <future>

#include "controlplane/etcd/server_core.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;
using rpc::CallPtr;

// Clients of 3.5 may send the bcrypt hash itself, in base64.
std::string decoded(const std::string& base64) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  unsigned bits = 0, value = 0;
  for (const char c : base64) {
    const auto at = alphabet.find(c);
    if (at == std::string::npos) break;
    value = value << 6 | static_cast<unsigned>(at);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<char>(value >> bits));
    }
  }
  return out;
}

class AuthService {
 public:
  AuthService(ServerCore& core, rpc::Methods& methods) : core_(core), auth_(core.auth), methods_(methods) {
    add_switches();
    add_users();
    add_roles();
  }

 private:
  void add_switches() {
    change<pb::AuthEnableRequest, pb::AuthEnableResponse>("AuthEnable", [this](const auto&) { return auth_.enable(); });
    change<pb::AuthDisableRequest, pb::AuthDisableResponse>("AuthDisable", [this](const auto&) { return auth_.disable(); });
    read<pb::AuthStatusRequest, pb::AuthStatusResponse>("AuthStatus", [this](const rpc::Call& call, const auto&, auto& r) -> Result<> {
      FL_CHECK(core_.admin(call));
      r.set_enabled(auth_.enabled());
      r.set_authrevision(auth_.revision());
      return {};
    });
    add("Authenticate", rpc::unary<pb::AuthenticateRequest>([this](const CallPtr& call, pb::AuthenticateRequest m) {
          jobs_.post([this, call, m = std::move(m)] {
            pb::AuthenticateResponse r;
            auto token = auth_.authenticate(m.name(), m.password());
            if (token) r.set_token(*token);
            answer(core_, call, r, token ? Result<>() : Result<>(fail(token.error())));
          });
        }));
  }

  void add_users() {
    change<pb::AuthUserAddRequest, pb::AuthUserAddResponse>(
        "UserAdd", [this](const auto& m) { return auth_.user_add(m.name(), m.password(), m.options().no_password(), decoded(m.hashedpassword())); });
    read<pb::AuthUserGetRequest, pb::AuthUserGetResponse>("UserGet", [this](const rpc::Call& call, const auto& m, auto& r) -> Result<> {
      const auto user = core_.caller(call);
      if (!(user && !user->empty() && *user == m.name())) FL_CHECK(core_.admin(call));
      FL_TRY(const auto roles, auth_.user_roles(m.name()));
      for (const auto& role : roles) r.add_roles(role);
      return {};
    });
    read<pb::AuthUserListRequest, pb::AuthUserListResponse>("UserList", [this](const rpc::Call& call, const auto&, auto& r) -> Result<> {
      FL_CHECK(core_.admin(call));
      for (const auto& u : auth_.users()) r.add_users(u);
      return {};
    });
    change<pb::AuthUserDeleteRequest, pb::AuthUserDeleteResponse>("UserDelete", [this](const auto& m) { return auth_.user_delete(m.name()); });
    change<pb::AuthUserChangePasswordRequest, pb::AuthUserChangePasswordResponse>(
        "UserChangePassword", [this](const auto& m) { return auth_.user_change_password(m.name(), m.password(), decoded(m.hashedpassword())); });
    change<pb::AuthUserGrantRoleRequest, pb::AuthUserGrantRoleResponse>("UserGrantRole", [this](const auto& m) { return auth_.user_grant_role(m.user(), m.role()); });
    change<pb::AuthUserRevokeRoleRequest, pb::AuthUserRevokeRoleResponse>("UserRevokeRole",
                                                                         [this](const auto& m) { return auth_.user_revoke_role(m.name(), m.role()); });
  }

  void add_roles() {
    change<pb::AuthRoleAddRequest, pb::AuthRoleAddResponse>("RoleAdd", [this](const auto& m) { return auth_.role_add(m.name()); });
    read<pb::AuthRoleGetRequest, pb::AuthRoleGetResponse>("RoleGet", [this](const rpc::Call& call, const auto& m, auto& r) -> Result<> {
      if (!has_role(call, m.role())) FL_CHECK(core_.admin(call));
      FL_TRY(auto permissions, auth_.role_permissions(m.role()));
      for (auto& p : permissions) *r.add_perm() = std::move(p);
      return {};
    });
    read<pb::AuthRoleListRequest, pb::AuthRoleListResponse>("RoleList", [this](const rpc::Call& call, const auto&, auto& r) -> Result<> {
      FL_CHECK(core_.admin(call));
      for (const auto& role : auth_.roles()) r.add_roles(role);
      return {};
    });
    change<pb::AuthRoleDeleteRequest, pb::AuthRoleDeleteResponse>("RoleDelete", [this](const auto& m) { return auth_.role_delete(m.role()); });
    change<pb::AuthRoleGrantPermissionRequest, pb::AuthRoleGrantPermissionResponse>("RoleGrantPermission", [this](const auto& m) -> Result<Auth::Entries> {
      if (!m.has_perm()) return fail(errors::make(ErrorCode::invalid_argument, "permission not given"));
      return auth_.role_grant(m.name(), m.perm());
    });
    change<pb::AuthRoleRevokePermissionRequest, pb::AuthRoleRevokePermissionResponse>(
        "RoleRevokePermission", [this](const auto& m) { return auth_.role_revoke(m.role(), m.key(), m.range_end()); });
  }

  bool has_role(const rpc::Call& call, const std::string& role) {
    const auto user = core_.caller(call);
    if (!user || user->empty()) return false;
    const auto roles = auth_.user_roles(*user);
    return roles && std::find(roles->begin(), roles->end(), role) != roles->end();
  }

  void add(const char* name, rpc::Method m) { methods_.add(std::string("/etcdserverpb.Auth/") + name, std::move(m)); }

  template <typename Request, typename Reply, typename Look>
  void read(const char* name, Look look) {
    add(name, rpc::unary<Request>([this, look](const CallPtr& call, const Request& m) {
          Reply reply;
          const Result<> done = look(*call, m, reply);
          answer(core_, call, reply, done);
        }));
  }
  template <typename Request, typename Reply, typename Job>
  void change(const char* name, Job job) {
    add(name, rpc::unary<Request>([this, job](const CallPtr& call, Request m) {
          auto allowed = core_.admin(*call);
          jobs_.post([this, call, allowed, job, m = std::move(m)] {
            Reply reply;
            auto done = allowed;
            if (done) done = durable(job(m));
            answer(core_, call, reply, done);
          });
        }));
  }
  Result<> durable(const Result<Auth::Entries>& change) {
    if (!change) return fail(change.error());
    if (change->empty()) return {};
    std::promise<Result<Revision>> written;
    core_.store.set_settings(*change, [&](Result<Revision> r) { written.set_value(std::move(r)); });
    FL_CHECK(written.get_future().get());
    auth_.commit(*change);
    return {};
  }

  ServerCore& core_;
  Auth& auth_;
  rpc::Methods& methods_;  // during construction
  Workers jobs_{1};
};

}  // namespace

std::shared_ptr<void> add_auth_service(ServerCore& core, rpc::Methods& methods) { return std::make_shared<AuthService>(core, methods); }

}  // namespace fairlead::etcd
