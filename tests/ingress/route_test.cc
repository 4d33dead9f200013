// Which backend a request reaches: the rules of Ingress v1 as the documentation and the conformance list have them, then what
// ingress-nginx adds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/ingress/world.h"

namespace fairlead::ingress {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

Compiled compile(const std::string& yaml) {
  CompileOptions options;
  options.controllers = {"fairlead.dev/ingress"};
  options.any_class_if_none = true;
  Compiler compiler(options);
  return compiler.compile(objects_from(yaml));
}

std::string where(const Compiled& c, std::string_view host, std::string_view raw) {
  std::string buffer;
  std::string_view path;
  if (!normalize_path(raw, buffer, path)) return "400";
  const auto m = c.table->match(host, path);
  if (m.add_slash) return "slash";
  if (!m.route) return "404";
  if (!m.route->target.upstream) return "503";
  const auto& name = m.route->target.upstream->name;
  return name.substr(8, name.size() - 11);  // without "default/" and ":80"
}

struct PathRule {
  const char* path;
  const char* type;
  const char* service;
};
struct PathRow {
  const char* story;
  std::vector<PathRule> rules;
  const char* request;
  const char* want;
};

class Paths : public testing::TestWithParam<PathRow> {};

TEST_P(Paths, Match) {
  const auto& row = GetParam();
  std::string yaml;
  int n = 0;
  for (const auto& r : row.rules) {
    yaml += service_yaml(r.service, {"10.0.0.1"});
    yaml += ingress_yaml("i" + std::to_string(n++), "h.example", r.path, r.type, r.service);
  }
  EXPECT_EQ(where(compile(yaml), "h.example", row.request), row.want) << row.story;
}

INSTANTIATE_TEST_SUITE_P(
    Ingress, Paths,
    testing::Values(
        PathRow{"prefix / takes all", {{"/", "Prefix", "a"}}, "/any/thing", "a"},
        PathRow{"exact", {{"/foo", "Exact", "a"}}, "/foo", "a"},
        PathRow{"exact: no slash added", {{"/foo", "Exact", "a"}}, "/foo/", "404"},
        PathRow{"exact: case", {{"/foo", "Exact", "a"}}, "/FOO", "404"},
        PathRow{"exact: other", {{"/foo", "Exact", "a"}}, "/bar", "404"},
        PathRow{"exact with slash", {{"/foo/", "Exact", "a"}}, "/foo", "404"},
        PathRow{"prefix without slash", {{"/foo", "Prefix", "a"}}, "/foo", "a"},
        PathRow{"prefix without slash, request with", {{"/foo", "Prefix", "a"}}, "/foo/", "a"},
        PathRow{"prefix with slash", {{"/foo/", "Prefix", "a"}}, "/foo", "a"},
        PathRow{"prefix with slash, both", {{"/foo/", "Prefix", "a"}}, "/foo/", "a"},
        PathRow{"prefix: case", {{"/foo", "Prefix", "a"}}, "/FOO", "404"},
        PathRow{"prefix: whole elements", {{"/aaa/bb", "Prefix", "a"}}, "/aaa/bbb", "404"},
        PathRow{"prefix: deeper", {{"/aaa/bbb/", "Prefix", "a"}}, "/aaa/bbb/ccc", "a"},
        PathRow{"prefix: element goes on", {{"/aaa/bbb", "Prefix", "a"}}, "/aaa/bbbxyz", "404"},
        PathRow{"longest of three", {{"/", "Prefix", "a"}, {"/aaa", "Prefix", "b"}, {"/aaa/bbb", "Prefix", "c"}}, "/aaa/bbb", "c"},
        PathRow{"middle of three", {{"/", "Prefix", "a"}, {"/aaa", "Prefix", "b"}, {"/aaa/bbb", "Prefix", "c"}}, "/aaa/ccc", "b"},
        PathRow{"shortest of three", {{"/", "Prefix", "a"}, {"/aaa", "Prefix", "b"}, {"/aaa/bbb", "Prefix", "c"}}, "/ccc", "a"},
        PathRow{"none", {{"/aaa", "Prefix", "a"}}, "/ccc", "404"},
        PathRow{"no element", {{"/aaa", "Prefix", "a"}}, "/aaaccc", "404"},
        PathRow{"exact before prefix", {{"/foo", "Prefix", "a"}, {"/foo", "Exact", "b"}}, "/foo", "b"},
        PathRow{"prefix behind exact", {{"/foo", "Prefix", "a"}, {"/foo", "Exact", "b"}}, "/foo/x", "a"},
        PathRow{"a neighbour in order is no prefix", {{"/a/b", "Prefix", "a"}, {"/a/b-c", "Prefix", "b"}, {"/a", "Prefix", "c"}}, "/a/b/c", "a"},
        PathRow{"a chain past a neighbour", {{"/a/b", "Prefix", "a"}, {"/a/b-c", "Prefix", "b"}, {"/a", "Prefix", "c"}}, "/a/b-d", "c"},
        PathRow{"implementation specific is a text prefix", {{"/foo", "ImplementationSpecific", "a"}}, "/foobar", "a"},
        PathRow{"implementation specific with slash redirects", {{"/foo/", "ImplementationSpecific", "a"}}, "/foo", "slash"},
        PathRow{"but not where the path itself is routed", {{"/foo/", "ImplementationSpecific", "a"}, {"/foo", "Exact", "b"}}, "/foo", "b"},
        PathRow{"dots are resolved", {{"/admin", "Prefix", "a"}, {"/", "Prefix", "b"}}, "/x/../admin/", "a"},
        PathRow{"slashes are merged", {{"/admin", "Prefix", "a"}, {"/", "Prefix", "b"}}, "//admin", "a"},
        PathRow{"encoded letters are letters", {{"/admin", "Prefix", "a"}, {"/", "Prefix", "b"}}, "/%61dmin", "a"},
        PathRow{"encoded dots too", {{"/admin", "Prefix", "a"}, {"/", "Prefix", "b"}}, "/x/%2e%2e/admin", "a"},
        PathRow{"out of the root", {{"/", "Prefix", "a"}}, "/../x", "400"},
        PathRow{"broken encoding", {{"/", "Prefix", "a"}}, "/%zz", "400"},
        PathRow{"encoded NUL", {{"/", "Prefix", "a"}}, "/a%00", "400"}));

TEST(Hosts, ExactWildcardAnyAndDefault) {
  auto yaml = service_yaml("exact", {"10.0.0.1"}) + service_yaml("wild", {"10.0.0.1"}) + service_yaml("any", {"10.0.0.1"}) + service_yaml("last", {"10.0.0.1"}) +
              ingress_yaml("a", "foo.bar.com", "/", "Prefix", "exact") + ingress_yaml("b", "*.foo.com", "/x", "Prefix", "wild") + ingress_yaml("c", "", "/any", "Prefix", "any");
  struct Row {
    const char *host, *path, *want;
  };
  const auto check = [](const Compiled& c, std::vector<Row> rows) {
    for (const auto& r : rows) EXPECT_EQ(where(c, r.host, r.path), r.want) << r.host << r.path;
  };
  check(compile(yaml), {{"foo.bar.com", "/", "exact"},
                        {"subdomain.bar.com", "/", "404"},
                        {"bar.foo.com", "/x", "wild"},
                        {"baz.bar.foo.com", "/x", "404"},
                        {"foo.com", "/x", "404"},
                        {"other", "/any", "any"},
                        {"bar.foo.com", "/any", "404"}});
  yaml += R"(---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: d, namespace: default}
spec: {defaultBackend: {service: {name: last, port: {name: http}}}}
)";
  check(compile(yaml), {{"foo.bar.com", "/", "exact"}, {"bar.foo.com", "/y", "last"}, {"", "/", "last"}, {"x", "/any/y", "any"}});
}

