// The real kubectl against the apiserver on loopback: the one in PATH, Debian 12's 1.20 and a current 1.36 (both fetched by
// scripts/kubectls). No controllers run, so objects are what the apiserver makes of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <thread>

#include "base/files.h"
#include "kube/codec.h"
#include "tests/controlplane/apiserver/test_server.h"

namespace fairlead::apiserver::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

// "current" is the one in PATH; scripts/kubectls has put the others into the cache. Empty: it is not there.
std::string kubectl_of(const std::string& version) {
  if (version == "current") return "kubectl";
  const char* home = ::getenv("HOME");
  const std::string path = std::string(home ? home : "/root") + "/.cache/fairlead/kubectl/" + version + "/kubectl";
  return std::filesystem::exists(path) ? path : "";
}

TestServer& server() {
  static TestServer* s = [] {
    auto* made = new TestServer();
    make_default_service_account(made->kubeconfig(), "kubectl");
    return made;
  }();
  return *s;
}
struct StopAtTheEnd : ::testing::Environment {
  void TearDown() override { delete &server(); }
};
const auto* const stop_at_the_end = ::testing::AddGlobalTestEnvironment(new StopAtTheEnd);

// Each test has a namespace of its own, so both versions can tell the same story.
class Kubectl : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    binary_ = kubectl_of(GetParam());
    if (binary_.empty()) GTEST_SKIP() << "kubectl " << GetParam() << " is not in the cache: scripts/kubectls fetches it";
    ns_ = std::string("t") + std::to_string(++count_);
    must("create namespace " + ns_);
    must("create serviceaccount default");
  }
  Ran run(const std::string& args, const std::string& input = {}) {
    return run_shell(server().kubeconfig(), binary_ + " -n " + ns_ + " " + args, input);
  }
  std::string must(const std::string& args, const std::string& input = {}) {
    const auto r = run(args, input);
    EXPECT_EQ(r.exit_code, 0) << "kubectl " << args << "\n" << r.all();
    return r.out;
  }
  // Fails, and says why.
  std::string refused(const std::string& args, const std::string& input = {}) {
    const auto r = run(args, input);
    EXPECT_NE(r.exit_code, 0) << "kubectl " << args << " was accepted:\n" << r.all() << input;
    return r.all();
  }
  // Waits until the object is not there any more. (kubectl 1.20's wait fails when it is gone already.)
  void gone(const std::string& what) {
    std::string said;
    for (int i = 0; i < 200; ++i) {
      said = run("get " + what).all();
      if (said.find("NotFound") != std::string::npos) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    ADD_FAILURE() << what << " is still there: " << said;
  }
  bool old() const { return std::string(GetParam()) == "1.20"; }
  std::string binary_, ns_;
  static inline int count_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Versions, Kubectl, ::testing::Values("current", "1.20", "1.36"),
                         [](const auto& info) { return "v" + std::regex_replace(std::string(info.param), std::regex("[.]"), "_"); });

constexpr char kDeployment[] = R"(
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.25
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
)";

TEST_P(Kubectl, SeesTheSystemObjects) {
  EXPECT_THAT(must("get ns"), AllOf(HasSubstr("default"), HasSubstr("kube-system"), HasSubstr("kube-public"), HasSubstr("kube-node-lease")));
  EXPECT_THAT(must("get svc,endpoints,endpointslices -n default"), AllOf(HasSubstr("10.96.0.1"), HasSubstr("192.0.2.1")));
  EXPECT_THAT(must("version"), HasSubstr("1.36"));
  EXPECT_THAT(must("cluster-info"), HasSubstr("running at"));
  EXPECT_THAT(must("auth can-i '*' '*'"), HasSubstr("yes"));
  EXPECT_THAT(must("get --raw /healthz"), HasSubstr("ok"));
  EXPECT_THAT(must("get --raw '/readyz?verbose'"), HasSubstr("[+]etcd ok"));
}

TEST_P(Kubectl, ApiResourcesAndExplain) {
  const auto resources = must("api-resources");
  for (const auto* name : {"pods", "services", "deployments", "replicasets", "endpointslices", "leases", "events", "configmaps", "secrets",
                           "serviceaccounts", "namespaces", "nodes"})
    EXPECT_THAT(resources, HasSubstr(name));
  EXPECT_THAT(must("api-versions"), AllOf(HasSubstr("apps/v1"), HasSubstr("discovery.k8s.io/v1")));
  EXPECT_THAT(must("explain pods.spec.containers"), AllOf(HasSubstr("image"), HasSubstr("livenessProbe")));
  EXPECT_THAT(must("explain deployment.spec.strategy"), HasSubstr("rollingUpdate"));
}

