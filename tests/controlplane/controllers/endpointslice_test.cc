#include "controlplane/controllers/endpointslice.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/random.h"
#include "controlplane/controllers/endpoints.h"
#include "tests/controlplane/controllers/make.h"

namespace fairlead::controllers {
namespace {

using std::chrono::seconds;

// A Service with its pods and slices; apply() does what a decision says.
struct World {
  corev1::Service service = test_service();
  std::map<std::string, TestPod> pods;
  std::map<std::string, std::shared_ptr<const corev1::Node>> nodes{{"n1", test_node("n1", "z1")}, {"n2", test_node("n2", "z2")}};
  std::map<std::string, discoveryv1::EndpointSlice> slices;
  int max = 100;
  int serial = 0;

  void add(const TestPod& p) { pods.insert_or_assign(p.pod.metadata().name(), p); }
  EndpointSliceDecision decide() const {
    EndpointSliceInput in{std::make_shared<const corev1::Service>(service), {}, nodes, {}, {}, max};
    for (const auto& [name, p] : pods) in.pods.push_back(p.get());
    for (const auto& [name, s] : slices) in.slices.push_back(std::make_shared<const discoveryv1::EndpointSlice>(s));
    return decide_endpointslices(in);
  }
  int apply() {
    const auto d = decide();
    for (const auto& s : d.remove) slices.erase(s->metadata().name());
    for (auto s : d.create) {
      s.mutable_metadata()->set_name(s.metadata().generatename() + std::to_string(serial++));
      slices[s.metadata().name()] = s;
    }
    for (const auto& s : d.update) slices[s.metadata().name()] = s;
    EXPECT_TRUE(decide().empty()) << "a second look finds nothing to do";
    return static_cast<int>(d.create.size() + d.update.size() + d.remove.size());
  }
  std::multiset<std::string> addresses(const std::string& family = "IPv4") const {
    std::multiset<std::string> out;
    for (const auto& [name, s] : slices) {
      if (s.addresstype() != family) continue;
      for (const auto& e : s.endpoints()) out.insert(e.addresses(0));
    }
    return out;
  }
  const discoveryv1::Endpoint& only() const {
    EXPECT_EQ(slices.size(), 1u);
    EXPECT_EQ(slices.begin()->second.endpoints_size(), 1);
    return slices.begin()->second.endpoints(0);
  }
};

TestPod running(int i, const std::string& node = "n1") {
  return TestPod("p" + std::to_string(i)).on(node).ip("10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1)).ready();
}

struct Row {
  const char* story;
  TestPod pod;
  bool publish_not_ready;
  const char* endpoint;  // "ready serving terminating", or "" for none
};

TEST(EndpointSlice, WhichPodsAndHow) {
  const Row rows[] = {
      {"ready", running(1), false, "110"},
      {"not ready", running(1).ready(false), false, "000"},
      {"not ready, published anyway", running(1).ready(false), true, "100"},
      {"terminating, still serving", running(1).deleting(), false, "011"},
      {"terminating, not serving", running(1).ready(false).deleting(), false, "001"},
      {"without an address", TestPod("p").on("n1"), false, ""},
      {"finished", running(1).phase("Succeeded"), false, ""},
      {"failed", running(1).phase("Failed"), false, ""},
      {"on a node that is gone", running(1, "n9"), false, ""},
      {"on a node that is gone, published anyway", running(1, "n9"), true, "110"},
  };
  for (const Row& row : rows) {
    World w;
    w.service.mutable_spec()->set_publishnotreadyaddresses(row.publish_not_ready);
    w.add(row.pod);
    w.apply();
    if (!*row.endpoint) {
      EXPECT_TRUE(w.addresses().empty()) << row.story;
      EXPECT_EQ(w.slices.size(), 1u) << row.story << ": an empty placeholder";
      EXPECT_EQ(w.slices.begin()->second.ports_size(), 0) << row.story;
      continue;
    }
    const auto& c = w.only().conditions();
    EXPECT_EQ(fmt::format("{:d}{:d}{:d}", c.ready(), c.serving(), c.terminating()), row.endpoint) << row.story;
    EXPECT_TRUE(c.has_ready() && c.has_serving() && c.has_terminating()) << row.story;
  }
}

TEST(EndpointSlice, Contents) {
  World w;
  (*w.service.mutable_metadata()->mutable_labels())["team"] = "blue";
  auto pod = running(1, "n2");
  pod.pod.mutable_spec()->set_hostname("first");
  pod.pod.mutable_spec()->set_subdomain("web");
  w.add(pod);
  w.apply();
  const auto& s = w.slices.begin()->second;
  EXPECT_EQ(s.metadata().generatename(), "web-");
  EXPECT_EQ(s.metadata().labels().at("kubernetes.io/service-name"), "web");
  EXPECT_EQ(s.metadata().labels().at("endpointslice.kubernetes.io/managed-by"), "endpointslice-controller.k8s.io");
  EXPECT_EQ(s.metadata().labels().at("team"), "blue");
  EXPECT_FALSE(s.metadata().labels().contains("service.kubernetes.io/headless"));
  EXPECT_EQ(s.metadata().ownerreferences(0).uid(), "uid-svc-web");
  ASSERT_EQ(s.ports_size(), 1);
  EXPECT_EQ(s.ports(0).name(), "http");
  EXPECT_EQ(s.ports(0).port(), 8080);
  const auto& e = w.only();
  EXPECT_EQ(e.nodename(), "n2");
  EXPECT_EQ(e.zone(), "z2");
  EXPECT_EQ(e.hostname(), "first");
  EXPECT_EQ(e.targetref().uid(), "uid-p1");
  w.service.mutable_spec()->set_clusterip("None");
  EXPECT_EQ(w.apply(), 1);
  EXPECT_TRUE(w.slices.begin()->second.metadata().labels().contains("service.kubernetes.io/headless"));
}

TEST(EndpointSlice, NamedPortsThatDifferGoIntoSlicesOfTheirOwn) {
  World w;
  w.service.mutable_spec()->mutable_ports(0)->mutable_targetport()->set_type(1);
  w.service.mutable_spec()->mutable_ports(0)->mutable_targetport()->set_strval("web");
  w.add(running(1).port("web", 8080));
  w.add(running(2).port("web", 9090));
  w.add(running(3).port("web", 9090));
  w.add(running(4).port("web", 9090, "UDP"));
  w.apply();
  std::map<int, int> by_port;
  for (const auto& [name, s] : w.slices) by_port[s.ports_size() ? s.ports(0).port() : 0] += s.endpoints_size();
  EXPECT_EQ(by_port, (std::map<int, int>{{8080, 1}, {9090, 2}, {0, 1}}));
}

TEST(EndpointSlice, DualStackHasSlicesPerFamily) {
  World w;
  w.service.mutable_spec()->add_ipfamilies("IPv6");
  w.add(TestPod("a").on("n1").ip("10.0.0.1", "fd00::1").ready());
  w.add(TestPod("b").on("n1").ip("10.0.0.2").ready());
  w.apply();
  EXPECT_EQ(w.addresses("IPv4").size(), 2u);
  EXPECT_EQ(w.addresses("IPv6"), (std::multiset<std::string>{"fd00::1"}));
  w.service.mutable_spec()->clear_ipfamilies();
  w.service.mutable_spec()->add_ipfamilies("IPv4");
  EXPECT_EQ(w.apply(), 1) << "the slice of the dropped family goes";
  EXPECT_EQ(w.slices.size(), 1u);
}

TEST(EndpointSlice, Hints) {
  const std::map<std::string, std::string> expected = {{"", ""}, {"PreferClose", "zone z1"}, {"PreferSameZone", "zone z1"}, {"PreferSameNode", "zone z1 node n1"}};
  for (const auto& [distribution, hints] : expected) {
    World w;
    if (!distribution.empty()) w.service.mutable_spec()->set_trafficdistribution(distribution);
    w.add(running(1));
    w.apply();
    std::string got;
    for (const auto& z : w.only().hints().forzones()) got += "zone " + z.name();
    for (const auto& n : w.only().hints().fornodes()) got += " node " + n.name();
    EXPECT_EQ(got, hints) << distribution;
  }
  World w;
  w.service.mutable_spec()->set_trafficdistribution("PreferClose");
  w.add(running(1).ready(false));
  w.apply();
  EXPECT_FALSE(w.only().has_hints()) << "only ready endpoints are hinted";
}

TEST(EndpointSlice, ChangesTouchFewSlices) {
  World w;
  for (int i = 0; i < 250; ++i) w.add(running(i));
  EXPECT_EQ(w.apply(), 3) << "100 + 100 + 50";
  w.add(running(300));
  EXPECT_EQ(w.apply(), 1) << "into the slice that has room";
  EXPECT_EQ(w.slices.size(), 3u);
  w.pods.at("p7").ready(false);
  EXPECT_EQ(w.apply(), 1) << "one endpoint changes, one slice changes";
  w.pods.erase("p7");
  w.add(running(301));
  EXPECT_EQ(w.apply(), 1) << "the slice that loses one takes the new one";
  w.pods.clear();
  EXPECT_EQ(w.apply(), 3) << "two go, one becomes the placeholder";
  EXPECT_EQ(w.slices.size(), 1u);
  const std::string placeholder = w.slices.begin()->first;
  w.add(running(1));
  EXPECT_EQ(w.apply(), 1);
  EXPECT_EQ(w.slices.begin()->first, placeholder) << "the placeholder is used, not replaced";
}

TEST(EndpointSlice, RestoresWhatSomebodyElseChanged) {
  World w;
  w.add(running(1));
  w.apply();
  (*w.slices.begin()->second.mutable_metadata()->mutable_labels())["kubernetes.io/service-name"] = "web";
  w.slices.begin()->second.mutable_metadata()->clear_ownerreferences();
  EXPECT_EQ(w.apply(), 1);
  w.slices.begin()->second.mutable_endpoints(0)->mutable_conditions()->set_ready(false);
  EXPECT_EQ(w.apply(), 1);
  EXPECT_TRUE(w.only().conditions().ready());
}

// Whatever happens to pods and ports: every endpoint is there once, slices are not overfull and their number stays near the
// least, and a change of one pod touches at most two slices per family.
TEST(EndpointSlice, RandomHistories) {
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    SeededRandom random(seed);
    World w;
    w.max = 1 + static_cast<int>(random.below(8));
    if (random.below(2)) w.service.mutable_spec()->add_ipfamilies("IPv6");
    w.service.mutable_spec()->mutable_ports(0)->mutable_targetport()->set_type(1);
    w.service.mutable_spec()->mutable_ports(0)->mutable_targetport()->set_strval("web");
    for (int step = 0; step < 80; ++step) {
      const int changes = 1 + static_cast<int>(random.below(random.below(4) == 0 ? 12 : 1));
      for (int c = 0; c < changes; ++c) {
        const int i = static_cast<int>(random.below(30));
        const std::string name = "p" + std::to_string(i);
        if (random.below(3) == 0) {
          w.pods.erase(name);
        } else {
          auto p = TestPod(name).on(random.below(2) ? "n1" : "n2").ip("10.0.0." + std::to_string(i + 1), "fd00::" + std::to_string(i + 1)).ready(random.below(3) > 0);
          p.port("web", 8080 + static_cast<int>(random.below(2)));
          w.add(p);
        }
      }
      const int touched = w.apply();
      const int families = w.service.spec().ipfamilies_size();
      if (changes == 1) {
        ASSERT_LE(touched, 2 * families) << "seed " << seed;
      }
      for (const auto& family : w.service.spec().ipfamilies()) {
        std::multiset<std::string> expected;
        for (const auto& [name, p] : w.pods) expected.insert(pod_ip_of(p.pod, family == "IPv6"));
        ASSERT_EQ(w.addresses(family), expected) << "seed " << seed;
      }
      std::map<std::pair<std::string, int>, std::pair<int, int>> fill;  // family, port -> slices, endpoints
      for (const auto& [name, s] : w.slices) {
        ASSERT_LE(s.endpoints_size(), w.max) << "seed " << seed;
        auto& [count, endpoints] = fill[{s.addresstype(), s.ports_size() ? s.ports(0).port() : 0}];
        ++count;
        endpoints += s.endpoints_size();
      }
      for (const auto& e : w.slices) {
        for (const auto& endpoint : e.second.endpoints()) {
          const auto& pod = w.pods.at(endpoint.targetref().name()).pod;
          ASSERT_EQ(endpoint.conditions().ready(), is_pod_ready(pod)) << "seed " << seed;
          ASSERT_EQ(e.second.ports(0).port(), pod.spec().containers(0).ports(0).containerport()) << "seed " << seed;
        }
      }
    }
  }
}

TEST(TriggerTimes, TellsTheOldestChangeOnce) {
  TriggerTimes times;
  const auto service = test_service();
  const auto a = TestPod("a").ready(true, epoch + seconds(10)).get();
  const auto b = TestPod("b").ready(true, epoch + seconds(5)).get();
  EXPECT_EQ(times.observe(service, {}), epoch) << "the Service itself is new";
  EXPECT_EQ(times.observe(service, {a, b}), epoch + seconds(5));
  EXPECT_EQ(times.observe(service, {a, b}), std::nullopt);
  const auto b2 = TestPod("b").ready(false, epoch + seconds(20)).get();
  EXPECT_EQ(times.observe(service, {a, b2}), epoch + seconds(20));
}

corev1::Endpoints endpoints_of(const corev1::Service& service, const std::vector<TestPod>& pods, int max = 1000) {
  EndpointsInput in{std::make_shared<const corev1::Service>(service), {}, nullptr, {}, max};
  for (const auto& p : pods) in.pods.push_back(p.get());
  auto d = decide_endpoints(in);
  EXPECT_TRUE(d.create);
  in.stored = std::make_shared<const corev1::Endpoints>(*d.create);
  const auto again = decide_endpoints(in);
  EXPECT_FALSE(again.create || again.update) << "a second look finds nothing to do";
  return *d.create;
}

TEST(Endpoints, SubsetsByPorts) {
  const auto e = endpoints_of(test_service(), {running(1), running(2).ready(false), running(3).deleting(), TestPod("x")});
  ASSERT_EQ(e.subsets_size(), 1);
  ASSERT_EQ(e.subsets(0).addresses_size(), 1);
  EXPECT_EQ(e.subsets(0).addresses(0).ip(), "10.0.0.2");
  EXPECT_EQ(e.subsets(0).addresses(0).nodename(), "n1");
  ASSERT_EQ(e.subsets(0).notreadyaddresses_size(), 1);
  EXPECT_EQ(e.subsets(0).ports(0).port(), 8080);
  EXPECT_EQ(e.metadata().name(), "web");
}

TEST(Endpoints, CutAtTheLimitReadyOnesFirst) {
  std::vector<TestPod> pods;
  for (int i = 0; i < 10; ++i) pods.push_back(running(i).ready(i >= 5));
  const auto e = endpoints_of(test_service(), pods, 7);
  EXPECT_EQ(e.subsets(0).addresses_size(), 5);
  EXPECT_EQ(e.subsets(0).notreadyaddresses_size(), 2);
  EXPECT_EQ(e.metadata().annotations().at("endpoints.kubernetes.io/over-capacity"), "truncated");
}

TEST(Endpoints, NoPodsNoSubsets) { EXPECT_EQ(endpoints_of(test_service(), {}).subsets_size(), 0); }

}  // namespace
}  // namespace fairlead::controllers
