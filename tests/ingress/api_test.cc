// The API as the source: what informers bring, secrets one by one, status and Events back. Against the in-memory apiserver.
#include "ingress/command/api_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "kube/proto/networking/v1.pb.h"
#include "tests/base/asio_test_util.h"
#include "tests/ingress/world.h"
#include "tests/kube_client/fake_apiserver.h"

namespace fairlead::ingress {
namespace {

using fairlead::test::Loop;
using fairlead::test::value;
using kube::test::FakeApiserver;
using testing::AllOf;
using testing::HasSubstr;

class Api : public testing::Test {
 protected:
  Api() : api_(loop_.executor()) {
    CompileOptions options;
    options.controllers = {"fairlead.dev/ingress"};
    options.load_certificate = [](const std::string& chain, const std::string&) -> Result<std::shared_ptr<const ServerCertificate>> {
      if (chain != "good") return fail(ErrorCode::invalid_argument, "no certificate");
      return std::shared_ptr<const ServerCertificate>();
    };
    compiler_ = std::make_unique<Compiler>(options);
    put(R"(
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: ours}
spec: {controller: fairlead.dev/ingress}
)" + service_yaml("web", {"10.0.0.1"}));
  }

  void put(const std::string& yaml) {
    const auto o = objects_from(yaml);
    for (const auto& [k, v] : o.ingresses) api_.put(*v);
    for (const auto& [k, v] : o.classes) api_.put(*v);
    for (const auto& [k, v] : o.services) api_.put(*v);
    for (const auto& [k, v] : o.slices) api_.put(*v);
    for (const auto& [k, v] : o.secrets) api_.put(*v);
    for (const auto& [k, v] : o.config_maps) api_.put(*v);
  }
  void remove(const char* version, const char* kind, const std::string& key) { api_.remove(*kube::find_kind(version, kind), key); }

  void start(ApiSourceOptions options = {}) {
    kube::RestConfig config;
    config.server = api_.url();
    source_ = std::make_unique<ApiSource>(value(kube::make_client(loop_.executor(), config, "fairlead-ingress")), std::move(options));
    loop_.run([this]() -> Task<> { co_await source_->start([this] { apply(); }); });
    apply();
  }
  void apply() {
    compiled_ = compiler_->compile(source_->objects());
    source_->follow(compiled_);
    if (source_->named_known()) source_->publish(compiled_);
  }
  void TearDown() override {
    if (!source_) return;
    loop_.run([this]() -> Task<> { co_await source_->stop(); });
  }
  bool eventually(const std::function<bool()>& f) {
    for (int i = 0; i < 2000; ++i) {
      if (f()) return true;
      loop_.idle(std::chrono::milliseconds(10));
    }
    return false;
  }
  std::string where(std::string_view host) {
    const auto m = compiled_.table->match(host, "/");
    return m.route && m.route->target.upstream ? m.route->target.upstream->name : "";
  }
  std::string status(const std::string& key) {
    for (const auto& [k, o] : api_.objects(*kube::find_kind("networking.k8s.io/v1", "Ingress")))
      if (k == key && static_cast<const networkingv1::Ingress&>(*o).status().loadbalancer().ingress_size() > 0)
        return static_cast<const networkingv1::Ingress&>(*o).status().loadbalancer().ingress(0).ip();
    return "";
  }

