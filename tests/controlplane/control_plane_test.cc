// Two `fairlead control-plane`s on one store, ours and Debian's etcd: both serve the API, one of them at a time schedules and
// controls. The one that does is killed, and the other takes over: nothing is done twice, and nothing stays undone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/pki.h"
#include "kube/kubeconfig.h"
#include "tests/base/asio_test_util.h"
#include "tests/controlplane/apiserver/shared_store.h"

namespace fairlead::apiserver {
namespace {

using ::testing::HasSubstr;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kPods = 4, kMorePods = 7;

class ControlPlanes : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !etcd::RealEtcd::available()) GTEST_SKIP() << "etcd-server is not installed";
    const auto day = std::chrono::hours(24);
    const auto ca = pki::make_ca("test-ca", day).value();
    const auto pair = pki::make_server(ca, {"kube-apiserver", {}}, {{"localhost"}, {IpAddress::v4(127, 0, 0, 1)}}, day).value();
    ca_ = ca.certificate_pem;
    write("ca.crt", ca_);
    write("server.crt", pair.certificate_pem);
    write("server.key", pair.key_pem);
    write("tokens.csv",
          "test-token,admin,1,\"system:masters\"\nmanager-token,system:kube-controller-manager,2,\nscheduler-token,system:kube-scheduler,3,\n");
    store_ = std::make_unique<SharedStore>(GetParam());
  }
  void TearDown() override {
    for (auto& c : clients_) c.reset();
    loop_.idle(milliseconds(10));
    for (auto& s : servers_) s.reset();
    store_.reset();
  }
  std::string write(const std::string& name, const std::string& text) {
    EXPECT_TRUE(write_file_atomic(dir_.path() + "/" + name, text, 0600));
    return dir_.path() + "/" + name;
  }
  std::string kubeconfig(int i, int port, const std::string& who) {
    kube::RestConfig c;
    c.server = fmt::format("https://127.0.0.1:{}", port);
    c.ca_pem = ca_;
    c.token = who + "-token";
    return write(fmt::format("{}{}.kubeconfig", who, i), kube::write_kubeconfig(c, "test", who));
  }
  void start(int i) {
    const int port = 30'100 + (::getpid() * 7 + i) % 2'000;
    servers_[i].emplace(dir_.path(), store_->url(), i + 1,
                        std::vector<std::string>{"--controller-manager-kubeconfig", kubeconfig(i, port, "manager"), "--scheduler-kubeconfig",
                                                 kubeconfig(i, port, "scheduler"), "--root-ca-file", dir_.path() + "/ca.crt"},
                        "control-plane", std::to_string(port));
    clients_[i] = servers_[i]->client(loop_.executor(), ca_);
  }
  Answer ask(int server, std::string method, std::string target, std::string body = {}) {
    Answer out;
    auto r = request(std::move(method), std::move(target), std::move(body));
    loop_.run([&]() -> Task<> { out = co_await send(clients_[server], std::move(r)); }, seconds(90));
    return out;
  }
  std::string log(int i) { return read_file(fmt::format("{}/server{}.log", dir_.path(), i + 1)).value_or(""); }
  int leads(int i, const std::string& lease) {
    int n = 0;
    const auto text = log(i), line = "leads kube-system/" + lease + " as";
    for (auto at = text.find(line); at != std::string::npos; at = text.find(line, at + 1)) ++n;
    return n;
  }
  std::string holder(int server, const std::string& lease) {
    return ask(server, "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/" + lease).at("/spec/holderIdentity");
  }
  // Names of the pods, each with its node.
  std::set<std::string> pods(int server) {
    const auto list = ask(server, "GET", "/api/v1/namespaces/default/pods");
    std::set<std::string> out;
    const auto v = json::parse(list.body);
    for (const auto& p : v.at("items").as_array()) {
      const auto& spec = p.at("spec").as_object();
      const auto* node = spec.if_contains("nodeName");
      out.insert(std::string(p.at("metadata").at("name").as_string()) + " on " + (node ? std::string(node->as_string()) : "nothing"));
    }
    return out;
  }
  // Until it holds; `never` is asked all the time.
  void wait(const std::string& what, const std::function<bool()>& holds) {
    const auto until = std::chrono::steady_clock::now() + seconds(120);
    while (!holds()) {
      if (std::chrono::steady_clock::now() > until) FAIL() << what << "\n" << log(0) << log(1);
      loop_.idle(milliseconds(100));
    }
  }
  // A node that takes pods, as an agent would report it.
  void make_node(int server) {
    const std::string node =
        "{'metadata':{'name':'n1'},'status':{'capacity':{'cpu':'8','memory':'16Gi','pods':'110'},'allocatable':{'cpu':'8','memory':'16Gi','pods':'110'},"
        "'conditions':[{'type':'Ready','status':'True','lastHeartbeatTime':'2100-01-01T00:00:00Z','lastTransitionTime':'2026-01-01T00:00:00Z'}]}}";
    ASSERT_EQ(ask(server, "POST", "/api/v1/nodes", node).status, 201u);
    beat(server);
  }
  // Its heartbeat, so that nobody takes it for lost.
  void beat(int server) {
    const std::string status = "{'status':{'conditions':[{'type':'Ready','status':'True','reason':'Test'}]}}";
    auto r = request("PATCH", "/api/v1/nodes/n1/status", status);
    r.headers.set("Content-Type", "application/strategic-merge-patch+json");
    loop_.run([&]() -> Task<> { (void)co_await send(clients_[server], std::move(r)); }, seconds(90));
  }
  static std::string deployment(int replicas) {
    return fmt::format(
        "{{'metadata':{{'name':'web'}},'spec':{{'replicas':{},'selector':{{'matchLabels':{{'app':'web'}}}},'template':{{'metadata':{{'labels':{{'app':'web'}}}},"
        "'spec':{{'containers':[{{'name':'c','image':'i'}}]}}}}}}}}",
        replicas);
  }
  bool all_placed(int server, std::size_t n) {
    const auto now = pods(server);
    EXPECT_LE(now.size(), n) << "more pods than asked for: two controllers at work";
    return now.size() == n && std::none_of(now.begin(), now.end(), [](const auto& p) { return p.ends_with("nothing"); });
  }

  etcd::TempDir dir_;
  std::string ca_;
  std::unique_ptr<SharedStore> store_;
  fairlead::test::Loop loop_;
  std::optional<ServerProcess> servers_[2];
  std::shared_ptr<http::Client> clients_[2];
};

