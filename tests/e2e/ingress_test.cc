// Ingresses as a user meets them: kubectl creates one, and the nodes' ports 80 and 443 answer for its host from outside; its
// status tells the addresses; a changed one routes otherwise at once.
#include <algorithm>
#include <iostream>
#include <thread>

#include "base/http/client.h"
#include "base/pki.h"
#include "kube/api.h"
#include "kube/client.h"
#include "kube/kubeconfig.h"
#include "kube/proto/networking/v1.pb.h"
#include "lab/topology.h"
#include "tests/base/asio_test_util.h"
#include "tests/e2e/lab.h"

namespace fairlead::e2e {
namespace {

using namespace std::chrono_literals;

constexpr const char* kWeb = R"(
apiVersion: apps/v1
kind: Deployment
metadata: {name: ingweb}
spec:
  replicas: 2
  selector: {matchLabels: {app: ingweb}}
  template:
    metadata: {labels: {app: ingweb}}
    spec:
      containers:
      - name: web
        image: fairlead.local/demo:1
        ports: [{containerPort: 8080, name: http}]
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
)";

constexpr int kTrials = 40;

networkingv1::Ingress route(int number, const std::string& host) {
  networkingv1::Ingress ingress;
  ingress.mutable_metadata()->set_name("new-" + std::to_string(number));
  ingress.mutable_metadata()->set_namespace_("default");
  auto& rule = *ingress.mutable_spec()->add_rules();
  rule.set_host(host);
  auto& path = *rule.mutable_ingressrulevalue()->mutable_http()->add_paths();
  path.set_path("/");
  path.set_pathtype("Prefix");
  path.mutable_backend()->mutable_service()->set_name("ingweb");
  path.mutable_backend()->mutable_service()->mutable_port()->set_number(80);
  return ingress;
}

// Status and body of one request from outside, by curl.
struct Fetched {
  std::string status, body;
};
Fetched curl(const std::vector<std::string>& args) {
  std::vector<std::string> argv = {"curl", "-sS", "--max-time", "5", "-o", "-", "-w", "\n%{http_code}"};
  argv.insert(argv.end(), args.begin(), args.end());
  const auto o = run(argv);
  const auto cut = o.out.rfind('\n');
  return {cut == std::string::npos ? "" : o.out.substr(cut + 1), o.out.substr(0, cut)};
}

class Ingress : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto made = apply(kWeb);
    ASSERT_TRUE(made.ok()) << made;
    const auto exposed = kubectl({"expose", "deployment", "ingweb", "--port=80", "--target-port=8080"});
    ASSERT_TRUE(exposed.ok()) << exposed;
    const auto rolled = kubectl({"rollout", "status", "deployment/ingweb", "--timeout=60s"});
    ASSERT_TRUE(rolled.ok()) << rolled << kubectl({"get", "pods", "-o", "wide"}) << kubectl({"get", "events"});
  }
  static void TearDownTestSuite() {
    kubectl({"delete", "deployment/ingweb", "service/ingweb", "ingress/web", "secret/ingcert", "--ignore-not-found", "--wait=true"});
  }
  static Fetched http(const std::string& ip, const std::string& host, const std::string& path = "/") {
    return curl({"-H", "Host: " + host, "http://" + ip + path});
  }
};

