// Life with other plugins: addresses from static and dhcp, addresses for bridge, links of chains, and every error code. The
// other plugins are the reference ones (Debian package containernetworking-plugins).
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/json/serialize.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "cni/nat/nat.h"
#include "netlink/rt_socket.h"
#include "netlink/sysctl.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;
using namespace std::chrono_literals;

constexpr const char* kReference = "/usr/lib/cni";

class Neighbours : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(std::filesystem::exists(std::string(kReference) + "/bridge")) << "install containernetworking-plugins (scripts/deps test)";
    host_.emplace(std::move(*NetNs::create()));
    rt_.emplace(std::move(*RtSocket::open_in(host_->fd())));
    ASSERT_TRUE(rt_->add_address({.link = rt_->link("lo")->index, .ip = *InterfaceAddress::parse("192.0.2.1/32")}));
    folder_ = fmt::format("/run/fairlead-neighbours-{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  PluginCall call(const std::string& id, const NetNs* pod, std::string conf) const {
    return {.host_fd = host_->fd(), .id = id, .netns = pod ? path_of(*pod) : "", .conf = std::move(conf), .path = std::string(kReference)};
  }
  // A program in the host's namespace, with a configuration on stdin.
  Outcome program(const std::string& path, const std::string& verb, const std::string& id, const NetNs& pod, const std::string& conf) const {
    const Fd in(::memfd_create("in", MFD_CLOEXEC)), out(::memfd_create("out", MFD_CLOEXEC));
    EXPECT_EQ(::pwrite(in.get(), conf.data(), conf.size(), 0), static_cast<ssize_t>(conf.size()));
    const std::string netns = path_of(pod), plugins = std::string(std::getenv("FAIRLEAD_BIN") ? std::getenv("FAIRLEAD_BIN") : "") + ":" + kReference;
    const pid_t child = ::fork();
    if (child == 0) {
      ::setns(host_->fd(), CLONE_NEWNET);
      ::dup2(in.get(), 0);
      ::dup2(out.get(), 1);
      for (const auto& [k, v] : std::map<std::string, std::string>{{"CNI_COMMAND", verb}, {"CNI_CONTAINERID", id}, {"CNI_NETNS", netns}, {"CNI_IFNAME", "eth0"}, {"CNI_PATH", plugins}})
        ::setenv(k.c_str(), v.c_str(), 1);
      ::execl(path.c_str(), path.c_str(), nullptr);
      ::_exit(127);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    Outcome o{.out = std::string(1 << 16, '\0'), .exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1};
    const ssize_t n = ::pread(out.get(), o.out.data(), o.out.size(), 0);
    o.out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return o;
  }
  static std::string with(std::string conf, const std::string& more) {
    conf.pop_back();
    return conf + "," + more + "}";
  }
  std::optional<NetNs> host_;
  std::optional<RtSocket> rt_;
  std::string folder_;
};

TEST_F(Neighbours, AddressesFromStatic) {
  for (const char* wiring : {"routed", "bridge"}) {
    const NetNs a = *NetNs::create();
    const std::string conf = fmt::format(R"({{"cniVersion":"1.0.0","name":"st","type":"fairlead-cni","wiring":"{}","dataDir":"{}","ipMasq":true,"ipam":{{"type":"static",
      "addresses":[{{"address":"10.60.0.5/24","gateway":"10.60.0.1"}},{{"address":"fd60::5/64","gateway":"fd60::1"}}],"routes":[{{"dst":"10.99.0.0/16"}}],"dns":{{"nameservers":["10.60.0.53"]}}}}}})", wiring, folder_);
    const Outcome o = call("a", &a, conf).run("ADD");
    ASSERT_EQ(o.exit_code, 0) << o.out;
    const Attachment got = attachment_of(o.out);
    ASSERT_EQ(got.ips.size(), 2u);
    EXPECT_EQ(got.dns.nameservers, std::vector<std::string>{"10.60.0.53"});
    for (const auto& ip : got.ips) EXPECT_TRUE(IpAddress::parse(exchange(*host_, a, ip.address.address))) << wiring;
    const auto routes = RtSocket::open_in(a.fd())->routes({.family = Family::v4});
    EXPECT_TRUE(std::any_of(routes->begin(), routes->end(), [](const auto& r) { return r.destination.to_string() == "10.99.0.0/16"; }));
    EXPECT_EQ(call("a", &a, with(conf, "\"prevResult\":" + o.out)).run("CHECK").exit_code, 0) << call("a", &a, with(conf, "\"prevResult\":" + o.out)).run("CHECK").out;
    EXPECT_EQ(call("a", &a, conf).run("DEL").exit_code, 0);
    EXPECT_EQ(leftovers(*host_, folder_, "st", "/nowhere"), "");
  }
}

