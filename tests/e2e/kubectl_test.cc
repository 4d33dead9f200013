// The commands of the real kubectl that people type first, and what they see when their input is wrong.
#include <fmt/format.h>

#include "tests/e2e/lab.h"

namespace fairlead::e2e {
namespace {

using namespace std::chrono_literals;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Kubectl, NodesAreReadyWithDetails) {
  const auto wide = get({"get", "nodes", "-o", "wide"});
  for (const auto& n : nodes()) {
    EXPECT_TRUE(has(wide, n.name)) << wide;
    EXPECT_TRUE(has(wide, n.ip)) << wide;
  }
  EXPECT_TRUE(has(wide, "containerd://")) << wide;
  EXPECT_FALSE(has(wide, "NotReady")) << wide;
  EXPECT_TRUE(has(get({"describe", "node", "worker-1"}), "KubeletReady"));
}

TEST(Kubectl, ApiResourcesAndExplain) {
  const auto resources = get({"api-resources"});
  for (const char* kind : {"Namespace", "Node", "Pod", "Service", "EndpointSlice", "Endpoints", "ReplicaSet", "Deployment", "ConfigMap",
                           "Secret", "ServiceAccount", "Event", "Lease"})
    EXPECT_TRUE(has(resources, kind)) << kind << " is missing in\n" << resources;
  EXPECT_TRUE(has(get({"explain", "deployment.spec.replicas"}), "replicas"));
  EXPECT_TRUE(has(get({"explain", "pod.spec.containers"}), "image"));
}

TEST(Kubectl, RunLogsLabelDescribeDelete) {
  ASSERT_TRUE(kubectl({"run", "one", "--image=fairlead.local/demo:1", "--port=8080"}).ok());
  const auto ready = kubectl({"wait", "--for=condition=Ready", "pod/one", "--timeout=30s"});
  ASSERT_TRUE(ready.ok()) << ready << kubectl({"describe", "pod", "one"});
  EXPECT_TRUE(has(get({"logs", "one"}), "serving as pod=one"));
  ASSERT_TRUE(kubectl({"label", "pod", "one", "tier=front"}).ok());
  EXPECT_EQ(get({"get", "pods", "-l", "tier=front", "-o", "name"}), "pod/one");
  EXPECT_TRUE(has(get({"get", "pods", "-A"}), "one"));
  EXPECT_TRUE(has(get({"get", "pod", "one", "-o", "yaml"}), "podIP:"));
  const auto described = get({"describe", "pod", "one"});
  EXPECT_TRUE(has(described, "Scheduled")) << described;
  EXPECT_TRUE(has(described, "Started")) << described;
  const auto deleted = kubectl({"delete", "pod", "one", "--timeout=40s"});
  EXPECT_TRUE(deleted.ok()) << deleted;
  EXPECT_TRUE(has(kubectl({"get", "pod", "one"}).err, "not found"));
}

TEST(Kubectl, CreateScaleExposeWatchAndDeleteADeployment) {
  ASSERT_TRUE(kubectl({"create", "deployment", "dep", "--image=fairlead.local/demo:1", "--replicas=2"}).ok());
  ASSERT_TRUE(kubectl({"rollout", "status", "deployment/dep", "--timeout=60s"}).ok());
  ASSERT_TRUE(kubectl({"expose", "deployment", "dep", "--port=80", "--target-port=8080"}).ok());
  EXPECT_TRUE(has(get({"get", "service", "dep", "-o", "wide"}), "app=dep"));
  const auto watched = run({"timeout", "3", kubectl_program(), "--kubeconfig", "/var/lib/fairlead/lab/kubeconfig", "get", "deployment", "dep", "-w"});
  EXPECT_TRUE(has(watched.out, "2/2")) << watched;
  ASSERT_TRUE(kubectl({"scale", "deployment", "dep", "--replicas=3"}).ok());
  EXPECT_TRUE(eventually(30s, [&] { return has(kubectl({"get", "deployment", "dep"}).out, "3/3"); }));
  ASSERT_TRUE(kubectl({"delete", "deployment/dep", "service/dep"}).ok());
  // Its ReplicaSets and pods go with it.
  EXPECT_TRUE(eventually(60s, [&] { return kubectl({"get", "replicasets,pods", "-l", "app=dep", "-o", "name"}).out.empty(); }))
      << kubectl({"get", "replicasets,pods"});
}

TEST(Kubectl, NamespaceGoesWithEverythingInIt) {
  ASSERT_TRUE(kubectl({"create", "namespace", "short-lived"}).ok());
  ASSERT_TRUE(kubectl({"-n", "short-lived", "create", "configmap", "c", "--from-literal=a=b"}).ok());
  ASSERT_TRUE(kubectl({"-n", "short-lived", "create", "deployment", "d", "--image=fairlead.local/demo:1"}).ok());
  EXPECT_TRUE(eventually(10s, [&] { return kubectl({"-n", "short-lived", "get", "serviceaccount", "default"}).ok(); }));
  const auto gone = kubectl({"delete", "namespace", "short-lived", "--timeout=60s"});
  EXPECT_TRUE(gone.ok()) << gone << kubectl({"get", "namespace", "short-lived", "-o", "yaml"});
}

struct BadInput {
  const char* name;
  const char* manifest;
  std::vector<const char*> says;  // each must be in kubectl's error
};

TEST(BadInput, IsRefusedWithFieldAndReasonAndNothingIsStored) {
  const std::vector<BadInput> rows = {
      {"wrong type", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: eighty}]}\n", {"port"}},
      {"missing required field", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c}]}}}\n",
       {"spec.template.spec.containers[0].image", "Required value"}},
      {"no ports", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {selector: {a: b}}\n", {"spec.ports", "Required value"}},
      {"unknown field", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 80}], colour: red}\n", {"unknown field", "colour"}},
      {"nodePort out of range", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 80}]}\n",
       {"spec.ports[0].nodePort", "80", "30000-32767"}},
      {"nodePort taken", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 32001}]}\n",
       {"spec.ports[0].nodePort", "32001", "already allocated"}},
      {"selector does not match", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}\n",
       {"spec.template.metadata.labels", "selector"}},
      {"bad name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n", {"metadata.name", "Bad_Name"}},
  };
  ASSERT_TRUE(apply("apiVersion: v1\nkind: Service\nmetadata: {name: holder}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 32001}]}\n").ok());
  const auto before = get({"get", "services,deployments,configmaps", "-o", "name"});
  for (const auto& row : rows) {
    const auto o = kubectl({"create", "-f", "-"}, row.manifest);
    EXPECT_FALSE(o.ok()) << row.name;
    for (const char* part : row.says) EXPECT_TRUE(has(o.err, part)) << row.name << ": no \"" << part << "\" in\n" << o.err;
  }
  const auto twice = kubectl({"create", "service", "clusterip", "holder", "--tcp=80"});
  EXPECT_TRUE(has(twice.err, "already exists")) << twice;
  EXPECT_EQ(get({"get", "services,deployments,configmaps", "-o", "name"}), before);
  kubectl({"delete", "service", "holder"});
}

