#include "controlplane/etcd/auth.h"

#include <crypt.h>

#include <algorithm>
#include <cstring>

#include "base/pki.h"
#include "controlplane/etcd/errors.h"
#include "controlplane/etcd/index.h"

namespace fairlead::etcd {
namespace {

constexpr char kRoot[] = "root";
constexpr auto kTokenLife = std::chrono::minutes(5);
constexpr unsigned kBcryptCost = 10;

Failure precondition(const char* text) { return fail(errors::make(ErrorCode::failed_precondition, text)); }
Failure invalid(const char* text) { return fail(errors::make(ErrorCode::invalid_argument, text)); }

Result<std::string> hash_password(const std::string& password, Random& random) {
  std::uint8_t noise[16];
  random.fill(noise);
  char salt[CRYPT_GENSALT_OUTPUT_SIZE];
  crypt_data data{};
  if (!crypt_gensalt_rn("$2b$", kBcryptCost, reinterpret_cast<const char*>(noise), sizeof noise, salt, sizeof salt) ||
      !crypt_r(password.c_str(), salt, &data) || data.output[0] == '*')
    return fail(ErrorCode::internal, "etcdserver: the password could not be hashed");
  return std::string(data.output);
}

bool password_matches(const std::string& password, const std::string& hash) {
  crypt_data data{};
  const char* out = crypt_r(password.c_str(), hash.c_str(), &data);
  return out && out[0] != '*' && pki::constant_time_equal(out, hash);
}

// Whether ranges that are allowed, taken together, cover what is asked for. Empty `end`: one key; "\0": no end.
bool covered(std::vector<std::pair<std::string, std::string>> allowed, const std::string& key, const std::string& end) {
  const std::string open(1, '\0');
  for (auto& [from, to] : allowed)
    if (to.empty()) to = from + '\0';
  std::sort(allowed.begin(), allowed.end());
  std::string at = key;
  const std::string until = end.empty() ? key + '\0' : end;
  for (const auto& [from, to] : allowed) {
    if (from > at && !(from == open && at.empty())) break;
    if (to == open) return true;
    if (to > at) at = to;
    if (until != open && at >= until) return true;
  }
  return false;
}

}  // namespace

Auth::Auth(const std::map<std::string, std::string>& settings, const Clock& clock, Random& random) : clock_(clock), random_(random) {
  Entries all;
  for (const auto& [name, value] : settings) all.push_back({name, value});
  commit(all);
}

void Auth::commit(const Entries& written) {
  std::lock_guard lock(mutex_);
  for (const auto& e : written) {
    const std::string_view name = e.name;
    if (name == "auth/enabled") {
      enabled_ = e.value.has_value();
      if (!enabled_) tokens_.clear();
    } else if (name == "auth/revision") {
      revision_ = std::stoull(e.value.value_or("1"));
    } else if (name.starts_with("auth/user/")) {
      const std::string user(name.substr(10));
      if (e.value) users_[user].ParseFromString(*e.value);
      else users_.erase(user);
      if (!e.value) std::erase_if(tokens_, [&](const auto& t) { return t.second.user == user; });
    } else if (name.starts_with("auth/role/")) {
      const std::string role(name.substr(10));
      if (e.value) roles_[role].ParseFromString(*e.value);
      else roles_.erase(role);
    }
  }
}

Auth::Entries Auth::with_revision(Entries e) const {
  e.push_back({"auth/revision", std::to_string(revision_ + 1)});
  return e;
}

bool Auth::enabled() const {
  std::lock_guard lock(mutex_);
  return enabled_;
}
std::uint64_t Auth::revision() const {
  std::lock_guard lock(mutex_);
  return revision_;
}

bool Auth::has_role(const authpb::User& u, const std::string& role) const {
  return std::find(u.roles().begin(), u.roles().end(), role) != u.roles().end();
}

Result<authpb::User> Auth::user(const std::string& name) const {
  const auto it = users_.find(name);
  if (it == users_.end()) return precondition("user name not found");
  return it->second;
}
Result<authpb::Role> Auth::role(const std::string& name) const {
  const auto it = roles_.find(name);
  if (it == roles_.end()) return precondition("role name not found");
  return it->second;
}

Result<Auth::Entries> Auth::enable() {
  std::lock_guard lock(mutex_);
  if (enabled_) return Entries{};
  const auto root = users_.find(kRoot);
  if (root == users_.end()) return precondition("root user does not exist");
  if (!has_role(root->second, kRoot)) return precondition("root user does not have root role");
  return with_revision({{"auth/enabled", ""}});
}

Result<Auth::Entries> Auth::disable() {
  std::lock_guard lock(mutex_);
  if (!enabled_) return Entries{};
  return with_revision({{"auth/enabled", std::nullopt}});
}

Result<Auth::Entries> Auth::user_add(const std::string& name, const std::string& password, bool no_password, const std::string& hashed) {
  if (name.empty()) return invalid("user name is empty");
  std::string hash = hashed;
  if (!no_password && hash.empty()) {
    FL_TRY(hash, hash_password(password, random_));
  }
  std::lock_guard lock(mutex_);
  if (users_.contains(name)) return precondition("user name already exists");
  authpb::User u;
  u.set_name(name);
  if (!no_password) u.set_password(hash);
  u.mutable_options()->set_no_password(no_password);
  return with_revision({{"auth/user/" + name, u.SerializeAsString()}});
}

Result<Auth::Entries> Auth::user_delete(const std::string& name) {
  std::lock_guard lock(mutex_);
  if (enabled_ && name == kRoot) return invalid("invalid auth management");
  FL_TRY(auto u, user(name));
  return with_revision({{"auth/user/" + u.name(), std::nullopt}});
}

Result<Auth::Entries> Auth::user_change_password(const std::string& name, const std::string& password, const std::string& hashed) {
  std::string hash = hashed;
  if (hash.empty()) {
    FL_TRY(hash, hash_password(password, random_));
  }
  std::lock_guard lock(mutex_);
  FL_TRY(auto u, user(name));
  u.set_password(hash);
  return with_revision({{"auth/user/" + name, u.SerializeAsString()}});
}

Result<Auth::Entries> Auth::user_grant_role(const std::string& name, const std::string& role_name) {
  std::lock_guard lock(mutex_);
  FL_TRY(auto u, user(name));
  if (role_name != kRoot) FL_CHECK(role(role_name));
  if (!has_role(u, role_name)) u.add_roles(role_name);
  std::sort(u.mutable_roles()->begin(), u.mutable_roles()->end());
  return with_revision({{"auth/user/" + name, u.SerializeAsString()}});
}

Result<Auth::Entries> Auth::user_revoke_role(const std::string& name, const std::string& role_name) {
  std::lock_guard lock(mutex_);
  if (enabled_ && name == kRoot && role_name == kRoot) return invalid("invalid auth management");
  FL_TRY(auto u, user(name));
  if (!has_role(u, role_name)) return precondition("role is not granted to the user");
  u.mutable_roles()->erase(std::find(u.roles().begin(), u.roles().end(), role_name));
  return with_revision({{"auth/user/" + name, u.SerializeAsString()}});
}

Result<Auth::Entries> Auth::role_add(const std::string& name) {
  if (name.empty()) return invalid("role name is empty");
  std::lock_guard lock(mutex_);
  if (roles_.contains(name)) return precondition("role name already exists");
  authpb::Role r;
  r.set_name(name);
  return with_revision({{"auth/role/" + name, r.SerializeAsString()}});
}

Result<Auth::Entries> Auth::role_delete(const std::string& name) {
  std::lock_guard lock(mutex_);
  if (enabled_ && name == kRoot) return invalid("invalid auth management");
  FL_CHECK(role(name));
  Entries e{{"auth/role/" + name, std::nullopt}};
  for (auto [user_name, u] : users_) {
    const auto at = std::find(u.roles().begin(), u.roles().end(), name);
    if (at == u.roles().end()) continue;
    u.mutable_roles()->erase(at);
    e.push_back({"auth/user/" + user_name, u.SerializeAsString()});
  }
  return with_revision(std::move(e));
}

Result<Auth::Entries> Auth::role_grant(const std::string& name, const authpb::Permission& permission) {
  std::lock_guard lock(mutex_);
  FL_TRY(auto r, role(name));
  if (permission.key().empty() && permission.range_end().empty()) return invalid("permission not given");
  auto& all = *r.mutable_keypermission();
  const auto same = std::find_if(all.begin(), all.end(), [&](const authpb::Permission& p) {
    return p.key() == permission.key() && p.range_end() == permission.range_end();
  });
  if (same != all.end()) same->set_permtype(permission.permtype());
  else *r.add_keypermission() = permission;
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key() < b.key(); });
  return with_revision({{"auth/role/" + name, r.SerializeAsString()}});
}