  Loop loop_;
  FakeApiserver api_;
  std::unique_ptr<Compiler> compiler_;
  std::unique_ptr<ApiSource> source_;
  Compiled compiled_;
};

const std::string kOurs = "ingressClassName: ours";

TEST_F(Api, RoutesFollowTheObjects) {
  put(ingress_yaml("a", "a.example", "/", "Prefix", "web", "{}", kOurs));
  start();
  EXPECT_EQ(where("a.example"), "default/web:80");
  put(ingress_yaml("b", "b.example", "/", "Prefix", "web", "{}", kOurs));
  EXPECT_TRUE(eventually([&] { return where("b.example") == "default/web:80"; }));
  put(service_yaml("web", {"10.0.0.1", "10.0.0.2"}));
  EXPECT_TRUE(eventually([&] { return compiled_.table->upstreams.at(0)->endpoints.size() == 2; }));
  remove("networking.k8s.io/v1", "Ingress", "default/a");
  EXPECT_TRUE(eventually([&] { return where("a.example").empty(); }));
  api_.drop_watches();
  put(ingress_yaml("c", "c.example", "/", "Prefix", "web", "{}", kOurs));
  EXPECT_TRUE(eventually([&] { return where("c.example") == "default/web:80"; })) << "after the watches broke";
}

TEST_F(Api, OnlyNamedSecretsAreReadAndTheyAreFollowed) {
  put("apiVersion: v1\nkind: Secret\nmetadata: {name: other}\ndata: {x: eA==}\n");
  put(ingress_yaml("a", "a.example", "/", "Prefix", "web", "{}", kOurs + "\n  tls: [{hosts: [a.example], secretName: cert}]"));
  start();
  ASSERT_TRUE(eventually([&] { return source_->named_known() && !compiled_.diagnostics.empty(); }));
  EXPECT_THAT(compiled_.diagnostics.at(0).message, HasSubstr("secret default/cert does not exist"));
  put("apiVersion: v1\nkind: Secret\nmetadata: {name: cert}\nstringData: {tls.crt: bad, tls.key: k}\n");
  EXPECT_TRUE(eventually([&] { return !compiled_.diagnostics.empty() && compiled_.diagnostics[0].message.find("no certificate") != std::string::npos; }));
  put("apiVersion: v1\nkind: Secret\nmetadata: {name: cert}\nstringData: {tls.crt: good, tls.key: k}\n");
  EXPECT_TRUE(eventually([&] { return compiled_.diagnostics.empty(); }));
  remove("v1", "Secret", "default/cert");
  EXPECT_TRUE(eventually([&] { return !compiled_.diagnostics.empty(); })) << "a secret that vanishes is noticed";
  for (const auto& r : api_.requests) {
    if (r.find("/secrets") == std::string::npos) continue;
    EXPECT_THAT(r, AllOf(HasSubstr("/namespaces/default/secrets"), HasSubstr("metadata.name"), HasSubstr("cert")));
  }
  EXPECT_FALSE(source_->objects().secrets.contains("default/other"));
}

TEST_F(Api, OnlyNamedConfigMapsAreReadAndTheyAreFollowed) {
  put("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {x: y}\n");
  put(ingress_yaml("a", "a.example", "/", "Prefix", "web", "{nginx.ingress.kubernetes.io/custom-headers: default/extra}", kOurs));
  start();
  ASSERT_TRUE(eventually([&] { return source_->named_known() && !compiled_.diagnostics.empty(); }));
  EXPECT_EQ(compiled_.diagnostics.at(0).reason, "ConfigMapNotFound");
  put("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {X-A: b}\n");
  EXPECT_TRUE(eventually([&] { return compiled_.diagnostics.empty(); }));
  remove("v1", "ConfigMap", "default/extra");
  EXPECT_TRUE(eventually([&] { return !compiled_.diagnostics.empty(); }));
  for (const auto& r : api_.requests) {
    if (r.find("/configmaps") == std::string::npos) continue;
    EXPECT_THAT(r, AllOf(HasSubstr("/namespaces/default/configmaps"), HasSubstr("metadata.name"), HasSubstr("extra")));
  }
}

TEST_F(Api, StatusFollowsThePublishedService) {
  std::string body;
  api_.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    if (r.method != "PATCH") return std::nullopt;
    body = r.body;
    http::Response answer;
    answer.headers.add("Content-Type", "application/json");
    answer.body = kube::to_json(*api_.objects(*kube::find_kind("networking.k8s.io/v1", "Ingress")).at("default/a"));
    return answer;
  };
  const auto front = [](const std::string& addresses) { return "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: system}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\nstatus: {loadBalancer: {ingress: [" + addresses + "]}}\n"; };
  put(front("{ip: 192.0.2.7}") + ingress_yaml("a", "a.example", "/", "Prefix", "web", "{}", kOurs));
  ApiSourceOptions options;
  options.publish_service = "system/front";
  start(options);
  EXPECT_TRUE(eventually([&] { return body.find(R"([{"ip":"192.0.2.7"}])") != std::string::npos; }));
  put(front("{hostname: lb.example}"));
  EXPECT_TRUE(eventually([&] { return body.find(R"([{"hostname":"lb.example"}])") != std::string::npos; }));
}

