#include "kube/kubeconfig.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace fairlead::kube {
namespace {

constexpr std::string_view kGood = R"(
apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: c1
  cluster: {server: "https://10.0.0.1:6443/", certificate-authority-data: Q0E=, tls-server-name: api}
- name: c2
  cluster:
    server: http://127.0.0.1:8080
    certificate-authority: ca.crt
users:
- name: admin
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
- name: token
  user: {token: abc, tokenFile: run/token}
contexts:
- name: lab
  context: {cluster: c1, user: admin, namespace: demo}
- name: other
  context: {cluster: c2, user: token}
- name: anonymous
  context: {cluster: c1}
)";

struct Folder {
  std::filesystem::path path;
  Folder() {
    path = std::filesystem::temp_directory_path() / ("fairlead-kubeconfig-" + std::to_string(::getpid()));
    std::filesystem::create_directories(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void write(const std::string& name, std::string_view text) const { std::ofstream(path / name) << text; }
};

TEST(Kubeconfig, Contexts) {
  const auto lab = parse_kubeconfig(kGood, "");
  ASSERT_TRUE(lab.has_value()) << lab.error().message;
  EXPECT_EQ(lab->server, "https://10.0.0.1:6443");
  EXPECT_EQ(lab->ca_pem, "CA");
  EXPECT_EQ(lab->certificate_pem, "CERT");
  EXPECT_EQ(lab->key_pem, "KEY");
  EXPECT_EQ(lab->tls_server_name, "api");
  EXPECT_EQ(lab->ns, "demo");

  const Folder f;
  f.write("ca.crt", "FROM FILE");
  f.write("config", kGood);
  const auto other = load_kubeconfig((f.path / "config").string(), "other");
  ASSERT_TRUE(other.has_value()) << other.error().message;
  EXPECT_EQ(other->ca_pem, "FROM FILE");
  EXPECT_EQ(other->token, "abc");
  EXPECT_EQ(other->token_file, (f.path / "run/token").string());
  EXPECT_EQ(other->ns, "default");

  const auto anonymous = parse_kubeconfig(kGood, "", "anonymous");
  ASSERT_TRUE(anonymous.has_value());
  EXPECT_EQ(anonymous->token + anonymous->certificate_pem, "");
}

TEST(Kubeconfig, ErrorsNameTheField) {
  const auto with = [](std::string_view user, std::string_view cluster = "{server: \"https://x\"}") {
    return fmt::format(
        "clusters: [{{name: c, cluster: {}}}]\nusers: [{{name: u, user: {}}}]\ncontexts: [{{name: x, context: {{cluster: c, "
        "user: u}}}}]\n",
        cluster, user);
  };
  const struct {
    std::string text;
    const char* message;
  } rows[] = {
      {"", "must be one YAML object"},
      {"[]", "must be one YAML object"},
      {"a: [", "invalid YAML at line 1"},
      {"kind: Pod", "kind: must be \"Config\", not \"Pod\""},
      {"{}", "current-context: not set, and no context was asked for"},
      {"current-context: 5", "current-context: must be a string"},
      {"current-context: x", "contexts: none is called \"x\""},
      {"current-context: x\ncontexts: {}", "contexts: must be a list"},
      {"contexts: [{name: x, context: {cluster: c}}]", "contexts[0].context.cluster: clusters: none is called \"c\""},
      {"contexts: [{name: x}]", "contexts[0].context: must be an object"},
      {with("{}", "{}"), "clusters[0].cluster.server: Required value"},
      {with("{}", "{server: 10.0.0.1}"), "clusters[0].cluster.server: must begin with https:// or http://, not \"10.0.0.1\""},
      {with("{}", "{server: \"https://x\", certificate-authority-data: \"!\"}"),
       "clusters[0].cluster.certificate-authority-data: not base64"},
      {with("{}", "{server: \"https://x\", certificate-authority: /nonexistent/ca}"),
       "clusters[0].cluster.certificate-authority: open /nonexistent/ca"},
      {with("{}", "{server: \"https://x\", certificate-authority-data: Q0E=, insecure-skip-tls-verify: true}"),
       "clusters[0].cluster.insecure-skip-tls-verify: cannot be true together"},
      {with("{}", "{server: \"https://x\", proxy-url: \"http://p\"}"),
       "clusters[0].cluster.proxy-url: proxies are not supported"},
      {with("{exec: {command: aws}}"), "users[0].user.exec: credential plugins are not run"},
      {with("{auth-provider: {name: gcp}}"), "users[0].user.auth-provider: credential plugins are not run"},
      {with("{username: a, password: b}"), "users[0].user.username: passwords are not supported"},
      {with("{as: root}"), "users[0].user.as: impersonation is not supported"},
      {with("{client-certificate-data: Q0U=}"),
       "users[0].user.client-key: a client certificate and its key must be given together"},
      {with("{token: 5}"), "users[0].user.token: must be a string"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.text);
    const auto c = parse_kubeconfig(r.text, "");
    ASSERT_FALSE(c.has_value());
    EXPECT_EQ(c.error().message.substr(0, std::string_view(r.message).size()), r.message);
  }
  EXPECT_NE(load_kubeconfig("/nonexistent/config").error().message.find("/nonexistent/config"), std::string::npos);
}

TEST(Kubeconfig, WrittenTextReadsBack) {
  RestConfig c;
  c.server = "https://[fd00::1]:6443";
  c.ca_pem = "-----BEGIN CERTIFICATE-----\nabc\n";
  c.certificate_pem = "CERT";
  c.key_pem = "KEY";
  c.token = "secret: #1";
  c.ns = "demo";
  const auto back = parse_kubeconfig(write_kubeconfig(c, "fairlead", "admin"), "");
  ASSERT_TRUE(back.has_value()) << back.error().message;
  EXPECT_EQ(back->server, c.server);
  EXPECT_EQ(back->ca_pem, c.ca_pem);
  EXPECT_EQ(back->certificate_pem, c.certificate_pem);
  EXPECT_EQ(back->key_pem, c.key_pem);
  EXPECT_EQ(back->token, c.token);
  EXPECT_EQ(back->ns, c.ns);
}

TEST(Kubeconfig, InCluster) {
  const Folder f;
  ::unsetenv("KUBERNETES_SERVICE_HOST");
  EXPECT_EQ(in_cluster_config(f.path.string()).error().code, ErrorCode::failed_precondition);
  ::setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  ::setenv("KUBERNETES_SERVICE_PORT", "443", 1);
  EXPECT_NE(in_cluster_config(f.path.string()).error().message.find("service account token"), std::string::npos);
  f.write("token", "tok\n");
  f.write("ca.crt", "CA");
  f.write("namespace", "kube-system");
  const auto c = in_cluster_config(f.path.string());
  ASSERT_TRUE(c.has_value()) << c.error().message;
  EXPECT_EQ(c->server, "https://[fd00::1]:443");
  EXPECT_EQ(c->token, "tok");
  EXPECT_EQ(c->ns, "kube-system");
  ::unsetenv("KUBERNETES_SERVICE_HOST");
  ::unsetenv("KUBERNETES_SERVICE_PORT");
}

}  // namespace
}  // namespace fairlead::kube
