// The small pure parts: request info, negotiation, names, field errors, ages, continue tokens, CSV.
#include <gtest/gtest.h>

#include "controlplane/apiserver/auth/authenticator.h"
#include "controlplane/apiserver/auth/authorizer.h"
#include "controlplane/apiserver/negotiation.h"
#include "controlplane/apiserver/registry/continue_token.h"
#include "controlplane/apiserver/request_info.h"
#include "controlplane/apiserver/tables/table.h"
#include "controlplane/apiserver/validation/names.h"

namespace fairlead::apiserver {
namespace {

TEST(RequestInfo, FromMethodAndTarget) {
  struct Row {
    const char* method;
    const char* target;
    const char* want;  // verb group/version ns resource/subresource name, or the path of what is no resource
  };
  for (const Row& r : {
           Row{"GET", "/api/v1/namespaces", "list /v1 - namespaces/- -"},
           {"GET", "/api/v1/namespaces/x", "get /v1 x namespaces/- x"},
           {"PUT", "/api/v1/namespaces/x/finalize", "update /v1 x namespaces/finalize x"},
           {"GET", "/api/v1/namespaces/x/status", "get /v1 x namespaces/status x"},
           {"GET", "/api/v1/pods", "list /v1 - pods/- -"},
           {"GET", "/api/v1/pods?watch=true", "watch /v1 - pods/- -"},
           {"GET", "/api/v1/pods?watch=1", "watch /v1 - pods/- -"},
           {"GET", "/api/v1/pods?watch=false", "list /v1 - pods/- -"},
           {"GET", "/api/v1/watch/pods", "watch /v1 - pods/- -"},
           {"GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db", "list /v1 a pods/- b"},
           {"POST", "/api/v1/namespaces/a/pods", "create /v1 a pods/- -"},
           {"POST", "/api/v1/namespaces/a/pods/b/binding", "create /v1 a pods/binding b"},
           {"GET", "/api/v1/namespaces/a/pods/b/log", "get /v1 a pods/log b"},
           {"DELETE", "/apis/apps/v1/namespaces/a/deployments/b", "delete apps/v1 a deployments/- b"},
           {"DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 a deployments/- -"},
           {"PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale", "patch apps/v1 a deployments/scale b"},
           {"HEAD", "/api/v1/nodes/n", "get /v1 - nodes/- n"},
           {"GET", "/api/v1/nodes/n/proxy/a/b", "get /v1 - nodes/proxy n"},
           {"GET", "/apis/apps/v1", "path /apis/apps/v1"},
           {"GET", "/api", "path /api"},
           {"GET", "/healthz", "path /healthz"},
           {"GET", "/", "path /"},
       }) {
    const auto target = http::Target::parse(r.target);
    ASSERT_TRUE(target) << r.target;
    const auto i = parse_request_info(r.method, *target);
    const auto or_dash = [](const std::string& s) { return s.empty() ? std::string("-") : s; };
    const auto got = i.is_resource ? fmt::format("{} {}/{} {} {}/{} {}", i.verb, i.group, i.version, or_dash(i.ns), i.resource,
                                                 or_dash(i.subresource), or_dash(i.name))
                                   : "path " + i.path;
    EXPECT_EQ(got, r.want) << r.method << " " << r.target;
  }
}

TEST(Negotiation, PicksTheFirstItCan) {
  struct Row {
    const char* accept;
    const char* want;  // content type and shape; empty: 406
  };
  for (const Row& r : {
           Row{"", "application/json object"},
           {"*/*", "application/json object"},
           {"application/json", "application/json object"},
           {"application/yaml", "application/yaml object"},
           {"application/vnd.kubernetes.protobuf,application/json", "application/vnd.kubernetes.protobuf object"},
           {"application/vnd.kubernetes.protobuf, */*", "application/vnd.kubernetes.protobuf object"},
           {"text/html, application/json;q=0.5", "application/json object"},
           {"application/json;q=0.1, application/yaml", "application/yaml object"},
           {"application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            "application/json table"},
           {"application/json;as=Table;v=v2;g=meta.k8s.io,application/json", "application/json object"},
           {"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json table"},
           {"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/json partial"},
           {"application/json;as=Something;v=v1;g=meta.k8s.io", ""},
           {"text/html", ""},
           {"application/json;q=0", ""},
       }) {
    const auto f = negotiate(r.accept, {});
    std::string got;
    if (f) {
      const char* shapes[] = {"object", "table", "partial"};
      got = content_type(*f, false) + " " + shapes[static_cast<int>(f->shape)];
    } else {
      EXPECT_EQ(f.error().code, 406);
    }
    EXPECT_EQ(got, r.want) << r.accept;
  }
}

TEST(Names, Formats) {
  const auto ok = [](Complaints c) { return c.empty(); };
  for (const auto* good : {"a", "web-0", "0a", "a0-b-c"}) EXPECT_TRUE(ok(check_dns1123_label(good))) << good;
  for (const auto* bad : {"", "A", "a_b", "-a", "a-", "a.b", "ä"}) EXPECT_FALSE(ok(check_dns1123_label(bad))) << bad;
  EXPECT_TRUE(ok(check_dns1123_label(std::string(63, 'a'))));
  EXPECT_FALSE(ok(check_dns1123_label(std::string(64, 'a'))));
  EXPECT_EQ(check_dns1123_label("a.b")[0], "must not contain dots");
  for (const auto* good : {"a.b.c", "a", "node-1.example.com"}) EXPECT_TRUE(ok(check_dns1123_subdomain(good))) << good;
  for (const auto* bad : {"a..b", ".a", "a.", "A.b", "a_b"}) EXPECT_FALSE(ok(check_dns1123_subdomain(bad))) << bad;
  EXPECT_FALSE(ok(check_dns1035_label("0a")));
  for (const auto* good : {"app", "App.kubernetes.io", "a.b/App_1", "x/Y"}) EXPECT_TRUE(ok(check_qualified_name(good))) << good;
  for (const auto* bad : {"", "/a", "a/", "a/b/c", "-a", "A.B/c", "a b"}) EXPECT_FALSE(ok(check_qualified_name(bad))) << bad;
  for (const auto* good : {"", "v1.2_x-3"}) EXPECT_TRUE(ok(check_label_value(good))) << good;
  for (const auto* bad : {"-a", "a b", "a/b"}) EXPECT_FALSE(ok(check_label_value(bad))) << bad;
  for (const auto* good : {"http", "a1", "web-2"}) EXPECT_TRUE(ok(check_port_name(good))) << good;
  for (const auto* bad : {"", "80", "-a", "a--b", "Web", "a-name-of-16-chr"}) EXPECT_FALSE(ok(check_port_name(bad))) << bad;
  for (const auto* bad : {"", "..", "..a", "a/b"}) EXPECT_FALSE(ok(check_config_key(bad))) << bad;
  EXPECT_EQ(mask_trailing_dash("web-"), "wea");
}

TEST(FieldError, Texts) {
  field::ErrorList e;
  const auto ports = field::Path("spec").child("ports");
  e.invalid(ports.index(0).child("nodePort"), 80, "provided port is not in the valid range. The range of valid ports is 30000-32767");
  e.required(field::Path("spec").child("containers").index(0).child("image"));
  e.invalid(field::Path("metadata").child("name"), "A\"b", "bad");
  e.not_supported(field::Path("spec").child("type"), "X", {"ClusterIP", "NodePort"});
  e.duplicate(ports.index(1).child("name"), "http");
  e.forbidden(field::Path("spec"), "no");
  e.too_long(field::Path("metadata").child("annotations"), 262144);
  e.too_many(field::Path("endpoints"), 1001, 1000);
  e.not_found(field::Path("a").key("k"), "v");
  const char* want[] = {
      "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
      "spec.containers[0].image: Required value",
      "metadata.name: Invalid value: \"A\\\"b\": bad",
      "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"NodePort\"",
      "spec.ports[1].name: Duplicate value: \"http\"",
      "spec: Forbidden: no",
      "metadata.annotations: Too long: may not be more than 262144 bytes",
      "endpoints: Too many: 1001: must have at most 1000 items",
      "a[k]: Not found: \"v\"",
  };
  ASSERT_EQ(e.size(), std::size(want));
  for (std::size_t i = 0; i < e.size(); ++i) EXPECT_EQ(e[i].text(), want[i]);

  const auto& kind = *kube::find_kind("apps/v1", "Deployment");
  field::ErrorList one;
  one.required(field::Path("spec").child("selector"));
  EXPECT_EQ(invalid(kind, "x", one).message, "Deployment.apps \"x\" is invalid: spec.selector: Required value");
  one.required(field::Path("spec").child("selector"));  // told once in the message, twice in the causes
  one.required(field::Path("spec").child("template"));
  const auto many = invalid(kind, "x", one);
  EXPECT_EQ(many.message, "Deployment.apps \"x\" is invalid: [spec.selector: Required value, spec.template: Required value]");
  EXPECT_EQ(many.causes.size(), 3u);
  EXPECT_EQ(many.causes[0].reason, "FieldValueRequired");
  EXPECT_EQ(many.causes[0].field, "spec.selector");
  EXPECT_EQ(not_found(kind, "x").message, "deployments.apps \"x\" not found");
}

TEST(Age, LikeKubectl) {
  using namespace std::chrono_literals;
  struct Row {
    std::chrono::seconds d;
    const char* want;
  };
  for (const Row& r : {Row{-5s, "<invalid>"}, {-1s, "0s"}, {0s, "0s"}, {119s, "119s"}, {120s, "2m"}, {125s, "2m5s"}, {599s, "9m59s"}, {600s, "10m"},
                       {10799s, "179m"}, {10800s, "3h"}, {3h + 5min, "3h5m"}, {8h, "8h"}, {47h, "47h"}, {48h, "2d"}, {51h, "2d3h"},
                       {24h * 8, "8d"}, {24h * 400, "400d"}, {24h * 365 * 2, "2y"}, {24h * (365 * 2 + 3), "2y3d"}, {24h * 365 * 9, "9y"}})
    EXPECT_EQ(human_duration(r.d), r.want) << r.d.count();
}

TEST(ContinueToken, RoundTripAndRefusals) {
  const std::string prefix = "/registry/pods/default/";
  const auto token = encode_continue(42, prefix + "web-1", prefix);
  const auto back = decode_continue(token, prefix);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->revision, 42);
  EXPECT_EQ(back->after_key, prefix + "web-1");
  for (const auto& bad : {std::string(""), std::string("!!"), base64url("x"), base64url("{}"), base64url(R"({"v":"v0","rv":1,"start":"a"})"),
                          base64url(R"({"v":"meta.k8s.io/v1","rv":0,"start":"a"})"), base64url(R"({"v":"meta.k8s.io/v1","rv":1,"start":"../x"})"),
                          base64url(R"({"v":"meta.k8s.io/v1","rv":1,"start":"/x"})"), base64url(R"({"v":"meta.k8s.io/v1","rv":1})")})
    EXPECT_FALSE(decode_continue(bad, prefix)) << bad;
}

TEST(Base64Url, RoundTrip) {
  for (std::size_t n = 0; n < 40; ++n) {
    std::string bytes;
    for (std::size_t i = 0; i < n; ++i) bytes += static_cast<char>(i * 37 + n);
    const auto text = base64url(bytes);
    EXPECT_EQ(text.find_first_of("+/="), std::string::npos);
    EXPECT_EQ(base64url_decode(text).value_or("?"), bytes);
  }
  EXPECT_FALSE(base64url_decode("a"));
  EXPECT_FALSE(base64url_decode("a b"));
}

TEST(Csv, TokenFileLines) {
  using L = std::vector<std::string>;
  EXPECT_EQ(parse_csv_line("a,b,c"), (L{"a", "b", "c"}));
  EXPECT_EQ(parse_csv_line("t,u,1,\"g1,g2\""), (L{"t", "u", "1", "g1,g2"}));
  EXPECT_EQ(parse_csv_line("\"a\"\"b\", c"), (L{"a\"b", "c"}));
}

TEST(Authorizer, TableOfIdentities) {
  const auto authorizer = make_table_authorizer();
  struct Row {
    const char* user;
    std::vector<std::string> groups;
    const char* verb;
    const char* group;
    const char* resource;  // with subresource
    const char* ns;
    const char* name;
    bool allowed;
  };
  const std::string auth(kAuthenticated);
  for (const Row& r : {
           Row{"admin", {"system:masters", auth}, "delete", "", "secrets", "kube-system", "x", true},
           {"eve", {auth}, "list", "", "pods", "default", "", false},
           {"eve", {auth}, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", true},
           {"system:node:n1", {"system:nodes", auth}, "update", "", "nodes/status", "", "n1", true},
           {"system:node:n1", {"system:nodes", auth}, "update", "", "nodes/status", "", "n2", false},
           {"system:node:n1", {"system:nodes", auth}, "get", "", "nodes", "", "n2", true},
           {"system:node:n1", {"system:nodes", auth}, "update", "coordination.k8s.io", "leases", "kube-node-lease", "n1", true},
           {"system:node:n1", {"system:nodes", auth}, "update", "coordination.k8s.io", "leases", "kube-node-lease", "n2", false},
           {"system:node:n1", {"system:nodes", auth}, "update", "coordination.k8s.io", "leases", "kube-system", "n1", false},
           {"n1", {"system:nodes", auth}, "get", "", "pods", "default", "", false},
           {"system:node:n1", {"system:nodes", auth}, "delete", "", "services", "default", "x", false},
           {"system:kube-proxy", {auth}, "watch", "discovery.k8s.io", "endpointslices", "", "", true},
           {"system:kube-proxy", {auth}, "get", "", "secrets", "default", "x", false},
           {"system:kube-scheduler", {auth}, "create", "", "pods/binding", "default", "p", true},
           {"system:kube-scheduler", {auth}, "create", "", "pods", "default", "", false},
           {"system:kube-controller-manager", {auth}, "create", "", "pods", "default", "", true},
           {"system:kube-controller-manager", {auth}, "deletecollection", "", "configmaps", "x", "", true},
           {"system:kube-controller-manager", {auth}, "create", "", "services", "x", "", false},
           {"system:serviceaccount:default:default", {"system:serviceaccounts", auth}, "get", "", "secrets", "default", "x", false},
       }) {
    User u{r.user, "", r.groups, {}};
    Attributes a;
    a.is_resource = true;
    a.verb = r.verb;
    a.group = r.group;
    const std::string resource = r.resource;
    a.resource = resource.substr(0, resource.find('/'));
    a.subresource = resource.find('/') == std::string::npos ? "" : resource.substr(resource.find('/') + 1);
    a.ns = r.ns;
    a.name = r.name;
    EXPECT_EQ(authorizer->authorize(u, a).allowed, r.allowed) << r.user << " " << r.verb << " " << r.resource << " " << r.ns << "/" << r.name;
  }
  const auto path = [&](const char* user, std::vector<std::string> groups, const char* p) {
    Attributes a;
    a.verb = "get";
    a.path = p;
    return authorizer->authorize(User{user, "", std::move(groups), {}}, a).allowed;
  };
  EXPECT_TRUE(path("system:anonymous", {std::string(kUnauthenticated)}, "/healthz"));
  EXPECT_TRUE(path("system:anonymous", {std::string(kUnauthenticated)}, "/livez/ping"));
  EXPECT_TRUE(path("system:anonymous", {std::string(kUnauthenticated)}, "/version"));
  EXPECT_FALSE(path("system:anonymous", {std::string(kUnauthenticated)}, "/api"));
  EXPECT_FALSE(path("system:anonymous", {std::string(kUnauthenticated)}, "/metrics"));
  EXPECT_TRUE(path("eve", {auth}, "/apis/apps/v1"));
  EXPECT_FALSE(path("eve", {auth}, "/metrics"));
  User eve{"eve", "", {auth}, {}};
  Attributes list;
  list.is_resource = true;
  list.verb = "list";
  list.resource = "pods";
  list.ns = "default";
  EXPECT_EQ(denial_text(eve, list, ""), "User \"eve\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"");
}

}  // namespace
}  // namespace fairlead::apiserver
