// Certificates of clients: what each mode asks, what is told to the backend, and what may not be a way around: another Host than
// the server name, a resumed session, a connection opened earlier, a secret that vanishes, plain HTTP.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "base/pki.h"
#include "tests/ingress/serving.h"
#include "tests/ingress/tls_client.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string indented(const std::string& text) {
  std::string out = "    ";
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "    ";
  }
  return out;
}

std::string ca_secret(const std::string& name, const std::string& pem) {
  return fmt::format("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {}}}\nstringData:\n  ca.crt: |\n{}\n", name, indented(pem));
}

// One host with demands, "m"; one without, "free"; both behind one listener.
struct World {
  pki::KeyPair ca = *pki::make_ca("ours", std::chrono::hours(1));
  pki::KeyPair other_ca = *pki::make_ca("theirs", std::chrono::hours(1));
  pki::KeyPair alice = *pki::make_client(ca, {"alice", {"team"}}, std::chrono::hours(1));
  pki::KeyPair mallory = *pki::make_client(other_ca, {"alice", {"team"}}, std::chrono::hours(1));
  pki::KeyPair server = *pki::make_server(ca, {"m", {}}, {{"m"}, {}}, std::chrono::hours(1));
  std::mutex mutex;
  std::string seen;
  Backends backend{answering([this](const std::string& r) {
    const std::lock_guard lock(mutex);
    seen = r;
    return ok("served");
  })};
  std::unique_ptr<Serving> router;

  std::string yaml(const std::string& annotations, const std::string& secret) const {
    return service_yaml("web", {"127.0.0.1"}, "default", backend.port()) + ingress_yaml("m", "m", "/", "Prefix", "web", fmt::format("{{{0}auth-tls-secret: ca{1}}}", prefix(), annotations)) +
           ingress_yaml("w", "*.w", "/", "Prefix", "web", fmt::format("{{{0}auth-tls-secret: ca{1}}}", prefix(), annotations)) + ingress_yaml("free", "free", "/", "Prefix", "web") + secret;
  }
  void start(const std::string& annotations = "", bool blameless = true) {
    WorkerOptions o;
    o.https = {{IpAddress::v4(127, 0, 0, 1), 0}};
    router = std::make_unique<Serving>(yaml(annotations, ca_secret("ca", ca.certificate_pem)), o, 1, blameless);
  }
  SocketAddress https() const { return router->router().bound().at(1); }
  TlsClient client(const std::string& name, const pki::KeyPair* certificate, std::shared_ptr<ssl_session_st> session = {}, bool tls12 = false) {
    TlsClient::Options o;
    o.server_name = name;
    o.certificate = certificate;
    o.session = std::move(session);
    o.tls12 = tls12;
    return TlsClient(https(), o);
  }
  std::string to_backend() {
    const std::lock_guard lock(mutex);
    return seen;
  }
};

std::string status(const std::string& answer) { return answer.size() > 12 ? answer.substr(9, 3) : answer; }
std::string note(const std::string& name, const std::string& value) { return fmt::format(", {}{}: '{}'", prefix(), name, value); }

TEST(ClientCertificates, Modes) {
  struct Row {
    const char* mode;
    const char *none, *good, *foreign;  // what a client without, with ours, with a foreign certificate gets
  };
  for (const auto& row : std::vector<Row>{{"on", "400", "200", "400"}, {"optional", "200", "200", "400"}, {"optional_no_ca", "200", "200", "200"}, {"off", "200", "200", "200"}}) {
    World w;
    w.start(note("auth-tls-verify-client", row.mode));
    for (const bool tls12 : {false, true}) {
      EXPECT_EQ(status(w.client("m", nullptr, {}, tls12).get("m")), row.none) << row.mode;
      EXPECT_EQ(status(w.client("m", &w.alice, {}, tls12).get("m")), row.good) << row.mode;
      EXPECT_EQ(status(w.client("m", &w.mallory, {}, tls12).get("m")), row.foreign) << row.mode;
      EXPECT_EQ(status(w.client("free", nullptr, {}, tls12).get("free")), "200");
    }
  }
}

