// Users, roles and tokens, as in etcd: passwords are bcrypt hashes, a role is a list of key ranges with read or write,
// role "root" may do everything, tokens are random and last five minutes after their last use. State is durable in the
// store's settings; tokens are in memory. Thread safe. Errors carry etcd's texts.
// Source: etcd server/auth/store.go, range_perm_cache.go.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "controlplane/etcd/kv.h"
#include "controlplane/etcd/proto/auth.pb.h"
#include "controlplane/etcd/record.h"

namespace fairlead::etcd {

class Auth {
 public:
  // A change of state: what to write; it takes effect when commit() is called after that.
  using Entries = std::vector<SettingEntry>;

  Auth(const std::map<std::string, std::string>& settings, const Clock& clock, Random& random);

  bool enabled() const;
  std::uint64_t revision() const;

  Result<Entries> enable();
  Result<Entries> disable();
  Result<Entries> user_add(const std::string& name, const std::string& password, bool no_password, const std::string& hashed);
  Result<Entries> user_delete(const std::string& name);
  Result<Entries> user_change_password(const std::string& name, const std::string& password, const std::string& hashed);
  Result<Entries> user_grant_role(const std::string& name, const std::string& role);
  Result<Entries> user_revoke_role(const std::string& name, const std::string& role);
  Result<Entries> role_add(const std::string& name);
  Result<Entries> role_delete(const std::string& name);
  Result<Entries> role_grant(const std::string& name, const authpb::Permission& permission);
  Result<Entries> role_revoke(const std::string& name, const std::string& key, const std::string& range_end);
  void commit(const Entries& written);

  Result<std::vector<std::string>> user_roles(const std::string& name) const;
  Result<std::vector<authpb::Permission>> role_permissions(const std::string& name) const;
  std::vector<std::string> users() const;
  std::vector<std::string> roles() const;

  Result<std::string> authenticate(const std::string& name, const std::string& password);  // a token; takes tens of ms
  Result<std::string> user_of(const std::string& token);

  // All of these allow everything while authentication is off. An empty user is refused with etcd's text.
  Result<> allow_admin(const std::string& user) const;
  Result<> allow_range(const std::string& user, const std::string& key, const std::string& range_end, bool write) const;
  Result<> allow(const std::string& user, const PutRequest& r) const;
  Result<> allow(const std::string& user, const DeleteRangeRequest& r) const;
  Result<> allow(const std::string& user, const TxnRequest& r) const;

 private:
  struct Token {
    std::string user;
    SteadyTime expiry;
  };
  bool has_role(const authpb::User& u, const std::string& role) const;
  Entries with_revision(Entries e) const;
  Result<authpb::User> user(const std::string& name) const;
  Result<authpb::Role> role(const std::string& name) const;

  const Clock& clock_;
  Random& random_;
  mutable std::mutex mutex_;
  bool enabled_ = false;
  std::uint64_t revision_ = 1;
  std::map<std::string, authpb::User> users_;
  std::map<std::string, authpb::Role> roles_;
  std::map<std::string, Token> tokens_;
};

}  // namespace fairlead::etcd