TEST_P(Kubectl, CreatesAppliesGetsAndDeletes) {
  EXPECT_THAT(must("apply -f -", kDeployment), AllOf(HasSubstr("deployment.apps/web created"), HasSubstr("service/web created")));
  EXPECT_THAT(must("apply -f -", kDeployment), AllOf(HasSubstr("deployment.apps/web unchanged"), HasSubstr("service/web unchanged")));
  EXPECT_THAT(must("get deploy web -o wide"), AllOf(HasSubstr("0/3"), HasSubstr("nginx:1.25"), HasSubstr("app=web")));
  EXPECT_THAT(must("get deploy web -o yaml"), AllOf(HasSubstr("progressDeadlineSeconds: 600"), HasSubstr("imagePullPolicy: IfNotPresent"),
                                                   HasSubstr("kind: Deployment"), HasSubstr("maxSurge: 25%")));
  EXPECT_THAT(must("get deploy -l app=web -o name"), HasSubstr("deployment.apps/web"));
  EXPECT_EQ(must("get deploy -l app=other -o name"), "");
  EXPECT_THAT(must("get deploy -A"), HasSubstr(ns_));
  std::string changed = kDeployment;
  changed.replace(changed.find("1.25"), 4, "1.26");
  EXPECT_THAT(must("apply -f -", changed), HasSubstr("deployment.apps/web configured"));
  EXPECT_EQ(must("get deploy web -o jsonpath='{.spec.template.spec.containers[0].image} {.metadata.generation}'"), "nginx:1.26 2");
  must("scale deploy web --replicas=5");
  EXPECT_EQ(must("get deploy web -o jsonpath='{.spec.replicas} {.metadata.generation}'"), "5 3");
  must("set image deploy/web web=nginx:1.27");
  EXPECT_EQ(must("get deploy web -o jsonpath='{.spec.template.spec.containers[0].image}'"), "nginx:1.27");
  must("label deploy web tier=front");
  EXPECT_THAT(must("get deploy --show-labels"), HasSubstr("tier=front"));
  must("label deploy web tier-");
  must("annotate deploy web note=hello");
  EXPECT_EQ(must("get deploy web -o jsonpath='{.metadata.annotations.note}'"), "hello");
  EXPECT_THAT(must("describe deploy web"), AllOf(HasSubstr("Replicas:"), HasSubstr("nginx:1.27")));
  EXPECT_THAT(must("delete deploy web --wait=false"), HasSubstr("deleted"));
  EXPECT_THAT(must("delete svc web"), HasSubstr("deleted"));
  EXPECT_THAT(refused("get svc web"), HasSubstr("Error from server (NotFound): services \"web\" not found"));
}

TEST_P(Kubectl, ImperativeCommands) {
  EXPECT_THAT(must("create deployment imp --image=nginx:1"), HasSubstr("deployment.apps/imp created"));
  EXPECT_THAT(must("expose deploy imp --port=80 --type=NodePort"), HasSubstr("service/imp exposed"));
  const auto port = std::stoi(must("get svc imp -o jsonpath='{.spec.ports[0].nodePort}'"));
  EXPECT_GE(port, 30000);
  EXPECT_LE(port, 32767);
  EXPECT_THAT(must("get svc imp"), AllOf(HasSubstr("NodePort"), HasSubstr("80:" + std::to_string(port) + "/TCP")));
  EXPECT_THAT(must("describe svc imp"), HasSubstr("NodePort"));
  must("run one --image=busybox:1 --restart=Never -- sleep 1");
  EXPECT_THAT(must("get pod one -o wide"), AllOf(HasSubstr("0/1"), HasSubstr("Pending"), HasSubstr("<none>")));
  EXPECT_EQ(must("get pod one -o jsonpath='{.spec.serviceAccountName} {.status.qosClass} {.spec.priority}'"), "default BestEffort 0");
  EXPECT_THAT(must("describe pod one"), AllOf(HasSubstr("busybox:1"), HasSubstr("kube-api-access-"), HasSubstr("node.kubernetes.io/not-ready:NoExecute")));
  must("create configmap c --from-literal=a=b");
  EXPECT_THAT(must("get cm c"), MatchesRegex("(.|\n)*c +1 +[0-9]+s(.|\n)*"));
  must("create secret generic s --from-literal=a=b");
  EXPECT_EQ(must("get secret s -o jsonpath='{.data.a} {.type}'"), "Yg== Opaque");
  EXPECT_THAT(must("create clusterip 2>/dev/null || true"), ::testing::_);
  must("delete pod one");  // never scheduled: gone at once
  EXPECT_THAT(refused("get pod one"), HasSubstr("NotFound"));
}

