// Pods are served: a deployment exposed through ClusterIP and NodePort, from pods, nodes and outside, while it is scaled,
// rolled, loses pods, and while the control plane is away.
#include <signal.h>

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/files.h"
#include "tests/e2e/lab.h"

namespace fairlead::e2e {
namespace {

using namespace std::chrono_literals;

constexpr const char* kWeb = R"(
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: web
        image: fairlead.local/demo:1
        ports: [{containerPort: 8080, name: http}, {containerPort: 8081, protocol: UDP, name: echo}]
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: echo, port: 81, targetPort: echo, protocol: UDP}
)";

struct Web {
  std::string cluster_ip, node_port, udp_node_port;
  std::string url() const { return "http://" + cluster_ip + ":80/"; }
};

std::size_t ready_endpoints() {
  const auto names = get({"get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o",
                          "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.targetRef.name}{\"\\n\"}{end}"});
  std::set<std::string> unique;
  std::istringstream in(names);
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) unique.insert(line);
  return unique.size();
}

void expect_spread(const Tally& t, std::size_t pods) {
  EXPECT_EQ(t.failed, 0) << t;
  EXPECT_EQ(t.by_pod.size(), pods) << t;
}

class Serving : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto made = apply(kWeb);
    ASSERT_TRUE(made.ok()) << made;
    const auto rolled = kubectl({"rollout", "status", "deployment/web", "--timeout=60s"});
    ASSERT_TRUE(rolled.ok()) << rolled << kubectl({"get", "pods", "-o", "wide"}) << kubectl({"get", "events"});
    web_.cluster_ip = get({"get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"});
    web_.node_port = get({"get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"});
    web_.udp_node_port = get({"get", "service", "web", "-o", "jsonpath={.spec.ports[1].nodePort}"});
    for (const auto& n : nodes())
      ASSERT_TRUE(eventually(10s, [&] { return fetch_from_node(n.name, web_.url(), 60).by_pod.size() == 3; })) << n.name;
  }
  static void TearDownTestSuite() { kubectl({"delete", "deployment/web", "service/web", "--ignore-not-found", "--wait=true"}); }
  static Web web_;
};
Web Serving::web_;

TEST_F(Serving, ClusterIpFromEveryNode) {
  for (const auto& n : nodes()) expect_spread(fetch_from_node(n.name, web_.url(), 60), 3);
}

TEST_F(Serving, ClusterIpFromAPodOnEveryNode) {
  for (const auto& n : nodes()) expect_spread(fetch_from_pod(n.name, web_.url(), 60), 3);
}

TEST_F(Serving, NodePortOfEveryNodeFromOutside) {
  for (const auto& n : nodes()) expect_spread(fetch_from_outside(fmt::format("http://{}:{}/", n.ip, web_.node_port), 60), 3);
}

TEST_F(Serving, UdpThroughClusterIpAndNodePort) {
  for (const auto& n : nodes()) {
    expect_spread(fetch_from_node(n.name, fmt::format("udp://{}:81", web_.cluster_ip), 60), 3);
    expect_spread(fetch_from_outside(fmt::format("udp://{}:{}", n.ip, web_.udp_node_port), 60), 3);
  }
}

