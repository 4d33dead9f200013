// GC, STATUS, VERSION, the loopback and IPAM roles, bandwidth, and orphans, against the kernel.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/fd.h"
#include "cni/gc.h"
#include "netlink/neighbour.h"
#include "netlink/rt_socket.h"
#include "netlink/socket.h"
#include "netlink/sysctl.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

class Verbs : public testing::Test {
 protected:
  void SetUp() override {
    host_.emplace(std::move(*NetNs::create()));
    rt_.emplace(std::move(*RtSocket::open_in(host_->fd())));
    ASSERT_TRUE(rt_->add_address({.link = rt_->link("lo")->index, .ip = *InterfaceAddress::parse("192.0.2.1/32")}));
    folder_ = fmt::format("/run/fairlead-verbs-{}", getpid());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string conf(const std::string& more = "", const std::string& subnet = "10.244.1.0/24") const {
    return fmt::format(R"({{"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni","ipam":{{"ranges":[[{{"subnet":"{}"}}]],"dataDir":"{}"}}{}}})", subnet, folder_, more.empty() ? "" : "," + more);
  }
  PluginCall call(const std::string& id, const NetNs* pod, std::string text) const {
    return {.host_fd = host_->fd(), .id = id, .netns = pod ? path_of(*pod) : "", .conf = std::move(text)};
  }
  std::size_t used() {
    std::size_t n = 0;
    EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] {
      auto store = LeaseStore::open_existing(folder_, "pods", *current_scope());
      if (!store || !*store) return;
      const auto all = (*store)->all();
      ASSERT_TRUE(all.has_value());
      for (const auto& l : *all) n += l.released ? 0 : 1;
    }));
    return n;
  }
  std::optional<NetNs> host_;
  std::optional<RtSocket> rt_;
  std::string folder_;
};

TEST_F(Verbs, GcRemovesWhatIsNotListed) {
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  ASSERT_EQ(call("a", &a, conf()).run("ADD").exit_code, 0);
  ASSERT_EQ(call("b", &b, conf()).run("ADD").exit_code, 0);
  // A link of somebody else, and one of another network of ours.
  ASSERT_TRUE(rt_->create_link({.name = "other0", .kind = netlink::VethKind{.peer_name = "other1"}}));
  ASSERT_TRUE(rt_->change_link(rt_->link("other1")->index, {.alias = host_link_alias("another", {"x", "eth0"})}));
  const Outcome missing = call("", nullptr, conf()).run("GC");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.out.find("valid-attachments"), std::string::npos) << "no list is no empty list: " << missing.out;
  EXPECT_EQ(used(), 2u);
  const Outcome o = call("", nullptr, conf(R"("cni.dev/valid-attachments":[{"containerID":"b","ifname":"eth0"}])")).run("GC");
  EXPECT_EQ(o.exit_code, 0) << o.out;
  EXPECT_EQ(o.out, "");
  EXPECT_EQ(used(), 1u);
  EXPECT_FALSE(*rt_->find_link(host_link_name({"a", "eth0"})));
  EXPECT_TRUE(*rt_->find_link(host_link_name({"b", "eth0"})));
  EXPECT_TRUE(*rt_->find_link("other0"));
  ASSERT_EQ(call("", nullptr, conf(R"("cni.dev/valid-attachments":[])")).run("GC").exit_code, 0);
  EXPECT_EQ(used(), 0u);
  EXPECT_TRUE(*rt_->find_link("other1"));
}

TEST_F(Verbs, WhatIsNotSupportedIsRefusedButCanBeTakenAway) {
  const NetNs a = *NetNs::create();
  const std::string text = conf(R"("enabledad":true)");
  for (const char* verb : {"ADD", "CHECK", "STATUS"}) {
    const Outcome o = call("a", &a, text).run(verb);
    EXPECT_EQ(o.exit_code, 1) << verb;
    EXPECT_NE(o.out.find("\"code\":2,"), std::string::npos) << o.out;
  }
  EXPECT_EQ(used(), 0u);
  ASSERT_EQ(call("a", &a, conf()).run("ADD").exit_code, 0);
  EXPECT_EQ(call("a", &a, text).run("DEL").exit_code, 0);
  EXPECT_EQ(used(), 0u);
}