TEST_P(Kubectl, PatchesOfEachType) {
  must("create deployment p --image=nginx:1");
  must(R"(patch deploy p --type=merge -p '{"spec":{"replicas":2}}')");
  must(R"(patch deploy p --type=json -p '[{"op":"replace","path":"/spec/replicas","value":4},{"op":"test","path":"/metadata/name","value":"p"}]')");
  must(R"(patch deploy p -p '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox"}]}}}}')");
  EXPECT_THAT(must("get deploy p -o jsonpath='{.spec.replicas} {.spec.template.spec.containers[*].name}'"),
              testing::AnyOf(HasSubstr("4 side nginx"), HasSubstr("4 nginx side")));
  EXPECT_THAT(refused(R"(patch deploy p --type=json -p '[{"op":"test","path":"/metadata/name","value":"q"}]')"), Not(HasSubstr("patched")));
  EXPECT_THAT(refused(R"(patch deploy p --type=merge -p '{"spec":{"replicas":-2}}')"),
              HasSubstr("spec.replicas: Invalid value: -2: must be greater than or equal to 0"));
  EXPECT_THAT(refused(R"(patch deploy p --type=merge -p '{"spec":{"selector":{"matchLabels":{"x":"y"}}}}')"), HasSubstr("field is immutable"));
}

TEST_P(Kubectl, DryRunStoresNothing) {
  EXPECT_THAT(must("create deployment d --image=nginx --dry-run=server -o yaml"), HasSubstr("progressDeadlineSeconds: 600"));
  refused("get deploy d");
  EXPECT_THAT(must("apply --dry-run=server -f -", kDeployment), HasSubstr("created (server dry run)"));
  refused("get deploy web");
  must("create configmap keep --from-literal=a=b");
  must("delete cm keep --dry-run=server");
  must("get cm keep");
  must("create service nodeport n --tcp=80:80 --dry-run=server -o yaml");
}

TEST_P(Kubectl, BadInputIsExplainedAndNotStored) {
  struct Row {
    const char* what;
    const char* manifest;
    std::vector<const char*> says;
  };
  const char* flags = old() ? "" : " --validate=strict";
  // One cluster serves both versions' tests.
  // One for each version: they share the server.
  const std::string version = GetParam(), node_port = version == "1.20" ? "31998" : version == "1.36" ? "31997" : "31999";
  must("create service nodeport taken --tcp=80:80 --node-port=" + node_port);
  for (const Row& r : std::vector<Row>{
           {"wrong type",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec:\n  replicas: three\n  selector: {matchLabels: {a: b}}\n  "
            "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}\n",
            {"replicas"}},
           {"missing required field",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: c}]}\n", {"image"}},
           {"no selector", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {template: {metadata: {labels: {a: b}}, spec: "
            "{containers: [{name: c, image: i}]}}}\n",
            {"selector"}},
           {"unknown field", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndatta: {a: b}\n", {"datta"}},
           {"nodePort out of range",
            "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 80}]}\n",
            {"spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"}},
           {"nodePort taken", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {type: NodePort, ports: [{port: 80, nodePort: TAKEN}]}\n",
            {"spec.ports[0].nodePort: Invalid value: TAKEN: provided port is already allocated"}},
           {"clusterIP taken", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n",
            {"spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated"}},
           {"clusterIP out of range", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {clusterIP: 10.1.0.1, ports: [{port: 80}]}\n",
            {"spec.clusterIPs", "is not in the valid range. The range of valid IPs is 10.96.0.0/16"}},
           {"bad name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n", {"metadata.name: Invalid value: \"Bad_Name\""}},
           {"bad service name", "apiVersion: v1\nkind: Service\nmetadata: {name: 0bad}\nspec: {ports: [{port: 80}]}\n",
            {"metadata.name: Invalid value: \"0bad\": a DNS-1035 label must"}},
       }) {
    const auto fill = [&](std::string text) {
      if (const auto found = text.find("TAKEN"); found != std::string::npos) text.replace(found, 5, node_port);
      return text;
    };
    const auto said = refused(std::string("create -f -") + flags, fill(r.manifest));
    for (const auto* s : r.says) EXPECT_THAT(said, HasSubstr(fill(s))) << r.what;
    if (std::string(r.what) != "bad name") refused("get deploy,pod,cm,svc bad -o name");
  }
  // Duplicate names.
  must("create configmap twice");
  EXPECT_THAT(refused("create configmap twice"), HasSubstr("configmaps \"twice\" already exists"));
  // A namespace that is not there.
  EXPECT_THAT(refused("create configmap x -n nowhere"), HasSubstr("namespaces \"nowhere\" not found"));
  EXPECT_THAT(refused("delete ns kube-system"), HasSubstr("this namespace may not be deleted"));
}

TEST_P(Kubectl, UnknownFieldsWarnOrFail) {
  if (old()) GTEST_SKIP() << "validates on the client";
  constexpr char manifest[] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: u}\ndatta: {a: b}\n";
  EXPECT_THAT(refused("create --validate=strict -f -", manifest), HasSubstr("unknown field \"datta\""));
  const auto warned = run("create --validate=warn -f -", manifest);
  EXPECT_EQ(warned.exit_code, 0) << warned.all();
  EXPECT_THAT(warned.err, HasSubstr("Warning: unknown field \"datta\""));
  must("delete cm u");
  const auto ignored = run("create --validate=ignore -f -", manifest);
  EXPECT_EQ(ignored.exit_code, 0);
  EXPECT_THAT(ignored.err, Not(HasSubstr("Warning")));
}