Result<Auth::Entries> Auth::role_revoke(const std::string& name, const std::string& key, const std::string& range_end) {
  std::lock_guard lock(mutex_);
  FL_TRY(auto r, role(name));
  auto& all = *r.mutable_keypermission();
  const auto at = std::find_if(all.begin(), all.end(), [&](const authpb::Permission& p) { return p.key() == key && p.range_end() == range_end; });
  if (at == all.end()) return precondition("permission is not granted to the role");
  all.erase(at);
  return with_revision({{"auth/role/" + name, r.SerializeAsString()}});
}

Result<std::vector<std::string>> Auth::user_roles(const std::string& name) const {
  std::lock_guard lock(mutex_);
  FL_TRY(auto u, user(name));
  return std::vector<std::string>(u.roles().begin(), u.roles().end());
}

Result<std::vector<authpb::Permission>> Auth::role_permissions(const std::string& name) const {
  std::lock_guard lock(mutex_);
  if (name == kRoot && !roles_.contains(name)) {
    authpb::Permission everything;
    everything.set_permtype(authpb::Permission::READWRITE);
    everything.set_range_end(std::string(1, '\0'));
    return std::vector<authpb::Permission>{everything};
  }
  FL_TRY(auto r, role(name));
  return std::vector<authpb::Permission>(r.keypermission().begin(), r.keypermission().end());
}

