#include "controlplane/apiserver/auth/jwt.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

namespace fairlead::apiserver {
namespace json = boost::json;
namespace {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* p) const { Free(p); }
};
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>>;

std::string openssl_error() {
  char text[256] = "";
  ERR_error_string_n(ERR_get_error(), text, sizeof text);
  ERR_clear_error();
  return text;
}

Bio memory(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// Kubernetes' key id: base64url of the SHA-256 of the public key in DER.
std::string key_id(EVP_PKEY* key) {
  unsigned char* der = nullptr;
  const int n = i2d_PUBKEY(key, &der);
  if (n <= 0) return {};
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(der, static_cast<std::size_t>(n), digest, &size, EVP_sha256(), nullptr);
  OPENSSL_free(der);
  return base64url({reinterpret_cast<const char*>(digest), size});
}

std::vector<Key> read_keys(const std::string& pem) {
  std::vector<Key> keys;
  constexpr std::string_view begin = "-----BEGIN ";
  for (auto at = pem.find(begin); at != std::string::npos; at = pem.find(begin, at + 1)) {
    const auto block = pem.substr(at);
    const auto title = block.substr(begin.size(), block.find("-----", begin.size()) - begin.size());
    const auto bio = memory(block);
    EVP_PKEY* key = nullptr;
    if (title.find("PRIVATE KEY") != std::string::npos) {
      key = PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr);
    } else if (title.find("CERTIFICATE") != std::string::npos) {
      if (X509* x = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
        key = X509_get_pubkey(x);
        X509_free(x);
      }
    } else if (title == "RSA PUBLIC KEY" || title == "PUBLIC KEY") {
      key = PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr);
    }
    if (key) keys.emplace_back(key);
  }
  ERR_clear_error();
  return keys;
}

std::string text_of(const json::object& o, std::string_view key) {
  const auto* v = o.if_contains(key);
  return v && v->is_string() ? std::string(v->get_string()) : std::string();
}

std::int64_t number_of(const json::object& o, std::string_view key) {
  const auto* v = o.if_contains(key);
  if (!v) return 0;
  if (v->is_int64()) return v->get_int64();
  if (v->is_uint64()) return static_cast<std::int64_t>(v->get_uint64());
  return v->is_double() ? static_cast<std::int64_t>(v->get_double()) : 0;
}

void named(json::object& parent, std::string_view key, const std::string& name, const std::string& uid) {
  if (!name.empty()) parent[key] = {{"name", name}, {"uid", uid}};
}

void read_named(const json::object& parent, std::string_view key, std::string& name, std::string& uid) {
  const auto* v = parent.if_contains(key);
  if (!v || !v->is_object()) return;
  name = text_of(v->get_object(), "name");
  uid = text_of(v->get_object(), "uid");
}

json::object claims_json(const TokenClaims& c) {
  json::object k;
  k["namespace"] = c.ns;
  named(k, "node", c.node, c.node_uid);
  named(k, "pod", c.pod, c.pod_uid);
  named(k, "secret", c.secret, c.secret_uid);
  named(k, "serviceaccount", c.service_account, c.service_account_uid);
  json::array audiences;
  for (const auto& a : c.audiences) audiences.emplace_back(a);
  return {{"aud", std::move(audiences)}, {"exp", c.expires_at}, {"iat", c.issued_at}, {"iss", c.issuer}, {"jti", c.id},
          {"kubernetes.io", std::move(k)}, {"nbf", c.not_before}, {"sub", c.subject}};
}

TokenClaims read_claims(const json::object& o) {
  TokenClaims c;
  c.issuer = text_of(o, "iss");
  c.subject = text_of(o, "sub");
  c.id = text_of(o, "jti");
  c.issued_at = number_of(o, "iat");
  c.not_before = number_of(o, "nbf");
  c.expires_at = number_of(o, "exp");
  if (const auto* aud = o.if_contains("aud")) {
    if (aud->is_string()) c.audiences.emplace_back(aud->get_string());
    if (aud->is_array())
      for (const auto& a : aud->get_array())
        if (a.is_string()) c.audiences.emplace_back(a.get_string());
  }
  if (const auto* k = o.if_contains("kubernetes.io"); k && k->is_object()) {
    const auto& ko = k->get_object();
    c.ns = text_of(ko, "namespace");
    read_named(ko, "serviceaccount", c.service_account, c.service_account_uid);
    read_named(ko, "pod", c.pod, c.pod_uid);
    read_named(ko, "secret", c.secret, c.secret_uid);
    read_named(ko, "node", c.node, c.node_uid);
  }
  return c;
}

struct Parts {
  std::string_view signed_text;
  json::object header;
  json::object payload;
  std::string signature;
};

Result<json::object> decode_object(std::string_view text) {
  FL_TRY(auto bytes, base64url_decode(text));
  boost::system::error_code ec;
  auto v = json::parse(bytes, ec);
  if (ec || !v.is_object()) return fail(ErrorCode::unauthenticated, "token is not a JSON Web Token");
  return std::move(v.get_object());
}

Result<Parts> split(std::string_view token) {
  if (token.size() > 16'384) return fail(ErrorCode::unauthenticated, "token is too long");
  const auto first = token.find('.');
  const auto second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos)
    return fail(ErrorCode::unauthenticated, "token is not a JSON Web Token");
  Parts p;
  p.signed_text = token.substr(0, second);
  FL_TRY(p.header, decode_object(token.substr(0, first)));
  FL_TRY(p.payload, decode_object(token.substr(first + 1, second - first - 1)));
  FL_TRY(p.signature, base64url_decode(token.substr(second + 1)));
  return p;
}