TEST(Compile, TheOldestIngressWinsAPath) {
  const auto at = [](std::string y, const std::string& when) { return y.replace(y.find("namespace: default,"), 0, "creationTimestamp: \"" + when + "\", "); };
  const auto c = compile(service_yaml("new", {"10.0.0.1"}) + service_yaml("old", {"10.0.0.1"}) + at(ingress_yaml("a", "h", "/", "Prefix", "new"), "2026-02-01T00:00:00Z") +
                         at(ingress_yaml("b", "h", "/", "Prefix", "old"), "2026-01-01T00:00:00Z"));
  EXPECT_EQ(where(c, "h", "/"), "old");
  EXPECT_THAT(c.diagnostics, Contains(AllOf(Field(&Diagnostic::object, "Ingress default/a"), Field(&Diagnostic::reason, "Conflict"))));
}

TEST(Compile, OneBadIngressBreaksNoOther) {
  const auto bad = R"(---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: bad, namespace: default}
spec:
  rules:
  - host: "*"
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
  - host: good.example
    http:
      paths:
      - {path: relative, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /a, pathType: Fuzzy, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /b/../c, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /d, pathType: Exact, backend: {resource: {kind: Bucket, name: x}}}
      - {path: /e, pathType: Exact, backend: {service: {name: web, port: {}}}}
      - {path: /f, pathType: Exact, backend: {service: {name: gone, port: {number: 80}}}}
      - {path: /g, pathType: Exact, backend: {service: {name: web, port: {number: 81}}}}
      - {path: /h, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
)";
  const auto c = compile(service_yaml("web", {"10.0.0.1"}) + bad + ingress_yaml("good", "other.example", "/", "Prefix", "web"));
  EXPECT_EQ(where(c, "other.example", "/"), "web");
  EXPECT_EQ(where(c, "good.example", "/h"), "web");
  for (const char* dropped : {"/relative", "/a", "/c", "/d", "/e"}) EXPECT_EQ(where(c, "good.example", dropped), "404") << dropped;
  for (const char* empty : {"/f", "/g"}) EXPECT_EQ(where(c, "good.example", empty), "503") << empty;
  std::vector<std::string> fields;
  for (const auto& d : c.diagnostics) fields.push_back(d.field);
  EXPECT_THAT(fields, testing::ElementsAre("spec.rules[0].host", "spec.rules[1].http.paths[0].path", "spec.rules[1].http.paths[1].pathType", "spec.rules[1].http.paths[2].path",
                                           "spec.rules[1].http.paths[3].backend.resource", "spec.rules[1].http.paths[4].backend.service.port",
                                           "spec.rules[1].http.paths[5].backend.service", "spec.rules[1].http.paths[6].backend.service"));
}