// A DHCP server of one address, on a bridge. RFC 2131.
class DhcpServer {
 public:
  DhcpServer(const NetNs& ns, const std::string& link) {
    EXPECT_TRUE(netlink::run_in_netns(ns.fd(), [&] {
      socket_ = Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const int on = 1;
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_NO_CHECK, &on, sizeof on);  // the client reads frames, before checksums are filled in
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_BINDTODEVICE, link.c_str(), static_cast<socklen_t>(link.size()));
      const timeval wait{.tv_sec = 0, .tv_usec = 50'000};
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
      sockaddr_in a{};
      a.sin_family = AF_INET;
      a.sin_port = htons(67);
      EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0) << std::strerror(errno);
    }));
    thread_ = std::thread([this] { serve(); });
  }
  ~DhcpServer() {
    stop_ = true;
    thread_.join();
  }
  std::atomic<int> released{0};

 private:
  static int type_of(const unsigned char* p, std::size_t n) {
    for (std::size_t i = 240; i + 1 < n && p[i] != 255; i += p[i] == 0 ? 1 : 2 + p[i + 1])
      if (p[i] == 53 && i + 2 < n) return p[i + 2];
    return 0;
  }
  void serve() {
    while (!stop_) {
      unsigned char p[1500];
      const ssize_t n = ::recv(socket_.get(), p, sizeof p, 0);
      if (n < 240 || p[0] != 1) continue;
      const int type = type_of(p, static_cast<std::size_t>(n));
      if (type == 7) ++released;
      if (type != 1 && type != 3) continue;
      unsigned char r[300] = {2};
      std::memcpy(r + 1, p + 1, 2);
      std::memcpy(r + 4, p + 4, 4);                    // transaction
      r[10] = 0x80;                                    // broadcast
      const unsigned char mine[4] = {10, 50, 0, 77}, server[4] = {10, 50, 0, 1};
      std::memcpy(r + 16, mine, 4);
      std::memcpy(r + 20, server, 4);
      std::memcpy(r + 28, p + 28, 16);                 // hardware address
      const unsigned char options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, static_cast<unsigned char>(type == 1 ? 2 : 5), 54, 4, 10, 50, 0, 1, 51, 4, 0, 0, 14, 16,
                                       1, 4, 255, 255, 255, 0, 3, 4, 10, 50, 0, 1, 255};
      std::memcpy(r + 236, options, sizeof options);
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_port = htons(68);
      to.sin_addr.s_addr = INADDR_BROADCAST;
      ::sendto(socket_.get(), r, sizeof r, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
    }
  }
  Fd socket_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_F(Neighbours, AddressesFromDhcp) {
  ASSERT_TRUE(rt_->create_link({.name = "br-dhcp", .kind = netlink::BridgeKind{}, .up = true}));
  ASSERT_TRUE(rt_->add_address({.link = rt_->link("br-dhcp")->index, .ip = *InterfaceAddress::parse("10.50.0.1/24")}));
  DhcpServer server(*host_, "br-dhcp");
  const std::string socket = folder_ + "/dhcp.sock", daemon_program = std::string(kReference) + "/dhcp";
  const pid_t daemon = ::fork();
  if (daemon == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(::open("/dev/null", O_WRONLY), 2);
    ::execl(daemon_program.c_str(), "dhcp", "daemon", "-socketpath", socket.c_str(), nullptr);
    ::_exit(127);
  }
  for (int i = 0; i < 500 && !std::filesystem::exists(socket); ++i) std::this_thread::sleep_for(20ms);
  const NetNs a = *NetNs::create();
  const std::string conf = fmt::format(R"({{"cniVersion":"1.0.0","name":"lan","type":"fairlead-cni","wiring":"bridge","bridge":"br-dhcp","isGateway":false,"dataDir":"{0}",
    "ipam":{{"type":"dhcp","daemonSocketPath":"{1}"}}}})", folder_, socket);
  const Outcome o = call("a", &a, conf).run("ADD");
  EXPECT_EQ(o.exit_code, 0) << o.out;
  if (o.exit_code == 0) {
    const Attachment got = attachment_of(o.out);
    EXPECT_EQ(got.ips.at(0).address.to_string(), "10.50.0.77/24");
    EXPECT_EQ(exchange(*host_, a, got.ips.at(0).address.address), "10.50.0.1");
    EXPECT_EQ(call("a", &a, conf).run("DEL").exit_code, 0);
    for (int i = 0; i < 500 && server.released == 0; ++i) std::this_thread::sleep_for(20ms);
    EXPECT_GT(server.released, 0) << "it said good-bye over the link";
    EXPECT_FALSE(*RtSocket::open_in(a.fd())->find_link("eth0"));
  }
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
}