TEST_F(Api, StatusOfOursAlone) {
  // The fake has no PATCH: status patches of Ingresses are done here.
  std::vector<std::string> patched;
  api_.intercept = [&](const http::Request& r) -> std::optional<http::Response> {
    if (r.method != "PATCH") return std::nullopt;
    patched.push_back(r.target);
    const auto name = r.target.find("/ingresses/a/status") != std::string::npos ? "a" : "foreign";
    auto all = api_.objects(*kube::find_kind("networking.k8s.io/v1", "Ingress"));
    auto object = static_cast<const networkingv1::Ingress&>(*all.at(std::string("default/") + name));
    object.mutable_status()->mutable_loadbalancer()->clear_ingress();
    if (r.body.find("192.0.2.1") != std::string::npos) object.mutable_status()->mutable_loadbalancer()->add_ingress()->set_ip("192.0.2.1");
    api_.put(object);
    http::Response answer;
    answer.headers.add("Content-Type", "application/json");
    answer.body = kube::to_json(object);
    return answer;
  };
  put(ingress_yaml("a", "a.example", "/", "Prefix", "web", "{}", kOurs) + ingress_yaml("foreign", "f.example", "/", "Prefix", "web", "{}", "ingressClassName: theirs"));
  ApiSourceOptions options;
  options.status_addresses = {"192.0.2.1"};
  start(options);
  EXPECT_TRUE(eventually([&] { return status("default/a") == "192.0.2.1"; }));
  EXPECT_EQ(status("default/foreign"), "");
  loop_.idle(std::chrono::milliseconds(50));
  EXPECT_EQ(patched.size(), 1u) << "what is right is not written again";
  auto moved = static_cast<const networkingv1::Ingress&>(*api_.objects(*kube::find_kind("networking.k8s.io/v1", "Ingress")).at("default/a"));
  moved.mutable_spec()->set_ingressclassname("theirs");
  api_.put(moved);
  EXPECT_TRUE(eventually([&] { return status("default/a").empty(); })) << "one that is ours no longer loses what we wrote";
}

TEST_F(Api, DiagnosticsAreEventsOnceEach) {
  put(ingress_yaml("a", "a.example", "/", "Prefix", "web", "{nginx.ingress.kubernetes.io/server-snippet: x}", kOurs));
  start();
  const auto events = [&] { return api_.objects(*kube::find_kind("v1", "Event")); };
  ASSERT_TRUE(eventually([&] { return !events().empty(); }));
  const auto& event = static_cast<const corev1::Event&>(*events().begin()->second);
  EXPECT_EQ(event.reason(), "SnippetRefused");
  EXPECT_EQ(event.involvedobject().name(), "a");
  put(ingress_yaml("b", "b.example", "/", "Prefix", "web", "{}", kOurs));
  EXPECT_TRUE(eventually([&] { return where("b.example") == "default/web:80"; }));
  loop_.idle(std::chrono::milliseconds(50));
  EXPECT_EQ(events().size(), 1u);
  EXPECT_EQ(static_cast<const corev1::Event&>(*events().begin()->second).count(), 1);
}

TEST(StatusPatch, OnlyWhatDiffers) {
  networkingv1::Ingress i;
  EXPECT_EQ(status_patch({}, i), "");
  EXPECT_EQ(status_patch({"192.0.2.1", "lb.example"}, i), R"({"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"hostname":"lb.example"}]}}})");
  i.mutable_status()->mutable_loadbalancer()->add_ingress()->set_ip("192.0.2.1");
  EXPECT_EQ(status_patch({"192.0.2.1"}, i), "");
  EXPECT_EQ(status_patch({}, i), R"({"status":{"loadBalancer":{"ingress":null}}})");
}

}  // namespace
}  // namespace fairlead::ingress
