// Keys and certificates for a cluster: a CA, server certificates with subject alternative names, client certificates
// whose subject is the Kubernetes identity (CN = user, O = groups), and RSA keys for service account tokens.
// ECDSA P-256 with SHA-256 by default; all values are PEM text. OpenSSL 3, hidden in pki.cc. Thread safe.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace fairlead::pki {

struct KeyPair {
  std::string certificate_pem;
  std::string key_pem;
};

struct Subject {
  std::string common_name;
  std::vector<std::string> organizations;
};

struct ServerNames {
  std::vector<std::string> dns;
  std::vector<IpAddress> ips;
};

Result<KeyPair> make_ca(const std::string& common_name, std::chrono::hours validity);
Result<KeyPair> make_server(const KeyPair& ca, const Subject& subject, const ServerNames& names, std::chrono::hours validity);
Result<KeyPair> make_client(const KeyPair& ca, const Subject& subject, std::chrono::hours validity);
Result<std::string> make_rsa_key(unsigned bits);  // PKCS#8 PEM

// Equal without telling how much of it was equal by the time taken.
bool constant_time_equal(std::string_view a, std::string_view b);

}  // namespace fairlead::pki