TEST(Compile, ClassesChooseWhatIsOurs) {
  const std::string classes = R"(---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: ours}
spec: {controller: fairlead.dev/ingress}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: theirs, annotations: {ingressclass.kubernetes.io/is-default-class: "DEFAULT"}}
spec: {controller: example.com/other}
)";
  const auto service = service_yaml("web", {"10.0.0.1"});
  const auto with = [&](const std::string& yaml) { return compile(service + classes + yaml).taken; };
  EXPECT_THAT(with(ingress_yaml("a", "h", "/", "Prefix", "web", "{}", "ingressClassName: ours")), testing::ElementsAre("default/a"));
  EXPECT_THAT(with(ingress_yaml("a", "h", "/", "Prefix", "web", "{}", "ingressClassName: theirs")), IsEmpty());
  EXPECT_THAT(with(ingress_yaml("a", "h", "/", "Prefix", "web", "{}", "ingressClassName: missing")), IsEmpty());
  EXPECT_THAT(with(ingress_yaml("a", "h", "/", "Prefix", "web", "{kubernetes.io/ingress.class: ours}")), testing::ElementsAre("default/a"));
  EXPECT_THAT(with(ingress_yaml("a", "h", "/", "Prefix", "web")), IsEmpty());
  auto defaulted = classes;
  defaulted.replace(defaulted.find("name: ours"), 10, "name: ours, annotations: {ingressclass.kubernetes.io/is-default-class: \"true\"}");
  EXPECT_THAT(compile(service + defaulted + ingress_yaml("a", "h", "/", "Prefix", "web")).taken, testing::ElementsAre("default/a"));
}

