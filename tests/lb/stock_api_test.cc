// The programs as they run on a stock cluster: `fairlead lb controller` and `fairlead lb speaker` find an API over HTTPS with a
// CA and a bearer token, a Service gets an address, and the kernel of another machine on the LAN resolves it.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <thread>

#include "base/fd.h"
#include "base/files.h"
#include "base/process.h"
#include "kube/kubeconfig.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "tests/controlplane/apiserver/test_server.h"

namespace fairlead::lb {
namespace {

using apiserver::test::TestServer;
using netlink::in_netns;
using netlink::NetNs;
using netlink::RtSocket;
using namespace std::chrono_literals;

bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(20ms);
  }
  return true;
}

std::string fairlead() {
  const char* folder = ::getenv("FAIRLEAD_BIN");
  return std::string(folder ? folder : "build/release/bin") + "/fairlead";
}

// A machine that is the node, with the API on its loopback, and another machine on its LAN. This process is in the node's namespace.
class StockApi : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "needs root";  // before there are threads: all of the process moves
    auto rt = *RtSocket::open();
    ASSERT_TRUE(rt.set_up("lo"));
    other_.emplace(*NetNs::create());
    ASSERT_TRUE(rt.create_link({.name = "eth0", .kind = netlink::VethKind{.peer_name = "eth0", .peer_netns_fd = other_->fd()}, .up = true}));
    ASSERT_TRUE(rt.add_address({.link = rt.link("eth0")->index, .ip = *InterfaceAddress::parse("192.0.2.1/24")}));
    auto there = *RtSocket::open_in(other_->fd());
    ASSERT_TRUE(there.set_up("eth0"));
    ASSERT_TRUE(there.add_address({.link = there.link("eth0")->index, .ip = *InterfaceAddress::parse("192.0.2.9/24")}));
    server_ = std::make_unique<TestServer>();
    dir_ = server_->dir() + "/lb";
    ASSERT_TRUE(make_dirs(dir_));
    ASSERT_TRUE(write_file_atomic(dir_ + "/pools.yaml",
                                  "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: lan}\n"
                                  "spec: {addresses: [192.0.2.200-192.0.2.210]}\n---\n"
                                  "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: lan}\nspec: {}\n"));
  }
  void TearDown() override {
    for (auto& p : programs_) {
      (void)p.kill(SIGTERM);
      (void)p.wait();
    }
    if (HasFailure()) std::cerr << read_file(server_->dir() + "/log").value_or("");
    server_.reset();
  }

  std::string config(const std::string& token) {
    kube::RestConfig c;
    c.server = server_->url();
    c.ca_pem = server_->ca().certificate_pem;
    c.token = token;
    const auto path = server_->dir() + "/" + token + ".kubeconfig";
    EXPECT_TRUE(write_file_atomic(path, kube::write_kubeconfig(c, "stock", "lb"), 0600));
    return path;
  }
  void start(std::vector<std::string> argv) {
    argv.insert(argv.begin(), fairlead());
    ProcessOptions o;
    o.argv = std::move(argv);
    o.stdout_file = o.stderr_file = server_->dir() + "/log";
    auto p = Process::start(o);
    ASSERT_TRUE(p) << p.error().message;
    programs_.push_back(std::move(*p));
  }
  std::string kubectl(const std::string& args, const std::string& input = {}) {
    const auto r = apiserver::test::run_shell(server_->kubeconfig(), "kubectl " + args, input);
    EXPECT_EQ(r.exit_code, 0) << args << "\n" << r.all();
    return r.out;
  }
  // A datagram to the address makes the other machine's kernel ask for it.
  bool resolves(const std::string& address) {
    const auto sent = in_netns(other_->fd(), [&]() -> Result<> {
      const Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(9)};
      const auto bytes = IpAddress::parse(address)->bytes();
      std::copy(bytes.begin(), bytes.end(), reinterpret_cast<std::uint8_t*>(&to.sin_addr));
      ::sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
      return {};
    });
    auto there = RtSocket::open_in(other_->fd());
    if (!sent || !there) return false;
    const auto all = there->neighbours();
    if (!all) return false;
    for (const auto& n : *all)
      if (n.ip == *IpAddress::parse(address) && n.mac && !(n.state & NUD_FAILED)) return true;
    return false;
  }

  std::optional<NetNs> other_;
  std::unique_ptr<TestServer> server_;
  std::string dir_;
  std::vector<Process> programs_;
};

TEST_F(StockApi, AddressesAreGivenAndAnnounced) {
  const auto good = config("test-token");
  kubectl("apply -f -", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.1}]}\n");
  kubectl("create service loadbalancer web --tcp=80:8080");
  kubectl("apply -f -", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\n"
                        "addressType: IPv4\nports: [{name: 80-8080, port: 8080, protocol: TCP}]\n"
                        "endpoints: [{addresses: [10.0.0.1], nodeName: n1, conditions: {ready: true}}]\n");
  start({"lb", "controller", "--kubeconfig", good, "--pools", dir_, "--metrics-address", ""});
  std::string address;
  EXPECT_TRUE(eventually([&] {
    address = apiserver::test::run_shell(server_->kubeconfig(), "kubectl get svc web -o jsonpath='{.status.loadBalancer.ingress[0].ip}'").out;
    return !address.empty();
  }));
  ASSERT_EQ(address.rfind("192.0.2.2", 0), 0u) << address;
  EXPECT_FALSE(resolves(address)) << "nobody announces it yet";
  start({"lb", "speaker", "--kubeconfig", good, "--pools", dir_, "--node-name", "n1", "--metrics-address", ""});
  EXPECT_TRUE(eventually([&] { return resolves(address); })) << kubectl("describe svc web");
}

TEST_F(StockApi, AWrongTokenIsSaidAndNothingIsGiven) {
  kubectl("create service loadbalancer web --tcp=80:8080");
  start({"lb", "controller", "--kubeconfig", config("wrong-token"), "--pools", dir_, "--metrics-address", ""});
  EXPECT_TRUE(eventually([&] { return read_file(server_->dir() + "/log").value_or("").find("Unauthorized") != std::string::npos; }))
      << read_file(server_->dir() + "/log").value_or("");
  EXPECT_EQ(kubectl("get svc web -o jsonpath='{.status.loadBalancer.ingress}'"), "");
}

}  // namespace
}  // namespace fairlead::lb
