// The scenarios of kubernetes-sigs/ingress-controller-conformance (features/*.feature), row by row with its numbers, asked of a
// router that serves. Rows 13 (no status for a foreign class) and 14 (100 requests, ten pods) have programs of their own as well:
// ingress_api_test, ingress_serving_test.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "base/pki.h"
#include "tests/ingress/serving.h"
#include "tests/ingress/tls_client.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// Answers with its name and what it was asked, as the suite's echo server does: with a Content-Type, without Server and Date.
class Echo {
 public:
  explicit Echo(const std::string& name, const char* address = "127.0.0.1") : backends_(answering([name](const std::string& r) { return ok(name + "\n" + r, "Content-Type: text/plain\r\n"); }), address) {}
  int port() const { return backends_.port(); }

 private:
  Backends backends_;
};

std::string header_of(const std::string& answer, const std::string& name) {
  const auto at = answer.find("\r\n" + name + ": ");
  return at == std::string::npos || at > answer.find("\r\n\r\n") ? "" : answer.substr(at + name.size() + 4, answer.find("\r\n", at + 2) - at - name.size() - 4);
}

void expect_full_answer(const std::string& answer, const std::string& from, const std::string& first_line, int row) {
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n")) << row;
  for (const char* name : {"Content-Length", "Content-Type", "Date", "Server"}) EXPECT_NE(header_of(answer, name), "") << row << " " << name;
  const auto body = answer.substr(answer.find("\r\n\r\n") + 4);
  EXPECT_THAT(body, StartsWith(from + "\n" + first_line + "\r\n")) << row;
  EXPECT_THAT(body, HasSubstr("\r\nUser-Agent: Go-http-client/1.1\r\n")) << row;
}

TEST(Conformance, Rows1To6DefaultBackend) {
  Echo echo("echo-service");
  Serving s(service_yaml("echo-service", {"127.0.0.1"}, "default", echo.port()) + R"(---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: default-backend, namespace: default}
spec: {defaultBackend: {service: {name: echo-service, port: {number: 80}}}}
)");
  struct Row {
    int number;
    const char *method, *host, *path;
  };
  for (const auto& r : std::vector<Row>{{1, "GET", "my-host", "/"}, {2, "GET", "my-host", "/sub-path"}, {3, "POST", "some-host", "/"}, {4, "PUT", "", "/resource"}, {5, "DELETE", "some-host", "/resource"}, {6, "PATCH", "my-host", "/resource"}}) {
    const auto line = fmt::format("{} {} HTTP/1.1", r.method, r.path);
    // "No host" of the suite: the client's own, which is the address it reaches.
    const std::string host = *r.host ? r.host : s.router().bound().at(0).to_string();
    expect_full_answer(s.ask(fmt::format("{}\r\nHost: {}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\n\r\n", line, host)), "echo-service", line, r.number);
  }
}

TEST(Conformance, Rows7To12Hosts) {
  Echo exact("foo-bar-com"), wild("wildcard-foo-com");
  const auto ca = *pki::make_ca("suite", std::chrono::hours(1));
  const auto pair = *pki::make_server(ca, {"foo.bar.com", {}}, {{"foo.bar.com"}, {}}, std::chrono::hours(1));
  const auto indented = [](const std::string& text) {
    std::string out = "    ";
    for (const char c : text) out += c == '\n' ? "\n    " : std::string(1, c);
    return out;
  };
  WorkerOptions o;
  o.https = {{IpAddress::v4(127, 0, 0, 1), 0}};
  Serving s(service_yaml("foo-bar-com", {"127.0.0.1"}, "default", exact.port()) + service_yaml("wildcard-foo-com", {"127.0.0.1"}, "default", wild.port()) + fmt::format(R"(---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: host-rules, namespace: default}}
spec:
  tls: [{{hosts: [foo.bar.com], secretName: conformance-tls}}]
  rules:
  - host: "*.foo.com"
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: wildcard-foo-com, port: {{number: 80}}}}}}}}]}}
  - host: foo.bar.com
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: foo-bar-com, port: {{name: http}}}}}}}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: conformance-tls}}
stringData:
  tls.crt: |
{}
  tls.key: |
{}
)", indented(pair.certificate_pem), indented(pair.key_pem)), o);
  TlsClient::Options to;
  to.server_name = "foo.bar.com";
  TlsClient tls(s.router().bound().at(1), to);
  const auto secure = tls.get("foo.bar.com");
  EXPECT_THAT(secure, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\r\n\r\nfoo-bar-com\n"))) << 7;
  EXPECT_EQ(tls.certificate_name(), "foo.bar.com") << 7;
  struct Row {
    int number;
    const char *host, *status, *service;
  };
  for (const auto& r : std::vector<Row>{{8, "foo.bar.com", "200", "foo-bar-com"}, {9, "subdomain.bar.com", "404", ""}, {10, "bar.foo.com", "200", "wildcard-foo-com"}, {11, "baz.bar.foo.com", "404", ""}, {12, "foo.com", "404", ""}}) {
    const auto answer = s.ask(fmt::format("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", r.host));
    EXPECT_EQ(answer.substr(9, 3), r.status) << r.number;
    if (*r.service) {
      EXPECT_THAT(answer, HasSubstr(fmt::format("\r\n\r\n{}\n", r.service))) << r.number;
    }
  }
}