TEST_P(Kubectl, WatchSeesChanges) {
  must("create configmap first");
  const auto out = run("get cm -w --no-headers & w=$!; sleep 1; K='" + binary_ + " -n " + ns_ + "'; $K create configmap second >/dev/null; $K delete cm first >/dev/null; "
                       "sleep 1; kill $w; wait $w 2>/dev/null; true");
  EXPECT_THAT(out.out, AllOf(HasSubstr("first"), HasSubstr("second"))) << out.all();
}

TEST_P(Kubectl, WaitAndRolloutStatus) {
  must("create deployment r --image=nginx");
  // Without controllers somebody must report progress: the status subresource.
  const auto port = run("proxy --port=0 >proxy.$$ 2>&1 & p=$!; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; grep -q Starting proxy.$$ && break; done; "
                        "addr=$(sed 's/.* //' proxy.$$); "
                        "curl -sS -X PATCH -H 'Content-Type: application/merge-patch+json' http://$addr/apis/apps/v1/namespaces/" + ns_ +
                        "/deployments/r/status -d '{\"status\":{\"observedGeneration\":1,\"replicas\":1,\"updatedReplicas\":1,\"readyReplicas\":1,"
                        "\"availableReplicas\":1,\"conditions\":[{\"type\":\"Available\",\"status\":\"True\"}]}}' >/dev/null; kill $p; rm -f proxy.$$");
  EXPECT_EQ(port.exit_code, 0) << port.all();
  EXPECT_THAT(must("rollout status deploy/r --timeout=5s"), HasSubstr("successfully rolled out"));
  EXPECT_THAT(must("wait deploy/r --for=condition=Available --timeout=5s"), HasSubstr("condition met"));
  EXPECT_THAT(must("get deploy r"), HasSubstr("1/1"));
}

TEST_P(Kubectl, NamespaceGoesThroughTerminating) {
  must("create ns gone-" + ns_);
  must("delete ns gone-" + ns_ + " --wait=false");
  EXPECT_THAT(must("get ns gone-" + ns_), HasSubstr("Terminating"));
  EXPECT_THAT(refused("create configmap x -n gone-" + ns_), HasSubstr("because it is being terminated"));
  // What the namespace controller does when it is empty.
  must("replace --raw /api/v1/namespaces/gone-" + ns_ + "/finalize -f -",
       R"({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"gone-)" + ns_ + R"("},"spec":{"finalizers":[]}})");
  EXPECT_THAT(refused("get ns gone-" + ns_), HasSubstr("NotFound"));
}

