#include "ingress/runtime/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/pki.h"
#include "base/text.h"
#include "ingress/runtime/client_auth.h"

namespace fairlead::ingress {
namespace {

std::string openssl_error() {
  const auto code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown error";
  const char* reason = ERR_reason_error_string(code);
  return reason ? reason : "error " + std::to_string(code);
}

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* p) const { Free(p); }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Context = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

// No prompts for encrypted keys.
int no_password(char*, int, int, void*) { return 0; }

// HTTP/2 where the client knows it. Asked of the certificate's context, not the acceptor's.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in, unsigned in_size, void*) {
  static constexpr unsigned char offer[] = "\x02h2\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, offer, sizeof(offer) - 1, in, in_size) != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

constexpr const char* kCiphers = "ECDHE+AESGCM:ECDHE+CHACHA20";  // of TLS 1.2

// What both sides have in common.
void set_manners(SSL_CTX* c) {
  SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
}

Context make_context() {
  Context c(SSL_CTX_new(TLS_server_method()));
  if (!c) return c;
  SSL_CTX_set_min_proto_version(c.get(), TLS1_2_VERSION);
  set_manners(c.get());
  SSL_CTX_set_options(c.get(), SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_cipher_list(c.get(), kCiphers);
  static constexpr unsigned char id[] = "fairlead-ingress";
  SSL_CTX_set_alpn_select_cb(c.get(), &choose_protocol, nullptr);
  SSL_CTX_set_session_id_context(c.get(), id, sizeof(id) - 1);
  return c;
}

Failure failed(std::string_view what) { return fail(ErrorCode::invalid_argument, "{}: {}", what, openssl_error()); }

Result<> use_chain(SSL_CTX* context, const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const Certificate leaf(PEM_read_bio_X509_AUX(bio.get(), nullptr, no_password, nullptr));
  if (!leaf) return failed("tls.crt holds no certificate");
  if (SSL_CTX_use_certificate(context, leaf.get()) != 1) return failed("tls.crt");
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr))
    if (SSL_CTX_add0_chain_cert(context, next) != 1) {
      X509_free(next);
      return failed("tls.crt");
    }
  ERR_clear_error();  // the end of the file
  return {};
}

Result<> use_key(SSL_CTX* context, const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (!key) return failed("tls.key holds no private key");
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1) return failed("tls.key");
  if (SSL_CTX_check_private_key(context) != 1) return failed("tls.key does not belong to tls.crt");
  return {};
}

// Chain and name of each backend, during the handshake.
Result<> verify_backends(SSL_CTX* context, const BackendTls& tls, const std::string& ca_pem) {
  const Bio bio(BIO_new_mem_buf(ca_pem.data(), static_cast<int>(ca_pem.size())));
  auto* store = SSL_CTX_get_cert_store(context);
  unsigned n = 0;
  for (;; ++n) {
    const Certificate ca(PEM_read_bio_X509_AUX(bio.get(), nullptr, no_password, nullptr));
    if (!ca) break;
    if (X509_STORE_add_cert(store, ca.get()) != 1) return failed("ca.crt");
  }
  ERR_clear_error();  // the end of the file
  if (n == 0) return fail(ErrorCode::invalid_argument, "ca.crt holds no certificate");
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_verify_depth(context, static_cast<int>(tls.verify_depth));
  auto* parameters = SSL_CTX_get0_param(context);
  X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  const bool named = IpAddress::parse(tls.name) ? X509_VERIFY_PARAM_set1_ip_asc(parameters, tls.name.c_str()) == 1
                                                : X509_VERIFY_PARAM_set1_host(parameters, tls.name.data(), tls.name.size()) == 1;
  return named ? Result<>{} : failed("proxy-ssl-name");
}

}  // namespace

ServerCertificate::~ServerCertificate() { SSL_CTX_free(context_); }

Result<std::shared_ptr<const ServerCertificate>> load_certificate(const std::string& chain_pem, const std::string& key_pem) {
  ERR_clear_error();
  auto context = make_context();
  if (!context) return failed("TLS context");
  FL_CHECK(use_chain(context.get(), chain_pem));
  FL_CHECK(use_key(context.get(), key_pem));
  return std::make_shared<const ServerCertificate>(context.release());
}

TlsConnector::~TlsConnector() { SSL_CTX_free(context_); }

