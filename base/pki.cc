#include "base/pki.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <memory>

namespace fairlead::pki {
namespace {

template <auto f>
struct Free {
  template <typename T>
  void operator()(T* p) const {
    f(p);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free>>;
using Cert = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

Failure openssl_fail(std::string_view what) {
  std::string reasons;
  while (const auto e = ERR_get_error()) {
    const char* text = ERR_reason_error_string(e);
    reasons.append(reasons.empty() ? "" : "; ").append(text == nullptr ? "OpenSSL error" : text);
  }
  return fail(ErrorCode::internal, "{}: {}", what, reasons.empty() ? "OpenSSL error" : reasons);
}

std::string text_of(const Bio& bio) {
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(n)};
}

Result<std::string> key_text(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return openssl_fail("write a private key");
  return text_of(bio);
}

Result<std::string> certificate_text(X509* cert) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(bio.get(), cert) != 1) return openssl_fail("write a certificate");
  return text_of(bio);
}

enum class Use { ca, server, client };

Result<> add_name(X509_NAME* name, const char* field, const std::string& value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(value.data());
  if (X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, bytes, static_cast<int>(value.size()), -1, 0) != 1)
    return openssl_fail(fmt::format("certificate subject {}={}", field, value));
  return {};
}

Result<> add_extension(X509* cert, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer, cert, nullptr, nullptr, 0);
  X509_EXTENSION* ext = X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str());
  if (ext == nullptr) return openssl_fail(fmt::format("certificate extension {}", OBJ_nid2sn(nid)));
  const int ok = X509_add_ext(cert, ext, -1);
  X509_EXTENSION_free(ext);
  if (ok != 1) return openssl_fail("certificate extension");
  return {};
}

Result<> add_alternative_names(X509* cert, const ServerNames& names) {
  const std::unique_ptr<GENERAL_NAMES, Free<GENERAL_NAMES_free>> list(sk_GENERAL_NAME_new_null());
  const auto add = [&](int type, ASN1_STRING* value) {
    GENERAL_NAME* n = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(n, type, value);
    sk_GENERAL_NAME_push(list.get(), n);
  };
  for (const auto& dns : names.dns) {
    ASN1_IA5STRING* s = ASN1_IA5STRING_new();
    ASN1_STRING_set(s, dns.data(), static_cast<int>(dns.size()));
    add(GEN_DNS, s);
  }
  for (const auto& ip : names.ips) {
    ASN1_OCTET_STRING* s = ASN1_OCTET_STRING_new();
    ASN1_OCTET_STRING_set(s, ip.bytes().data(), static_cast<int>(ip.bytes().size()));
    add(GEN_IPADD, s);
  }
  if (X509_add1_ext_i2d(cert, NID_subject_alt_name, list.get(), 0, X509V3_ADD_DEFAULT) != 1)
    return openssl_fail("subjectAltName");
  return {};
}

// A certificate of our own making: random 127-bit serial number, valid from five minutes ago (clocks of nodes differ).
Result<Cert> new_certificate(EVP_PKEY* key, const Subject& subject, std::chrono::hours validity) {
  if (validity <= std::chrono::hours(0)) return fail(ErrorCode::invalid_argument, "a certificate must be valid for some time");
  Cert cert(X509_new());
  X509_set_version(cert.get(), X509_VERSION_3);
  unsigned char serial[16];
  if (RAND_bytes(serial, sizeof serial) != 1) return openssl_fail("random serial number");
  serial[0] &= 0x7f;
  BIGNUM* number = BN_bin2bn(serial, sizeof serial, nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert.get()));
  BN_free(number);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), -300);
  const auto days = static_cast<int>(validity.count() / 24);
  const auto seconds = static_cast<long>((validity.count() % 24) * 3600);
  if (X509_time_adj_ex(X509_getm_notAfter(cert.get()), days, seconds, nullptr) == nullptr)
    return openssl_fail("certificate validity");
  X509_NAME* name = X509_get_subject_name(cert.get());
  for (const auto& o : subject.organizations) FL_CHECK(add_name(name, "O", o));
  FL_CHECK(add_name(name, "CN", subject.common_name));
  if (X509_set_pubkey(cert.get(), key) != 1) return openssl_fail("certificate key");
  return cert;
}