// Every object in every file under deploy/, tried on the client's side and on the server's: what kubectl and the API server check they
// accept. A kind that this server does not have is refused by that name, and by no other reason.
TEST_P(Kubectl, DeployFilesCanBeApplied) {
  const auto resources = run_shell(server().kubeconfig(), binary_ + " api-resources --no-headers").out;
  std::size_t files = 0, tried = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("deploy")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path().string());
    ++files;
    const auto text = read_file(entry.path());
    ASSERT_TRUE(text) << text.error().message;
    const auto documents = kube::parse_yaml(*text, {});
    ASSERT_TRUE(documents) << documents.error().message;
    std::string served;
    std::size_t objects = 0;
    std::map<std::string, std::string> others;  // by kind
    std::set<std::string> namespaces;
    for (const auto& d : *documents) {
      const auto& o = d.as_object();
      const std::string kind(o.at("kind").as_string());
      if (const auto* ns = o.at("metadata").as_object().if_contains("namespace")) namespaces.emplace(ns->as_string());
      if (std::regex_search(resources, std::regex("\\b" + kind + "(\n|$)"))) served += boost::json::serialize(o) + "\n", ++objects;
      else others[kind] = boost::json::serialize(o);
    }
    for (const auto& ns : namespaces) (void)run_shell(server().kubeconfig(), binary_ + " create namespace " + ns);
    tried += objects;
    for (const std::string side : {"client", "server"}) {
      if (objects == 0) continue;
      const auto r = run_shell(server().kubeconfig(), binary_ + " apply --dry-run=" + side + " -f -", served);
      // kubectl 1.20 asks OpenAPI v2 whether a server can try, and ours has no definitions of custom resources there.
      if (side == "server" && old() && served.find("\"kind\":\"CustomResourceDefinition\"") != std::string::npos) {
        EXPECT_NE(r.exit_code, 0);
        EXPECT_THAT(r.err, HasSubstr("failed to check CRD"));
        continue;
      }
      EXPECT_EQ(r.exit_code, 0) << side << ": " << r.all();
      const std::string mark = side == "client" ? "(dry run)" : "(server dry run)";
      std::size_t marks = 0;
      for (auto at = r.out.find(mark); at != std::string::npos; at = r.out.find(mark, at + 1)) ++marks;
      EXPECT_EQ(marks, objects) << r.all();
      EXPECT_THAT(r.err, Not(HasSubstr("unknown field")));
    }
    for (const auto& [kind, object] : others) {
      const auto r = run_shell(server().kubeconfig(), binary_ + " apply --validate=false --dry-run=client -f -", object);
      EXPECT_NE(r.exit_code, 0);
      EXPECT_THAT(r.err, HasSubstr("no matches for kind \"" + kind + "\""));
    }
  }
  EXPECT_GE(files, 5u);
  EXPECT_GE(tried, 8u);
}

TEST_P(Kubectl, TokensAndForbidden) {
  const auto plain = server().kubeconfig("plain", {"people"});
  const auto denied = run_shell(plain, binary_ + " get pods -n default");
  EXPECT_NE(denied.exit_code, 0);
  EXPECT_THAT(denied.err, HasSubstr("Error from server (Forbidden): pods is forbidden: User \"plain\" cannot list resource \"pods\" in API group "
                                    "\"\" in the namespace \"default\""));
  EXPECT_EQ(run("--token=test-token get ns default").exit_code, 0);
  const auto wrong = run_shell("/dev/null", binary_ + " --server " + server().url() + " --insecure-skip-tls-verify --token=nonsense get ns");
  EXPECT_NE(wrong.exit_code, 0);
  EXPECT_THAT(wrong.all(), testing::AnyOf(HasSubstr("Unauthorized"), HasSubstr("must be logged in")));
  if (old()) return;
  must("create serviceaccount robot");
  const auto token = must("create token robot");
  EXPECT_EQ(std::count(token.begin(), token.end(), '.'), 2);
  const auto who = run_shell("/dev/null", binary_ + " --server " + server().url() + " --insecure-skip-tls-verify --token=" +
                                              token.substr(0, token.find('\n')) + " auth whoami");
  EXPECT_THAT(who.out, AllOf(HasSubstr("system:serviceaccount:" + ns_ + ":robot"), HasSubstr("system:serviceaccounts")));
  must("delete serviceaccount robot");
  const auto gone = run_shell("/dev/null", binary_ + " --server " + server().url() + " --insecure-skip-tls-verify --token=" +
                                               token.substr(0, token.find('\n')) + " auth whoami");
  EXPECT_NE(gone.exit_code, 0) << "a token of a deleted account is good for nothing";
}