TEST_F(Ingress, AnswersFromOutsideOverHttpAndHttps) {
  EXPECT_EQ(get({"get", "ingressclass", "fairlead", "-o", "jsonpath={.spec.controller}"}), "fairlead.dev/ingress");
  const auto ca = pki::make_ca("test", 1h);
  ASSERT_TRUE(ca);
  const auto pair = pki::make_server(*ca, {"web.example.com", {}}, {{"web.example.com"}, {}}, 1h);
  ASSERT_TRUE(pair);
  const auto indented = [](const std::string& pem) {
    std::string out = "    ";
    for (const char c : pem) out += c == '\n' ? std::string("\n    ") : std::string(1, c);
    return out;
  };
  const auto secret = apply("apiVersion: v1\nkind: Secret\nmetadata: {name: ingcert}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n" +
                            indented(pair->certificate_pem) + "\n  tls.key: |\n" + indented(pair->key_pem) + "\n");
  ASSERT_TRUE(secret.ok()) << secret;
  const auto made = kubectl({"create", "ingress", "web", "--rule=web.example.com/*=ingweb:80,tls=ingcert",
                             "--annotation=nginx.ingress.kubernetes.io/ssl-redirect=false"});
  ASSERT_TRUE(made.ok()) << made;
  for (const auto& n : nodes()) {
    EXPECT_TRUE(eventually(20s, [&] { return http(n.ip, "web.example.com").status == "200"; })) << n.name << kubectl({"describe", "ingress", "web"});
    EXPECT_EQ(http(n.ip, "other.example.com").status, "404") << n.name;
    const auto tls = curl({"--insecure", "--resolve", "web.example.com:443:" + n.ip, "https://web.example.com/"});
    EXPECT_EQ(tls.status, "200") << n.name;
    const auto certificate = run({"bash", "-c", "echo | openssl s_client -connect " + n.ip + ":443 -servername web.example.com 2>/dev/null | openssl x509 -noout -subject"});
    EXPECT_NE(certificate.out.find("web.example.com"), std::string::npos) << certificate;
  }
  // The status tells where.
  for (const auto& n : nodes())
    EXPECT_TRUE(eventually(20s, [&] { return get({"get", "ingress", "web"}).find(n.ip) != std::string::npos; })) << get({"get", "ingress", "web", "-o", "yaml"});
  const auto described = get({"describe", "ingress", "web"});
  EXPECT_NE(described.find("web.example.com"), std::string::npos) << described;
  ASSERT_TRUE(kubectl({"delete", "ingress", "web"}).ok());
  EXPECT_TRUE(eventually(20s, [&] { return http(nodes()[0].ip, "web.example.com").status == "404"; }));
}

// From the API's answer to the create until a node answers for the new host. Printed; the bound is only for hangs.
TEST_F(Ingress, ANewRouteServesAtOnce) {
  const auto config = kube::load_kubeconfig(std::string(lab::kDefaultStateDir) + "/kubeconfig");
  ASSERT_TRUE(config);
  fairlead::test::Loop loop;
  auto client = kube::make_client(loop.executor(), *config, "ingress-test");
  ASSERT_TRUE(client);
  http::ClientOptions o;
  o.base_url = "http://" + nodes().back().ip;
  auto outside = http::make_client(loop.executor(), o);
  ASSERT_TRUE(outside);
  std::vector<double> ms;
  loop.run([&]() -> Task<> {
    for (int i = 0; i < kTrials; ++i) {
      const auto host = "new-" + std::to_string(i) + ".example.com";
      const auto wanted = route(i, host);
      auto made = co_await (*client)->create(wanted);
      fairlead::test::value(std::move(made), "create");
      const auto start = std::chrono::steady_clock::now();
      unsigned status = 0;
      while (status != 200 && std::chrono::steady_clock::now() - start < 20s) {
        http::Request request;
        request.method = "GET";
        request.target = "/";
        request.headers.set("Host", host);
        auto answer = co_await (*outside)->request(std::move(request), 5s);
        status = answer ? answer->status : 0;
      }
      if (status != 200) throw std::runtime_error(host + " does not serve");
      ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
  }, 300s);
  ASSERT_EQ(ms.size(), static_cast<std::size_t>(kTrials));
  std::sort(ms.begin(), ms.end());
  std::cout << "a new route serves after (" << kTrials << " trials): median " << ms[kTrials / 2] << " ms, 95 % " << ms[kTrials * 95 / 100] << " ms, most " << ms.back() << " ms\n";
  for (int i = 0; i < kTrials; ++i) kubectl({"delete", "ingress", "new-" + std::to_string(i), "--wait=false"});
}

}  // namespace
}  // namespace fairlead::e2e
