#include "controlplane/apiserver/auth/authenticator.h"

#include "base/pki.h"
#include "base/text.h"

namespace fairlead::apiserver {
namespace {

void finish(User& user) {
  if (!user.in_group(kAuthenticated) && !user.in_group(kUnauthenticated)) user.groups.emplace_back(kAuthenticated);
}

User service_account_user(const TokenClaims& c) {
  User u;
  u.name = fmt::format("system:serviceaccount:{}:{}", c.ns, c.service_account);
  u.uid = c.service_account_uid;
  u.groups = {"system:serviceaccounts", "system:serviceaccounts:" + c.ns};
  if (!c.id.empty()) u.extra["authentication.kubernetes.io/credential-id"] = {"JTI=" + c.id};
  if (!c.pod.empty()) {
    u.extra["authentication.kubernetes.io/pod-name"] = {c.pod};
    u.extra["authentication.kubernetes.io/pod-uid"] = {c.pod_uid};
  }
  if (!c.node.empty()) u.extra["authentication.kubernetes.io/node-name"] = {c.node};
  return u;
}

}  // namespace

std::vector<std::string> parse_csv_line(std::string_view line) {
  std::vector<std::string> out;
  std::string field;
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted) {
      if (c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
        field += '"';
        ++i;
      } else if (c == '"') {
        quoted = false;
      } else {
        field += c;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',') {
      out.emplace_back(trim(field, kBlank));
      field.clear();
    } else {
      field += c;
    }
  }
  out.emplace_back(trim(field, kBlank));
  return out;
}

Result<std::unique_ptr<Authenticator>> Authenticator::create(Config config) {
  std::unique_ptr<Authenticator> a(new Authenticator(std::move(config)));
  std::string_view text = a->config_.token_file_text;
  for (int number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    const auto line = trim(text.substr(0, end), kBlank);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty() || line.front() == '#') continue;
    const auto fields = parse_csv_line(line);
    if (fields.size() < 3 || fields[0].empty() || fields[1].empty())
      return fail(ErrorCode::invalid_argument, "token file, line {}: want token,user,uid[,\"group1,group2\"]", number);
    StaticToken t{fields[0], {fields[1], fields[2], {}, {}}};
    if (fields.size() > 3)
      for (const auto& g : parse_csv_line(fields[3]))
        if (!g.empty()) t.user.groups.push_back(g);
    a->tokens_.push_back(std::move(t));
  }
  return a;
}

Result<std::pair<User, std::vector<std::string>>> Authenticator::token_user(std::string_view token,
                                                                            const std::vector<std::string>& audiences) const {
  const auto& wanted = audiences.empty() ? config_.api_audiences : audiences;
  for (const auto& t : tokens_) {
    if (!pki::constant_time_equal(t.token, token)) continue;
    auto user = t.user;
    finish(user);
    return std::pair(std::move(user), audiences);
  }
  if (!config_.verifier) return fail(ErrorCode::unauthenticated, "unknown token");
  FL_TRY(auto claims, config_.verifier->verify(token, config_.clock->wall()));
  std::vector<std::string> common;
  for (const auto& a : claims.audiences)
    if (std::find(wanted.begin(), wanted.end(), a) != wanted.end()) common.push_back(a);
  if (common.empty()) return fail(ErrorCode::unauthenticated, "token is for other audiences");
  if (config_.bound && !config_.bound(claims))
    return fail(ErrorCode::unauthenticated, "token is of a service account or pod that is gone");
  auto user = service_account_user(claims);
  finish(user);
  return std::pair(std::move(user), std::move(common));
}

ApiResult<User> Authenticator::authenticate(const http::Request& request) const {
  if (!request.peer.common_name.empty()) {
    User u{request.peer.common_name, "", request.peer.organizations, {}};
    finish(u);
    return u;
  }
  if (const auto header = request.headers.get("Authorization")) {
    constexpr std::string_view scheme = "bearer ";
    if (header->size() < scheme.size() || !equal_ignoring_case(header->substr(0, scheme.size()), scheme))
      return api_fail(unauthorized());
    const auto token = trim(header->substr(scheme.size()));
    auto user = token_user(token, {});
    if (token.empty() || !user) return api_fail(unauthorized());
    return std::move(user->first);
  }
  return User{"system:anonymous", "", {std::string(kUnauthenticated)}, {}};
}

}  // namespace fairlead::apiserver