TEST_P(Kubectl, IngressesAndTheirClasses) {
  const std::string cls = "cls-" + ns_;
  must("apply -f -", "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: " + cls +
                         "\n  annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}\nspec:\n  controller: fairlead.test/ingress\n"
                         "  parameters: {apiGroup: example.com, kind: Settings, name: s}\n");
  EXPECT_THAT(must("get ingressclass " + cls), AllOf(HasSubstr("CONTROLLER"), HasSubstr("fairlead.test/ingress"), HasSubstr("Settings.example.com/s")));
  must("create service clusterip web --tcp=80:8080");
  must("create ingress web --rule='a.example.com/app*=web:80,tls=cert' --rule='*.b.example.com/=web:80'");
  EXPECT_EQ(must("get ingress web -o jsonpath='{.spec.ingressClassName} {.spec.rules[0].http.paths[0].pathType} {.spec.tls[0].secretName}'"),
            cls + " Prefix cert")
      << "the default class is filled in";
  EXPECT_THAT(must("get ing"), MatchesRegex("NAME +CLASS +HOSTS +ADDRESS +PORTS +AGE\nweb +" + cls +
                                            " +a.example.com,\\*.b.example.com +80, 443 +[0-9]+s\n"));
  must(R"(get --raw /apis/networking.k8s.io/v1/namespaces/)" + ns_ + "/ingresses/web/status");
  EXPECT_THAT(must("describe ingress web"), AllOf(HasSubstr("a.example.com"), HasSubstr("web:80"), HasSubstr("cert terminates")));
  EXPECT_THAT(refused("create ingress bad --class=x --rule='a.example.com/../x=web:80'"),
              HasSubstr("spec.rules[0].http.paths[0].path: Invalid value: \"/../x\": must not contain '/../'"));
  EXPECT_THAT(must("explain ingress.spec.rules.http.paths"), AllOf(HasSubstr("pathType"), HasSubstr("backend")));
  must("delete ingress web");
  must("delete ingressclass " + cls);
}

TEST_P(Kubectl, AddressesAndServiceRanges) {
  EXPECT_THAT(must("get servicecidrs"), MatchesRegex("NAME +CIDRS +AGE\nkubernetes +10.96.0.0/16 +[0-9a-z]+\n"));
  must("wait servicecidr/kubernetes --for=condition=Ready --timeout=5s");
  must("create service clusterip web --tcp=80:80");
  const auto ip = must("get svc web -o jsonpath='{.spec.clusterIP}'");
  EXPECT_THAT(must("get ipaddress " + ip), MatchesRegex("NAME +PARENTREF\n" + ip + " +services/" + ns_ + "/web\n"));
  EXPECT_EQ(must("get ipaddress " + ip + R"( -o jsonpath='{.metadata.labels.ipaddress\.kubernetes\.io/managed-by} {.metadata.labels.ipaddress\.kubernetes\.io/ip-family}')"),
            "ipallocator.k8s.io IPv4");
  EXPECT_THAT(refused("delete ipaddress " + ip), HasSubstr("service " + ns_ + "/web has this address"));
  must("delete svc web");
  EXPECT_THAT(refused("get ipaddress " + ip), HasSubstr("ipaddresses.networking.k8s.io \"" + ip + "\" not found"));
  // An address that something else has taken is no Service's any more.
  const int n = count_;
  const auto taken = "10.96.200." + std::to_string(n);
  must("apply -f -", "apiVersion: networking.k8s.io/v1\nkind: IPAddress\nmetadata: {name: " + taken +
                         "}\nspec: {parentRef: {group: example.com, resource: gateways, namespace: infra, name: gw}}\n");
  EXPECT_THAT(must("get ipaddress " + taken), HasSubstr("gateways.example.com/infra/gw"));
  EXPECT_THAT(refused("create service clusterip t --tcp=80:80 --clusterip=" + taken), HasSubstr("provided IP is already allocated"));
  must("delete ipaddress " + taken);
  // A further range serves at once, and stays as long as an address in it is used.
  const auto range = "10.77." + std::to_string(n) + ".0/24", inside = "10.77." + std::to_string(n) + ".9", name = "more-" + ns_;
  EXPECT_THAT(refused("create service clusterip far --tcp=80:80 --clusterip=" + inside), HasSubstr("is not in the valid range"));
  must("apply -f -", "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: " + name + "}\nspec: {cidrs: [" + range + "]}\n");
  must("wait servicecidr/" + name + " --for=condition=Ready --timeout=5s");
  must("create service clusterip far --tcp=80:80 --clusterip=" + inside);
  EXPECT_THAT(must("get ipaddress " + inside), HasSubstr("services/" + ns_ + "/far"));
  must("delete servicecidr " + name + " --wait=false");
  must("wait servicecidr/" + name + " --for=condition=Ready=False --timeout=5s");
  EXPECT_THAT(refused("create service clusterip far2 --tcp=80:80 --clusterip=10.77." + std::to_string(n) + ".10"),
              HasSubstr("is not in the valid range"));
  EXPECT_THAT(must("get servicecidr " + name + " -o jsonpath='{.status.conditions[0].message}'"), HasSubstr("still IPAddresses referencing"));
  must("delete svc far");
  gone("servicecidr " + name);
}

