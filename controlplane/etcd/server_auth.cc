// The service Auth. Hashing a password takes tens of milliseconds, so these calls run on a thread of their own, one after
// the other: a change is computed, written, and takes effect once it is durable.
#include <future>

#include "controlplane/etcd/server_core.h"

namespace fairlead::etcd {
namespace {
namespace pb = etcdserverpb;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

class AuthService final : public pb::Auth::CallbackService {
 public:
  explicit AuthService(ServerCore& core) : core_(core) {}

  ServerUnaryReactor* AuthEnable(CallbackServerContext* c, const pb::AuthEnableRequest*, pb::AuthEnableResponse* r) override {
    return change(c, r, [this] { return core_.auth.enable(); });
  }
  ServerUnaryReactor* AuthDisable(CallbackServerContext* c, const pb::AuthDisableRequest*, pb::AuthDisableResponse* r) override {
    return change(c, r, [this] { return core_.auth.disable(); });
  }
  ServerUnaryReactor* AuthStatus(CallbackServerContext* c, const pb::AuthStatusRequest*, pb::AuthStatusResponse* r) override {
    return read(c, r, core_.admin(c), [this, r]() -> Result<> {
      r->set_enabled(core_.auth.enabled());
      r->set_authrevision(core_.auth.revision());
      return {};
    });
  }
  ServerUnaryReactor* Authenticate(CallbackServerContext* c, const pb::AuthenticateRequest* m, pb::AuthenticateResponse* r) override {
    auto* reactor = c->DefaultReactor();
    jobs_.post([this, reactor, r, name = m->name(), password = m->password()] {
      auto token = core_.auth.authenticate(name, password);
      if (token) r->set_token(*token);
      finish(core_, reactor, r, token ? Result<>() : Result<>(fail(token.error())));
    });
    return reactor;
  }
  ServerUnaryReactor* UserAdd(CallbackServerContext* c, const pb::AuthUserAddRequest* m, pb::AuthUserAddResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.user_add(m.name(), m.password(), m.options().no_password(), decoded(m.hashedpassword())); });
  }
  ServerUnaryReactor* UserGet(CallbackServerContext* c, const pb::AuthUserGetRequest* m, pb::AuthUserGetResponse* r) override {
    auto allowed = core_.admin(c);
    if (auto user = core_.caller(c); !allowed && user && !user->empty() && *user == m->name()) allowed = {};
    return read(c, r, allowed, [this, m, r]() -> Result<> {
      FL_TRY(const auto roles, core_.auth.user_roles(m->name()));
      for (const auto& role : roles) r->add_roles(role);
      return {};
    });
  }
  ServerUnaryReactor* UserList(CallbackServerContext* c, const pb::AuthUserListRequest*, pb::AuthUserListResponse* r) override {
    return read(c, r, core_.admin(c), [this, r]() -> Result<> {
      for (const auto& u : core_.auth.users()) r->add_users(u);
      return {};
    });
  }
  ServerUnaryReactor* UserDelete(CallbackServerContext* c, const pb::AuthUserDeleteRequest* m, pb::AuthUserDeleteResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.user_delete(m.name()); });
  }
  ServerUnaryReactor* UserChangePassword(CallbackServerContext* c, const pb::AuthUserChangePasswordRequest* m, pb::AuthUserChangePasswordResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.user_change_password(m.name(), m.password(), decoded(m.hashedpassword())); });
  }
  ServerUnaryReactor* UserGrantRole(CallbackServerContext* c, const pb::AuthUserGrantRoleRequest* m, pb::AuthUserGrantRoleResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.user_grant_role(m.user(), m.role()); });
  }
  ServerUnaryReactor* UserRevokeRole(CallbackServerContext* c, const pb::AuthUserRevokeRoleRequest* m, pb::AuthUserRevokeRoleResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.user_revoke_role(m.name(), m.role()); });
  }
  ServerUnaryReactor* RoleAdd(CallbackServerContext* c, const pb::AuthRoleAddRequest* m, pb::AuthRoleAddResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.role_add(m.name()); });
  }
  ServerUnaryReactor* RoleGet(CallbackServerContext* c, const pb::AuthRoleGetRequest* m, pb::AuthRoleGetResponse* r) override {
    auto allowed = core_.admin(c);
    if (auto user = core_.caller(c); !allowed && user && !user->empty()) {
      const auto roles = core_.auth.user_roles(*user);
      if (roles && std::find(roles->begin(), roles->end(), m->role()) != roles->end()) allowed = {};
    }
    return read(c, r, allowed, [this, m, r]() -> Result<> {
      FL_TRY(auto permissions, core_.auth.role_permissions(m->role()));
      for (auto& p : permissions) *r->add_perm() = std::move(p);
      return {};
    });
  }
  ServerUnaryReactor* RoleList(CallbackServerContext* c, const pb::AuthRoleListRequest*, pb::AuthRoleListResponse* r) override {
    return read(c, r, core_.admin(c), [this, r]() -> Result<> {
      for (const auto& role : core_.auth.roles()) r->add_roles(role);
      return {};
    });
  }
  ServerUnaryReactor* RoleDelete(CallbackServerContext* c, const pb::AuthRoleDeleteRequest* m, pb::AuthRoleDeleteResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.role_delete(m.role()); });
  }
  ServerUnaryReactor* RoleGrantPermission(CallbackServerContext* c, const pb::AuthRoleGrantPermissionRequest* m, pb::AuthRoleGrantPermissionResponse* r) override {
    return change(c, r, [this, m = *m]() -> Result<Auth::Entries> {
      if (!m.has_perm()) return fail(errors::make(ErrorCode::invalid_argument, "permission not given"));
      return core_.auth.role_grant(m.name(), m.perm());
    });
  }
  ServerUnaryReactor* RoleRevokePermission(CallbackServerContext* c, const pb::AuthRoleRevokePermissionRequest* m, pb::AuthRoleRevokePermissionResponse* r) override {
    return change(c, r, [this, m = *m] { return core_.auth.role_revoke(m.role(), m.key(), m.range_end()); });
  }

 private:
  static std::string decoded(const std::string& base64);

  template <typename Reply, typename Job>
  ServerUnaryReactor* read(CallbackServerContext* context, Reply* reply, const Result<>& allowed, Job job) {
    auto* reactor = context->DefaultReactor();
    finish(core_, reactor, reply, allowed ? job() : allowed);
    return reactor;
  }
  template <typename Reply, typename Job>
  ServerUnaryReactor* change(CallbackServerContext* context, Reply* reply, Job job) {
    auto* reactor = context->DefaultReactor();
    auto allowed = core_.admin(context);
    jobs_.post([this, reactor, reply, allowed, job] {
      auto run = [&]() -> Result<> {
        FL_CHECK(allowed);
        FL_TRY(const auto entries, job());
        if (entries.empty()) return {};
        std::promise<Result<Revision>> written;
        core_.store.set_settings(entries, [&](Result<Revision> r) { written.set_value(std::move(r)); });
        FL_CHECK(written.get_future().get());
        core_.auth.commit(entries);
        return {};
      };
      finish(core_, reactor, reply, run());
    });
    return reactor;
  }
  ServerCore& core_;
  Workers jobs_{1};
};

// Clients of 3.5 may send the bcrypt hash itself, in base64.
std::string AuthService::decoded(const std::string& base64) {
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

}  // namespace

std::unique_ptr<grpc::Service> make_auth_service(ServerCore& core) { return std::make_unique<AuthService>(core); }

}  // namespace fairlead::etcd