TEST(ClientCertificates, WhatTheBackendIsTold) {
  World w;
  w.start(note("auth-tls-verify-client", "optional_no_ca") + note("auth-tls-pass-certificate-to-upstream", "true"));
  const std::string forged = "ssl-client-verify: SUCCESS\r\nSSL-Client-Subject-DN: CN=root\r\nssl-client-issuer-dn: x\r\nssl-client-cert: y\r\n";
  EXPECT_EQ(status(w.client("m", &w.alice).get("m", "/", forged)), "200");
  EXPECT_THAT(w.to_backend(), AllOf(HasSubstr("\r\nssl-client-verify: SUCCESS\r\n"), HasSubstr("\r\nssl-client-subject-dn: CN=alice,O=team\r\n"), HasSubstr("\r\nssl-client-issuer-dn: CN=ours\r\n"),
                                    HasSubstr("\r\nssl-client-cert: -----BEGIN%20CERTIFICATE-----%0A"), Not(HasSubstr("CN=root"))));
  EXPECT_EQ(status(w.client("m", &w.mallory).get("m")), "200");
  EXPECT_THAT(w.to_backend(), HasSubstr("\r\nssl-client-verify: FAILED:"));
  EXPECT_EQ(status(w.client("m", nullptr).get("m", "/", forged)), "200");
  EXPECT_THAT(w.to_backend(), AllOf(HasSubstr("\r\nssl-client-verify: NONE\r\n"), Not(HasSubstr("SUCCESS")), Not(HasSubstr("CN=root")), Not(HasSubstr("ssl-client-cert"))));
  EXPECT_EQ(status(w.client("free", nullptr).get("free", "/", forged)), "200");
  EXPECT_THAT(w.to_backend(), Not(HasSubstr("SUCCESS"))) << "nor where nothing is asked";
}

TEST(ClientCertificates, CommonNamesMatchAsAWhole) {
  struct Row {
    const char *pattern, *status;
  };
  for (const auto& row : std::vector<Row>{{"CN=alice", "200"}, {"CN=al.*", "200"}, {"CN=ali", "403"}, {"CN=lice", "403"}, {"CN=bob|carol", "403"}}) {
    World w;
    w.start(note("auth-tls-match-cn", row.pattern));
    EXPECT_EQ(status(w.client("m", &w.alice).get("m")), row.status) << row.pattern;
  }
}

TEST(ClientCertificates, TheErrorPage) {
  World w;
  w.start(note("auth-tls-error-page", "https://help/why"));
  EXPECT_THAT(w.client("m", nullptr).get("m"), AllOf(StartsWith("HTTP/1.1 302 "), HasSubstr("\r\nLocation: https://help/why\r\n")));
}

TEST(ClientCertificates, AnotherHostThanTheServerNameIsMisdirected) {
  World w;
  w.start();
  EXPECT_EQ(status(w.client("free", nullptr).get("m")), "421") << "came in by a name without demands";
  EXPECT_EQ(status(w.client("free", &w.alice).get("m")), "421");
  EXPECT_EQ(status(w.client("", &w.alice).get("m")), "421") << "without a name";
  EXPECT_EQ(status(w.client("a.w", &w.alice).get("m")), "421") << "the same demands, another host";
  EXPECT_EQ(status(w.client("a.w", &w.alice).get("b.w")), "421");
  EXPECT_EQ(status(w.client("a.w", &w.alice).get("a.w")), "200");
  EXPECT_EQ(status(w.client("M", &w.alice).get("m:443")), "200") << "names have no case, and ports are not names";
  EXPECT_EQ(status(w.client("m", &w.alice).get("free")), "200") << "who asks nothing gets nothing";
  EXPECT_EQ(status(w.client("m", nullptr).get("m", "//x/../")), "400");
  auto plain = w.router->connect();
  plain.send("GET / HTTP/1.1\r\nHost: m\r\n\r\n");
  EXPECT_EQ(status(plain.message()), "400") << "plain HTTP";
  auto acme = w.router->connect();
  acme.send("GET /.well-known/acme-challenge/../../x HTTP/1.1\r\nHost: m\r\n\r\n");
  EXPECT_EQ(status(acme.message()), "400");
}

