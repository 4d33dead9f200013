// The plugin's verbs against the kernel: a host namespace and pods, all anonymous.
#include <gtest/gtest.h>

#include <filesystem>

#include "netlink/rt_socket.h"
#include "tests/cni/harness.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

class Attach : public testing::TestWithParam<std::tuple<const char*, const char*, const char*>> {
 protected:
  void SetUp() override {
    host_.emplace(std::move(*NetNs::create()));
    rt_.emplace(std::move(*RtSocket::open_in(host_->fd())));
    // A node has an address; the host talks to pods from it.
    const auto lo = rt_->link("lo")->index;
    ASSERT_TRUE(rt_->add_address({.link = lo, .ip = *InterfaceAddress::parse("192.0.2.1/32")}));
    ASSERT_TRUE(rt_->add_address({.link = lo, .ip = *InterfaceAddress::parse("2001:db8::1/128")}));
    data_dir_ = fmt::format("/run/fairlead-cni-test-{}", getpid());
  }
  void TearDown() override { std::filesystem::remove_all(data_dir_); }

  std::string version() const { return std::get<0>(GetParam()); }
  std::string wiring() const { return std::get<1>(GetParam()); }
  std::string families() const { return std::get<2>(GetParam()); }

  std::string conf(const std::string& prev = "") const {
    std::string ranges;
    if (families() != "6") ranges = R"([{"subnet":"10.244.1.0/24"}])";
    if (families() != "4") ranges += (ranges.empty() ? "" : ",") + std::string(R"([{"subnet":"fd00:10:244:1::/64"}])");
    return fmt::format(R"({{"cniVersion":"{}","name":"pods","type":"fairlead-cni","wiring":"{}","ipam":{{"ranges":[{}],"dataDir":"{}"}}{}}})", version(), wiring(), ranges,
                       data_dir_, prev.empty() ? "" : ",\"prevResult\":" + prev);
  }

  Outcome call(const std::string& verb, const std::string& id, const std::string& netns, const std::string& stdin_text) {
    return PluginCall{.host_fd = host_->fd(), .id = id, .netns = netns, .conf = stdin_text}.run(verb);
  }

  Attachment add(const std::string& id, const NetNs& pod) {
    const Outcome o = call("ADD", id, path_of(pod), conf());
    EXPECT_EQ(o.exit_code, 0) << o.out;
    return attachment_of(o.out);
  }

  std::size_t leases_in_use() {
    std::size_t n = 0;
    EXPECT_TRUE(netlink::run_in_netns(host_->fd(), [&] {
      auto store = LeaseStore::open_existing(data_dir_, "pods", *current_scope());
      if (!store || !*store) return;
      const auto all = (*store)->all();
      ASSERT_TRUE(all.has_value());
      for (const auto& l : *all) n += l.released ? 0 : 1;
    }));
    return n;
  }

  std::optional<NetNs> host_;
  std::optional<RtSocket> rt_;
  std::string data_dir_;
};

TEST_P(Attach, TwoPodsReachEachOtherAndGoWithoutTrace) {
  const NetNs p = *NetNs::create(), q = *NetNs::create();
  const Attachment a = add("c1", p), b = add("c2", q);
  const std::size_t families_count = families() == "46" ? 2 : 1;
  ASSERT_EQ(a.ips.size(), families_count);
  ASSERT_EQ(b.ips.size(), families_count);
  EXPECT_EQ(leases_in_use(), 2 * families_count);
  for (std::size_t i = 0; i < families_count; ++i) {
    // The very first packet must arrive, in both directions and from the host.
    EXPECT_EQ(exchange(p, q, b.ips[i].address.address), a.ips[i].address.address.to_string());
    EXPECT_EQ(exchange(q, p, a.ips[i].address.address), b.ips[i].address.address.to_string());
    const std::string seen = exchange(*host_, p, a.ips[i].address.address);
    EXPECT_TRUE(IpAddress::parse(seen)) << seen;
  }
  EXPECT_EQ(call("DEL", "c1", path_of(p), conf()).exit_code, 0);
  EXPECT_EQ(call("DEL", "c1", path_of(p), conf()).exit_code, 0) << "DEL may be repeated";
  EXPECT_EQ(call("DEL", "c2", "", conf()).exit_code, 0) << "DEL works without the namespace";
  EXPECT_EQ(leases_in_use(), 0u);
  const auto links = rt_->links();
  ASSERT_TRUE(links);
  for (const auto& l : *links) EXPECT_TRUE(l.name == "lo" || (wiring() == "bridge" && l.name == "fairlead0")) << l.name;
  const auto left = rt_->routes({.protocol = netlink::kRouteProtocol});
  EXPECT_TRUE(left->empty());
}