TEST_F(Verbs, StatusSaysWhetherAnAddWouldWork) {
  const std::string tiny = "10.9.0.0/30";  // one pod
  EXPECT_EQ(call("", nullptr, conf("", tiny)).run("STATUS").exit_code, 0);
  const NetNs a = *NetNs::create();
  ASSERT_EQ(call("a", &a, conf("", tiny)).run("ADD").exit_code, 0);
  const Outcome full = call("", nullptr, conf("", tiny)).run("STATUS");
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_NE(full.out.find("\"code\":50"), std::string::npos) << full.out;
  EXPECT_EQ(used(), 1u) << "STATUS takes no address";
  ASSERT_EQ(call("a", &a, conf("", tiny)).run("DEL").exit_code, 0);
  EXPECT_EQ(call("", nullptr, conf("", tiny)).run("STATUS").exit_code, 0);
  EXPECT_NE(call("", nullptr, R"({"cniVersion":"1.0.0","name":"n","type":"fairlead-cni","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}]]}})").run("STATUS").out.find("\"code\":1,"), std::string::npos);
}

TEST_F(Verbs, VersionListsAll) {
  EXPECT_EQ(call("", nullptr, R"({"cniVersion":"0.4.0"})").run("VERSION").out, R"({"cniVersion":"0.4.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]})"
                                                                              "\n");
  EXPECT_EQ(call("", nullptr, "").run("VERSION").exit_code, 0);
}

TEST_F(Verbs, LoopbackForOlderRuntimes) {
  const NetNs a = *NetNs::create();
  auto pod = *RtSocket::open_in(a.fd());
  ASSERT_TRUE(pod.change_link(pod.link("lo")->index, {.up = false}));
  PluginCall c = call("a", &a, R"({"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"})");
  c.ifname = "lo";
  const Outcome o = c.run("ADD");
  ASSERT_EQ(o.exit_code, 0) << o.out;
  EXPECT_TRUE(pod.link("lo")->up());
  EXPECT_EQ(attachment_of(o.out).ips.at(0).address.to_string(), "127.0.0.1/8");
  EXPECT_EQ(c.run("DEL").exit_code, 0);
}

// As ipam.type under another plugin.
TEST_F(Verbs, AddressesForOtherPlugins) {
  const NetNs a = *NetNs::create();
  const std::string text = fmt::format(R"({{"cniVersion":"1.0.0","name":"pods","type":"bridge","bridge":"cni0","ipam":{{"type":"fairlead-cni","ranges":[[{{"subnet":"10.9.0.0/29"}}]],
    "routes":[{{"dst":"0.0.0.0/0"}}],"dataDir":"{}"}}}})", folder_);
  const Outcome o = call("a", &a, text).run("ADD");
  ASSERT_EQ(o.exit_code, 0) << o.out;
  const Attachment got = attachment_of(o.out);
  EXPECT_TRUE(got.interfaces.empty());
  ASSERT_EQ(got.ips.size(), 1u);
  EXPECT_EQ(got.ips[0].address.length, 29u);
  EXPECT_EQ(got.ips[0].gateway->to_string(), "10.9.0.1");
  EXPECT_FALSE(got.ips[0].interface);
  EXPECT_EQ(got.routes.size(), 1u);
  EXPECT_EQ(call("a", &a, text).run("CHECK").exit_code, 0);
  EXPECT_EQ(call("b", &a, text).run("CHECK").exit_code, 1);
  EXPECT_EQ(call("a", nullptr, text).run("DEL").exit_code, 0);
  EXPECT_EQ(call("a", nullptr, text).run("DEL").exit_code, 0);
  EXPECT_EQ(rt_->links()->size(), 1u) << "no link was made";
}