TEST(ClientCertificates, SessionsAreNoWayAround) {
  for (const bool tls12 : {false, true}) {
    World w;
    w.start();
    // A session of a host that asks nothing, used for one that does.
    auto free = w.client("free", nullptr, {}, tls12);
    ASSERT_EQ(status(free.get("free")), "200");
    ASSERT_NE(free.session(), nullptr);
    auto across = w.client("m", nullptr, free.session(), tls12);
    if (across.connected()) {
      EXPECT_NE(status(across.get("m")), "200");
    }
    EXPECT_EQ(status(w.client("free", nullptr, free.session(), tls12).get("m")), "421");
    // One that was checked is resumed with what was found then.
    auto first = w.client("m", &w.alice, {}, tls12);
    ASSERT_EQ(status(first.get("m")), "200");
    auto again = w.client("m", nullptr, first.session(), tls12);
    EXPECT_TRUE(again.resumed());
    EXPECT_EQ(status(again.get("m")), "200");
    EXPECT_THAT(w.to_backend(), HasSubstr("ssl-client-subject-dn: CN=alice,O=team"));
    // One whose certificate was bad stays bad.
    auto bad = w.client("m", &w.mallory, {}, tls12);
    ASSERT_EQ(status(bad.get("m")), "400");
    if (bad.session()) {
      EXPECT_EQ(status(w.client("m", nullptr, bad.session(), tls12).get("m")), "400");
    }
    // Not under other authorities than it was checked by.
    w.router->change(w.yaml("", ca_secret("ca", w.other_ca.certificate_pem)));
    EXPECT_TRUE(eventually([&] { return status(w.client("m", &w.mallory, {}, tls12).get("m")) == "200"; }));
    auto stale = w.client("m", nullptr, first.session(), tls12);
    EXPECT_FALSE(stale.resumed());
    if (stale.connected()) {
      EXPECT_EQ(status(stale.get("m")), "400");
    }
    EXPECT_EQ(status(first.get("m")), "421") << "a connection that was checked by those before";
  }
}

// Another tenant's auth-url or mirror-target that names the host does not come in by the back door.
TEST(ClientCertificates, NotByRequestsOfTheRoutersOwn) {
  World w;
  w.start();
  const auto evil = [&](const std::string& annotation, const std::string& url) { return w.yaml("", ca_secret("ca", w.ca.certificate_pem)) + ingress_yaml("evil", "evil", "/", "Prefix", "web", fmt::format("{{{}{}: '{}'}}", prefix(), annotation, url)); };
  for (const char* url : {"https://m/stolen", "http://m/stolen"}) {
    w.router->change(evil("auth-url", url));
    EXPECT_TRUE(eventually([&] { return status(w.client("evil", &w.alice).get("evil")) == "503"; })) << url;
    EXPECT_THAT(w.to_backend(), Not(HasSubstr("stolen"))) << url;
    w.router->change(evil("mirror-target", url));
    EXPECT_TRUE(eventually([&] { return status(w.client("evil", &w.alice).get("evil")) == "200"; })) << url;
    EXPECT_TRUE(eventually([&] { return w.router->metric("fairlead_ingress_mirrored_total") > 0; }));
    EXPECT_EQ(status(w.client("free", nullptr).get("free")), "200");
    EXPECT_THAT(w.to_backend(), Not(HasSubstr("stolen"))) << url;
  }
  // On its own host, a client that was checked is asked about as usual.
  w.router->change(w.yaml(note("auth-url", "https://$host/ask"), ca_secret("ca", w.ca.certificate_pem)));
  EXPECT_TRUE(eventually([&] { return status(w.client("m", &w.alice).get("m")) == "503"; })) << "behind itself, but through the certificate";
}

