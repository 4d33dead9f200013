// Service account tokens: JSON Web Tokens signed with RS256 (RFC 7515, 7519; claims as Kubernetes writes them). The signer
// holds a private key; the verifier any number of public keys, so that keys can be rotated. OpenSSL is hidden in jwt.cc.
// Immutable after creation; thread safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace fairlead::apiserver {

struct TokenClaims {
  std::string issuer;
  std::string subject;  // "system:serviceaccount:<ns>:<name>"
  std::vector<std::string> audiences;
  std::int64_t issued_at = 0;  // seconds since 1970, as the two below
  std::int64_t not_before = 0;
  std::int64_t expires_at = 0;
  std::string id;  // jti
  // The kubernetes.io claim.
  std::string ns;
  std::string service_account, service_account_uid;
  std::string pod, pod_uid;
  std::string secret, secret_uid;
  std::string node, node_uid;
};

class TokenSigner {
 public:
  static Result<std::unique_ptr<TokenSigner>> create(const std::string& private_key_pem);
  ~TokenSigner();
  Result<std::string> sign(const TokenClaims& claims) const;

 private:
  struct Impl;
  explicit TokenSigner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class TokenVerifier {
 public:
  // PEM text with public keys, certificates' keys or private keys (their public half), several in one text.
  static Result<std::unique_ptr<TokenVerifier>> create(const std::vector<std::string>& key_pems, std::string issuer);
  ~TokenVerifier();
  // Signature, issuer and times. `now` is wall time.
  Result<TokenClaims> verify(std::string_view token, WallTime now) const;
  // True when the token names our issuer, so that it is ours to judge.
  bool claims_our_issuer(std::string_view token) const;

 private:
  struct Impl;
  explicit TokenVerifier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

std::string base64url(std::string_view bytes);              // without padding
Result<std::string> base64url_decode(std::string_view text);

}  // namespace fairlead::apiserver
