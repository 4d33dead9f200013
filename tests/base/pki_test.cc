// Keys and certificates as OpenSSL's own command line sees them.
#include "base/pki.h"

#include <gmock/gmock.h>

#include "base/files.h"
#include "base/process.h"
#include "tests/base/asio_test_util.h"

namespace fairlead::pki {
namespace {

using namespace std::chrono_literals;
using test::value;
using testing::HasSubstr;
using testing::MatchesRegex;

std::string openssl(std::vector<std::string> arguments, const std::string& input) {
  ProcessOptions o;
  o.argv = {"openssl"};
  o.argv.insert(o.argv.end(), arguments.begin(), arguments.end());
  const auto r = value(run_command(o, input, 20s));
  return r.stdout_text + r.stderr_text;
}

TEST(Pki, CertificatesCarryWhatTheirUseNeeds) {
  const auto ca = value(make_ca("fairlead-ca", 24h * 3650));
  const auto ca_text = openssl({"x509", "-noout", "-text"}, ca.certificate_pem);
  EXPECT_THAT(ca_text, HasSubstr("CA:TRUE"));
  EXPECT_THAT(ca_text, HasSubstr("Certificate Sign"));
  EXPECT_THAT(ca_text, HasSubstr("ecdsa-with-SHA256"));

  const auto server = value(
      make_server(ca, {"apiserver", {}},
                  {{"kubernetes.default.svc"}, {value(IpAddress::parse("10.96.0.1")), value(IpAddress::parse("fd00::1"))}}, 30h));
  const auto server_text = openssl({"x509", "-noout", "-text"}, server.certificate_pem);
  EXPECT_THAT(server_text, HasSubstr("DNS:kubernetes.default.svc, IP Address:10.96.0.1, IP Address:FD00:0:0:0:0:0:0:1"));
  EXPECT_THAT(server_text, HasSubstr("TLS Web Server Authentication"));
  EXPECT_THAT(server_text, Not(HasSubstr("TLS Web Client Authentication")));
  EXPECT_THAT(server_text, HasSubstr("CA:FALSE"));

  const auto client = value(make_client(ca, {"system:node:n1", {"system:nodes"}}, 30h));
  EXPECT_THAT(openssl({"x509", "-noout", "-subject"}, client.certificate_pem),
              HasSubstr("O = system:nodes, CN = system:node:n1"));
  EXPECT_THAT(openssl({"x509", "-noout", "-text"}, client.certificate_pem), HasSubstr("TLS Web Client Authentication"));
}

TEST(Pki, OpensslVerifiesTheChain) {
  const auto ca = value(make_ca("a", 24h));
  const auto other = value(make_ca("a", 24h));  // the same name, another key
  const std::string folder = testing::TempDir();
  const std::string ca_file = folder + "pki_test_ca." + std::to_string(::getpid());
  const auto leaf = value(make_client(ca, {"x", {}}, 1h));
  value(write_file_atomic(ca_file, ca.certificate_pem));
  EXPECT_THAT(openssl({"verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", ca_file}, leaf.certificate_pem),
              HasSubstr("OK"));
  value(write_file_atomic(ca_file, other.certificate_pem));
  EXPECT_THAT(openssl({"verify", "-CAfile", ca_file}, leaf.certificate_pem), HasSubstr("verification failed"));
  ::unlink(ca_file.c_str());
}

TEST(Pki, RsaKeysArePkcs8AndBounded) {
  EXPECT_THAT(value(make_rsa_key(2048)), testing::StartsWith("-----BEGIN PRIVATE KEY-----"));
  EXPECT_FALSE(make_rsa_key(512));
  EXPECT_FALSE(make_rsa_key(1u << 20));
}

TEST(Pki, RefusesNonsense) {
  const auto ca = value(make_ca("a", 24h));
  EXPECT_EQ(make_client({"not pem", ca.key_pem}, {"x", {}}, 1h).error().code, ErrorCode::invalid_argument);
  EXPECT_FALSE(make_ca("a", 0h));
  EXPECT_FALSE(make_ca("", 24h));
  EXPECT_FALSE(make_ca(std::string(100, 'x'), 24h));  // a common name has at most 64 characters
}

TEST(Pki, ConstantTimeEqual) {
  EXPECT_TRUE(constant_time_equal("", ""));
  EXPECT_TRUE(constant_time_equal("abc", "abc"));
  EXPECT_FALSE(constant_time_equal("abc", "abd"));
  EXPECT_FALSE(constant_time_equal("abc", "ab"));
}

}  // namespace
}  // namespace fairlead::pki