TEST(Compile, ParametersOfAClassAreRefusedAndItIsServed) {
  const auto c = compile(service_yaml("web", {"10.0.0.1"}) + R"(---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: ours}
spec: {controller: fairlead.dev/ingress, parameters: {apiGroup: k8s.example.com, kind: Parameters, name: x, scope: Cluster}}
)" + ingress_yaml("a", "h", "/", "Prefix", "web", "{}", "ingressClassName: ours"));
  EXPECT_EQ(where(c, "h", "/"), "web");
  ASSERT_EQ(c.diagnostics.size(), 1u);
  EXPECT_THAT(c.diagnostics[0].text(), HasSubstr("IngressClass ours: spec.parameters: refused by design"));
}

TEST(Compile, TwoDefaultClassesTheNewestThenTheLowerName) {
  const auto defaults = [](const std::string& controller_a, const std::string& created_a, const std::string& controller_b, const std::string& created_b) {
    const auto one = [](const std::string& name, const std::string& controller, const std::string& created) {
      return fmt::format("---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: {}, creationTimestamp: \"{}\", annotations: {{ingressclass.kubernetes.io/is-default-class: \"true\"}}}}\nspec: {{controller: {}}}\n", name, created, controller);
    };
    return compile(service_yaml("web", {"10.0.0.1"}) + one("a", controller_a, created_a) + one("b", controller_b, created_b) + ingress_yaml("i", "h", "/", "Prefix", "web")).taken.size();
  };
  const std::string ours = "fairlead.dev/ingress", theirs = "example.com/other", old = "2026-01-01T00:00:00Z", young = "2026-02-01T00:00:00Z";
  EXPECT_EQ(defaults(ours, young, theirs, old), 1u);
  EXPECT_EQ(defaults(ours, old, theirs, young), 0u);
  EXPECT_EQ(defaults(ours, old, theirs, old), 1u);
  EXPECT_EQ(defaults(theirs, old, ours, old), 0u);
}

TEST(Compile, ServiceUpstreamGoesToTheServicesAddress) {
  auto yaml = service_yaml("web", {"10.0.0.1", "10.0.0.2"}) + ingress_yaml("a", "h", "/", "Prefix", "web", "{nginx.ingress.kubernetes.io/service-upstream: \"true\"}") + ingress_yaml("b", "i", "/", "Prefix", "web");
  yaml.replace(yaml.find("spec: {ports"), 7, "spec: {clusterIP: 10.96.0.9, ");
  const auto c = compile(yaml);
  const auto endpoints = [&](const char* host) { return c.table->match(host, "/").route->target.upstream->endpoints; };
  ASSERT_EQ(endpoints("h").size(), 1u);
  EXPECT_EQ(endpoints("h")[0].address.to_string(), "10.96.0.9:80");
  EXPECT_EQ(endpoints("i").size(), 2u);
}