// The only endpoint of a service asks that service: the answer can come only through the hairpin.
TEST_F(Serving, PodReachesItselfThroughItsService) {
  const auto service = apply(R"(
apiVersion: v1
kind: Service
metadata: {name: selfish}
spec: {selector: {app: selfish}, ports: [{port: 80, targetPort: 8080}]}
)");
  ASSERT_TRUE(service.ok()) << service;
  const auto ip = get({"get", "service", "selfish", "-o", "jsonpath={.spec.clusterIP}"});
  const auto pod = apply(fmt::format(R"(
apiVersion: v1
kind: Pod
metadata: {{name: selfish, labels: {{app: selfish}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: serve, image: "fairlead.local/demo:1"}}
  - {{name: ask, image: "fairlead.local/demo:1", args: [fetch, "http://{}:80/", --count, "60", --interval, "50ms", --summary]}}
)", ip));
  ASSERT_TRUE(pod.ok()) << pod;
  Output logs;
  EXPECT_TRUE(eventually(60s, [&] { return (logs = kubectl({"logs", "selfish", "-c", "ask"})).out.find("requests 60") != std::string::npos; })) << logs;
  EXPECT_GT(parse_tally(logs.out).by_pod["selfish"], 10) << logs;
  kubectl({"delete", "pod/selfish", "service/selfish", "--wait=false"});
}

TEST_F(Serving, ScalesToFiveAndBackToOne) {
  for (const std::size_t replicas : {5u, 1u, 3u}) {
    ASSERT_TRUE(kubectl({"scale", "deployment", "web", fmt::format("--replicas={}", replicas)}).ok());
    ASSERT_TRUE(eventually(30s, [&] { return ready_endpoints() == replicas; })) << ready_endpoints();
    for (const auto& n : nodes())
      EXPECT_TRUE(eventually(5s, [&] {
        const auto t = fetch_from_node(n.name, web_.url(), 80);
        return t.failed == 0 && t.by_pod.size() == replicas;
      })) << n.name << " does not reach exactly " << replicas << " pods";
  }
}

TEST_F(Serving, APodIsDeletedWhileRequestsFlow) {
  BackgroundClient client(node_netns("worker-1"), web_.url(), {"--interval", "5", "--retry", "once"});
  const auto pod = get({"get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"});
  ASSERT_TRUE(kubectl({"delete", "pod", pod}).ok());
  ASSERT_TRUE(eventually(30s, [&] { return ready_endpoints() == 3; }));
  const auto t = client.stop();
  EXPECT_GT(t.requests, 20) << t;
  EXPECT_EQ(t.failed, 0) << t;
}

TEST_F(Serving, SetImageRollsWithoutAFailedRequest) {
  BackgroundClient inside(node_netns("worker-2"), web_.url(), {"--interval", "5"});
  BackgroundClient outside({}, fmt::format("http://{}:{}/", nodes()[1].ip, web_.node_port), {"--interval", "5"});
  ASSERT_TRUE(kubectl({"set", "image", "deployment/web", "web=fairlead.local/demo:2"}).ok());
  const auto rolled = kubectl({"rollout", "status", "deployment/web", "--timeout=90s"});
  ASSERT_TRUE(rolled.ok()) << rolled;
  EXPECT_TRUE(eventually(20s, [&] { return run({"fairlead-demo", "fetch", web_.url()}, {}, node_netns("worker-1")).out.find("version=2") != std::string::npos; }));
  for (auto* client : {&inside, &outside}) {
    const auto t = client->stop();
    EXPECT_GT(t.requests, 50) << t;
    EXPECT_EQ(t.failed, 0) << t;
  }
}

TEST_F(Serving, ControlPlaneIsKilledAndComesBackWithEverything) {
  // Pods of the test before may still be ending.
  const auto pods = [] { return get({"get", "pods", "-l", "app=web", "-o", "name"}); };
  ASSERT_TRUE(eventually(60s, [&] { const auto p = pods(); return std::count(p.begin(), p.end(), '\n') == 2; })) << pods();
  const auto before = get({"get", "deployments,replicasets,services,pods", "-o", "name"});
  const auto pid = component_pid("control-plane", "control-plane");
  ASSERT_GT(pid, 0);
  BackgroundClient client(node_netns("worker-1"), web_.url(), {"--interval", "5"});
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_TRUE(eventually(20s, [&] { return kubectl({"get", "--raw", "/readyz"}).ok(); }));
  EXPECT_EQ(get({"get", "deployments,replicasets,services,pods", "-o", "name"}), before);
  EXPECT_NE(component_pid("control-plane", "control-plane"), pid);
  ASSERT_TRUE(kubectl({"scale", "deployment", "web", "--replicas=4"}).ok());
  EXPECT_TRUE(eventually(30s, [&] { return ready_endpoints() == 4; }));
  EXPECT_TRUE(kubectl({"scale", "deployment", "web", "--replicas=3"}).ok());
  EXPECT_TRUE(eventually(30s, [&] { return ready_endpoints() == 3; }));
  const auto t = client.stop();
  EXPECT_GT(t.requests, 100) << t;
  EXPECT_EQ(t.failed, 0) << t;
}

// Every other component is killed in turn: each comes back, nothing that was served stops being served.
TEST_F(Serving, EveryComponentMayBeKilled) {
  for (const char* component : {"proxy", "kubelet", "cni-agent", "containerd"}) {
    const auto pid = component_pid("worker-1", component);
    ASSERT_GT(pid, 0) << component;
    BackgroundClient client(node_netns("worker-1"), web_.url(), {"--interval", "10"});
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    EXPECT_TRUE(eventually(10s, [&] { const auto now = component_pid("worker-1", component); return now > 0 && now != pid; })) << component;
    EXPECT_TRUE(eventually(20s, [&] { return run({"fairlead", "status"}).code == 0; })) << run({"fairlead", "status"});
    const auto t = client.stop();
    EXPECT_EQ(t.failed, 0) << component << ": " << t;
  }
  const auto restarts = get({"get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"});
  EXPECT_EQ(restarts.find_first_not_of("0 "), std::string::npos) << "containers were restarted: " << restarts;
}

TEST_F(Serving, ZServiceWithoutEndpointsAndDeletedServiceRefuseAtOnce) {
  ASSERT_TRUE(kubectl({"scale", "deployment", "web", "--replicas=0"}).ok());
  const auto refused = [&](const std::string& node) {
    const auto o = run({"fairlead-demo", "fetch", web_.url(), "--timeout", "2000"}, {}, node_netns(node));
    return o.err.find("refused") != std::string::npos;
  };
  for (const auto& n : nodes()) EXPECT_TRUE(eventually(30s, [&] { return refused(n.name); })) << n.name;
  ASSERT_TRUE(kubectl({"scale", "deployment", "web", "--replicas=1"}).ok());
  ASSERT_TRUE(eventually(30s, [&] { return fetch_from_node("worker-1", web_.url(), 1).failed == 0; }));
  ASSERT_TRUE(kubectl({"delete", "service", "web"}).ok());
  for (const auto& n : nodes()) EXPECT_TRUE(eventually(3s, [&] { return refused(n.name); })) << n.name;
}

}  // namespace
}  // namespace fairlead::e2e
