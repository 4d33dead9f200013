// The environment of a container, the downward API, and what the runtime is asked for.
#include "controlplane/kubelet/environment.h"

#include <gmock/gmock.h>

#include "controlplane/kubelet/pod_config.h"
#include "controlplane/kubelet/proto/cri.pb.h"
#include "tests/controlplane/kubelet/pods.h"

namespace fairlead::kubelet {
namespace {

using namespace testing_pods;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(Expand, Table) {
  const std::map<std::string, std::string> env = {{"A", "1"}, {"B", "two"}, {"E", ""}};
  const auto lookup = [&](const std::string& n) {
    const auto it = env.find(n);
    return it == env.end() ? nullptr : &it->second;
  };
  const std::pair<const char*, const char*> rows[] = {
      {"$(A)-$(B)", "1-two"}, {"$(NONE)", "$(NONE)"}, {"$$(A)", "$(A)"}, {"$(E)", ""},
      {"$A", "$A"},           {"$(A", "$(A"},         {"$", "$"},        {"$$", "$"},
      {"a$(A)$", "a1$"},      {"$()", "$()"},         {"", ""},          {"$(A)$$(B)", "1$(B)"},
  };
  for (const auto& [text, expect] : rows) EXPECT_EQ(expand(text, lookup), expect) << text;
}

std::shared_ptr<const corev1::Service> service(const std::string& ns, const std::string& name, const std::string& ip) {
  auto s = std::make_shared<corev1::Service>();
  s->mutable_metadata()->set_namespace_(ns);
  s->mutable_metadata()->set_name(name);
  s->mutable_spec()->set_clusterip(ip);
  auto* p = s->mutable_spec()->add_ports();
  p->set_port(80);
  p->set_name("http");
  return s;
}

TEST(ServiceVariables, OfTheNamespaceAndTheApi) {
  const std::vector services = {service("default", "kubernetes", "10.96.0.1"), service("shop", "my-web", "10.96.0.2"),
                                service("shop", "headless", "None"), service("other", "x", "10.96.0.3")};
  const auto all = service_variables(services, "shop", true);
  EXPECT_EQ(all.at("MY_WEB_SERVICE_HOST"), "10.96.0.2");
  EXPECT_EQ(all.at("MY_WEB_SERVICE_PORT"), "80");
  EXPECT_EQ(all.at("MY_WEB_SERVICE_PORT_HTTP"), "80");
  EXPECT_EQ(all.at("MY_WEB_PORT"), "tcp://10.96.0.2:80");
  EXPECT_EQ(all.at("MY_WEB_PORT_80_TCP_ADDR"), "10.96.0.2");
  EXPECT_EQ(all.at("KUBERNETES_SERVICE_HOST"), "10.96.0.1");
  EXPECT_FALSE(all.contains("X_SERVICE_HOST"));
  EXPECT_FALSE(all.contains("HEADLESS_SERVICE_HOST"));
  const auto few = service_variables(services, "shop", false);
  EXPECT_TRUE(few.contains("KUBERNETES_SERVICE_HOST"));
  EXPECT_FALSE(few.contains("MY_WEB_SERVICE_HOST"));
}

struct EnvCase {
  corev1::Pod pod = testing_pods::pod();
  corev1::Container* c = add_main(pod, "app");
  EnvironmentObjects objects;
  PodFacts facts{"n1", {"10.0.0.7"}, {"192.168.0.1"}, 4000, 8ll << 30};

