#include "base/http/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstring>

#include "base/files.h"
#include "base/log.h"

namespace fairlead::http {
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

Failure tls_fail(std::string_view what) { return fail(ErrorCode::invalid_argument, "{}: {}", what, openssl_errors()); }

Bio open_pem(std::string_view pem) { return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

// Every certificate of a PEM text, in order.
Result<std::vector<Cert>> read_certificates(std::string_view pem, std::string_view what) {
  std::vector<Cert> out;
  const Bio bio = open_pem(pem);
  ERR_clear_error();
  while (X509* c = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) out.emplace_back(c);
  const auto e = ERR_peek_last_error();
  const bool at_end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
  if (!at_end) return tls_fail(what);
  ERR_clear_error();
  if (out.empty()) return fail(ErrorCode::invalid_argument, "{}: holds no PEM certificate", what);
  return out;
}

Result<> use_certificate(SSL_CTX* ctx, std::string_view cert_pem, std::string_view key_pem, std::string_view cert_name,
                         std::string_view key_name) {
  FL_TRY(auto chain, read_certificates(cert_pem, cert_name));
  if (SSL_CTX_use_certificate(ctx, chain.front().get()) != 1) return tls_fail(cert_name);
  for (std::size_t i = 1; i < chain.size(); ++i)
    if (SSL_CTX_add1_chain_cert(ctx, chain[i].get()) != 1) return tls_fail(cert_name);
  const Bio bio = open_pem(key_pem);
  // An encrypted key would make OpenSSL ask on the terminal: answer with nothing instead.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (!key) return tls_fail(key_name);
  if (SSL_CTX_use_PrivateKey(ctx, key.get()) != 1) return tls_fail(key_name);
  if (SSL_CTX_check_private_key(ctx) != 1)
    return fail(ErrorCode::invalid_argument, "{} does not belong to {}: {}", key_name, cert_name, openssl_errors());
  return {};
}

Result<> trust(SSL_CTX* ctx, std::string_view ca_pem, std::string_view what, bool announce) {
  FL_TRY(auto cas, read_certificates(ca_pem, what));
  X509_STORE* store = SSL_CTX_get_cert_store(ctx);
  for (const auto& ca : cas) {
    if (X509_STORE_add_cert(store, ca.get()) != 1) return tls_fail(what);
    if (announce && SSL_CTX_add_client_CA(ctx, ca.get()) != 1) return tls_fail(what);
  }
  return {};
}

constexpr unsigned char kAlpn[] = "\x08http/1.1";
constexpr unsigned char kAlpnHttp2[] = "\x02h2";

// `ours` is one name, as on the wire.
int choose_alpn(SSL*, const unsigned char** out, unsigned char* out_len, const unsigned char* in, unsigned in_len, void* ours) {
  const auto* own = static_cast<const unsigned char*>(ours);
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_len, own, 1u + own[0], in, in_len) != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

Result<SslContext> make_context(const SSL_METHOD* method) {
  SslContext ctx(SSL_CTX_new(method), SSL_CTX_free);
  if (!ctx) return tls_fail("TLS context");
  SSL_CTX_set_min_proto_version(ctx.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(ctx.get(),
                      SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_num_tickets(ctx.get(), 0);
  SSL_CTX_set_session_cache_mode(ctx.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(ctx.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return ctx;
}

// The handshake goes on with an unverified client certificate; describe_peer() reports the reason and no identity.
int accept_and_remember(int, X509_STORE_CTX*) { return 1; }

std::string entry_text(const X509_NAME_ENTRY* entry) {
  unsigned char* utf8 = nullptr;
  const int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(entry));
  if (n < 0) return {};
  std::string out(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(n));
  OPENSSL_free(utf8);
  return out;
}

}  // namespace

std::string openssl_errors() {
  std::string out;
  while (const auto e = ERR_get_error()) {
    const char* reason = ERR_reason_error_string(e);
    if (!out.empty()) out += "; ";
    if (reason != nullptr)
      out += reason;
    else if (ERR_SYSTEM_ERROR(e))
      out += std::strerror(static_cast<int>(ERR_GET_REASON(e)));
    else
      out += fmt::format("OpenSSL error {:x}", e);
  }
  return out.empty() ? "unknown TLS error" : out;
}

Result<SslContext> make_server_context(const TlsOptions& o, const ServerTerms& terms) {
  FL_TRY(auto ctx, make_context(TLS_server_method()));
  FL_TRY(const auto cert, read_file(o.certificate_file));
  FL_TRY(const auto key, read_file(o.key_file));
  FL_CHECK(use_certificate(ctx.get(), cert, key, o.certificate_file, o.key_file));
  SSL_CTX_set_alpn_select_cb(ctx.get(), choose_alpn, const_cast<unsigned char*>(terms.http2 ? kAlpnHttp2 : kAlpn));
  if (o.client_ca_file.empty()) return ctx;
  FL_TRY(const auto ca, read_file(o.client_ca_file));
  FL_CHECK(trust(ctx.get(), ca, o.client_ca_file, true));
  if (terms.require_client_certificate) SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  else SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_PEER, accept_and_remember);
  return ctx;
}

Result<SslContext> make_client_context(const ClientTls& o) {
  FL_TRY(auto ctx, make_context(TLS_client_method()));
  if (!o.certificate_pem.empty() || !o.key_pem.empty())
    FL_CHECK(use_certificate(ctx.get(), o.certificate_pem, o.key_pem, "client certificate", "client key"));
  SSL_CTX_set_alpn_protos(ctx.get(), kAlpn, sizeof kAlpn - 1);
  if (o.insecure) {
    SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_NONE, nullptr);
    return ctx;
  }
  SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_PEER, nullptr);
  if (o.ca_pem.empty()) {
    if (SSL_CTX_set_default_verify_paths(ctx.get()) != 1) return tls_fail("the system's CA certificates");
  } else {
    FL_CHECK(trust(ctx.get(), o.ca_pem, "CA certificates", false));
  }
  return ctx;
}

Result<> expect_server_name(ssl_st* ssl, const std::string& name, bool verify) {
  const bool is_address = IpAddress::parse(name).has_value();
  if (!is_address && SSL_set_tlsext_host_name(ssl, name.c_str()) != 1) return tls_fail("TLS server name");
  if (!verify) return {};
  const int ok = is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str()) : SSL_set1_host(ssl, name.c_str());
  if (ok != 1) return tls_fail("TLS server name");
  return {};
}

