// Defaults and validation, as a table of manifests: what is stored of them, or which field is refused and why. The wording is
// upstream's, because kubectl prints it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "controlplane/apiserver/registry/strategies.h"
#include "controlplane/apiserver/resource.h"
#include "kube/codec.h"
#include "kube/patch.h"

namespace fairlead::apiserver {
namespace {

namespace json = boost::json;
using ::testing::ElementsAreArray;
using Texts = std::vector<std::string>;

const Resources& resources() {
  static const Resources* r = new Resources(ClusterFacts{{Family::v4}});
  return *r;
}
const Resources& dual_resources() {
  static const Resources* r = new Resources(ClusterFacts{{Family::v4, Family::v6}});
  return *r;
}

std::unique_ptr<Message> read(const Resource& r, std::string_view text) {
  auto object = r.make();
  // Single quotes make manifests readable here.
  std::string t(text);
  std::replace(t.begin(), t.end(), '\'', '"');
  const auto ok = kube::from_json(t, *object);
  EXPECT_TRUE(ok) << (ok ? "" : ok.error().message) << "\n" << t;
  return object;
}

Texts texts(const field::ErrorList& e) {
  Texts out;
  for (const auto& x : e) out.push_back(x.text());
  return out;
}

// As Registry::create does, without the store.
std::pair<std::unique_ptr<Message>, Texts> create(const Resource& r, std::string_view text) {
  auto o = read(r, text);
  auto& meta = mutable_meta_of(*o);
  if (meta.name().empty()) meta.set_name("x");
  if (r.kind->namespaced()) meta.set_namespace_("default");
  r.strategy->apply_defaults(*o);
  r.strategy->prepare_for_create(*o);
  auto errors = validate_meta(meta_of(*o), r.kind->namespaced(), r.strategy->name_check(), field::Path("metadata"));
  r.strategy->validate(*o, errors);
  if (errors.empty()) r.strategy->canonicalise(*o);
  return {std::move(o), texts(errors)};
}

// The object after a merge patch, as Registry::update does it.
std::pair<std::unique_ptr<Message>, Texts> update(const Resource& r, const Message& before, std::string patch_text) {
  std::replace(patch_text.begin(), patch_text.end(), '\'', '"');
  const auto patched = kube::merge_patch(kube::to_json_value(before), json::parse(patch_text));
  EXPECT_TRUE(patched);
  auto now = r.make();
  const auto ok = kube::from_json_value(*patched, *now);
  EXPECT_TRUE(ok) << (ok ? "" : ok.error().message);
  r.strategy->apply_defaults(*now);
  r.strategy->prepare_for_update(*now, before);
  auto errors = validate_meta_update(meta_of(*now), meta_of(before), field::Path("metadata"));
  r.strategy->validate_update(*now, before, errors);
  return {std::move(now), texts(errors)};
}

json::value at(const Message& o, std::string_view pointer) {
  const auto v = kube::to_json_value(o);
  boost::system::error_code ec;
  const auto* p = v.find_pointer(pointer, ec);
  return p ? *p : json::value(nullptr);
}

const Resource& pods() { return *resources().find("", "v1", "pods"); }
const Resource& services() { return *resources().find("", "v1", "services"); }
const Resource& deployments() { return *resources().find("apps", "v1", "deployments"); }

constexpr char kPod[] = "{'spec':{'containers':[{'name':'c','image':'nginx:1.25','ports':[{'containerPort':80}],"
                        "'readinessProbe':{'httpGet':{'port':80}}}],'volumes':[{'name':'v'}]}}";

TEST(Pods, Defaults) {
  const auto [pod, errors] = create(pods(), kPod);
  ASSERT_THAT(errors, ElementsAreArray(Texts{}));
  struct Row {
    const char* pointer;
    json::value want;
  };
  for (const Row& r : {Row{"/spec/restartPolicy", "Always"}, {"/spec/dnsPolicy", "ClusterFirst"}, {"/spec/terminationGracePeriodSeconds", 30},
                       {"/spec/schedulerName", "default-scheduler"}, {"/spec/enableServiceLinks", true}, {"/spec/securityContext", json::object()},
                       {"/spec/containers/0/imagePullPolicy", "IfNotPresent"}, {"/spec/containers/0/terminationMessagePath", "/dev/termination-log"},
                       {"/spec/containers/0/terminationMessagePolicy", "File"}, {"/spec/containers/0/ports/0/protocol", "TCP"},
                       {"/spec/containers/0/readinessProbe/timeoutSeconds", 1}, {"/spec/containers/0/readinessProbe/periodSeconds", 10},
                       {"/spec/containers/0/readinessProbe/successThreshold", 1}, {"/spec/containers/0/readinessProbe/failureThreshold", 3},
                       {"/spec/containers/0/readinessProbe/httpGet/path", "/"}, {"/spec/containers/0/readinessProbe/httpGet/scheme", "HTTP"},
                       {"/spec/volumes/0/emptyDir", json::object()}, {"/status/phase", "Pending"}, {"/status/qosClass", "BestEffort"}})
    EXPECT_EQ(at(*pod, r.pointer), r.want) << r.pointer;
  // Idempotent: what is stored is not changed by being read and written again.
  auto again = clone(*pod);
  pods().strategy->apply_defaults(*again);
  EXPECT_EQ(deterministic_bytes(*again), deterministic_bytes(*pod));
}

TEST(Pods, PullPolicyFollowsTheTag) {
  for (const auto& [image, policy] : {std::pair("nginx", "Always"), {"nginx:latest", "Always"}, {"nginx:1", "IfNotPresent"}, {"host:5000/a", "Always"},
                                      {"host:5000/a:1", "IfNotPresent"}, {"a@sha256:00", "IfNotPresent"}}) {
    const auto [pod, errors] = create(pods(), fmt::format("{{'spec':{{'containers':[{{'name':'c','image':'{}'}}]}}}}", image));
    EXPECT_EQ(at(*pod, "/spec/containers/0/imagePullPolicy"), policy) << image;
  }
}

TEST(Pods, QosAndRequestsFromLimits) {
  struct Row {
    const char* resources;
    const char* qos;
  };
  for (const Row& r : {Row{"{}", "BestEffort"}, {"{'requests':{'cpu':'1'}}", "Burstable"}, {"{'limits':{'cpu':'1','memory':'1Gi'}}", "Guaranteed"},
                       {"{'limits':{'cpu':'1','memory':'1Gi'},'requests':{'cpu':'500m','memory':'1Gi'}}", "Burstable"},
                       {"{'limits':{'cpu':'1000m','memory':'1024Mi'},'requests':{'cpu':'1','memory':'1Gi'}}", "Guaranteed"}}) {
    const auto [pod, errors] = create(pods(), fmt::format("{{'spec':{{'containers':[{{'name':'c','image':'i','resources':{}}}]}}}}", r.resources));
    ASSERT_THAT(errors, ElementsAreArray(Texts{})) << r.resources;
    EXPECT_EQ(at(*pod, "/status/qosClass"), r.qos) << r.resources;
  }
}

TEST(Pods, Refused) {
  struct Row {
    const char* manifest;
    Texts want;
  };
  const std::string c = "{'name':'c','image':'i'}";
  for (const Row& r : std::vector<Row>{
           {"{'spec':{}}", {"spec.containers: Required value"}},
           {"{'spec':{'containers':[{'name':'c'}]}}", {"spec.containers[0].image: Required value"}},
           {"{'spec':{'containers':[{'image':'i'}]}}", {"spec.containers[0].name: Required value"}},
           {"{'spec':{'containers':[{'name':'c','image':' i'}]}}",
            {"spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"}},
           {"{'spec':{'containers':[{'name':'C','image':'i'}]}}",
            {"spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or "
             "'-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
             "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"}},
           {"{'spec':{'containers':[{'name':'c','image':'i'},{'name':'c','image':'j'}]}}", {"spec.containers[1].name: Duplicate value: \"c\""}},
           {"{'spec':{'containers':[{'name':'c','image':'i','ports':[{'containerPort':70000}]}]}}",
            {"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
           {"{'spec':{'containers':[{'name':'c','image':'i','ports':[{'containerPort':1,'protocol':'ICMP'}]}]}}",
            {"spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""}},
           {"{'spec':{'containers':[{'name':'c','image':'i','volumeMounts':[{'name':'v','mountPath':'/x'}]}]}}",
            {"spec.containers[0].volumeMounts[0].name: Not found: \"v\""}},
           {"{'spec':{'containers':[{'name':'c','image':'i','resources':{'limits':{'cpu':'1'},'requests':{'cpu':'2'}}}]}}",
            {"spec.containers[0].resources.requests[cpu]: Invalid value: \"2\": must be less than or equal to cpu limit of 1"}},
           {"{'spec':{'containers':[{'name':'c','image':'i','env':[{'name':'A=B','value':'x'}]}]}}",
            {"spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII "
             "characters other than '='"}},
           {"{'spec':{'containers':[{'name':'c','image':'i','livenessProbe':{}}]}}",
            {"spec.containers[0].livenessProbe: Required value: must specify a handler type"}},
           {"{'spec':{'containers':[{'name':'c','image':'i','livenessProbe':{'tcpSocket':{'port':1},'successThreshold':2}}]}}",
            {"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"}},
           {"{'spec':{'containers':[{'name':'c','image':'i'}],'restartPolicy':'Sometimes'}}",
            {"spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\""}},
           {"{'spec':{'containers':[{'name':'c','image':'i'}],'volumes':[{'name':'v','emptyDir':{},'hostPath':{'path':'/x'}}]}}",
            {"spec.volumes[0].emptyDir: Forbidden: may not specify more than one volume type"}},
           {"{'spec':{'containers':[{'name':'c','image':'i'}],'volumes':[{'name':'v','configMap':{}}]}}",
            {"spec.volumes[0].configMap.name: Required value"}},
           {"{'spec':{'containers':[{'name':'c','image':'i'}],'tolerations':[{'key':'a','operator':'Exists','value':'b'}]}}",
            {"spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"}},
           {"{'metadata':{'name':'A'},'spec':{'containers':[{'name':'c','image':'i'}]}}",
            {"metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
             "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
             "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"}},
           {"{'metadata':{'labels':{'a b':'c'}},'spec':{'containers':[{'name':'c','image':'i'}]}}",
            {"metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
             "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
             "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"}},
       }) {
    const auto [pod, errors] = create(pods(), r.manifest);
    EXPECT_THAT(errors, ElementsAreArray(r.want)) << r.manifest;
  }
}

TEST(Pods, WhatMayChange) {
  const auto [pod, none] = create(pods(), kPod);
  ASSERT_THAT(none, ElementsAreArray(Texts{}));
  struct Row {
    const char* patch;
    bool allowed;
    const char* says;
  };
  for (const Row& r : {
           Row{"{'metadata':{'labels':{'a':'b'}}}", true, ""},
           {"{'spec':{'activeDeadlineSeconds':5}}", true, ""},
           {"{'spec':{'tolerations':[{'operator':'Exists'}]}}", true, ""},
           {"{'spec':{'hostNetwork':true}}", false, "pod updates may not change fields other than"},
           {"{'spec':{'nodeName':'n'}}", false, "changed: spec.nodeName"},
           {"{'spec':{'containers':[]}}", false, "pod updates may not add or remove containers"},
           {"{'metadata':{'name':'other'}}", false, "metadata.name: Invalid value: \"other\": field is immutable"},
           {"{'spec':{'containers':[{'name':'c','image':'nginx:1.26','ports':[{'containerPort':80}],'imagePullPolicy':'IfNotPresent',"
            "'terminationMessagePath':'/dev/termination-log','terminationMessagePolicy':'File',"
            "'readinessProbe':{'httpGet':{'port':80}}}]}}", true, ""},
       }) {
    const auto [now, errors] = update(pods(), *pod, r.patch);
    EXPECT_EQ(errors.empty(), r.allowed) << r.patch << ": " << (errors.empty() ? "" : errors[0]);
    if (!errors.empty()) { EXPECT_THAT(errors[0], testing::HasSubstr(r.says)) << r.patch; }
  }
}

TEST(Pods, GracePeriod) {
  auto [pod, none] = create(pods(), kPod);
  const auto& s = *pods().strategy;
  EXPECT_EQ(s.grace_period(*pod, {}), 0);  // not scheduled
  auto scheduled = update(pods(), *pod, "{'spec':{'nodeName':'n'}}").first;
  EXPECT_EQ(s.grace_period(*scheduled, {}), 30);
  EXPECT_EQ(s.grace_period(*scheduled, 5), 5);
  EXPECT_EQ(s.grace_period(*scheduled, 0), 0);
  EXPECT_EQ(s.grace_period(*scheduled, -3), 1);
}

TEST(Deployments, Defaults) {
  const auto [d, errors] = create(deployments(), "{'spec':{'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'b'}},"
                                                 "'spec':{'containers':[{'name':'c','image':'i'}]}}}}");
  ASSERT_THAT(errors, ElementsAreArray(Texts{}));
  EXPECT_EQ(at(*d, "/spec/replicas"), json::value(1));
  EXPECT_EQ(at(*d, "/spec/strategy/type"), json::value("RollingUpdate"));
  EXPECT_EQ(at(*d, "/spec/strategy/rollingUpdate/maxSurge"), json::value("25%"));
  EXPECT_EQ(at(*d, "/spec/strategy/rollingUpdate/maxUnavailable"), json::value("25%"));
  EXPECT_EQ(at(*d, "/spec/revisionHistoryLimit"), json::value(10));
  EXPECT_EQ(at(*d, "/spec/progressDeadlineSeconds"), json::value(600));
  EXPECT_EQ(at(*d, "/spec/template/spec/restartPolicy"), json::value("Always"));
  EXPECT_EQ(at(*d, "/spec/template/spec/enableServiceLinks"), json::value(nullptr));  // of live pods only
  const auto [changed, why] = update(deployments(), *d, "{'spec':{'selector':{'matchLabels':{'a':'c'}},'template':{'metadata':{'labels':{'a':'c'}}}}}");
  EXPECT_THAT(why, ElementsAreArray(Texts{"spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"}));
  const auto [scaled, ok] = update(deployments(), *d, "{'spec':{'replicas':0}}");
  EXPECT_THAT(ok, ElementsAreArray(Texts{}));
  EXPECT_EQ(at(*scaled, "/spec/replicas"), json::value(0));
}

TEST(Deployments, Refused) {
  struct Row {
    const char* manifest;
    Texts want;
  };
  for (const Row& r : std::vector<Row>{
           {"{'spec':{}}", {"spec.selector: Required value", "spec.template: Required value"}},
           {"{'spec':{'replicas':-1,'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'b'}},'spec':{'containers':"
            "[{'name':'c','image':'i'}]}}}}",
            {"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
           {"{'spec':{'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'x'}},'spec':{'containers':[{'name':'c',"
            "'image':'i'}]}}}}",
            {"spec.template.metadata.labels: Invalid value: {\"a\":\"x\"}: `selector` does not match template `labels`"}},
           {"{'spec':{'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'b'}},'spec':{'restartPolicy':'Never',"
            "'containers':[{'name':'c'}]}}}}",
            {"spec.template.spec.containers[0].image: Required value",
             "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""}},
           {"{'spec':{'strategy':{'type':'Recreate','rollingUpdate':{}},'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':"
            "{'a':'b'}},'spec':{'containers':[{'name':'c','image':'i'}]}}}}",
            {"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
           {"{'spec':{'strategy':{'rollingUpdate':{'maxSurge':0,'maxUnavailable':0}},'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':"
            "{'labels':{'a':'b'}},'spec':{'containers':[{'name':'c','image':'i'}]}}}}",
            {"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"}},
       }) {
    const auto [d, errors] = create(deployments(), r.manifest);
    EXPECT_THAT(errors, ElementsAreArray(r.want)) << r.manifest;
  }
}

TEST(Services, Defaults) {
  const auto [s, errors] = create(services(), "{'spec':{'selector':{'a':'b'},'ports':[{'port':80},{'name':'x','port':81,'targetPort':'web'}]}}");
  EXPECT_THAT(errors, ElementsAreArray(Texts{"spec.ports[0].name: Required value"}));
  EXPECT_EQ(at(*s, "/spec/type"), json::value("ClusterIP"));
  EXPECT_EQ(at(*s, "/spec/sessionAffinity"), json::value("None"));
  EXPECT_EQ(at(*s, "/spec/internalTrafficPolicy"), json::value("Cluster"));
  EXPECT_EQ(at(*s, "/spec/externalTrafficPolicy"), json::value(nullptr));
  EXPECT_EQ(at(*s, "/spec/ports/0/protocol"), json::value("TCP"));
  EXPECT_EQ(at(*s, "/spec/ports/0/targetPort"), json::value(80));
  EXPECT_EQ(at(*s, "/spec/ports/1/targetPort"), json::value("web"));
  EXPECT_EQ(at(*s, "/spec/ipFamilyPolicy"), json::value("SingleStack"));
  EXPECT_EQ(at(*s, "/spec/ipFamilies"), json::value({"IPv4"}));
  const auto [n, ok] = create(services(), "{'spec':{'type':'NodePort','sessionAffinity':'ClientIP','ports':[{'port':80}]}}");
  EXPECT_THAT(ok, ElementsAreArray(Texts{}));
  EXPECT_EQ(at(*n, "/spec/externalTrafficPolicy"), json::value("Cluster"));
  EXPECT_EQ(at(*n, "/spec/sessionAffinityConfig/clientIP/timeoutSeconds"), json::value(10800));
}

TEST(Services, Families) {
  struct Row {
    bool dual;
    const char* spec;
    const char* policy;
    json::value families;
  };
  const json::value v4 = {"IPv4"}, v6 = {"IPv6"}, both = {"IPv4", "IPv6"}, reversed = {"IPv6", "IPv4"};
  for (const Row& r : std::vector<Row>{
           {false, "'ports':[{'port':1}]", "SingleStack", v4},
           {true, "'ports':[{'port':1}]", "SingleStack", v4},
           {true, "'ports':[{'port':1}],'ipFamilyPolicy':'PreferDualStack'", "PreferDualStack", both},
           {false, "'ports':[{'port':1}],'ipFamilyPolicy':'PreferDualStack'", "PreferDualStack", v4},
           {true, "'ports':[{'port':1}],'ipFamilyPolicy':'RequireDualStack','ipFamilies':['IPv6']", "RequireDualStack", reversed},
           {true, "'ports':[{'port':1}],'ipFamilies':['IPv6']", "SingleStack", v6},
           {true, "'ports':[{'port':1}],'clusterIP':'fd00::9'", "SingleStack", v6},
           {false, "'clusterIP':'None'", "RequireDualStack", both},                          // headless without selector
           {false, "'clusterIP':'None','selector':{'a':'b'}", "SingleStack", v4},
       }) {
    const auto& res = *(r.dual ? dual_resources() : resources()).find("", "v1", "services");
    const auto [s, errors] = create(res, fmt::format("{{'spec':{{{}}}}}", r.spec));
    EXPECT_THAT(errors, ElementsAreArray(Texts{})) << r.spec;
    EXPECT_EQ(at(*s, "/spec/ipFamilyPolicy"), json::value(r.policy)) << r.spec;
    EXPECT_EQ(at(*s, "/spec/ipFamilies"), r.families) << r.spec;
  }
}

TEST(Services, Refused) {
  struct Row {
    const char* spec;
    Texts want;
  };
  for (const Row& r : std::vector<Row>{
           {"", {"spec.ports: Required value"}},
           {"'ports':[{'port':0}]", {"spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                                     "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive"}},
           {"'ports':[{'port':80,'nodePort':30001}]", {"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
           {"'type':'Bogus','ports':[{'port':80}]",
            {"spec.type: Unsupported value: \"Bogus\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""}},
           {"'type':'ExternalName'", {"spec.externalName: Required value"}},
           {"'type':'NodePort','clusterIP':'None','ports':[{'port':80}]",
            {"spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"}},
           {"'ports':[{'name':'a','port':80},{'name':'b','port':80}]", {"spec.ports[1]: Duplicate value: {\"protocol\":\"TCP\",\"port\":80}"}},
           {"'ports':[{'name':'a','port':80},{'name':'a','port':81}]", {"spec.ports[1].name: Duplicate value: \"a\""}},
           {"'ports':[{'port':80,'targetPort':'Bad_Name'}]",
            {"spec.ports[0].targetPort: Invalid value: \"Bad_Name\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"}},
           {"'ports':[{'port':80}],'sessionAffinity':'Cookie'",
            {"spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\""}},
           {"'ports':[{'port':80}],'externalIPs':['127.0.0.1']",
            {"spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"}},
           {"'ports':[{'port':80}],'clusterIP':'10.0.0.300'",
            {"spec.clusterIPs[0]: Invalid value: \"10.0.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"}},
           {"'ports':[{'port':80}],'ipFamilyPolicy':'RequireDualStack'",
            {"spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"}},
           {"'ports':[{'port':80}],'ipFamilies':['IPv6']", {"spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"}},
           {"'ports':[{'port':80}],'loadBalancerSourceRanges':['10.0.0.0/8']",
            {"spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"}},
           {"'ports':[{'port':80}],'externalTrafficPolicy':'Local'",
            {"spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"}},
       }) {
    const auto [s, errors] = create(services(), fmt::format("{{'spec':{{{}}}}}", r.spec));
    EXPECT_THAT(errors, ElementsAreArray(r.want)) << r.spec;
  }
}

TEST(Services, WhatUpdatesKeepAndDrop) {
  const auto before = read(services(), "{'metadata':{'name':'x','namespace':'default'},'spec':{'type':'NodePort','clusterIP':'10.96.0.9',"
                                       "'clusterIPs':['10.96.0.9'],'ipFamilies':['IPv4'],'ipFamilyPolicy':'SingleStack','sessionAffinity':'None',"
                                       "'internalTrafficPolicy':'Cluster','externalTrafficPolicy':'Cluster',"
                                       "'ports':[{'port':80,'protocol':'TCP','targetPort':80,'nodePort':30080}]}}");
  {
    // A writer who does not know what was allocated keeps it.
    const auto [s, errors] = update(services(), *before, "{'spec':{'clusterIP':null,'clusterIPs':null,'ports':[{'port':81}]}}");
    EXPECT_THAT(errors, ElementsAreArray(Texts{}));
    EXPECT_EQ(at(*s, "/spec/clusterIP"), json::value("10.96.0.9"));
    EXPECT_EQ(at(*s, "/spec/ports/0/nodePort"), json::value(30080));
  }
  {
    const auto [s, errors] = update(services(), *before, "{'spec':{'type':'ClusterIP'}}");
    EXPECT_THAT(errors, ElementsAreArray(Texts{}));
    EXPECT_EQ(at(*s, "/spec/ports/0/nodePort"), json::value(nullptr));
    EXPECT_EQ(at(*s, "/spec/externalTrafficPolicy"), json::value(nullptr));
  }
  {
    const auto [s, errors] = update(services(), *before, "{'spec':{'type':'ExternalName','externalName':'example.com','ports':null}}");
    EXPECT_THAT(errors, ElementsAreArray(Texts{}));
    EXPECT_EQ(at(*s, "/spec/clusterIP"), json::value(nullptr));
    EXPECT_EQ(at(*s, "/spec/ipFamilies"), json::value(nullptr));
  }
  {
    const auto [s, errors] = update(services(), *before, "{'spec':{'clusterIP':'10.96.0.10','clusterIPs':['10.96.0.10']}}");
    EXPECT_THAT(errors, ElementsAreArray(Texts{"spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"}));
  }
}

TEST(Others, Refused) {
  struct Row {
    const char* group;
    const char* resource;
    const char* manifest;
    Texts want;
  };
  for (const Row& r : std::vector<Row>{
           {"", "configmaps", "{'data':{'a/b':'c'}}",
            {"data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  "
             "or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"}},
           {"", "secrets", "{'type':'kubernetes.io/tls'}", {"data[tls.crt]: Required value", "data[tls.key]: Required value"}},
           {"", "nodes", "{'spec':{'taints':[{'key':'a','effect':'Sometimes'}]}}",
            {"spec.taints[0].effect: Unsupported value: \"Sometimes\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""}},
           {"", "nodes", "{'spec':{'podCIDRs':['10.0.0.1/24']}}",
            {"spec.podCIDRs[0]: Invalid value: \"10.0.0.1/24\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"}},
           {"", "namespaces", "{'metadata':{'name':'a.b'}}", {"metadata.name: Invalid value: \"a.b\": must not contain dots"}},
           {"", "endpoints", "{'subsets':[{'ports':[{'port':1}]}]}", {"subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"}},
           {"discovery.k8s.io", "endpointslices", "{'endpoints':[]}", {"addressType: Required value"}},
           {"discovery.k8s.io", "endpointslices", "{'addressType':'IPv4','endpoints':[{'addresses':['fd00::1']}]}",
            {"endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address"}},
           {"coordination.k8s.io", "leases", "{'spec':{'leaseDurationSeconds':0}}",
            {"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"}},
           {"", "events", "{'involvedObject':{'namespace':'other'}}",
            {"involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"}},
       }) {
    const auto [o, errors] = create(*resources().find(r.group, "v1", r.resource), r.manifest);
    EXPECT_THAT(errors, ElementsAreArray(r.want)) << r.resource << " " << r.manifest;
  }
}

TEST(Others, Defaults) {
  {
    const auto [o, errors] = create(*resources().find("", "v1", "secrets"), "{'stringData':{'a':'b'},'data':{'c':'ZA=='}}");
    EXPECT_EQ(at(*o, "/type"), json::value("Opaque"));
    EXPECT_EQ(at(*o, "/data/a"), json::value("Yg=="));
    EXPECT_EQ(at(*o, "/stringData"), json::value(nullptr));
  }
  {
    const auto [o, errors] = create(*resources().find("", "v1", "namespaces"), "{'metadata':{'name':'a'}}");
    EXPECT_EQ(at(*o, "/status/phase"), json::value("Active"));
    EXPECT_EQ(at(*o, "/spec/finalizers"), json::value({"kubernetes"}));
    EXPECT_EQ(at(*o, "/metadata/labels/kubernetes.io~1metadata.name"), json::value("a"));
  }
  {
    const auto [o, errors] = create(*resources().find("", "v1", "nodes"), "{'spec':{'podCIDR':'10.0.0.0/24'},'status':{'capacity':{'cpu':'2'}}}");
    EXPECT_EQ(at(*o, "/spec/podCIDRs/0"), json::value("10.0.0.0/24"));
    EXPECT_EQ(at(*o, "/status/allocatable/cpu"), json::value("2"));
  }
}

// ---- networking.k8s.io

const Resource& networking(const char* resource) { return *resources().find("networking.k8s.io", "v1", resource); }

TEST(Networking, Defaults) {
  const auto [c, errors] = create(networking("ingressclasses"), "{'spec':{'controller':'a.b/c','parameters':{'kind':'K','name':'n'}}}");
  ASSERT_THAT(errors, ElementsAreArray(Texts{}));
  EXPECT_EQ(at(*c, "/spec/parameters/scope"), "Cluster");
  const auto [i, none] = create(networking("ingresses"), "{'spec':{'defaultBackend':{'service':{'name':'s','port':{'name':'http'}}}},"
                                                         "'status':{'loadBalancer':{'ingress':[{'ip':'192.0.2.1'}]}}}");
  ASSERT_THAT(none, ElementsAreArray(Texts{}));
  EXPECT_EQ(at(*i, "/status"), nullptr) << "a writer of the object does not write its status";
}

TEST(Networking, IngressesRefused) {
  // A rule with one path; the backend is good.
  const auto path = [](const char* p) {
    return fmt::format("{{'rules':[{{'http':{{'paths':[{{{}'backend':{{'service':{{'name':'s','port':{{'number':80}}}}}}}}]}}}}]}}", p);
  };
  const auto backend = [](const char* b) { return fmt::format("{{'defaultBackend':{}}}", b); };
  const std::string wildcard =
      "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case "
      "alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is "
      "'\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
  const std::string first = "spec.rules[0].http.paths[0].";
  for (const auto& [spec, want] : std::vector<std::pair<std::string, Texts>>{
           {"{}", {"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"}},
           {path("'path':'/',"), {first + "pathType: Required value: pathType must be specified"}},
           {path("'path':'/','pathType':'Regex',"),
            {first + "pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""}},
           {path("'path':'a','pathType':'Prefix',"), {first + "path: Invalid value: \"a\": must be an absolute path"}},
           {path("'pathType':'Exact',"), {first + "path: Invalid value: \"\": must be an absolute path"}},
           {path("'path':'/a//b','pathType':'Exact',"), {first + "path: Invalid value: \"/a//b\": must not contain '//'"}},
           {path("'path':'/a/..','pathType':'Prefix',"), {first + "path: Invalid value: \"/a/..\": cannot end with '/..'"}},
           {path("'path':'/%2f','pathType':'Prefix',"), {first + "path: Invalid value: \"/%2f\": must not contain '%2f'"}},
           {path("'path':'x','pathType':'ImplementationSpecific',"), {first + "path: Invalid value: \"x\": must be an absolute path"}},
           {path("'pathType':'ImplementationSpecific',"), {}},
           {"{'rules':[{'host':'1.2.3.4'}]}", {"spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"}},
           {"{'rules':[{'host':'a.*.b'}]}", {"spec.rules[0].host: Invalid value: \"a.*.b\": " + wildcard}},
           {"{'rules':[{'host':'*.example.com'}]}", {}},
           {"{'rules':[{'http':{}}]}", {"spec.rules[0].http.paths: Required value"}},
           {"{'rules':[{}],'tls':[{'hosts':['*'],'secretName':'s'}]}", {"spec.tls[0].hosts[0]: Invalid value: \"*\": " + wildcard}},
           {backend("{}"), {"spec.defaultBackend: Invalid value: \"\": resource or service backend is required"}},
           {backend("{'service':{'name':'s','port':{'number':1}},'resource':{'kind':'K','name':'n'}}"),
            {"spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends"}},
           {backend("{'service':{'name':'s'}}"), {"spec.defaultBackend: Required value: port name or number is required"}},
           {backend("{'service':{'port':{'number':1}}}"), {"spec.defaultBackend.service.name: Required value"}},
           {backend("{'service':{'name':'s','port':{'number':1,'name':'a'}}}"),
            {"spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"}},
           {backend("{'service':{'name':'s','port':{'number':70000}}}"),
            {"spec.defaultBackend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
           {backend("{'resource':{'apiGroup':'a.b'}}"), {"spec.defaultBackend.resource.kind: Required value: kind is required",
                                                         "spec.defaultBackend.resource.name: Required value: name is required"}},
       }) {
    const auto [object, errors] = create(networking("ingresses"), "{'spec':" + spec + "}");
    EXPECT_THAT(errors, ElementsAreArray(want)) << spec;
  }
  const auto [object, errors] = create(networking("ingresses"), "{'metadata':{'annotations':{'kubernetes.io/ingress.class':'a'}},"
                                                                "'spec':{'ingressClassName':'b','rules':[{}]}}");
  EXPECT_THAT(errors, ElementsAreArray(Texts{"annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match "
                                             "`ingressClassName` when both are specified"}));
}

TEST(Networking, OthersRefused) {
  struct Row {
    const char* resource;
    const char* manifest;
    Texts want;
  };
  for (const Row& r : std::vector<Row>{
           {"ingressclasses", "{'spec':{'controller':'a.b/c'}}", {}},
           {"ingressclasses", "{'spec':{}}", {"spec.controller: Required value"}},
           {"ingressclasses", "{'spec':{'controller':'abc'}}",
            {"spec.controller: Invalid value: \"abc\": must be a domain-prefixed path (such as \"acme.io/foo\")"}},
           {"ingressclasses", "{'spec':{'controller':'a.b/c','parameters':{'kind':'K','name':'n','scope':'Namespace'}}}",
            {"spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"}},
           {"ingressclasses", "{'spec':{'controller':'a.b/c','parameters':{'kind':'K','name':'n','scope':'Cluster','namespace':'x'}}}",
            {"spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"}},
           {"ingressclasses", "{'spec':{'controller':'a.b/c','parameters':{'kind':'K','name':'n','scope':'World'}}}",
            {"spec.parameters.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\""}},
           {"ipaddresses", "{'metadata':{'name':'10.96.0.9'},'spec':{'parentRef':{'resource':'services','name':'s'}}}", {}},
           {"ipaddresses", "{'metadata':{'name':'fd00:0::9'},'spec':{'parentRef':{'resource':'services','name':'s'}}}",
            {"metadata.name: Invalid value: \"fd00:0::9\": must be a canonical format IP address"}},
           {"ipaddresses", "{'metadata':{'name':'ten'},'spec':{'parentRef':{'resource':'services','name':'s'}}}",
            {"metadata.name: Invalid value: \"ten\": ParseAddr(\"ten\"): unable to parse IP"}},
           {"ipaddresses", "{'metadata':{'name':'10.96.0.9'},'spec':{}}", {"spec.parentRef: Required value"}},
           {"ipaddresses", "{'metadata':{'name':'10.96.0.9'},'spec':{'parentRef':{}}}",
            {"spec.parentRef.resource: Required value", "spec.parentRef.name: Required value"}},
           {"servicecidrs", "{'spec':{'cidrs':['10.0.0.0/24','fd00::/108']}}", {}},
           {"servicecidrs", "{'spec':{}}", {"spec.cidrs: Required value: at least one CIDR required"}},
           {"servicecidrs", "{'spec':{'cidrs':['10.0.0.0']}}",
            {"spec.cidrs[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"}},
           {"servicecidrs", "{'spec':{'cidrs':['10.0.0.1/24']}}",
            {"spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length"}},
           {"servicecidrs", "{'spec':{'cidrs':['10.0.0.0/24','10.1.0.0/24']}}",
            {"spec.cidrs: Invalid value: {\"cidrs\":[\"10.0.0.0/24\",\"10.1.0.0/24\"]}: may specify no more than one IP for each IP "
             "family, i.e 192.168.0.0/24 and 2001:db8::/96"}},
       }) {
    const auto [object, errors] = create(networking(r.resource), r.manifest);
    EXPECT_THAT(errors, ElementsAreArray(r.want)) << r.manifest;
  }
}

TEST(Networking, WhatCannotBeChanged) {
  struct Row {
    const char* resource;
    const char* manifest;
    const char* patch;
    Texts want;
  };
  for (const Row& r : std::vector<Row>{
           {"ingressclasses", "{'spec':{'controller':'a.b/c'}}", "{'spec':{'controller':'a.b/d'}}",
            {"spec.controller: Invalid value: \"a.b/d\": field is immutable"}},
           {"servicecidrs", "{'spec':{'cidrs':['10.0.0.0/24']}}", "{'spec':{'cidrs':['10.0.0.0/24','fd00::/112']}}", {}},
           {"servicecidrs", "{'spec':{'cidrs':['10.0.0.0/24']}}", "{'spec':{'cidrs':['10.0.1.0/24']}}",
            {"spec.cidrs[0]: Invalid value: \"10.0.1.0/24\": field is immutable"}},
           {"ipaddresses", "{'metadata':{'name':'10.96.0.9'},'spec':{'parentRef':{'resource':'services','name':'s'}}}",
            "{'spec':{'parentRef':{'name':'t'}}}",
            {"spec.parentRef: Invalid value: {\"resource\":\"services\",\"name\":\"t\"}: field is immutable"}},
       }) {
    const auto [object, errors] = create(networking(r.resource), r.manifest);
    ASSERT_THAT(errors, ElementsAreArray(Texts{})) << r.manifest;
    mutable_meta_of(*object).set_resourceversion("1");
    const auto [now, refused] = update(networking(r.resource), *object, r.patch);
    EXPECT_THAT(refused, ElementsAreArray(r.want)) << r.patch;
  }
}

}  // namespace
}  // namespace fairlead::apiserver