TEST_P(Attach, CheckSeesWhatIsBroken) {
  if (version() < std::string("0.4.0")) {
    const Outcome o = call("CHECK", "c1", "/x", conf());
    EXPECT_EQ(o.exit_code, 1);
    EXPECT_NE(o.out.find("\"code\":1,"), std::string::npos) << o.out;
    return;
  }
  const NetNs p = *NetNs::create();
  const Outcome added = call("ADD", "c1", path_of(p), conf());
  ASSERT_EQ(added.exit_code, 0) << added.out;
  const auto check = [&] { return call("CHECK", "c1", path_of(p), conf(added.out)); };
  EXPECT_EQ(check().exit_code, 0) << check().out;
  EXPECT_NE(call("CHECK", "c1", path_of(p), conf()).out.find("prevResult"), std::string::npos);
  auto pod = *RtSocket::open_in(p.fd());
  const auto eth0 = *pod.link("eth0");
  auto addresses = *pod.addresses({}, eth0.index);
  for (const auto& a : addresses) {
    if (a.scope != netlink::kScopeGlobal) continue;
    ASSERT_TRUE(pod.remove_address(a));
  }
  EXPECT_NE(check().out.find("lacks address"), std::string::npos) << check().out;
  ASSERT_TRUE(pod.delete_link(eth0.index));
  EXPECT_NE(check().out.find("has no interface eth0"), std::string::npos) << check().out;
  EXPECT_NE(check().out.find("\"code\":103"), std::string::npos);
  EXPECT_EQ(call("DEL", "c1", path_of(p), conf()).exit_code, 0);
  EXPECT_NE(check().out.find("has 0 leases"), std::string::npos) << check().out;
}

TEST_P(Attach, FailuresLeaveNothing) {
  const NetNs p = *NetNs::create();
  add("c1", p);
  const std::size_t used = leases_in_use();
  const auto links = rt_->links()->size();
  const Outcome again = call("ADD", "c1", path_of(p), conf());
  EXPECT_NE(again.out.find("\"code\":101"), std::string::npos) << again.out;
  const Outcome taken = call("ADD", "c9", path_of(p), conf());
  EXPECT_NE(taken.out.find("\"code\":101"), std::string::npos) << taken.out;
  EXPECT_NE(call("ADD", "c9", "/nowhere", conf()).out.find("\"code\":3,"), std::string::npos);
  EXPECT_NE(call("ADD", "c9", path_of(*host_), conf()).out.find("host's own namespace"), std::string::npos);
  EXPECT_EQ(leases_in_use(), used);
  EXPECT_EQ(rt_->links()->size(), links);
}

std::string row_name(const testing::TestParamInfo<std::tuple<const char*, const char*, const char*>>& i) {
  std::string v = std::get<0>(i.param);
  std::replace(v.begin(), v.end(), '.', '_');
  return fmt::format("v{}_{}_ipv{}", v, std::get<1>(i.param), std::get<2>(i.param));
}

INSTANTIATE_TEST_SUITE_P(Everywhere, Attach, testing::Combine(testing::Values("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"), testing::Values("routed", "bridge"), testing::Values("4", "6", "46")), row_name);

}  // namespace
}  // namespace fairlead::cni