TEST_F(Neighbours, AnIpamPluginThatFailsLeavesNothing) {
  const auto script = [&](const std::string& text) {
    std::filesystem::create_directories(folder_ + "/bin");
    std::ofstream(folder_ + "/bin/odd") << "#!/bin/sh\ncat > /dev/null\n" << text;
    ::chmod((folder_ + "/bin/odd").c_str(), 0755);
  };
  const std::string conf = fmt::format(R"({{"cniVersion":"1.0.0","name":"odd","type":"fairlead-cni","dataDir":"{}","ipam":{{"type":"odd"}}}})", folder_);
  struct Row {
    const char* text;
    const char* says;
  };
  for (const Row& r : {Row{"echo rubbish", "\"code\":104"}, Row{"echo '{\"cniVersion\":\"1.0.0\"}'", "assigned no address"}, Row{"echo '{\"code\":11,\"msg\":\"busy\"}'; exit 1", "\"code\":11"},
                       Row{"kill -9 $$", "signal 9"}, Row{"echo '{\"ips\":[{\"address\":\"nonsense\"}]}'", "nonsense"}}) {
    script(r.text);
    const NetNs a = *NetNs::create();
    PluginCall c = call("a", &a, conf);
    c.path = folder_ + "/bin";
    const Outcome o = c.run("ADD");
    EXPECT_EQ(o.exit_code, 1) << r.text;
    EXPECT_NE(o.out.find(r.says), std::string::npos) << o.out;
    EXPECT_EQ(leftovers(*host_, folder_, "odd", "/nowhere"), "") << r.text;
    EXPECT_FALSE(*RtSocket::open_in(a.fd())->find_link("eth0"));
  }
}