Result<std::shared_ptr<const TlsConnector>> load_connector(const BackendTls& tls, bool http2, const std::string& ca_pem, const std::string& chain_pem, const std::string& key_pem) {
  ERR_clear_error();
  Context c(SSL_CTX_new(TLS_client_method()));
  if (!c) return failed("TLS context");
  SSL_CTX_set_min_proto_version(c.get(), tls.tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(c.get(), tls.tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
  set_manners(c.get());
  // Whatever is asked for: no cipher without encryption or authentication.
  const auto ciphers = tls.ciphers.empty() ? std::string(kCiphers) : tls.ciphers + ":!aNULL:!eNULL";
  if (SSL_CTX_set_cipher_list(c.get(), ciphers.c_str()) != 1) return failed("proxy-ssl-ciphers");
  static constexpr unsigned char h2[] = "\x02h2", h1[] = "\x08http/1.1";
  SSL_CTX_set_alpn_protos(c.get(), http2 ? h2 : h1, http2 ? sizeof(h2) - 1 : sizeof(h1) - 1);
  if (!chain_pem.empty() || !key_pem.empty()) {
    FL_CHECK(use_chain(c.get(), chain_pem));
    FL_CHECK(use_key(c.get(), key_pem));
  }
  if (tls.verify) FL_CHECK(verify_backends(c.get(), tls, ca_pem));
  return std::make_shared<const TlsConnector>(c.release(), tls.send_name && !IpAddress::parse(tls.name) ? tls.name : std::string());
}

ssl_st* TlsConnector::connect(int fd) const {
  SSL* ssl = SSL_new(context_);
  if (!ssl) return nullptr;
  if (!send_name_.empty() && SSL_set_tlsext_host_name(ssl, send_name_.c_str()) != 1) return SSL_free(ssl), nullptr;
  SSL_set_fd(ssl, fd);
  SSL_set_connect_state(ssl);
  return ssl;
}

Result<std::shared_ptr<const ServerCertificate>> make_fallback_certificate() {
  FL_TRY(const auto pair, pki::make_ca("Fairlead ingress: no certificate for this name", std::chrono::hours(24 * 365)));
  return load_certificate(pair.certificate_pem, pair.key_pem);
}

namespace {

// What the client's first message said; lives with the SSL.
struct Hello {
  std::string server_name;
  std::shared_ptr<const ClientAuth> client_auth;
};

int hello_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, [](void*, void* hello, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<Hello*>(hello); });
  return index;
}

Hello* hello_of(SSL* ssl) { return static_cast<Hello*>(SSL_get_ex_data(ssl, hello_index())); }

// RFC 6066, 3: a list with one name of type host_name. "": there is none, or it is malformed, which OpenSSL refuses later.
std::string sent_name(SSL* ssl) {
  const unsigned char* p = nullptr;
  std::size_t n = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) != 1 || n < 5) return "";
  const std::size_t list = static_cast<std::size_t>(p[0]) << 8 | p[1], size = static_cast<std::size_t>(p[3]) << 8 | p[4];
  if (list + 2 != n || p[2] != TLSEXT_NAMETYPE_host_name || size + 5 > n || size > 255) return "";
  return lower({reinterpret_cast<const char*>(p + 5), size});
}

}  // namespace

struct TlsAcceptor::Impl {
  Choose choose;
  Context context;

  static int on_client_hello(SSL* ssl, int* alert, void* self_pointer) {
    auto& self = *static_cast<Impl*>(self_pointer);
    auto* hello = hello_of(ssl);
    if (!hello) SSL_set_ex_data(ssl, hello_index(), hello = new Hello);
    hello->server_name = sent_name(ssl);
    auto choice = self.choose(hello->server_name);
    if (!choice.certificate) {
      *alert = SSL_AD_UNRECOGNIZED_NAME;
      return SSL_CLIENT_HELLO_ERROR;
    }
    SSL_set_SSL_CTX(ssl, choice.certificate->context());
    // One whose authorities cannot be used asks nothing; its requests are refused.
    if (choice.client_auth && choice.client_auth->authorities) ask_for_certificate(ssl, *choice.client_auth);
    hello->client_auth = std::move(choice.client_auth);
    return SSL_CLIENT_HELLO_SUCCESS;
  }
  static int on_server_name(SSL*, int*, void*) { return SSL_TLSEXT_ERR_OK; }  // chosen already; the client is told so
};

TlsAcceptor::TlsAcceptor(Choose choose) : impl_(std::make_unique<Impl>(Impl{std::move(choose), make_context()})) {
  SSL_CTX_set_client_hello_cb(impl_->context.get(), &Impl::on_client_hello, impl_.get());
  SSL_CTX_set_tlsext_servername_callback(impl_->context.get(), &Impl::on_server_name);
}
TlsAcceptor::~TlsAcceptor() = default;

ssl_st* TlsAcceptor::accept(int fd) {
  SSL* ssl = SSL_new(impl_->context.get());
  if (!ssl) return nullptr;
  SSL_set_fd(ssl, fd);
  SSL_set_accept_state(ssl);
  return ssl;
}