// A pod whose DEL never came: its namespace is gone, and when addresses run out its lease is taken back.
TEST_F(Verbs, OrphansMakeRoomWhenAddressesRunOut) {
  BootTime now{0};
  Services later = real_services();
  later.now = [&] { return now; };
  {
    const NetNs gone = *NetNs::create();
    ASSERT_EQ(call("gone", &gone, conf("", "10.9.0.0/30")).run("ADD").exit_code, 0);
  }
  for (int i = 0; i < 100 && *rt_->find_link(host_link_name({"gone", "eth0"})); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const NetNs a = *NetNs::create();
  PluginCall c = call("a", &a, conf("", "10.9.0.0/30"));
  c.services = later;
  now = boot_time_now();
  EXPECT_NE(c.run("ADD").out.find("\"code\":102"), std::string::npos) << "young: it could be an ADD in flight";
  now += kOrphanAge;
  EXPECT_NE(c.run("ADD").out.find("\"code\":11,"), std::string::npos) << "released, and rests";
  now += std::chrono::seconds(30);
  const Outcome o = c.run("ADD");
  EXPECT_EQ(o.exit_code, 0) << o.out;
}

// Bytes per second that arrive when one side sends as fast as it can for a while.
double throughput(const NetNs& from, const NetNs& to, const IpAddress& ip, std::chrono::milliseconds time) {
  const auto tcp = [](const NetNs& ns) {
    int fd = -1;
    EXPECT_TRUE(netlink::run_in_netns(ns.fd(), [&] { fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
    return Fd(fd);
  };
  const Fd listener = tcp(to), sender = tcp(from);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(9001);
  std::copy(ip.bytes().begin(), ip.bytes().end(), reinterpret_cast<std::uint8_t*>(&a.sin_addr));
  EXPECT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_EQ(::connect(sender.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  const Fd receiver(::accept(listener.get(), nullptr, nullptr));
  std::atomic<bool> stop{false};
  std::thread pump([&] {
    std::vector<char> data(64 * 1024);
    while (!stop && ::send(sender.get(), data.data(), data.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  std::vector<char> data(256 * 1024);
  std::size_t got = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < time) {
    const ssize_t n = ::recv(receiver.get(), data.data(), data.size(), 0);
    if (n <= 0) break;
    got += static_cast<std::size_t>(n);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  stop = true;
  ::shutdown(receiver.get(), SHUT_RDWR);
  ::shutdown(sender.get(), SHUT_RDWR);
  pump.join();
  return static_cast<double>(got) / seconds;
}

TEST_F(Verbs, BandwidthIsLimitedEachWay) {
  const NetNs limited = *NetNs::create(), free = *NetNs::create();
  const std::string rates = R"("runtimeConfig":{"bandwidth":{"IngressRate":80000000,"IngressBurst":800000,"EgressRate":40000000,"EgressBurst":800000}})";
  const Outcome a = call("limited", &limited, conf(rates)).run("ADD");
  ASSERT_EQ(a.exit_code, 0) << a.out;
  const Outcome b = call("free", &free, conf()).run("ADD");
  ASSERT_EQ(b.exit_code, 0) << b.out;
  const IpAddress limited_ip = attachment_of(a.out).ips[0].address.address, free_ip = attachment_of(b.out).ips[0].address.address;
  EXPECT_NEAR(throughput(free, limited, limited_ip, std::chrono::milliseconds(1500)), 10e6, 2e6) << "80 Mbit/s in";
  EXPECT_NEAR(throughput(limited, free, free_ip, std::chrono::milliseconds(1500)), 5e6, 1e6) << "40 Mbit/s out";
  EXPECT_TRUE(*rt_->find_link(ifb_name({"limited", "eth0"})));
  EXPECT_EQ(call("limited", &limited, conf(rates)).run("DEL").exit_code, 0);
  EXPECT_FALSE(*rt_->find_link(ifb_name({"limited", "eth0"})));
}

TEST_F(Verbs, MacAddressAndSysctls) {
  const NetNs a = *NetNs::create();
  PluginCall c = call("a", &a, conf(R"("sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1","net.core.somaxconn":"777"},"mtu":1300)"));
  c.args = "MAC=02:00:00:00:00:77;IP=10.244.1.99;IgnoreUnknown=1;K8S_POD_NAME=x";
  const Outcome o = c.run("ADD");
  ASSERT_EQ(o.exit_code, 0) << o.out;
  auto pod = *RtSocket::open_in(a.fd());
  EXPECT_EQ(pod.link("eth0")->mac->to_string(), "02:00:00:00:00:77");
  EXPECT_EQ(pod.link("eth0")->mtu, 1300u);
  EXPECT_EQ(attachment_of(o.out).ips[0].address.to_string(), "10.244.1.99/32");
  EXPECT_EQ(netlink::in_netns(a.fd(), [] { return netlink::read_sysctl("net/ipv4/conf/eth0/arp_filter"); }), "1");
  EXPECT_EQ(netlink::in_netns(a.fd(), [] { return netlink::read_sysctl("net/core/somaxconn"); }), "777");
}

// The reference plugin gives the addresses, this one does the rest.
TEST_F(Verbs, AddressesFromHostLocal) {
  ASSERT_TRUE(std::filesystem::exists("/usr/lib/cni/host-local")) << "install containernetworking-plugins (scripts/deps test)";
  const NetNs a = *NetNs::create(), b = *NetNs::create();
  const std::string text = fmt::format(R"({{"cniVersion":"1.0.0","name":"pods","type":"fairlead-cni","dataDir":"{0}","ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.9.0.0/24"}}]],"dataDir":"{0}/hl"}},
    "runtimeConfig":{{"portMappings":[{{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp"}}]}}}})", folder_);
  PluginCall c = call("a", &a, text);
  c.path = "/usr/lib/cni";
  const Outcome o = c.run("ADD");
  ASSERT_EQ(o.exit_code, 0) << o.out;
  const Attachment got = attachment_of(o.out);
  EXPECT_EQ(got.ips.at(0).address.to_string(), "10.9.0.2/32");
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/hl/pods/10.9.0.2"));
  EXPECT_EQ(exchange(*host_, a, got.ips[0].address.address), "192.0.2.1");
  EXPECT_EQ(tcp_exchange(*host_, *IpAddress::parse("192.0.2.1"), 8080, a, got.ips[0].address.address, 80), "192.0.2.1");
  c.conf.pop_back();
  c.conf += ",\"prevResult\":" + o.out + "}";
  EXPECT_EQ(c.run("CHECK").exit_code, 0) << c.run("CHECK").out;
  EXPECT_EQ(c.run("DEL").exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/hl/pods/10.9.0.2"));
  EXPECT_EQ(tcp_exchange(*host_, *IpAddress::parse("192.0.2.1"), 8080, b, *IpAddress::parse("127.0.0.1"), 80), "connect: Connection refused");
  // An ADD that fails after the address was given gives it back.
  auto pod = *RtSocket::open_in(b.fd());
  ASSERT_TRUE(pod.create_link({.name = "eth0", .kind = netlink::VethKind{.peer_name = "x"}}));
  PluginCall taken = call("b", &b, text);
  taken.path = "/usr/lib/cni";
  EXPECT_EQ(taken.run("ADD").exit_code, 1);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/hl/pods/10.9.0.3"));
}

// A node that is switched over from bridge and host-local while a pod runs: its address stays taken, its DEL works.
TEST_F(Verbs, TakesOverFromHostLocal) {
  const NetNs old = *NetNs::create(), fresh = *NetNs::create();
  std::filesystem::create_directories(folder_ + "/hl/pods");
  std::ofstream(folder_ + "/hl/pods/10.244.1.2") << "old-pod\r\neth0";
  auto pod = *RtSocket::open_in(old.fd());
  ASSERT_TRUE(pod.create_link({.name = "eth0", .kind = netlink::VethKind{.peer_name = "veth1234", .peer_netns_fd = host_->fd()}}));
  const std::string text = fmt::format(R"({{"cniVersion":"1.0.0","name":"pods","type":"fairlead-cni","ipam":{{"ranges":[[{{"subnet":"10.244.1.0/30"}}]],"dataDir":"{0}","hostLocalDataDir":"{0}/hl","reuseDelaySeconds":0}}}})", folder_);
  EXPECT_NE(call("new", &fresh, text).run("ADD").out.find("\"code\":102"), std::string::npos) << "the only address is the old pod's";
  EXPECT_EQ(call("old-pod", &old, text).run("DEL").exit_code, 0);
  EXPECT_FALSE(*rt_->find_link("veth1234")) << "its interface went with it";
  const Outcome o = call("new", &fresh, text).run("ADD");
  EXPECT_EQ(o.exit_code, 0) << o.out;
}

// How often the host has asked for the neighbour: the kernel counts from the number of its unicast probes. 0: never asked.
int solicitations(const NetNs& host, std::uint32_t link, const IpAddress& neighbour) {
  auto socket = *netlink::Socket::open_in(host.fd(), NETLINK_ROUTE);
  int probes = -1;
  const auto each = [&](const netlink::MessageView& m) -> Result<> {
    FL_TRY(const auto a, netlink::Attributes::parse(m.payload.subspan(sizeof(ndmsg))));
    if (a.ip(NDA_DST) == neighbour) probes = static_cast<int>(a.u32(NDA_PROBES).value_or(0));
    return {};
  };
  EXPECT_TRUE(socket.dump(netlink::build_dump_neighbours(Family::v4, link), "neighbours", [] {}, each));
  const auto unicast = netlink::in_netns(host.fd(), [] { return netlink::read_sysctl("net/ipv4/neigh/lo/ucast_solicit"); });
  EXPECT_TRUE(unicast) << unicast.error().message;
  return probes < 0 || !unicast ? 0 : probes - std::stoi(*unicast);
}

// A host end and a pod's end with the same interface index (here both would be 2): packets must pass at once all the same.
// A lost first packet would show as a second question for the neighbour, which the kernel asks after a second.
TEST_F(Verbs, TheFirstPodOfAnEmptyHost) {
  const NetNs a = *NetNs::create();
  const Outcome o = call("a", &a, conf()).run("ADD");
  ASSERT_EQ(o.exit_code, 0) << o.out;
  const IpAddress ip = attachment_of(o.out).ips[0].address.address;
  const auto link = rt_->link(host_link_name({"a", "eth0"}))->index;
  EXPECT_EQ(solicitations(*host_, link, ip), 0);
  EXPECT_EQ(exchange(*host_, a, ip), "192.0.2.1");
  EXPECT_EQ(solicitations(*host_, link, ip), 1) << "the first packet was lost";
  EXPECT_NE(link, RtSocket::open_in(a.fd())->link("eth0")->index);
}

// Every verb in every version: which ones there are, and the shape of what they print.
TEST_F(Verbs, InEveryVersion) {
  struct Row {
    const char* version;
    bool check, gc_and_status, ip_version, mtu;
  };
  for (const Row& r : {Row{"0.3.0", false, false, true, false}, Row{"0.3.1", false, false, true, false}, Row{"0.4.0", true, false, true, false}, Row{"1.0.0", true, false, false, false},
                       Row{"1.1.0", true, true, false, true}}) {
    SCOPED_TRACE(r.version);
    const NetNs pod = *NetNs::create();
    const auto conf = [&](const std::string& more) {
      return fmt::format(R"({{"cniVersion":"{}","name":"pods","type":"fairlead-cni","mtu":1400,"ipam":{{"ranges":[[{{"subnet":"10.244.1.0/24"}}]],"routes":[{{"dst":"10.9.0.0/16","mtu":1300,"priority":7}}],"dataDir":"{}"}}{}}})",
                         r.version, folder_, more);
    };
    const auto same_version = [&](const std::string& out) {
      const auto doc = parse_json(out);
      ASSERT_TRUE(doc) << out;
      EXPECT_EQ(doc->at("cniVersion").as_string(), r.version) << out;
    };
    const Outcome added = call("a", &pod, conf("")).run("ADD");
    ASSERT_EQ(added.exit_code, 0) << added.out;
    same_version(added.out);
    const auto result = *parse_json(added.out);
    const auto& ip = result.at("ips").as_array().at(0).as_object();
    EXPECT_EQ(ip.contains("version"), r.ip_version) << added.out;
    EXPECT_TRUE(ip.contains("interface")) << added.out;
    const auto& link = result.at("interfaces").as_array().at(static_cast<std::size_t>(ip.at("interface").to_number<int>())).as_object();
    EXPECT_EQ(link.at("name").as_string(), "eth0");
    EXPECT_EQ(link.contains("mtu"), r.mtu) << added.out;
    for (const auto& route : result.at("routes").as_array())
      if (route.at("dst").as_string() == "10.9.0.0/16") { EXPECT_EQ(route.as_object().contains("priority"), r.mtu) << added.out; }

    const Outcome checked = call("a", &pod, conf(",\"prevResult\":" + added.out)).run("CHECK");
    EXPECT_EQ(checked.exit_code, r.check ? 0 : 1) << checked.out;
    const Outcome status = call("", nullptr, conf("")).run("STATUS");
    EXPECT_EQ(status.exit_code, r.gc_and_status ? 0 : 1) << status.out;
    const Outcome gc = call("", nullptr, conf(R"(,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}])")).run("GC");
    EXPECT_EQ(gc.exit_code, r.gc_and_status ? 0 : 1) << gc.out;
    for (const Outcome* o : {&checked, &status, &gc})
      if (o->exit_code != 0) {
        same_version(o->out);
        EXPECT_NE(o->out.find("\"code\":1,"), std::string::npos) << o->out;
      } else {
        EXPECT_EQ(o->out, "");
      }
    EXPECT_EQ(used(), 1u) << "a verb that is not there changes nothing";
    const Outcome version = call("", nullptr, conf("")).run("VERSION");
    EXPECT_EQ(version.exit_code, 0);
    same_version(version.out);
    EXPECT_NE(version.out.find(r.version), std::string::npos);
    const Outcome gone = call("a", &pod, conf(",\"prevResult\":" + added.out)).run("DEL");
    EXPECT_EQ(gone.exit_code, 0) << gone.out;
    EXPECT_EQ(gone.out, "");
    EXPECT_EQ(used(), 0u);
  }
}

}  // namespace
}  // namespace fairlead::cni
