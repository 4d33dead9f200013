// A Service of type LoadBalancer as a user meets it: it gets an EXTERNAL-IP of the LAN, the address answers from outside, and it goes
// on answering when the node that announces it hangs or dies.
#include <signal.h>

#include <iostream>

#include "lab/state.h"
#include "tests/e2e/lab.h"

namespace fairlead::e2e {
namespace {

using namespace std::chrono_literals;

// The pods and, by preference, the announcement are on different workers, so that losing the announcer loses no endpoint.
constexpr const char* kWeb = R"(
apiVersion: apps/v1
kind: Deployment
metadata: {name: lbweb}
spec:
  replicas: 2
  selector: {matchLabels: {app: lbweb}}
  template:
    metadata: {labels: {app: lbweb}}
    spec:
      nodeSelector: {kubernetes.io/hostname: worker-2}
      containers:
      - name: web
        image: fairlead.local/demo:1
        ports: [{containerPort: 8080, name: http}]
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
)";

class LoadBalancer : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto made = apply(kWeb);
    ASSERT_TRUE(made.ok()) << made;
    const auto exposed = kubectl({"expose", "deployment", "lbweb", "--type=LoadBalancer", "--port=80", "--target-port=8080"});
    ASSERT_TRUE(exposed.ok()) << exposed;
    const auto preferred = kubectl({"annotate", "service", "lbweb", "lb.fairlead.io/preferred-nodes=worker-1"});
    ASSERT_TRUE(preferred.ok()) << preferred;
    const auto rolled = kubectl({"rollout", "status", "deployment/lbweb", "--timeout=60s"});
    ASSERT_TRUE(rolled.ok()) << rolled << kubectl({"get", "pods", "-o", "wide"}) << kubectl({"get", "events"});
    ASSERT_TRUE(eventually(60s, [] { return !address().empty(); })) << kubectl({"describe", "service", "lbweb"});
  }
  static void TearDownTestSuite() { kubectl({"delete", "deployment/lbweb", "service/lbweb", "--ignore-not-found", "--wait=true"}); }

  static std::string address() { return get({"get", "service", "lbweb", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"}); }
  static std::string url() { return "http://" + address() + "/"; }
  static std::string told() {
    return run({"fairlead", "lb", "status", "--kubeconfig", std::string(lab::kDefaultStateDir) + "/kubeconfig", "--pools", std::string(lab::kDefaultStateDir) + "/lb"}).out;
  }
  // The node that the outside believes in: the one whose hardware address it has for the service's.
  static std::string announcer() {
    const auto mac_of = [](const std::string& ip) {
      const auto o = run({"ip", "neighbour", "show", "to", ip, "dev", "fairlead0"}).out;
      const auto at = o.find("lladdr ");
      return at == std::string::npos ? std::string() : o.substr(at + 7, 17);
    };
    fetch_from_outside(url(), 1, {"--timeout", "1000"});
    const auto mac = mac_of(address());
    for (const auto& n : nodes())
      if (!mac.empty() && run({"ip", "link", "show", "dev", "eth0"}, {}, n.netns).out.find(mac) != std::string::npos) return n.name;
    return "";
  }
};

TEST_F(LoadBalancer, TheExternalIpAnswersFromOutside) {
  EXPECT_EQ(address().rfind("172.29.7.", 0), 0u) << address();
  EXPECT_NE(get({"get", "service", "lbweb"}).find(address()), std::string::npos);
  ASSERT_TRUE(eventually(60s, [] { return fetch_from_outside(url(), 1).failed == 0; })) << told() << kubectl({"describe", "service", "lbweb"});
  const auto t = fetch_from_outside(url(), 60);
  EXPECT_EQ(t.failed, 0) << t;
  EXPECT_EQ(t.by_pod.size(), 2u) << t;
  for (const auto& n : nodes()) EXPECT_TRUE(eventually(20s, [&] { return fetch_from_node(n.name, url(), 5).failed == 0; })) << n.name;
  EXPECT_TRUE(eventually(30s, [] { return announcer() == "worker-1"; })) << announcer();
  EXPECT_TRUE(eventually(30s, [] { return told().find("worker-1") != std::string::npos; })) << told();
  EXPECT_NE(told().find(address()), std::string::npos) << told();
}

TEST_F(LoadBalancer, ANodeThatHangsIsReplacedAndComesBack) {
  const auto pid = component_pid("worker-1", "lb-speaker");
  ASSERT_GT(pid, 0);
  ASSERT_TRUE(eventually(60s, [] { return announcer() == "worker-1"; }));
  ASSERT_EQ(::kill(pid, SIGSTOP), 0);
  const bool moved = eventually(60s, [] {
    const auto a = announcer();
    return !a.empty() && a != "worker-1";
  });
  EXPECT_EQ(fetch_from_outside(url(), 20, {"--timeout", "5000"}).failed, 0);
  ASSERT_EQ(::kill(pid, SIGCONT), 0);
  EXPECT_TRUE(moved) << announcer();
  EXPECT_TRUE(eventually(60s, [] { return announcer() == "worker-1"; })) << announcer();
}

TEST_F(LoadBalancer, TheAnnouncingNodeIsKilledWhileRequestsFlow) {
  ASSERT_TRUE(eventually(60s, [] { return announcer() == "worker-1"; }));
  const auto state = lab::load_state(lab::kDefaultStateDir);
  ASSERT_TRUE(state) << state.error().message;
  const auto init = state->node_inits.at("worker-1");
  BackgroundClient client("", url(), {"--interval", "20", "--timeout", "200"});
  // Its cable goes too: a dead machine's kernel forwards nothing any more.
  ASSERT_TRUE(run({"ip", "link", "set", "fl-w1", "down"}).ok());
  ASSERT_EQ(::kill(init.pid, SIGKILL), 0);
  const bool answered = eventually(60s, [] { return fetch_from_outside(url(), 1, {"--timeout", "200"}).failed == 0; });
  const auto by = announcer();
  ASSERT_TRUE(run({"ip", "link", "set", "fl-w1", "up"}).ok());
  EXPECT_TRUE(answered) << told();
  EXPECT_NE(by, "worker-1");
  EXPECT_TRUE(eventually(90s, [] { return run({"fairlead", "status"}).code == 0; })) << run({"fairlead", "status"});
  EXPECT_TRUE(eventually(60s, [] { return announcer() == "worker-1"; })) << "it takes its addresses back";
  const auto t = client.stop();
  EXPECT_GT(t.requests, t.failed) << t;
  std::cout << "while the announcing node was killed and came back: " << t << "\n";
}

TEST_F(LoadBalancer, ANodeThatWasCutOffIsBelievedAgain) {
  ASSERT_TRUE(eventually(60s, [] { return announcer() == "worker-1"; }));
  ASSERT_TRUE(run({"ip", "link", "set", "fl-w1", "down"}).ok());
  const bool moved = eventually(60s, [] {
    const auto a = announcer();
    return !a.empty() && a != "worker-1";
  });
  ASSERT_TRUE(run({"ip", "link", "set", "fl-w1", "up"}).ok());
  EXPECT_TRUE(moved) << announcer();
  EXPECT_TRUE(eventually(60s, [] { return announcer() == "worker-1"; })) << announcer();
}

TEST_F(LoadBalancer, ADrainedNodeHandsOverFirst) {
  ASSERT_TRUE(eventually(60s, [] { return announcer() == "worker-1"; }));
  BackgroundClient client("", url(), {"--interval", "20", "--timeout", "5000"});
  ASSERT_TRUE(kubectl({"cordon", "worker-1"}).ok());
  EXPECT_TRUE(eventually(60s, [] {
    const auto a = announcer();
    return !a.empty() && a != "worker-1";
  })) << announcer();
  const auto t = client.stop();
  ASSERT_TRUE(kubectl({"uncordon", "worker-1"}).ok());
  EXPECT_EQ(t.failed, 0) << "nothing is lost when it is moved on purpose: " << t;
}

TEST_F(LoadBalancer, ZADeletedServiceGivesItsAddressBack) {
  const auto ip = address();
  ASSERT_TRUE(kubectl({"delete", "service", "lbweb"}).ok());
  EXPECT_TRUE(eventually(30s, [&] { return told().find("default/lbweb") == std::string::npos; })) << told();
  ASSERT_TRUE(kubectl({"create", "service", "loadbalancer", "lbweb", "--tcp=80:8080"}).ok());
  EXPECT_TRUE(eventually(30s, [&] { return address() == ip; })) << "the lowest free address: " << address();
}

}  // namespace
}  // namespace fairlead::e2e
