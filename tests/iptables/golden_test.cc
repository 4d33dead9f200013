// The whole rule set of a small plan, as text: a change here is a change on every node, make it on purpose.
// FAIRLEAD_UPDATE_GOLDEN=1 rewrites the file; look at the difference before committing.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "iptables/dataplane.h"
#include "iptables/kernel_fake.h"
#include "tests/proxy/world.h"

namespace fairlead::iptables {
namespace {

using namespace proxy::testing;
using proxy::Planner;
using proxy::TrafficPolicy;

constexpr const char* kFile = "tests/iptables/rules.golden";

proxy::Plan small_plan() {
  auto global = global_plan();
  global.node_ports.loopback = true;
  Planner planner(global, node_facts());
  const auto put = [&](proxy::Service s, std::shared_ptr<const proxy::ServiceEndpoints> e) {
    const auto key = s.key;
    planner.update({{key, std::make_shared<const proxy::Service>(std::move(s)), std::move(e)}});
  };
  auto web = make_service("web", "10.96.0.1");
  web.external_policy = TrafficPolicy::local;
  web.ports[0].node_port = 30001;
  web.health_check_node_port = 31001;
  web.load_balancer_vips = {ip("203.0.113.1")};
  web.external_ips = {ip("203.0.113.101")};
  web.restricted_v4 = true;
  web.source_ranges = {cidr("192.168.7.100/32"), cidr("198.51.100.0/24")};
  put(web, make_endpoints({{"10.244.0.2", "n1"}, {"10.244.1.2", "n2"}, {"10.244.1.3", "n3"}}));
  auto dns = make_service("dns", "10.96.0.2", 53, Protocol::udp);
  dns.affinity_seconds = 10800;
  put(dns, make_endpoints({{"10.244.0.3", "n1"}, {"10.244.1.3", "n3"}}, 5353, Protocol::udp));
  auto stream = make_service("stream", "10.96.0.3", 9000, Protocol::sctp);
  stream.weights = {{"10.244.0.3", 3}};
  put(stream, make_endpoints({{"10.244.0.3", "n1"}, {"10.244.1.3", "n3"}}, 9000, Protocol::sctp));
  auto empty = make_service("empty", "10.96.0.4");
  empty.ports[0].node_port = 30004;
  put(empty, make_endpoints({}));
  auto elsewhere = make_service("elsewhere", "10.96.0.5");
  elsewhere.internal_policy = TrafficPolicy::local;
  put(elsewhere, make_endpoints({{"10.244.1.2", "n2"}}));
  put(make_service("six", "fd96::1"), make_endpoints({{"fd44::2", "n1"}, {"fd44:1::2", "n2"}}));
  return planner.current();
}

TEST(Golden, RulesOfASmallPlan) {
  FakeKernel unused;
  const auto text = make_dataplane(unused)->render_text(small_plan());
  EXPECT_EQ(unused.calls(), 0) << "render_text() touches no kernel";
  if (std::getenv("FAIRLEAD_UPDATE_GOLDEN")) std::ofstream(kFile) << text;
  std::ifstream file(kFile);
  std::stringstream want;
  want << file.rdbuf();
  ASSERT_FALSE(want.str().empty()) << kFile;
  EXPECT_EQ(text, want.str()) << "FAIRLEAD_UPDATE_GOLDEN=1 " << kFile << " rewrites it";
}

// The steps of typical changes, word for word.
TEST(Golden, StepsOfChanges) {
  const auto before = small_plan();
  FakeKernel kernel;
  auto dataplane = make_dataplane(kernel);
  ASSERT_TRUE(dataplane->apply(before.full_delta()));
  std::string got;
  const auto change = [&](const std::string& what, const proxy::Plan& from, auto edit) {
    auto plan = *from.services.at("default/web");
    edit(plan);
    proxy::PlanDelta d{from.global, false, false, {{"default/web", std::make_shared<const proxy::ServicePlan>(plan)}}};
    ASSERT_TRUE(dataplane->apply(d));
    got += "# " + what + "\n" + kernel.last_input();
    ASSERT_TRUE(dataplane->apply({from.global, false, false, {{"default/web", from.services.at("default/web")}}}));
  };
  change("a weight changes", before, [](proxy::ServicePlan& s) { s.ports[0].cluster[0].weight = 2; });
  change("a source range more", before, [](proxy::ServicePlan& s) { s.source_ranges.push_back(cidr("203.0.113.0/24")); });
  change("no endpoint here any more", before, [](proxy::ServicePlan& s) {
    s.ports[0].local.clear();
    s.ports[0].external = proxy::Target::drop;
  });
  change("the NodePort goes", before, [](proxy::ServicePlan& s) {
    std::erase_if(s.ports[0].frontends, [](const proxy::Frontend& f) { return f.kind == proxy::FrontendKind::node_port; });
  });
  constexpr const char* file_name = "tests/iptables/steps.golden";
  if (std::getenv("FAIRLEAD_UPDATE_GOLDEN")) std::ofstream(file_name) << got;
  std::ifstream file(file_name);
  std::stringstream want;
  want << file.rdbuf();
  ASSERT_FALSE(want.str().empty()) << file_name;
  EXPECT_EQ(got, want.str()) << "FAIRLEAD_UPDATE_GOLDEN=1 rewrites " << file_name;
}

}  // namespace
}  // namespace fairlead::iptables