TEST_P(ControlPlanes, OneWorksAndTheOtherTakesOver) {
  start(0);
  const char* const leases[] = {"kube-controller-manager", "kube-scheduler"};
  for (const auto* lease : leases) wait(std::string("the first leads ") + lease, [&] { return leads(0, lease) == 1; });
  start(1);
  make_node(1);
  ASSERT_EQ(ask(1, "POST", "/apis/apps/v1/namespaces/default/deployments", deployment(kPods)).status, 201u);
  wait("pods through the other server", [&] { return all_placed(1, kPods); });
  for (const auto* lease : leases) {
    EXPECT_EQ(leads(1, lease), 0) << lease << " has one leader";
    EXPECT_EQ(holder(0, lease), holder(1, lease));
    EXPECT_NE(holder(1, lease), "");
  }
  const auto before = pods(1);
  const std::string old[] = {holder(1, leases[0]), holder(1, leases[1])};
  clients_[0].reset();
  servers_[0]->kill(SIGKILL);
  beat(1);
  auto current = ask(1, "GET", "/apis/apps/v1/namespaces/default/deployments/web").body;
  const std::string three = "\"replicas\":" + std::to_string(kPods);
  current.replace(current.find(three), three.size(), "\"replicas\":" + std::to_string(kMorePods));
  ASSERT_EQ(ask(1, "PUT", "/apis/apps/v1/namespaces/default/deployments/web", current).status, 200u);
  wait("the other takes over and goes on", [&] {
    beat(1);
    return all_placed(1, kMorePods);
  });
  const auto after = pods(1);
  EXPECT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end())) << "what was there stayed";
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(leads(1, leases[i]), 1) << leases[i];
    EXPECT_NE(holder(1, leases[i]), old[i]);
  }
  // The first comes back as a candidate; an orderly end of the leader gives the Leases to it without waiting for them to expire.
  start(0);
  clients_[1].reset();
  servers_[1]->kill(SIGTERM);
  for (const auto* lease : leases) wait(std::string("the first leads again ") + lease, [&] { return leads(0, lease) == 1; });
}

INSTANTIATE_TEST_SUITE_P(OnOurs, ControlPlanes, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDebiansEtcd, ControlPlanes, ::testing::Values(true));

}  // namespace
}  // namespace fairlead::apiserver