std::vector<std::string> Auth::users() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [name, u] : users_) out.push_back(name);
  return out;
}
std::vector<std::string> Auth::roles() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [name, r] : roles_) out.push_back(name);
  return out;
}

Result<std::string> Auth::authenticate(const std::string& name, const std::string& password) {
  const auto refused = invalid("authentication failed, invalid user ID or password");
  std::string hash;
  {
    std::lock_guard lock(mutex_);
    if (!enabled_) return precondition("authentication is not enabled");
    const auto it = users_.find(name);
    if (it == users_.end() || it->second.options().no_password()) return refused;
    hash = it->second.password();
  }
  if (!password_matches(password, hash)) return refused;
  std::uint8_t noise[16];
  random_.fill(noise);
  std::string token;
  for (const auto b : noise) token.push_back(static_cast<char>('A' + b % 26));
  std::lock_guard lock(mutex_);
  token += "." + std::to_string(revision_);
  const auto now = clock_.steady();
  std::erase_if(tokens_, [&](const auto& t) { return t.second.expiry <= now; });
  tokens_[token] = {name, now + kTokenLife};
  return token;
}

Result<std::string> Auth::user_of(const std::string& token) {
  std::lock_guard lock(mutex_);
  const auto it = tokens_.find(token);
  if (it == tokens_.end() || it->second.expiry <= clock_.steady()) return fail(errors::make(ErrorCode::unauthenticated, "invalid auth token"));
  it->second.expiry = clock_.steady() + kTokenLife;
  return it->second.user;
}

Result<> Auth::allow_admin(const std::string& name) const {
  std::lock_guard lock(mutex_);
  if (!enabled_) return {};
  if (name.empty()) return invalid("user name is empty");
  const auto it = users_.find(name);
  if (it == users_.end() || !has_role(it->second, kRoot)) return fail(errors::make(ErrorCode::permission_denied, "permission denied"));
  return {};
}

Result<> Auth::allow_range(const std::string& name, const std::string& key, const std::string& range_end, bool write) const {
  std::lock_guard lock(mutex_);
  if (!enabled_) return {};
  if (name.empty()) return invalid("user name is empty");
  const auto denied = fail(errors::make(ErrorCode::permission_denied, "permission denied"));
  const auto it = users_.find(name);
  if (it == users_.end()) return denied;
  if (has_role(it->second, kRoot)) return {};
  std::vector<std::pair<std::string, std::string>> allowed;
  for (const auto& role_name : it->second.roles()) {
    const auto r = roles_.find(role_name);
    if (r == roles_.end()) continue;
    for (const auto& p : r->second.keypermission())
      if (p.permtype() == authpb::Permission::READWRITE || p.permtype() == (write ? authpb::Permission::WRITE : authpb::Permission::READ))
        allowed.emplace_back(p.key(), p.range_end());
  }
  if (covered(std::move(allowed), key, range_end)) return {};
  return denied;
}

Result<> Auth::allow(const std::string& name, const PutRequest& r) const {
  FL_CHECK(allow_range(name, r.key, {}, true));
  if (r.prev_kv) FL_CHECK(allow_range(name, r.key, {}, false));
  return {};
}

Result<> Auth::allow(const std::string& name, const DeleteRangeRequest& r) const {
  FL_CHECK(allow_range(name, r.key, r.range_end, true));
  if (r.prev_kv) FL_CHECK(allow_range(name, r.key, r.range_end, false));
  return {};
}

Result<> Auth::allow(const std::string& name, const TxnRequest& r) const {
  for (const auto& c : r.compare) FL_CHECK(allow_range(name, c.key, c.range_end, false));
  for (const auto* list : {&r.success, &r.failure})
    for (const auto& op : *list) {
      Result<> ok;
      if (const auto* g = std::get_if<RangeRequest>(&op)) ok = allow_range(name, g->key, g->range_end, false);
      else if (const auto* p = std::get_if<PutRequest>(&op)) ok = allow(name, *p);
      else if (const auto* d = std::get_if<DeleteRangeRequest>(&op)) ok = allow(name, *d);
      else ok = allow(name, *std::get<std::shared_ptr<TxnRequest>>(op));
      if (!ok) return ok;
    }
  return {};
}

}  // namespace fairlead::etcd