TEST(Compile, RegularExpressionsRuleAWholeHost) {
  const auto c = compile(service_yaml("re", {"10.0.0.1"}) + service_yaml("plain", {"10.0.0.1"}) +
                         ingress_yaml("a", "h", "/api/v[0-9]+/(.*)", "ImplementationSpecific", "re", "{nginx.ingress.kubernetes.io/use-regex: \"true\"}") +
                         ingress_yaml("b", "h", "/Api", "Exact", "plain"));
  EXPECT_EQ(where(c, "h", "/api/v2/x"), "re");
  EXPECT_EQ(where(c, "h", "/API/other"), "plain") << "without case, and a prefix although it says Exact";
  EXPECT_EQ(where(c, "h", "/x"), "404");
  const auto broken = compile(service_yaml("re", {"10.0.0.1"}) + ingress_yaml("a", "h", "/(", "ImplementationSpecific", "re", "{nginx.ingress.kubernetes.io/use-regex: \"true\"}"));
  EXPECT_EQ(where(broken, "h", "/("), "404");
  EXPECT_THAT(broken.diagnostics, Contains(Field(&Diagnostic::message, HasSubstr("not a regular expression"))));
}

TEST(Compile, EndpointsThatServe) {
  const auto slice = [](const std::string& conditions) {
    return compile(R"(
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}, {name: other, port: 81}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: other, port: 9090}]
endpoints:
)" + conditions + ingress_yaml("a", "h", "/", "Prefix", "web"));
  };
  const auto addresses = [](const Compiled& c) {
    std::string out;
    for (const auto& e : c.table->upstreams.at(0)->endpoints) out += e.address.to_string() + " ";
    return out;
  };
  EXPECT_EQ(addresses(slice("- {addresses: [10.0.0.2]}\n- {addresses: [10.0.0.1], conditions: {ready: true}}\n- {addresses: [10.0.0.3], conditions: {ready: false}}\n")), "10.0.0.1:8080 10.0.0.2:8080 ");
  EXPECT_EQ(addresses(slice("- {addresses: [10.0.0.2], conditions: {ready: true}}\n- {addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}\n")), "10.0.0.2:8080 ");
  EXPECT_EQ(addresses(slice("- {addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}\n")), "10.0.0.1:8080 ") << "better than nothing";
  EXPECT_EQ(addresses(slice("- {addresses: [10.0.0.1], conditions: {ready: false, serving: false, terminating: true}}\n")), "");
}

TEST(Compile, WhatHasNotChangedStaysTheSameObject) {
  CompileOptions options;
  options.any_class_if_none = true;
  Compiler compiler(options);
  auto objects = objects_from(service_yaml("a", {"10.0.0.1"}) + service_yaml("b", {"10.0.0.1"}) + ingress_yaml("a", "a", "/", "Prefix", "a") + ingress_yaml("b", "b", "/", "Prefix", "b"));
  const auto before = compiler.compile(objects).table;
  objects.slices["default/b-x"] = objects_from(service_yaml("b", {"10.0.0.2"})).slices.at("default/b-x");
  const auto after = compiler.compile(objects).table;
  const auto up = [](const RouteTable& t, const char* host) { return t.match(host, "/").route->target.upstream; };
  EXPECT_EQ(up(*before, "a"), up(*after, "a"));
  EXPECT_NE(up(*before, "b"), up(*after, "b"));
  EXPECT_EQ(up(*before, "b")->id, up(*after, "b")->id);
  EXPECT_EQ(up(*before, "b")->turn, up(*after, "b")->turn);
  EXPECT_EQ(before->match("a", "/").route->stats, after->match("a", "/").route->stats);
  EXPECT_GT(after->generation, before->generation);
}

TEST(Compile, ManyRoutesOfOneHost) {
  std::string yaml = service_yaml("web", {"10.0.0.1"}) + R"(---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: many, namespace: default}
spec:
  rules:
  - host: h
    http:
      paths:
)";
  for (int i = 0; i < 500; ++i) yaml += fmt::format("      - {{path: /p/{}, pathType: {}, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}\n", i, i % 2 ? "Exact" : "Prefix");
  const auto c = compile(yaml);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(c.table->match("h", fmt::format("/p/{}", i)).route->path, fmt::format("/p/{}", i));
    EXPECT_EQ(c.table->match("h", fmt::format("/p/{}/x", i)).route != nullptr, i % 2 == 0) << i;
  }
}

}  // namespace
}  // namespace fairlead::ingress