Result<> add_use(X509* cert, X509* issuer, Use use) {
  if (use == Use::ca) {
    FL_CHECK(add_extension(cert, issuer, NID_basic_constraints, "critical,CA:TRUE"));
    FL_CHECK(add_extension(cert, issuer, NID_key_usage, "critical,keyCertSign,cRLSign,digitalSignature"));
    return add_extension(cert, issuer, NID_subject_key_identifier, "hash");
  }
  FL_CHECK(add_extension(cert, issuer, NID_basic_constraints, "critical,CA:FALSE"));
  FL_CHECK(add_extension(cert, issuer, NID_key_usage, "critical,digitalSignature"));
  FL_CHECK(add_extension(cert, issuer, NID_ext_key_usage, use == Use::server ? "serverAuth" : "clientAuth"));
  return add_extension(cert, issuer, NID_authority_key_identifier, "keyid");
}

Result<KeyPair> sign(X509* cert, EVP_PKEY* own, EVP_PKEY* signer) {
  if (X509_sign(cert, signer, EVP_sha256()) == 0) return openssl_fail("sign a certificate");
  KeyPair out;
  FL_TRY(out.certificate_pem, certificate_text(cert));
  FL_TRY(out.key_pem, key_text(own));
  return out;
}

Result<KeyPair> issue(const KeyPair& ca, const Subject& subject, const ServerNames* names, std::chrono::hours validity) {
  const Bio cert_bio(BIO_new_mem_buf(ca.certificate_pem.data(), static_cast<int>(ca.certificate_pem.size())));
  const Cert issuer(PEM_read_bio_X509(cert_bio.get(), nullptr, nullptr, nullptr));
  const Bio key_bio(BIO_new_mem_buf(ca.key_pem.data(), static_cast<int>(ca.key_pem.size())));
  const Key issuer_key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
  if (!issuer || !issuer_key) {
    auto e = openssl_fail("read the CA");
    e.value().code = ErrorCode::invalid_argument;
    return e;
  }
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return openssl_fail("make a key");
  FL_TRY(const auto cert, new_certificate(key.get(), subject, validity));
  if (X509_set_issuer_name(cert.get(), X509_get_subject_name(issuer.get())) != 1) return openssl_fail("certificate issuer");
  FL_CHECK(add_use(cert.get(), issuer.get(), names != nullptr ? Use::server : Use::client));
  if (names != nullptr) FL_CHECK(add_alternative_names(cert.get(), *names));
  return sign(cert.get(), key.get(), issuer_key.get());
}

}  // namespace

Result<KeyPair> make_ca(const std::string& common_name, std::chrono::hours validity) {
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return openssl_fail("make a key");
  FL_TRY(const auto cert, new_certificate(key.get(), {common_name, {}}, validity));
  if (X509_set_issuer_name(cert.get(), X509_get_subject_name(cert.get())) != 1) return openssl_fail("certificate issuer");
  FL_CHECK(add_use(cert.get(), cert.get(), Use::ca));
  return sign(cert.get(), key.get(), key.get());
}

Result<KeyPair> make_server(const KeyPair& ca, const Subject& subject, const ServerNames& names, std::chrono::hours validity) {
  return issue(ca, subject, &names, validity);
}

Result<KeyPair> make_client(const KeyPair& ca, const Subject& subject, std::chrono::hours validity) {
  return issue(ca, subject, nullptr, validity);
}

Result<std::string> make_rsa_key(unsigned bits) {
  if (bits < 2048 || bits > 8192)
    return fail(ErrorCode::invalid_argument, "an RSA key of {} bits: 2048 to 8192 are accepted", bits);
  const Key key(EVP_RSA_gen(bits));
  if (!key) return openssl_fail("make an RSA key");
  return key_text(key.get());
}

bool constant_time_equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace fairlead::pki