// The definitions that load balancer pools need, as a user applies them, and objects as MetalLB's users write them.
TEST_P(Kubectl, CustomResources) {
  must("apply -f deploy/lb-crds.yaml");
  must("wait crd/ipaddresspools.metallb.io crd/bgppeers.metallb.io --for=condition=Established --timeout=10s");
  EXPECT_THAT(must("get crd ipaddresspools.metallb.io"), AllOf(HasSubstr("CREATED AT"), HasSubstr("20")));
  EXPECT_EQ(must("get crd ipaddresspools.metallb.io -o jsonpath='{.status.acceptedNames.listKind} {.status.storedVersions}'"),
            "IPAddressPoolList [\"v1beta1\"]");
  EXPECT_THAT(must("api-resources --api-group=metallb.io"),
              AllOf(HasSubstr("ipaddresspools"), HasSubstr("IPAddressPool"), HasSubstr("bgppeers"), HasSubstr("metallb.io/v1beta2")));
  const std::string pool =
      "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: lan, labels: {zone: a}}\n"
      "spec:\n  addresses: [192.0.2.0/28, 192.0.2.32-192.0.2.40]\n  serviceAllocation: {namespaces: [web]}\n";
  EXPECT_THAT(must("apply -f -", pool), HasSubstr("ipaddresspool.metallb.io/lan created"));
  EXPECT_THAT(must("apply -f -", pool), HasSubstr("ipaddresspool.metallb.io/lan unchanged"));
  EXPECT_THAT(must("get ipaddresspools"), AllOf(HasSubstr("AUTO ASSIGN"), HasSubstr("true          false"),
                                                HasSubstr("[\"192.0.2.0/28\",\"192.0.2.32-192.0.2.40\"]")));
  EXPECT_EQ(must("get ipaddresspool lan -o jsonpath='{.spec.autoAssign} {.metadata.generation}'"), "true 1") << "the default is stored";
  must("apply -f -", "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: tor}\n"
                     "spec: {myASN: 64512, peerASN: 4200000000, peerAddress: 192.0.2.1}\n");
  EXPECT_THAT(must("get bgppeers"), MatchesRegex("NAME +ADDRESS +ASN +BFD PROFILE +MULTI HOPS\ntor +192.0.2.1 +4200000000 *\n"));
  EXPECT_EQ(must("get bgppeer tor -o jsonpath='{.spec.peerPort}'"), "179");

  // Bad input: the field and the reason, and nothing is stored.
  const auto bad = [&](const std::string& spec) {
    return refused("create -f -", "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: bad}\nspec: " + spec + "\n");
  };
  EXPECT_THAT(bad("{peerASN: 1}"), HasSubstr("The BGPPeer \"bad\" is invalid: spec.myASN: Required value"));
  EXPECT_THAT(bad("{myASN: 1, peerPort: 0}"), HasSubstr("spec.peerPort: Invalid value: 0: spec.peerPort in body should be greater than or equal to 1"));
  EXPECT_THAT(bad("{myASN: one}"), HasSubstr("spec.myASN: Invalid value: \"string\": spec.myASN in body must be of type integer: \"string\""));
  EXPECT_THAT(bad("{myASN: 1, dynamicASN: both}"),
              HasSubstr("spec.dynamicASN: Unsupported value: \"both\": supported values: \"internal\", \"external\""));
  EXPECT_THAT(refused("get bgppeer bad"), HasSubstr("bgppeers.metallb.io \"bad\" not found"));
  if (!old()) {
    EXPECT_THAT(refused("create --validate=strict -f -", "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: bad}\nspec: {myASN: 1, asn: 2}\n"),
                HasSubstr("unknown field \"spec.asn\""));
  }
  must("create --validate=false -f -", "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: pruned}\nspec: {myASN: 1, asn: 2}\n");
  EXPECT_EQ(must("get bgppeer pruned -o jsonpath='{.spec.asn}'"), "");

  // Patches; the status is written apart from the rest.
  must(R"(patch ipaddresspool lan --type=merge -p '{"spec":{"autoAssign":false},"status":{"x":1}}')");
  EXPECT_EQ(must("get ipaddresspool lan -o jsonpath='{.spec.autoAssign}{.status.x} {.metadata.generation}'"), "false 2");
  must(R"(patch ipaddresspool lan --type=json -p '[{"op":"add","path":"/spec/addresses/-","value":"198.51.100.0/24"}]')");
  EXPECT_EQ(must("get ipaddresspool lan -o jsonpath='{.spec.addresses[2]}'"), "198.51.100.0/24");
  EXPECT_THAT(refused(R"(patch ipaddresspool lan --type=strategic -p '{"spec":{}}')"),
              testing::AnyOf(HasSubstr("application/merge-patch+json"), HasSubstr("strategic merge patch is not supported")));
  const auto url = "/apis/metallb.io/v1beta1/namespaces/" + ns_ + "/ipaddresspools/lan";
  const auto current = must("get --raw " + url);
  std::string with_status = current;
  with_status.replace(with_status.rfind('}'), 1, R"(,"status":{"assigned":7}})");
  must("replace --raw " + url + "/status -f -", with_status);
  EXPECT_EQ(must("get ipaddresspool lan -o jsonpath='{.status.assigned} {.metadata.generation}'"), "7 3");

  if (!old()) {
    EXPECT_THAT(must("explain ipaddresspools.spec.serviceAllocation"), AllOf(HasSubstr("namespaces"), HasSubstr("priority")));
  }
  must("label ipaddresspool lan tier=edge");
  EXPECT_THAT(must("get ipaddresspools -l tier=edge -o name"), HasSubstr("ipaddresspool.metallb.io/lan"));
  EXPECT_THAT(must("get ipaddresspools -A --field-selector metadata.name=lan -o name"), HasSubstr("lan"));

  // An object with a finalizer keeps the definition; then both go, and with them the resource.
  must(R"(patch ipaddresspool lan --type=merge -p '{"metadata":{"finalizers":["example.com/keep"]}}')");
  must("delete -f deploy/lb-crds.yaml --wait=false");
  must("wait crd/ipaddresspools.metallb.io --for=condition=Terminating --timeout=10s");
  gone("crd bgppeers.metallb.io");
  EXPECT_THAT(refused("create -f -", "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: late}\nspec: {addresses: [192.0.2.0/28]}\n"),
              HasSubstr("create not allowed while custom resource definition is terminating"));
  must(R"(patch ipaddresspool lan --type=merge -p '{"metadata":{"finalizers":null}}')");
  gone("crd ipaddresspools.metallb.io");
  EXPECT_THAT(refused("get --raw " + url), testing::AnyOf(HasSubstr("NotFound"), HasSubstr("could not find")));
}