TEST(Conformance, Row13AForeignClassIsNotOurs) {
  CompileOptions options;
  options.controllers = {"fairlead.dev/ingress"};
  Compiler compiler(options);
  const auto made = compiler.compile(objects_from(service_yaml("web", {"10.0.0.1"}) + ingress_yaml("a", "h", "/", "Prefix", "web", "{}", "ingressClassName: some-invalid-class-name")));
  EXPECT_TRUE(made.taken.empty());
  EXPECT_EQ(made.table->match("h", "/").route, nullptr);
}

TEST(Conformance, Row14AllTenPodsInOneHundredRequests) {
  std::vector<std::unique_ptr<Echo>> pods;
  pods.push_back(std::make_unique<Echo>("pod-0"));
  std::string slices;
  for (int i = 0; i < 10; ++i) {
    if (i > 0) pods.push_back(std::make_unique<Echo>(fmt::format("pod-{}", i)));
    slices += fmt::format("---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: echo-{}, namespace: default, labels: {{kubernetes.io/service-name: echo}}}}\naddressType: IPv4\nports: [{{name: http, port: {}, protocol: TCP}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n", i, pods.back()->port());
  }
  Serving s("apiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: default}\nspec: {ports: [{name: http, port: 80}]}\n" + slices + R"(---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: lb, namespace: default}
spec: {defaultBackend: {service: {name: echo, port: {name: http}}}}
)", {}, 2);
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const auto answer = s.ask("GET / HTTP/1.1\r\nHost: load-balancing\r\n\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
    const auto body = answer.substr(answer.find("\r\n\r\n") + 4);
    seen.insert(body.substr(0, body.find('\n')));
  }
  EXPECT_EQ(seen.size(), 10u);
}

TEST(Conformance, Rows15To30Paths) {
  struct Rule {
    const char *path, *type, *service;
  };
  struct Row {
    int number;
    std::vector<Rule> rules;
    const char *request, *want;  // the service, or 404
  };
  const std::vector<Rule> exact{{"/foo", "Exact", "foo-exact"}}, prefix{{"/foo", "Prefix", "foo-prefix"}}, nested{{"/aaa/bbb", "Prefix", "aaa-slash-bbb-prefix"}, {"/aaa", "Prefix", "aaa-prefix"}},
      slash{{"/foo/", "Prefix", "foo-slash-prefix"}}, mixed{{"/foo", "Prefix", "foo-prefix"}, {"/foo", "Exact", "foo-exact"}}, trailing{{"/aaa/bbb/", "Prefix", "aaa-slash-bbb-slash-prefix"}}, exact_slash{{"/foo/", "Exact", "foo-slash-exact"}};
  for (const auto& r : std::vector<Row>{{15, exact, "/foo", "foo-exact"},
                                        {16, exact, "/foo/", "404"},
                                        {17, exact, "/FOO", "404"},
                                        {18, exact, "/bar", "404"},
                                        {19, prefix, "/foo", "foo-prefix"},
                                        {20, prefix, "/foo/", "foo-prefix"},
                                        {21, prefix, "/FOO", "404"},
                                        {22, nested, "/aaa/bbb", "aaa-slash-bbb-prefix"},
                                        {23, nested, "/aaa/bbb/ccc", "aaa-slash-bbb-prefix"},
                                        {24, nested, "/aaa/ccc", "aaa-prefix"},
                                        {25, nested, "/aaaccc", "404"},
                                        {26, slash, "/foo/", "foo-slash-prefix"},
                                        {27, mixed, "/foo", "foo-exact"},
                                        {28, trailing, "/aaa/bbb", "aaa-slash-bbb-slash-prefix"},
                                        {29, trailing, "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"},
                                        {30, exact_slash, "/foo", "404"}}) {
    std::vector<std::unique_ptr<Echo>> echoes;
    std::string yaml, paths;
    for (const auto& rule : r.rules) {
      echoes.push_back(std::make_unique<Echo>(rule.service));
      yaml += service_yaml(rule.service, {"127.0.0.1"}, "default", echoes.back()->port());
      paths += fmt::format("{}{{path: {}, pathType: {}, backend: {{service: {{name: {}, port: {{number: 80}}}}}}}}", paths.empty() ? "" : ", ", rule.path, rule.type, rule.service);
    }
    Serving s(yaml + fmt::format("---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: path-rules, namespace: default}}\nspec: {{rules: [{{host: paths, http: {{paths: [{}]}}}}]}}\n", paths), {}, 1, r.number != 30);
    const auto answer = s.ask(fmt::format("GET {} HTTP/1.1\r\nHost: paths\r\n\r\n", r.request));
    if (std::string_view(r.want) == "404") {
      EXPECT_EQ(answer.substr(9, 3), "404") << r.number;
    }
    else EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr(fmt::format("\r\n\r\n{}\n", r.want)))) << r.number;
  }
}

}  // namespace
}  // namespace fairlead::ingress