// kubectl knows --validate=warn since 1.25; an older one that does not validate itself gets the server's warning.
TEST(BadInput, UnknownFieldIsAWarningWhenAskedFor) {
  const bool old = !has(get({"create", "--help"}), "warn");
  const auto o = kubectl({"create", old ? "--validate=false" : "--validate=warn", "-f", "-"},
                         "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: warned}\ncolour: red\n");
  EXPECT_TRUE(o.ok()) << o;
  EXPECT_TRUE(has(o.err, "Warning: unknown field \"colour\"")) << o;
  kubectl({"delete", "configmap", "warned"});
}

TEST(Lab, SecondUpSaysWhatIsThere) {
  const auto o = run({"fairlead", "up"});
  EXPECT_EQ(o.code, 1);
  EXPECT_TRUE(has(o.err, "a lab is running")) << o;
  EXPECT_TRUE(has(o.err, "fairlead down")) << o;
}

TEST(Lab, RefusesWhatCannotWork) {
  struct Row {
    std::vector<std::string> flags;
    int code;
    const char* says;
  };
  for (const Row& r : {Row{{"--nodes", "99"}, 2, "--nodes"}, {{"--lan", "10.0.0.1/24"}, 2, "--lan"}, {{"--pod-cidr", "10.96.0.0/16"}, 2, "overlaps"},
                       {{"--nodes", "two"}, 2, "--nodes"}}) {
    std::vector<std::string> argv{"fairlead", "up", "--state-dir", "/var/lib/fairlead/other"};
    argv.insert(argv.end(), r.flags.begin(), r.flags.end());
    const auto o = run(argv);
    EXPECT_NE(o.code, 0) << r.says;
    EXPECT_TRUE(has(o.err, r.says)) << r.says << ":\n" << o;
  }
}

}  // namespace
}  // namespace fairlead::e2e