void describe_peer(ssl_st* ssl, Peer& peer) {
  peer.tls = true;
  const Cert cert(SSL_get1_peer_certificate(ssl));
  if (!cert) return;
  if (const long v = SSL_get_verify_result(ssl); v != X509_V_OK) {
    peer.certificate_error = X509_verify_cert_error_string(v);
    return;
  }
  const X509_NAME* subject = X509_get_subject_name(cert.get());
  for (int i = 0; i < X509_NAME_entry_count(subject); ++i) {
    const X509_NAME_ENTRY* entry = X509_NAME_get_entry(subject, i);
    const int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry));
    if (nid == NID_commonName) peer.common_name = entry_text(entry);
    if (nid == NID_organizationName) peer.organizations.push_back(entry_text(entry));
  }
}

Result<std::unique_ptr<ServerTls>> ServerTls::create(const TlsOptions& options, const ServerTerms& terms) {
  std::unique_ptr<ServerTls> t(new ServerTls(options, terms));
  t->signature_ = t->signature();
  t->looked_ = std::chrono::steady_clock::now();
  FL_TRY(t->context_, make_server_context(options, terms));
  return t;
}

std::string ServerTls::signature() const {
  std::string out;
  for (const auto* path : {&options_.certificate_file, &options_.key_file, &options_.client_ca_file}) {
    struct stat s {};
    if (path->empty() || ::stat(path->c_str(), &s) != 0) continue;
    out += fmt::format("{}:{}:{}.{} ", s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
  }
  return out;
}

SslContext ServerTls::current() {
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (now - looked_ < std::chrono::seconds(1)) return context_;
  looked_ = now;
  auto seen = signature();
  if (seen == signature_) return context_;
  auto made = make_server_context(options_, terms_);
  if (!made) {
    // Files that are half written now are tried again at the next look; one state of them is reported once.
    if (seen != refused_) log::warn("keep the old TLS certificate: {}", made.error().message);
    refused_ = std::move(seen);
    return context_;
  }
  log::info("TLS certificate re-read from {}", options_.certificate_file);
  context_ = std::move(*made);
  signature_ = std::move(seen);
  return context_;
}

}  // namespace fairlead::http