TEST(Restart, EverythingIsStillThereAndAllocationsAreKept) {
  TestServer s;
  const auto config = s.kubeconfig();
  make_default_service_account(config, "kubectl");
  EXPECT_EQ(run_shell(config, "kubectl create service nodeport a --tcp=80:80 --node-port=30777").exit_code, 0);
  EXPECT_EQ(run_shell(config, "kubectl create configmap c --from-literal=x=y").exit_code, 0);
  const auto ip = run_shell(config, "kubectl get svc a -o jsonpath='{.spec.clusterIP}'").out;
  s.restart();
  EXPECT_EQ(run_shell(config, "kubectl get svc a -o jsonpath='{.spec.clusterIP}'").out, ip);
  EXPECT_EQ(run_shell(config, "kubectl get cm c -o jsonpath='{.data.x}'").out, "y");
  const auto taken = run_shell(config, "kubectl create service nodeport b --tcp=80:80 --node-port=30777");
  EXPECT_THAT(taken.err, HasSubstr("provided port is already allocated"));
  EXPECT_EQ(run_shell(config, "kubectl delete svc a").exit_code, 0);
  EXPECT_EQ(run_shell(config, "kubectl create service nodeport b --tcp=80:80 --node-port=30777").exit_code, 0) << "released on delete";
}

}  // namespace
}  // namespace fairlead::apiserver::test
