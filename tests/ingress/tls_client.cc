#include "tests/ingress/tls_client.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "ingress/runtime/sockaddr.h"

namespace fairlead::ingress {

namespace {

X509* read_certificate(const std::string& pem) {
  BIO* bio = BIO_new_mem_buf(pem.data(), -1);
  X509* out = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  return out;
}

EVP_PKEY* read_key(const std::string& pem) {
  BIO* bio = BIO_new_mem_buf(pem.data(), -1);
  EVP_PKEY* out = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  return out;
}

}  // namespace

std::string make_crl(const pki::KeyPair& ca, const std::string& revoked_pem) {
  X509* issuer = read_certificate(ca.certificate_pem);
  EVP_PKEY* key = read_key(ca.key_pem);
  X509_CRL* crl = X509_CRL_new();
  X509_CRL_set_version(crl, X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer));
  ASN1_TIME* now = X509_gmtime_adj(nullptr, -60);
  ASN1_TIME* later = X509_gmtime_adj(nullptr, 3600);
  X509_CRL_set1_lastUpdate(crl, now);
  X509_CRL_set1_nextUpdate(crl, later);
  if (!revoked_pem.empty()) {
    X509* bad = read_certificate(revoked_pem);
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(bad));
    X509_REVOKED_set_revocationDate(entry, now);
    X509_CRL_add0_revoked(crl, entry);
    X509_free(bad);
  }
  X509_CRL_sign(crl, key, EVP_sha256());
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509_CRL(bio, crl);
  char* text = nullptr;
  const auto n = BIO_get_mem_data(bio, &text);
  const std::string out(text, static_cast<std::size_t>(n));
  BIO_free(bio);
  ASN1_TIME_free(now);
  ASN1_TIME_free(later);
  X509_CRL_free(crl);
  EVP_PKEY_free(key);
  X509_free(issuer);
  return out;
}

struct TlsClient::Impl {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* ssl = nullptr;
  int fd = -1;
  std::string buffer;
  std::shared_ptr<ssl_session_st> session;

  ~Impl() {
    if (ssl) SSL_shutdown(ssl), SSL_free(ssl);
    SSL_CTX_free(context);
    if (fd >= 0) ::close(fd);
  }
  bool more() {
    char text[16384];
    const int n = SSL_read(ssl, text, sizeof(text));
    if (n <= 0) return false;
    buffer.append(text, static_cast<std::size_t>(n));
    return true;
  }
};

TlsClient::TlsClient(const SocketAddress& address, const Options& o) : impl_(std::make_unique<Impl>()) {
  auto& i = *impl_;
  auto k = to_sockaddr(address);
  i.fd = ::socket(k.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval wait{20, 0};
  ::setsockopt(i.fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
  if (::connect(i.fd, k.get(), k.size) != 0) std::perror("connect"), std::abort();
  if (o.tls12) SSL_CTX_set_max_proto_version(i.context, TLS1_2_VERSION);
  SSL_CTX_set_session_cache_mode(i.context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_set_app_data(i.context, &i);
  SSL_CTX_sess_set_new_cb(i.context, [](SSL* ssl, SSL_SESSION* s) {
    static_cast<Impl*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)))->session = {s, [](ssl_session_st* p) { SSL_SESSION_free(p); }};
    return 1;
  });
  i.ssl = SSL_new(i.context);
  if (o.certificate) {
    X509* x = read_certificate(o.certificate->certificate_pem);
    EVP_PKEY* p = read_key(o.certificate->key_pem);
    SSL_use_certificate(i.ssl, x);
    SSL_use_PrivateKey(i.ssl, p);
    X509_free(x);
    EVP_PKEY_free(p);
  }
  if (!o.server_name.empty()) SSL_set_tlsext_host_name(i.ssl, o.server_name.c_str());
  if (o.session) SSL_set_session(i.ssl, o.session.get());
  SSL_set_fd(i.ssl, i.fd);
  connected_ = SSL_connect(i.ssl) == 1;
}
TlsClient::~TlsClient() = default;

bool TlsClient::resumed() const { return SSL_session_reused(impl_->ssl) == 1; }
std::string TlsClient::certificate_name() const {
  char text[256] = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(impl_->ssl)), NID_commonName, text, sizeof(text));
  return text;
}
std::shared_ptr<ssl_session_st> TlsClient::session() { return impl_->session; }

std::string TlsClient::get(const std::string& host, const std::string& path, const std::string& more) {
  auto& i = *impl_;
  const auto request = "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + more + "\r\n";
  if (SSL_write(i.ssl, request.data(), static_cast<int>(request.size())) <= 0) return "";
  std::size_t head;
  while ((head = i.buffer.find("\r\n\r\n")) == std::string::npos)
    if (!i.more()) return "";
  const auto at = i.buffer.find("Content-Length: ");
  const auto whole = head + 4 + (at < head ? std::strtoul(i.buffer.c_str() + at + 16, nullptr, 10) : 0);
  while (i.buffer.size() < whole)
    if (!i.more()) return "";
  auto out = i.buffer.substr(0, whole);
  i.buffer.erase(0, whole);
  return out;
}

}  // namespace fairlead::ingress
