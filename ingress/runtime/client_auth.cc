#include "ingress/runtime/client_auth.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <algorithm>

namespace fairlead::ingress {
namespace {

constexpr int kMostAuthorities = 1000;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* p) const { Free(p); }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Store = std::unique_ptr<X509_STORE, Deleter<X509_STORE_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Crl = std::unique_ptr<X509_CRL, Deleter<X509_CRL_free>>;

int no_password(char*, int, int, void*) { return 0; }

// Judged later, by what the host asks.
int note_only(int, X509_STORE_CTX*) { return 1; }

// True: the end of the text; false: something that is no PEM.
bool at_end() {
  const bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  return end;
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const auto n = BIO_get_mem_data(bio, &data);
  return n > 0 ? std::string(data, static_cast<std::size_t>(n)) : std::string();
}

std::string dn(const X509_NAME* name) {
  const Bio bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253);
  auto text = text_of(bio.get());
  // RFC 2253 escapes control characters; what is left of them is nothing for a header.
  std::replace_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text.substr(0, 4096);
}

std::vector<std::string> common_names(const X509_NAME* name) {
  std::vector<std::string> out;
  for (int i = X509_NAME_get_index_by_NID(name, NID_commonName, -1); i >= 0; i = X509_NAME_get_index_by_NID(name, NID_commonName, i)) {
    unsigned char* text = nullptr;
    const int n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)));
    if (n < 0) continue;
    const std::string one(reinterpret_cast<char*>(text), static_cast<std::size_t>(n));
    OPENSSL_free(text);
    if (one.find('\0') == std::string::npos) out.push_back(one);
  }
  return out;
}

std::string escaped_pem(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  return escape_component(text_of(bio.get()));
}

bool is_unknown_authority(long error) {
  return error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT || error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN || error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
         error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT || error == X509_V_ERR_CERT_UNTRUSTED || error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE;
}

}  // namespace

struct ClientAuthorities::Names {
  STACK_OF(X509_NAME)* list = sk_X509_NAME_new_null();
  ~Names() { sk_X509_NAME_pop_free(list, X509_NAME_free); }
};

ClientAuthorities::ClientAuthorities(x509_store_st* store, std::unique_ptr<Names> names) : store_(store), names_(std::move(names)) {}
ClientAuthorities::~ClientAuthorities() { X509_STORE_free(store_); }

Result<std::shared_ptr<const ClientAuthorities>> load_authorities(const std::string& ca_pem, const std::string& crl_pem) {
  ERR_clear_error();
  Store store(X509_STORE_new());
  auto names = std::make_unique<ClientAuthorities::Names>();
  const Bio bio(BIO_new_mem_buf(ca_pem.data(), static_cast<int>(ca_pem.size())));
  int n = 0;
  while (const Certificate one{PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr)}) {
    if (++n > kMostAuthorities) return fail(ErrorCode::invalid_argument, "ca.crt holds more than {} certificates", kMostAuthorities);
    X509_STORE_add_cert(store.get(), one.get());
    sk_X509_NAME_push(names->list, X509_NAME_dup(X509_get_subject_name(one.get())));
  }
  if (!at_end()) return fail(ErrorCode::invalid_argument, "ca.crt: certificate {} is malformed", n + 1);
  if (n == 0) return fail(ErrorCode::invalid_argument, "ca.crt holds no certificate");
  if (crl_pem.empty()) return std::make_shared<const ClientAuthorities>(store.release(), std::move(names));
  const Bio crls(BIO_new_mem_buf(crl_pem.data(), static_cast<int>(crl_pem.size())));
  n = 0;
  while (const Crl one{PEM_read_bio_X509_CRL(crls.get(), nullptr, no_password, nullptr)}) {
    if (++n > kMostAuthorities) return fail(ErrorCode::invalid_argument, "ca.crl holds more than {} lists", kMostAuthorities);
    X509_STORE_add_crl(store.get(), one.get());
  }
  if (!at_end()) return fail(ErrorCode::invalid_argument, "ca.crl: list {} is malformed", n + 1);
  if (n == 0) return fail(ErrorCode::invalid_argument, "ca.crl holds no list");
  X509_STORE_set_flags(store.get(), X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  return std::make_shared<const ClientAuthorities>(store.release(), std::move(names));
}

void ask_for_certificate(ssl_st* ssl, const ClientAuth& auth) {
  SSL_set_verify(ssl, SSL_VERIFY_PEER, &note_only);
  SSL_set_verify_depth(ssl, static_cast<int>(auth.depth));
  SSL_set1_verify_cert_store(ssl, auth.authorities->store());
  SSL_set0_CA_list(ssl, SSL_dup_CA_list(auth.authorities->names().list));
  SSL_set_session_id_context(ssl, reinterpret_cast<const unsigned char*>(auth.serial.data()), static_cast<unsigned>(auth.serial.size()));
}

std::shared_ptr<const ClientIdentity> identity_of(ssl_st* ssl, const ClientAuth& auth) {
  auto out = std::make_shared<ClientIdentity>();
  out->serial = auth.serial;
  X509* certificate = SSL_get0_peer_certificate(ssl);
  if (!certificate) return out;
  out->present = true;
  const long error = SSL_get_verify_result(ssl);
  out->error = static_cast<int>(error);
  out->unknown_authority = is_unknown_authority(error);
  if (error != X509_V_OK) out->problem = X509_verify_cert_error_string(error);
  out->subject = dn(X509_get_subject_name(certificate));
  out->issuer = dn(X509_get_issuer_name(certificate));
  out->common_names = common_names(X509_get_subject_name(certificate));
  if (auth.pass_certificate) out->escaped_pem = escaped_pem(certificate);
  return out;
}

}  // namespace fairlead::ingress
