// Reading host-local's folder, resolv.conf, records.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <utime.h>

#include <filesystem>
#include <fstream>

#include "cni/nat/layout.h"
#include "cni/ipam/host_local.h"
#include "cni/ipam/lmdb_book.h"
#include "cni/ipam/resolv_conf.h"
#include "cni/record.h"

namespace fairlead::cni {
namespace {

TEST(HostLocal, ReadsWhatItsVersionsWrote) {
  const std::string root = std::filesystem::temp_directory_path() / fmt::format("fairlead-host-local-{}", getpid()), folder = root + "/pods";
  std::filesystem::create_directories(folder);
  const auto put = [&](const std::string& name, const std::string& text, long age_s = 0) {
    std::ofstream(folder + "/" + name) << text;
    const utimbuf t{::time(nullptr) - age_s, ::time(nullptr) - age_s};
    ::utime((folder + "/" + name).c_str(), &t);
  };
  put("10.0.0.5", "container-a\r\neth0");
  put("10.0.0.6", "container-b\neth1\n");
  put("10.0.0.7", "container-c");                      // before interfaces were recorded
  put("10.0.0.8", "  container-d  \r\n");
  put("10.0.0.9", "leaked\r\neth0", 7200);             // older than the boot
  put("10.0.0.10", "../evil\r\neth0");
  put("10.0.0.11", "ok\r\na/b");
  put("10.0.0.12", "");
  put("fd00::5", "container-a\r\neth0");
  put("lock", "");
  put("last_reserved_ip.0", "10.0.0.8");
  put("last_reserved_ip.1", "fd00::5");
  const auto got = read_host_local(root, "pods", std::chrono::system_clock::now() - std::chrono::hours(1), BootTime(99));
  ASSERT_TRUE(got) << got.error().msg;
  std::map<std::string, std::string> seen;
  for (const auto& l : got->leases) seen[l.ip.to_string()] = l.owner.container_id + " " + l.owner.ifname;
  EXPECT_EQ(seen, (std::map<std::string, std::string>{{"10.0.0.5", "container-a eth0"}, {"10.0.0.6", "container-b eth1"}, {"10.0.0.7", "container-c eth0"},
                                                       {"10.0.0.8", "container-d eth0"}, {"fd00::5", "container-a eth0"}}));
  EXPECT_EQ(got->stale, 1u);
  EXPECT_TRUE(read_host_local(root, "nothing-here", {}, BootTime(0))->leases.empty());

  // Into a store: what lies in our ranges, and the round goes on behind the last one.
  auto store = LeaseStore::open(root + "/own", "pods", {.boot_id = "b", .netns_inode = 1});
  ASSERT_TRUE(store);
  const auto doc = parse_json(R"({"r":[[{"subnet":"10.0.0.0/24"}]]})");
  const auto sets = *parse_range_sets(Field(*doc).get("r"));
  EXPECT_EQ(*store->write([&](LeaseBook& b) { return import_leases(b, sets, *got); }), 4u);
  const auto next = store->write([&](LeaseBook& b) { return allocate(b, sets, {.owner = {"new", "eth0"}, .netns = "/n", .wanted = {}, .now = BootTime(100)}); });
  ASSERT_TRUE(next);
  EXPECT_EQ(next->at(0).ip.to_string(), "10.0.0.9");
  const auto again = store->write([&](LeaseBook& b) { return allocate(b, sets, {.owner = {"container-a", "eth0"}, .netns = "/n", .wanted = {}, .now = BootTime(100)}); });
  EXPECT_EQ(again.error().code, Code::already_attached);
  EXPECT_EQ(store->write([&](LeaseBook& b) { return release(b, {"container-a", "eth0"}, BootTime(100)); })->size(), 1u);
  std::filesystem::remove_all(root);
}

TEST(ResolvConf, Rows) {
  struct Row {
    const char* text;
    Dns dns;
  };
  for (const Row& r : {
           Row{"", {}},
           Row{"nameserver 10.0.0.10\nnameserver fd00::a\n", {.nameservers = {"10.0.0.10", "fd00::a"}}},
           Row{"# nameserver 1.1.1.1\n; x y\nsearch a.b c.d\nsearch e.f\n", {.search = {"e.f"}}},
           Row{"domain x.y\r\noptions ndots:5 timeout:1\noptions rotate", {.domain = "x.y", .options = {"ndots:5", "timeout:1", "rotate"}}},
           Row{"nameserver\nfoo bar\n\tnameserver\t9.9.9.9  \n", {.nameservers = {"9.9.9.9"}}},
       })
    EXPECT_EQ(parse_resolv_conf(r.text), r.dns) << r.text;
}

TEST(Record, RoundTrips) {
  const AttachmentRecord r{.nat = {.mappings = {{80, 8080, Protocol::tcp, {}}, {53, 5353, Protocol::udp, *IpAddress::parse("::1")}}, .masquerade = true,
                                   .pods = {{*IpAddress::parse("10.0.0.5"), *Prefix::parse("10.0.0.5/32"), *Prefix::parse("10.0.0.0/24")}}},
                           .hosts_file = "/run/x/y"};
  const auto back = parse_record(to_text(r));
  ASSERT_TRUE(back) << back.error().msg;
  EXPECT_EQ(*back, r);
  EXPECT_EQ(to_text({}), "");
}

TEST(NatElements, FamiliesAndAddresses) {
  const auto ip = [](const char* s) { return *IpAddress::parse(s); };
  const auto net = [](const char* s) { return *Prefix::parse(s); };
  const std::vector<NatAddress> pods{{ip("10.0.0.5"), net("10.0.0.0/24"), net("10.0.0.0/24")}, {ip("fd00::5"), net("fd00::5/128"), net("fd00::/64")}};
  struct Row {
    const char* name;
    PortMapping mapping;
    std::size_t v4_address, v4_port, v6_address, v6_port;
  };
  for (const Row& r : {Row{"any", {80, 80, Protocol::tcp, {}}, 0, 1, 0, 1}, Row{"any IPv4", {80, 80, Protocol::tcp, ip("0.0.0.0")}, 0, 1, 0, 0},
                       Row{"any IPv6", {80, 80, Protocol::tcp, ip("::")}, 0, 0, 0, 1}, Row{"one", {80, 80, Protocol::tcp, ip("192.0.2.1")}, 1, 0, 0, 0},
                       Row{"one IPv6", {80, 80, Protocol::tcp, ip("fd99::1")}, 0, 0, 1, 0}}) {
    const PodNat nat{.mappings = {r.mapping}, .masquerade = false, .pods = pods};
    const auto v4 = nat_elements(Family::v4, nat), v6 = nat_elements(Family::v6, nat);
    EXPECT_EQ(v4.by_address.size(), r.v4_address) << r.name;
    EXPECT_EQ(v4.by_port.size(), r.v4_port) << r.name;
    EXPECT_EQ(v6.by_address.size(), r.v6_address) << r.name;
    EXPECT_EQ(v6.by_port.size(), r.v6_port) << r.name;
    EXPECT_EQ(v4.hairpin.size(), v4.empty() ? 0u : 1u) << r.name;
    EXPECT_EQ(v6.self.size(), v6.empty() ? 0u : 1u) << r.name << ": nobody but the pod itself is around it";
    EXPECT_TRUE(v4.self.empty() && v6.hairpin.empty()) << r.name;
    EXPECT_TRUE(v4.masquerade.empty() && v4.inside.empty());
    for (const auto& e : v4.by_port) EXPECT_TRUE(leads_to(e, ip("10.0.0.5")) && !leads_to(e, ip("10.0.0.6")));
  }
  const auto masquerade = nat_elements(Family::v4, {.mappings = {}, .masquerade = true, .pods = pods});
  EXPECT_EQ(masquerade.size(), 2u) << "the pod, and its own network";
}

}  // namespace
}  // namespace fairlead::cni