ssize_t Socket::read(char* to, std::size_t n) {
  if (!ssl_) {
    const auto got = ::recv(fd_, to, n, 0);
    return got >= 0 ? got : (errno == EINTR ? -EAGAIN : -errno);
  }
  ERR_clear_error();
  std::size_t total = 0;
  while (total < n) {
    const int got = SSL_read(ssl_, to + total, static_cast<int>(std::min<std::size_t>(n - total, 1 << 30)));
    if (got > 0) {
      total += static_cast<std::size_t>(got);
      continue;
    }
    if (total > 0) break;  // what went wrong shows again at the next call
    switch (SSL_get_error(ssl_, got)) {
      case SSL_ERROR_ZERO_RETURN: return 0;
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE: return -EAGAIN;
      case SSL_ERROR_SYSCALL: return errno != 0 ? -errno : 0;
      default: return -EPROTO;
    }
  }
  return static_cast<ssize_t>(total);
}

ssize_t Socket::write(const iovec* parts, int count) {
  if (!ssl_) {
    if (count == 1) {  // spares the kernel the copy of a header and a list
      const auto n = ::send(fd_, parts->iov_base, parts->iov_len, MSG_NOSIGNAL);
      return n >= 0 ? n : (errno == EINTR ? -EAGAIN : -errno);
    }
    msghdr m{};
    m.msg_iov = const_cast<iovec*>(parts);
    m.msg_iovlen = static_cast<std::size_t>(count);
    const auto n = ::sendmsg(fd_, &m, MSG_NOSIGNAL);
    return n >= 0 ? n : (errno == EINTR ? -EAGAIN : -errno);
  }
  ERR_clear_error();
  std::size_t total = 0;
  // Small parts go into one record.
  char record[16 << 10];
  for (int i = 0; i < count;) {
    const char* from = static_cast<const char*>(parts[i].iov_base);
    std::size_t size = parts[i].iov_len;
    int taken = 1;
    if (size + (i + 1 < count ? parts[i + 1].iov_len : sizeof(record)) <= sizeof(record)) {
      size = 0;
      for (taken = 0; i + taken < count && size + parts[i + taken].iov_len <= sizeof(record); ++taken) {
        std::memcpy(record + size, parts[i + taken].iov_base, parts[i + taken].iov_len);
        size += parts[i + taken].iov_len;
      }
      from = record;
    }
    std::size_t sent = 0;
    while (sent < size) {
      const int n = SSL_write(ssl_, from + sent, static_cast<int>(std::min<std::size_t>(size - sent, 1 << 30)));
      if (n > 0) {
        sent += static_cast<std::size_t>(n);
        continue;
      }
      total += sent;
      if (total > 0) return static_cast<ssize_t>(total);
      switch (SSL_get_error(ssl_, n)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE: return -EAGAIN;
        case SSL_ERROR_SYSCALL: return errno != 0 ? -errno : -EPIPE;
        default: return -EPROTO;
      }
    }
    total += sent;
    i += taken;
  }
  return static_cast<ssize_t>(total);
}

int Socket::handshake() {
  ERR_clear_error();
  const int r = SSL_do_handshake(ssl_);
  if (r == 1) return 1;
  const int e = SSL_get_error(ssl_, r);
  return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

std::string Socket::handshake_error() const {
  const auto verdict = ssl_ ? SSL_get_verify_result(ssl_) : X509_V_OK;
  if (verdict != X509_V_OK) return std::string("the certificate is not accepted: ") + X509_verify_cert_error_string(verdict);
  return ERR_peek_error() != 0 ? openssl_error() : "the handshake broke off";
}

bool Socket::negotiated_http2() const {
  if (!ssl_) return false;
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_, &name, &size);
  return size == 2 && name[0] == 'h' && name[1] == '2';
}

std::string Socket::server_name() const {
  const auto* hello = ssl_ ? hello_of(ssl_) : nullptr;
  return hello ? hello->server_name : "";
}

std::shared_ptr<const ClientIdentity> Socket::client_identity() const {
  const auto* hello = ssl_ ? hello_of(ssl_) : nullptr;
  return hello && hello->client_auth && hello->client_auth->authorities ? identity_of(ssl_, *hello->client_auth) : nullptr;
}

void Socket::shutdown_write() {
  if (fd_ < 0) return;
  if (ssl_) SSL_shutdown(ssl_);
  ::shutdown(fd_, SHUT_WR);
}

void Socket::reset_on_close() {
  const linger l{1, 0};
  if (fd_ >= 0) ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

void Socket::close() {
  if (ssl_) {
    // Without waiting for the other side's answer; without it at all when the connection is broken.
    if (SSL_is_init_finished(ssl_)) SSL_shutdown(ssl_);
    SSL_free(ssl_);
    ERR_clear_error();
    ssl_ = nullptr;
  }
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace fairlead::ingress