// The reference bridge with our addresses, as programs.
TEST_F(Neighbours, AddressesForBridge) {
  ASSERT_NE(std::getenv("FAIRLEAD_BIN"), nullptr);
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  const std::string conf = fmt::format(R"({{"cniVersion":"1.0.0","name":"mixed","type":"bridge","bridge":"cni0","isGateway":true,
    "ipam":{{"type":"fairlead-cni","ranges":[[{{"subnet":"10.70.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}],"dataDir":"{}"}}}})", folder_);
  const std::string bridge = std::string(kReference) + "/bridge";
  const Outcome one = program(bridge, "ADD", "a", a, conf), two = program(bridge, "ADD", "b", b, conf);
  ASSERT_EQ(one.exit_code, 0) << one.out;
  ASSERT_EQ(two.exit_code, 0) << two.out;
  const IpAddress ip = attachment_of(one.out).ips.at(0).address.address;
  EXPECT_EQ(exchange(b, a, ip), attachment_of(two.out).ips.at(0).address.address.to_string());
  const Outcome checked = program(bridge, "CHECK", "a", a, with(conf, "\"prevResult\":" + one.out));
  EXPECT_EQ(checked.exit_code, 0) << checked.out;
  EXPECT_EQ(program(bridge, "DEL", "a", a, conf).exit_code, 0);
  EXPECT_EQ(program(bridge, "DEL", "b", b, conf).exit_code, 0);
  EXPECT_EQ(leftovers(*host_, folder_, "mixed", "/nowhere"), "");
}

// Before and behind others in a chain, in each version that they speak too.
TEST_F(Neighbours, InAChain) {
  for (const char* version : {"0.3.1", "0.4.0", "1.0.0"}) {
    const NetNs a = *NetNs::create();
    const auto conf = [&](const std::string& rest) { return fmt::format(R"({{"cniVersion":"{}","name":"chain",{}}})", version, rest); };
    const std::string own = conf(fmt::format(R"("type":"fairlead-cni","ipam":{{"ranges":[[{{"subnet":"10.80.0.0/24"}}]],"dataDir":"{}"}})", folder_));
    const Outcome first = call("a", &a, own).run("ADD");
    ASSERT_EQ(first.exit_code, 0) << first.out;
    const std::string tuning = conf(R"("type":"tuning","sysctl":{"net.core.somaxconn":"555"},"prevResult":)" + first.out);
    const Outcome second = program(std::string(kReference) + "/tuning", "ADD", "a", a, tuning);
    ASSERT_EQ(second.exit_code, 0) << second.out;
    EXPECT_EQ(attachment_of(second.out), attachment_of(first.out)) << "the next one passes our result on";
    EXPECT_EQ(netlink::in_netns(a.fd(), [] { return netlink::read_sysctl("net/core/somaxconn"); }), "555");
    if (std::string(version) != "0.3.1") { EXPECT_EQ(call("a", &a, with(own, "\"prevResult\":" + second.out)).run("CHECK").exit_code, 0); }
    EXPECT_EQ(call("a", &a, with(own, "\"prevResult\":" + second.out)).run("DEL").exit_code, 0);
    // Behind another one: its result stays, ours comes after it, and indexes count on.
    const std::string before = R"("prevResult":{"cniVersion":")" + std::string(version) + R"(","interfaces":[{"name":"net0","sandbox":"/x"}],"ips":[{"version":"4","address":"10.81.0.9/24","interface":0}],"dns":{}})";
    const Outcome behind = call("a", &a, with(own, before)).run("ADD");
    ASSERT_EQ(behind.exit_code, 0) << behind.out;
    const Attachment both = attachment_of(behind.out);
    ASSERT_EQ(both.ips.size(), 2u);
    EXPECT_EQ(both.ips[0].address.to_string(), "10.81.0.9/24");
    EXPECT_EQ(both.interfaces.at(*both.ips[1].interface).name, "eth0");
    EXPECT_EQ(call("a", &a, own).run("DEL").exit_code, 0);
  }
}

// The real kernel up to the step that needs nftables.
class WithoutNftables final : public Kernel {
 public:
  explicit WithoutNftables(std::unique_ptr<Kernel> inner) : inner_(std::move(inner)) {}
  CniResult<> apply(const Step& s) override {
    if (!std::holds_alternative<AddNat>(s)) return inner_->apply(s);
    return Nat(std::make_unique<Refusing>()).add(std::get<AddNat>(s).nat);
  }
  CniResult<> undo(const Step& s) override { return inner_->undo(s); }
  CniResult<> settle() override { return inner_->settle(); }
  CniResult<Observed> observe(const std::string& a, const std::string& b) override { return inner_->observe(a, b); }
  CniResult<bool> nat_present(const PodNat& n) override { return inner_->nat_present(n); }
  CniResult<std::vector<netlink::Link>> host_links() override { return inner_->host_links(); }
  CniResult<> set_loopback(bool up) override { return inner_->set_loopback(up); }
  CniResult<bool> loopback_up() override { return inner_->loopback_up(); }

 private:
  struct Refusing final : nftables::Kernel {
    static tl::unexpected<Error> no() { return fail_errno(EOPNOTSUPP, "nf_tables"); }
    Result<nftables::CommitReport> commit(const nftables::Batch&) override { return no(); }
    Result<std::optional<nftables::Table>> list(Family, std::string_view) override { return no(); }
    Result<std::vector<nftables::CountedElement>> elements(Family, std::string_view, const nftables::Set&) override { return no(); }
    Result<std::optional<nftables::Element>> find(Family, std::string_view, const nftables::Set&, const nftables::Element&) override { return no(); }
    Result<std::uint32_t> generation() override { return no(); }
    Result<> watch(std::string, std::function<void()>) override { return no(); }
  };
  std::unique_ptr<Kernel> inner_;
};

CniResult<std::unique_ptr<Kernel>> without_nftables(const std::string& netns) {
  auto inner = open_kernel(netns);
  if (!inner) return cni_fail(inner.error());
  return std::make_unique<WithoutNftables>(std::move(*inner));
}

// Each code by the mistake that makes it, and nothing is left of any.
TEST_F(Neighbours, EveryErrorCode) {
  const std::string ipam = fmt::format(R"("ipam":{{"ranges":[[{{"subnet":"10.90.0.0/30"}}]],"dataDir":"{}"}})", folder_);
  const auto conf = [&](const std::string& more, const char* version = "1.1.0") { return fmt::format(R"({{"cniVersion":"{}","name":"codes","type":"fairlead-cni",{}{}}})", version, ipam, more.empty() ? "" : "," + more); };
  const NetNs holder = *NetNs::create(), pod = *NetNs::create();
  const std::string port = R"("runtimeConfig":{"portMappings":[{"hostPort":99,"containerPort":99}]})";
  ASSERT_EQ(call("holder", &holder, conf(port)).run("ADD").exit_code, 0);
  const std::string before = leftovers(*host_, folder_, "codes", "/nowhere");
  const std::string roomy = fmt::format(R"({{"cniVersion":"1.1.0","name":"codes","type":"fairlead-cni","ipam":{{"ranges":[[{{"subnet":"10.91.0.0/24"}}]],"dataDir":"{}"}})", folder_);
  const std::string free_port = R"("runtimeConfig":{"portMappings":[{"hostPort":98,"containerPort":98}]})";
  std::filesystem::create_directories(folder_ + "/bin");
  std::ofstream(folder_ + "/bin/odd") << "#!/bin/sh\ncat > /dev/null\necho rubbish\n";
  ::chmod((folder_ + "/bin/odd").c_str(), 0755);
  struct Row {
    int code;
    std::string verb, conf, ifname, netns, says;
  };
  const std::string ns = path_of(pod);
  for (const Row& r : {
           Row{1, "ADD", conf("", "0.2.0"), "eth0", ns, "0.2.0"},
           Row{1, "CHECK", conf("", "0.3.1"), "eth0", ns, "CHECK needs cniVersion"},
           Row{2, "ADD", conf(R"("disableContainerInterface":true)"), "eth0", ns, "disableContainerInterface"},
           Row{3, "ADD", roomy + "}", "eth0", "/run/no-such-namespace", "CNI_NETNS"},
           Row{4, "ADD", roomy + "}", "", ns, "CNI_IFNAME"},
           Row{4, "ADD", roomy + "}", "a/b", ns, "CNI_IFNAME"},
           Row{5, "ADD", fmt::format(R"({{"cniVersion":"1.1.0","name":"codes","type":"fairlead-cni","ipam":{{"ranges":[[{{"subnet":"10.91.0.0/24"}}]],"dataDir":"{}","resolvConf":"/no/such/file"}}}})", folder_), "eth0", ns, "/no/such/file"},
           Row{6, "ADD", "{", "eth0", ns, "not JSON"},
           Row{7, "ADD", conf(R"("wiring":"wireless")"), "eth0", ns, "wiring"},
           Row{50, "STATUS", conf(""), "", "", "no free address"},
           Row{100, "ADD", roomy + R"(,"sysctl":{"net.ipv4.conf.all.rp_filter":"rubbish"}})", "eth0", ns, "rp_filter"},
           Row{101, "ADD", conf(""), "eth0", path_of(holder), "holder"},
           Row{102, "ADD", conf(""), "eth0", ns, "no free address"},
           Row{103, "CHECK", roomy + R"(,"prevResult":{"interfaces":[],"ips":[]}})", "eth0", ns, "leases"},
           Row{104, "ADD", fmt::format(R"({{"cniVersion":"1.1.0","name":"codes","type":"fairlead-cni","dataDir":"{}","ipam":{{"type":"odd"}}}})", folder_), "eth0", ns, "odd"},
           Row{105, "ADD", roomy + "," + free_port + "}", "eth0", ns, "nftables"},
           Row{106, "ADD", roomy + "," + port + "}", "eth0", ns, "host port"},
           Row{999, "ADD", roomy + "}", "eth0", ns, "out of ideas"},
       }) {
    PluginCall c = call(r.code == 101 ? "holder" : "pod", nullptr, r.conf);
    if (r.code == 104) c.path = folder_ + "/bin";
    // What this machine cannot be made to do: a kernel without a feature, a mistake of our own.
    if (r.code == 105) c.services.open_kernel = [](const std::string& netns) { return without_nftables(netns); };
    if (r.code == 999) c.services.open_kernel = [](const std::string&) -> CniResult<std::unique_ptr<Kernel>> { throw std::runtime_error("out of ideas"); };
    c.ifname = r.ifname;
    c.netns = r.netns;
    const Outcome o = c.run(r.verb);
    EXPECT_EQ(o.exit_code, 1) << r.code;
    const auto doc = parse_json(o.out);
    ASSERT_TRUE(doc) << o.out;
    EXPECT_EQ(doc->at("code").to_number<int>(), r.code) << o.out;
    EXPECT_NE(o.out.find(r.says), std::string::npos) << o.out;
    EXPECT_TRUE(find_version(std::string(doc->at("cniVersion").as_string()))) << o.out;
    EXPECT_EQ(leftovers(*host_, folder_, "codes", "/nowhere"), before) << r.code << ": something is left";
    EXPECT_FALSE(*RtSocket::open_in(pod.fd())->find_link("eth0")) << r.code;
  }
  EXPECT_EQ(call("holder", &holder, conf("")).run("DEL").exit_code, 0);
  const Outcome resting = call("pod", &pod, conf("")).run("ADD");
  EXPECT_NE(resting.out.find("\"code\":11,"), std::string::npos) << resting.out;
}

}  // namespace
}  // namespace fairlead::cni