bool signature_valid(EVP_PKEY* key, std::string_view text, std::string_view signature) {
  const DigestContext ctx(EVP_MD_CTX_new());
  const bool ok = EVP_DigestVerifyInit(ctx.get(), nullptr, EVP_sha256(), nullptr, key) == 1 &&
                  EVP_DigestVerify(ctx.get(), reinterpret_cast<const unsigned char*>(signature.data()), signature.size(),
                                   reinterpret_cast<const unsigned char*>(text.data()), text.size()) == 1;
  ERR_clear_error();
  return ok;
}

}  // namespace

std::string base64url(std::string_view bytes) {
  constexpr char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string out;
  out.reserve((bytes.size() * 4 + 2) / 3);
  std::uint32_t buffer = 0;
  int bits = 0;
  for (const unsigned char c : bytes) {
    buffer = buffer << 8 | c;
    for (bits += 8; bits >= 6; bits -= 6) out += alphabet[buffer >> (bits - 6) & 63];
  }
  if (bits) out += alphabet[buffer << (6 - bits) & 63];
  return out;
}

Result<std::string> base64url_decode(std::string_view text) {
  std::string out;
  std::uint32_t buffer = 0;
  int bits = 0;
  for (const char c : text) {
    int v = c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '-' ? 62 : c == '_' ? 63 : -1;
    if (v < 0) return fail(ErrorCode::invalid_argument, "malformed base64url text");
    buffer = buffer << 6 | static_cast<std::uint32_t>(v);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out += static_cast<char>(buffer >> bits & 0xff);
    }
  }
  if (bits >= 6) return fail(ErrorCode::invalid_argument, "malformed base64url text");
  return out;
}

// ---- signer

struct TokenSigner::Impl {
  Key key;
  std::string kid;
};
TokenSigner::TokenSigner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenSigner::~TokenSigner() = default;

Result<std::unique_ptr<TokenSigner>> TokenSigner::create(const std::string& private_key_pem) {
  auto impl = std::make_unique<Impl>();
  impl->key.reset(PEM_read_bio_PrivateKey(memory(private_key_pem).get(), nullptr, nullptr, nullptr));
  if (!impl->key) return fail(ErrorCode::invalid_argument, "read the service account signing key: {}", openssl_error());
  if (EVP_PKEY_base_id(impl->key.get()) != EVP_PKEY_RSA)
    return fail(ErrorCode::invalid_argument, "the service account signing key must be an RSA key");
  impl->kid = key_id(impl->key.get());
  return std::unique_ptr<TokenSigner>(new TokenSigner(std::move(impl)));
}

Result<std::string> TokenSigner::sign(const TokenClaims& claims) const {
  const json::object header = {{"alg", "RS256"}, {"kid", impl_->kid}};
  auto text = base64url(json::serialize(header)) + "." + base64url(json::serialize(claims_json(claims)));
  const DigestContext ctx(EVP_MD_CTX_new());
  std::size_t size = 0;
  const auto* data = reinterpret_cast<const unsigned char*>(text.data());
  if (EVP_DigestSignInit(ctx.get(), nullptr, EVP_sha256(), nullptr, impl_->key.get()) != 1 ||
      EVP_DigestSign(ctx.get(), nullptr, &size, data, text.size()) != 1)
    return fail(ErrorCode::internal, "sign token: {}", openssl_error());
  std::string signature(size, '\0');
  if (EVP_DigestSign(ctx.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, data, text.size()) != 1)
    return fail(ErrorCode::internal, "sign token: {}", openssl_error());
  signature.resize(size);
  return text + "." + base64url(signature);
}

// ---- verifier

struct TokenVerifier::Impl {
  std::vector<std::pair<std::string, Key>> keys;  // by key id
  std::string issuer;
};
TokenVerifier::TokenVerifier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenVerifier::~TokenVerifier() = default;

Result<std::unique_ptr<TokenVerifier>> TokenVerifier::create(const std::vector<std::string>& key_pems, std::string issuer) {
  auto impl = std::make_unique<Impl>();
  impl->issuer = std::move(issuer);
  for (const auto& pem : key_pems) {
    auto keys = read_keys(pem);
    if (keys.empty()) return fail(ErrorCode::invalid_argument, "no key found in a service account key file");
    for (auto& k : keys) {
      auto id = key_id(k.get());
      impl->keys.emplace_back(std::move(id), std::move(k));
    }
  }
  return std::unique_ptr<TokenVerifier>(new TokenVerifier(std::move(impl)));
}

bool TokenVerifier::claims_our_issuer(std::string_view token) const {
  const auto parts = split(token);
  return parts && text_of(parts->payload, "iss") == impl_->issuer;
}

Result<TokenClaims> TokenVerifier::verify(std::string_view token, WallTime now) const {
  FL_TRY(auto parts, split(token));
  if (text_of(parts.header, "alg") != "RS256") return fail(ErrorCode::unauthenticated, "token is not signed with RS256");
  const auto kid = text_of(parts.header, "kid");
  bool valid = false;
  for (const auto& [id, key] : impl_->keys) {
    if (EVP_PKEY_base_id(key.get()) != EVP_PKEY_RSA) continue;
    if (!kid.empty() && kid != id) continue;
    if (signature_valid(key.get(), parts.signed_text, parts.signature)) {
      valid = true;
      break;
    }
  }
  if (!valid) return fail(ErrorCode::unauthenticated, "token has no valid signature");
  auto claims = read_claims(parts.payload);
  if (claims.issuer != impl_->issuer) return fail(ErrorCode::unauthenticated, "token is of another issuer");
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
  if (claims.expires_at <= seconds) return fail(ErrorCode::unauthenticated, "token has expired");
  if (claims.not_before > seconds + 60) return fail(ErrorCode::unauthenticated, "token is not valid yet");
  return claims;
}

}  // namespace fairlead::apiserver
