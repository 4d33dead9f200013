// Authenticator: from a request's credentials to a User. Tried in order: client certificate (CN is the user, O the groups),
// bearer token (static file, then service account token). No credentials: system:anonymous. Wrong credentials: 401, never
// anonymous. Immutable after creation; thread safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/http/message.h"
#include "controlplane/apiserver/api_error.h"
#include "controlplane/apiserver/auth/jwt.h"
#include "controlplane/apiserver/auth/user.h"

namespace fairlead::apiserver {

class Authenticator {
 public:
  // Whether the objects a service account token is bound to still exist with those uids.
  using BoundCheck = std::function<bool(const TokenClaims&)>;
  struct Config {
    std::string token_file_text;                    // lines: token,user,uid[,"group1,group2"]
    std::shared_ptr<const TokenVerifier> verifier;  // null: no service account tokens
    std::vector<std::string> api_audiences;
    BoundCheck bound;
    const Clock* clock = nullptr;
  };
  static Result<std::unique_ptr<Authenticator>> create(Config config);
  ApiResult<User> authenticate(const http::Request& request) const;
  // For TokenReview: the user behind a token that is valid for one of the audiences (empty: ours), and those audiences.
  Result<std::pair<User, std::vector<std::string>>> token_user(std::string_view token, const std::vector<std::string>& audiences) const;

 private:
  explicit Authenticator(Config config) : config_(std::move(config)) {}
  struct StaticToken {
    std::string token;
    User user;
  };
  Config config_;
  std::vector<StaticToken> tokens_;
};

// One line of a CSV file (RFC 4180 quoting).
std::vector<std::string> parse_csv_line(std::string_view line);

}  // namespace fairlead::apiserver