TEST(ClientCertificates, ASecretThatVanishesClosesTheHost) {
  World w;
  w.start();
  auto held = w.client("m", &w.alice);
  ASSERT_EQ(status(held.get("m")), "200");
  for (const auto& [secret, story] : std::vector<std::pair<std::string, std::string>>{
           {"", "does not exist"},
           {"---\napiVersion: v1\nkind: Secret\nmetadata: {name: ca}\nstringData: {x: y}\n", "no key"},
           {ca_secret("ca", "nonsense"), "no certificate"},
           {ca_secret("ca", w.ca.certificate_pem.substr(0, w.ca.certificate_pem.size() / 2)), "malformed"}}) {
    const auto made = w.router->change(objects_from(w.yaml("", secret)));
    ASSERT_FALSE(made.diagnostics.empty()) << story;
    EXPECT_EQ(made.diagnostics[0].reason, "SecretNotUsable");
    EXPECT_TRUE(eventually([&] { return status(w.client("m", &w.alice).get("m")) == "503"; })) << story;
    EXPECT_EQ(status(w.client("free", nullptr).get("free")), "200") << "the others are served";
  }
  EXPECT_EQ(status(held.get("m")), "503") << "nor on a connection from before";
  w.router->change(w.yaml("", ca_secret("ca", w.ca.certificate_pem)));
  EXPECT_TRUE(eventually([&] { return status(w.client("m", &w.alice).get("m")) == "200"; }));
}

TEST(ClientCertificates, OpenedBeforeTheyWereAskedFor) {
  World w;
  WorkerOptions o;
  o.https = {{IpAddress::v4(127, 0, 0, 1), 0}};
  w.router = std::make_unique<Serving>(one_service("web", w.backend.port(), "{}", {"127.0.0.1"}, "m"), o);
  auto held = w.client("m", nullptr);
  ASSERT_EQ(status(held.get("m")), "200");
  w.router->change(w.yaml("", ca_secret("ca", w.ca.certificate_pem)));
  EXPECT_TRUE(eventually([&] { return status(w.client("m", nullptr).get("m")) == "400"; }));
  EXPECT_EQ(status(held.get("m")), "421");
}

TEST(ClientCertificates, TheOldestIngressSaysWhatAHostAsks) {
  World w;
  w.start("", false);
  const auto yaml = w.yaml("", ca_secret("ca", w.ca.certificate_pem)) + ca_secret("other", w.other_ca.certificate_pem) +
                    ingress_yaml("z", "m", "/z", "Prefix", "web", fmt::format("{{{}auth-tls-secret: other}}", prefix()));
  const auto made = w.router->change(objects_from(yaml));
  EXPECT_THAT(made.diagnostics, testing::Contains(testing::Field(&Diagnostic::reason, "Conflict")));
  EXPECT_TRUE(eventually([&] { return status(w.client("m", &w.alice).get("m", "/z")) == "200"; }));
  EXPECT_EQ(status(w.client("m", &w.mallory).get("m", "/z")), "400");
}

TEST(ClientCertificates, WithoutAHostNothingIsOpen) {
  World w;
  const auto yaml = service_yaml("web", {"127.0.0.1"}, "default", w.backend.port()) + ca_secret("ca", w.ca.certificate_pem) +
                    fmt::format("---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: d, namespace: default, annotations: {{{}auth-tls-secret: ca}}}}\nspec: {{defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}}}\n", prefix());
  EXPECT_EQ(status(Serving(yaml, {}, 1, false).ask("GET / HTTP/1.1\r\nHost: any\r\n\r\n")), "503");
}

// Revoked by the secret's own list.
TEST(ClientCertificates, Revoked) {
  World w;
  w.start();
  const auto with_list = [&](const std::string& crl) { return w.yaml("", ca_secret("ca", w.ca.certificate_pem) + "  ca.crl: |\n" + indented(crl) + "\n"); };
  const auto bob = *pki::make_client(w.ca, {"bob", {}}, std::chrono::hours(1));
  w.router->change(with_list(make_crl(w.ca, w.alice.certificate_pem)));
  EXPECT_TRUE(eventually([&] { return status(w.client("m", &w.alice).get("m")) == "400"; }));
  EXPECT_EQ(status(w.client("m", &bob).get("m")), "200");
  w.router->change(with_list(make_crl(w.other_ca, "")));
  EXPECT_TRUE(eventually([&] { return status(w.client("m", &bob).get("m")) == "400"; })) << "a list of somebody else covers nobody";
  EXPECT_FALSE(load_authorities(w.ca.certificate_pem, "nonsense"));
  EXPECT_FALSE(load_authorities("", ""));
  EXPECT_TRUE(load_authorities(w.ca.certificate_pem + w.other_ca.certificate_pem, ""));
}

}  // namespace
}  // namespace fairlead::ingress