  corev1::EnvVar* add(const std::string& name) {
    auto* e = c->add_env();
    e->set_name(name);
    return e;
  }
  Result<Environment> make() const { return make_environment(pod, *c, objects, facts); }
  std::string error() const {
    const auto r = make();
    return r ? "no error" : r.error().message;
  }
};

TEST(Environment, ValuesSourcesAndOrder) {
  EnvCase t;
  auto config = std::make_shared<corev1::ConfigMap>();
  (*config->mutable_data())["LEVEL"] = "debug";
  (*config->mutable_data())["bad=name"] = "x";
  t.objects.config_maps["conf"] = config;
  auto secret = std::make_shared<corev1::Secret>();
  (*secret->mutable_data())["password"] = "hidden";
  t.objects.secrets["sec"] = secret;
  auto* from = t.c->add_envfrom();
  from->set_prefix("P_");
  from->mutable_configmapref()->mutable_localobjectreference()->set_name("conf");
  t.add("NAME")->mutable_valuefrom()->mutable_fieldref()->set_fieldpath("metadata.name");
  t.add("IP")->mutable_valuefrom()->mutable_fieldref()->set_fieldpath("status.podIP");
  t.add("CPU")->mutable_valuefrom()->mutable_resourcefieldref()->set_resource("limits.cpu");
  auto* key = t.add("PASSWORD")->mutable_valuefrom()->mutable_secretkeyref();
  key->mutable_localobjectreference()->set_name("sec");
  key->set_key("password");
  t.add("URL")->set_value("http://$(IP):80/$(P_LEVEL)$(LATER)");
  t.add("LATER")->set_value("later");
  t.add("URL2")->set_value("$(URL)");
  t.add("IP")->set_value("override");  // a second one replaces the first, in its place
  const auto env = t.make();
  ASSERT_TRUE(env) << env.error().message;
  EXPECT_THAT(*env, ElementsAre(Pair("P_LEVEL", "debug"), Pair("NAME", "web"), Pair("IP", "override"), Pair("CPU", "4"),
                                Pair("PASSWORD", "hidden"), Pair("URL", "http://10.0.0.7:80/debug$(LATER)"),
                                Pair("LATER", "later"), Pair("URL2", "http://10.0.0.7:80/debug$(LATER)")));
}

TEST(Environment, WhatIsMissing) {
  {
    EnvCase t;
    t.c->add_envfrom()->mutable_configmapref()->mutable_localobjectreference()->set_name("none");
    EXPECT_EQ(t.error(), "configmap \"none\" not found");
    t.c->mutable_envfrom(0)->mutable_configmapref()->set_optional(true);
    EXPECT_EQ(t.error(), "no error");
  }
  {
    EnvCase t;
    t.objects.secrets["s"] = std::make_shared<corev1::Secret>();
    auto* key = t.add("X")->mutable_valuefrom()->mutable_secretkeyref();
    key->mutable_localobjectreference()->set_name("s");
    key->set_key("k");
    EXPECT_EQ(t.error(), "env X: couldn't find key k in secret s");
    key->set_optional(true);
    EXPECT_TRUE(t.make()->empty());
  }
  {
    EnvCase t;
    t.add("X")->mutable_valuefrom()->mutable_fieldref()->set_fieldpath("spec.nope");
    EXPECT_EQ(t.error(), "env X: unsupported fieldPath \"spec.nope\"");
  }
}

TEST(FieldValues, Table) {
  EnvCase t;
  (*t.pod.mutable_metadata()->mutable_annotations())["a/b"] = "x\"y";
  t.pod.mutable_spec()->set_serviceaccountname("sa");
  t.facts.pod_ips = {"10.0.0.7", "fd00::7"};
  const std::pair<const char*, const char*> rows[] = {
      {"metadata.namespace", "default"},       {"metadata.uid", "u1"},           {"metadata.annotations", "a/b=\"x\\\"y\""},
      {"metadata.annotations['a/b']", "x\"y"}, {"metadata.labels['none']", ""},  {"spec.nodeName", "n1"},
      {"spec.serviceAccountName", "sa"},       {"status.hostIP", "192.168.0.1"}, {"status.podIPs", "10.0.0.7,fd00::7"},
  };
  for (const auto& [path, expect] : rows) EXPECT_EQ(field_value(t.pod, path, t.facts).value_or("error"), expect) << path;
}

TEST(ResourceValues, DivideAndRoundUp) {
  EnvCase t;
  (*t.c->mutable_resources()->mutable_limits())["memory"].set_string("1500Ki");
  (*t.c->mutable_resources()->mutable_requests())["cpu"].set_string("250m");
  struct Row {
    const char *resource, *divisor, *expect;
  };
  for (const Row& row : {Row{"limits.memory", "", "1536000"}, Row{"limits.memory", "1Mi", "2"}, Row{"requests.cpu", "", "1"},
                         Row{"requests.cpu", "1m", "250"}, Row{"limits.cpu", "1m", "4000"}, Row{"requests.memory", "", "0"}}) {
    corev1::ResourceFieldSelector s;
    s.set_resource(row.resource);
    if (*row.divisor) s.mutable_divisor()->set_string(row.divisor);
    EXPECT_EQ(resource_value(t.pod, s, "app", t.facts).value_or("error"), row.expect) << row.resource;
  }
  corev1::ResourceFieldSelector bad;
  bad.set_resource("limits.gpu");
  EXPECT_FALSE(resource_value(t.pod, bad, "app", t.facts));
}

// ---- CRI configuration

TEST(SandboxConfig, NamesNetworkAndPorts) {
  corev1::Pod p = testing_pods::pod();
  (*p.mutable_metadata()->mutable_labels())["app"] = "web";
  auto* port = add_main(p, "app")->add_ports();
  port->set_containerport(80);
  port->set_hostport(8080);
  port->set_protocol("UDP");
  p.mutable_spec()->mutable_containers(0)->add_ports()->set_containerport(81);
  Settings s;
  s.cluster_dns = {"10.96.0.10"};
  s.cgroup_root = "/lab/n1/";
  const auto c = make_sandbox_config(p, 2, s);
  EXPECT_EQ(c->metadata().attempt(), 2u);
  EXPECT_EQ(c->metadata().namespace_(), "default");
  EXPECT_EQ(c->hostname(), "web");
  EXPECT_EQ(c->log_directory(), "/var/log/pods/default_web_u1");
  ASSERT_EQ(c->port_mappings_size(), 1);
  EXPECT_EQ(c->port_mappings(0).protocol(), cri::UDP);
  EXPECT_EQ(c->port_mappings(0).host_port(), 8080);
  EXPECT_EQ(c->labels().at(kLabelPodUid), "u1");
  EXPECT_EQ(c->labels().at("app"), "web");
  EXPECT_EQ(c->linux().cgroup_parent(), "/lab/n1/besteffort/podu1");
  EXPECT_THAT(c->dns_config().searches(), ElementsAre("default.svc.cluster.local", "svc.cluster.local", "cluster.local"));
  EXPECT_THAT(c->dns_config().servers(), ElementsAre("10.96.0.10"));
  EXPECT_EQ(c->linux().security_context().namespace_options().network(), cri::POD);
  p.mutable_spec()->set_hostnetwork(true);
  const auto host = make_sandbox_config(p, 0, s);
  EXPECT_EQ(host->linux().security_context().namespace_options().network(), cri::NODE);
  EXPECT_EQ(host->port_mappings_size(), 0);
  EXPECT_EQ(host->hostname(), "");
  EXPECT_FALSE(host->has_dns_config());
}

TEST(SandboxConfig, Dns) {
  struct Row {
    const char* policy;
    bool host_network;
    const char* expect;  // servers
  };
  for (const Row& row : {Row{"", false, "10.96.0.10 1.1.1.1"}, Row{"ClusterFirst", true, "1.1.1.1"},
                         Row{"ClusterFirstWithHostNet", true, "10.96.0.10 1.1.1.1"}, Row{"Default", false, "1.1.1.1"},
                         Row{"None", false, "1.1.1.1"}}) {
    corev1::Pod p = testing_pods::pod();
    p.mutable_spec()->set_dnspolicy(row.policy);
    p.mutable_spec()->set_hostnetwork(row.host_network);
    p.mutable_spec()->mutable_dnsconfig()->add_nameservers("1.1.1.1");
    auto* o = p.mutable_spec()->mutable_dnsconfig()->add_options();
    o->set_name("ndots");
    o->set_value("2");
    Settings s;
    s.cluster_dns = {"10.96.0.10"};
    const auto c = make_sandbox_config(p, 0, s);
    std::string servers;
    for (const auto& x : c->dns_config().servers()) servers += (servers.empty() ? "" : " ") + x;
    EXPECT_EQ(servers, row.expect) << row.policy;
    EXPECT_THAT(c->dns_config().options(), ElementsAre("ndots:2")) << row.policy;
  }
}

TEST(ContainerConfig, CommandResourcesAndSecurity) {
  corev1::Pod p = testing_pods::pod();
  auto* c = add_main(p, "app");
  c->add_command("/bin/$(NAME)");
  c->add_args("--x=$$(NAME)");
  (*c->mutable_resources()->mutable_limits())["cpu"].set_string("500m");
  (*c->mutable_resources()->mutable_limits())["memory"].set_string("64Mi");
  auto* security = c->mutable_securitycontext();
  security->set_runasuser(1000);
  security->set_readonlyrootfilesystem(true);
  security->set_allowprivilegeescalation(false);
  security->mutable_capabilities()->add_drop("ALL");
  p.mutable_spec()->mutable_securitycontext()->set_fsgroup(77);
  const ContainerPlan plan{p, *c, 3, "sha256:abc", "0", {{"NAME", "tool"}}, {{"/data", "/host/data", true, "HostToContainer"}}};
  const auto made = make_container_config(plan, {});
  ASSERT_TRUE(made) << made.error().message;
  const cri::ContainerConfig& out = **made;
  EXPECT_THAT(out.command(), ElementsAre("/bin/tool"));
  EXPECT_THAT(out.args(), ElementsAre("--x=$(NAME)"));
  EXPECT_EQ(out.metadata().attempt(), 3u);
  EXPECT_EQ(out.image().image(), "sha256:abc");
  EXPECT_EQ(out.log_path(), "app/3.log");
  EXPECT_EQ(out.annotations().at(kAnnotationRestartCount), "3");
  EXPECT_EQ(out.mounts(0).propagation(), cri::PROPAGATION_HOST_TO_CONTAINER);
  EXPECT_TRUE(out.mounts(0).readonly());
  const auto& r = out.linux().resources();
  EXPECT_EQ(r.cpu_shares(), 512);
  EXPECT_EQ(r.cpu_quota(), 50'000);
  EXPECT_EQ(r.cpu_period(), 100'000);
  EXPECT_EQ(r.memory_limit_in_bytes(), 64 << 20);
  EXPECT_EQ(r.oom_score_adj(), -997);
  const auto& x = out.linux().security_context();
  EXPECT_EQ(x.run_as_user().value(), 1000);
  EXPECT_TRUE(x.readonly_rootfs() && x.no_new_privs() && !x.privileged());
  EXPECT_THAT(x.supplemental_groups(), ElementsAre(77));
  EXPECT_THAT(x.capabilities().drop_capabilities(), ElementsAre("ALL"));
  EXPECT_GT(x.masked_paths_size(), 5);
}

TEST(ContainerConfig, RunAsNonRoot) {
  struct Row {
    std::int64_t user;  // -1: not given
    const char* image_user;
    bool good;
  };
  for (const Row& row : {Row{-1, "65532", true}, Row{-1, "0", false}, Row{-1, "", false}, Row{-1, "root", false},
                         Row{-1, "nobody", false}, Row{1000, "0", true}, Row{0, "65532", false}}) {
    corev1::Pod p = testing_pods::pod();
    auto* c = add_main(p, "app");
    p.mutable_spec()->mutable_securitycontext()->set_runasnonroot(true);
    if (row.user >= 0) c->mutable_securitycontext()->set_runasuser(row.user);
    EXPECT_EQ(make_container_config({p, *c, 0, "i", row.image_user, {}, {}}, {}).has_value(), row.good)
        << row.user << " " << row.image_user;
  }
}

TEST(Cgroup, Arithmetic) {
  EXPECT_EQ(cpu_shares(0), 2);
  EXPECT_EQ(cpu_shares(1), 2);
  EXPECT_EQ(cpu_shares(1000), 1024);
  EXPECT_EQ(cpu_quota(0), 0);
  EXPECT_EQ(cpu_quota(1), 1000);
  EXPECT_EQ(cpu_quota(2500), 250'000);
  corev1::Pod p = testing_pods::pod();
  (*add_main(p, "a")->mutable_resources()->mutable_limits())["cpu"].set_string("1");
  (*add_init(p, "i")->mutable_resources()->mutable_limits())["cpu"].set_string("3");
  EXPECT_EQ(pod_limits(p).cpu_quota, 300'000);  // the init container runs alone
  add_main(p, "b");
  EXPECT_EQ(pod_limits(p).cpu_quota, 0);  // one without a limit: the pod has none
}

TEST(Hosts, AliasesAndSubdomain) {
  corev1::Pod p = testing_pods::pod();
  p.mutable_spec()->set_subdomain("sub");
  auto* a = p.mutable_spec()->add_hostaliases();
  a->set_ip("1.2.3.4");
  a->add_hostnames("x");
  a->add_hostnames("y");
  const std::string text = hosts_content(p, {"10.0.0.7"}, {});
  EXPECT_THAT(text, HasSubstr("10.0.0.7\tweb.sub.default.svc.cluster.local\tweb\n"));
  EXPECT_THAT(text, HasSubstr("1.2.3.4\tx\ty\n"));
  p.mutable_metadata()->set_name(std::string(62, 'a') + "--b");
  EXPECT_EQ(pod_hostname(p), std::string(62, 'a'));
}

}  // namespace
}  // namespace fairlead::kubelet
