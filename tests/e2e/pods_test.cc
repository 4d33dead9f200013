// The pod network between nodes by each of its modes, in a lab of its own each: pods across three nodes, host ports, limits on
// bandwidth, all through containerd.
#include <fmt/format.h>

#include <chrono>

#include "tests/e2e/lab.h"

namespace fairlead::e2e {
namespace {

using namespace std::chrono_literals;

class Pods : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(lab_up({"--pod-network", GetParam()})); }
  void TearDown() override { lab_down(); }

  // On a node by name: the control plane's too.
  static void start(const std::string& name, const std::string& node, const std::string& annotations, int host_port) {
    const auto made = apply(fmt::format(R"(
apiVersion: v1
kind: Pod
metadata: {{name: {0}, annotations: {{{2}}}}}
spec:
  nodeName: {1}
  tolerations: [{{operator: Exists}}]
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: fairlead.local/demo:1
    ports: [{{containerPort: 8080{3}}}, {{containerPort: 8081, protocol: UDP{3}}}]
    readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
)", name, node, annotations, host_port ? fmt::format(", hostPort: {}", host_port) : ""));
    ASSERT_TRUE(made.ok()) << made;
  }
  static std::string ip_of(const std::string& pod) { return get({"get", "pod", pod, "-o", "jsonpath={.status.podIP}"}); }
};

TEST_P(Pods, AcrossThreeNodes) {
  for (const auto& n : nodes()) start("on-" + n.name, n.name, "", 30080);
  start("slow", nodes()[1].name, R"("kubernetes.io/ingress-bandwidth": "1M", "kubernetes.io/egress-bandwidth": "1M")", 0);
  const auto ready = kubectl({"wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"});
  ASSERT_TRUE(ready.ok()) << ready << kubectl({"get", "pods", "-o", "wide"}) << kubectl({"get", "events"});

  // From a pod on every node to the pod on every other one, with its own address.
  for (const auto& from : nodes())
    for (const auto& to : nodes()) {
      if (from.name == to.name) continue;
      const auto t = fetch_from_pod(from.name, fmt::format("http://{}:8080/", ip_of("on-" + to.name)), 5);
      EXPECT_EQ(t.failed, 0) << from.name << " to " << to.name << ": " << t;
      EXPECT_EQ(t.by_pod.count("on-" + to.name), 1u) << t;
    }
  // The way they go.
  for (const auto& n : nodes()) {
    const auto routes = run({"ip", "route", "show", "proto", "242"}, "", n.netns).out;
    const bool tunnel = routes.find("dev fl-vxlan") != std::string::npos;
    EXPECT_EQ(tunnel, std::string(GetParam()) == "vxlan") << routes;
  }
  // Host ports, of every node, from outside, from the node by localhost, and from another node; TCP and UDP.
  for (const auto& n : nodes()) {
    const std::string pod = "on-" + n.name;
    for (const char* scheme : {"http", "udp"}) {
      // Both container ports have the same number on the host, told apart by protocol.
      const auto t = fetch_from_outside(fmt::format("{}://{}:30080/", scheme, n.ip), 10);
      EXPECT_EQ(t.failed, 0) << scheme << " " << n.name << ": " << t;
      EXPECT_EQ(t.by_pod.count(pod), 1u) << t;
    }
    EXPECT_EQ(fetch_from_node(n.name, "http://127.0.0.1:30080/", 5).by_pod.count(pod), 1u) << n.name;
    for (const auto& from : nodes()) EXPECT_EQ(fetch_from_node(from.name, fmt::format("http://{}:30080/", n.ip), 5).by_pod.count(pod), 1u) << from.name << " to " << n.name;
  }
  // 1 Mbit/s each way is 125 kB/s: 150 requests of 8 kB are 1.2 MB, of which the bucket takes 128 kB at once.
  const std::string path(8000, 'x');
  const auto begin = std::chrono::steady_clock::now();
  const auto t = fetch_from_node(nodes()[2].name, fmt::format("http://{}:8080/{}", ip_of("slow"), path), 150, {"--timeout", "5000", "--keep-alive"});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(t.failed, 0) << t;
  const double rate = 150 * 8000 * 8 / took.count() / 1e6;
  EXPECT_LT(rate, 1.25) << "Mbit/s";
  std::printf("%s: %.2f Mbit/s through a limit of 1 Mbit/s and its burst\n", GetParam(), rate);

  // What is taken away is gone: ports and links.
  const auto gone = kubectl({"delete", "pod", "--all", "--wait=true", "--timeout=60s"});
  EXPECT_TRUE(gone.ok()) << gone;
  for (const auto& n : nodes()) {
    EXPECT_EQ(fetch_from_outside(fmt::format("http://{}:30080/", n.ip), 2).by_pod.size(), 0u) << n.name;
    Output links;
    EXPECT_TRUE(eventually(30s, [&] { return (links = run({"ip", "-o", "link", "show", "type", "veth"}, "", n.netns)).out.find("alias fairlead-cni") == std::string::npos; })) << links;
    const auto table = run({"nft", "list", "table", "ip", "fairlead-pods"}, "", n.netns);
    EXPECT_EQ(table.out.find("elements"), std::string::npos) << table;
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, Pods, testing::Values("host-gw", "vxlan", "auto"), [](const auto& i) {
  return std::string(i.param) == "host-gw" ? "HostGw" : std::string(i.param) == "vxlan" ? "Vxlan" : "Auto";
});

}  // namespace
}  // namespace fairlead::e2e
