#include "lb/reconcile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fairlead::lb {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string pool(const std::string& name, const std::string& spec) {
  return fmt::format("---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {}}}\nspec: {}\n", name, spec);
}
std::vector<IpAddress> ips(std::initializer_list<const char*> texts) {
  std::vector<IpAddress> out;
  for (const char* t : texts) out.push_back(IpAddress::parse(t).value());
  return out;
}

// Services and pools, with a controller that carries every decision out.
struct World {
  PoolSet pools;
  Allocations book;
  ReconcileOptions options;
  std::map<std::string, ServiceRequest> services;
  std::vector<std::string> events;  // of the last run
  Next next = Next::done;

  explicit World(const std::string& yaml) { set_pools(yaml); }
  void set_pools(const std::string& yaml) { pools = parse_pools({{"f", yaml}}).set; }

  ServiceRequest& add(const std::string& name) {
    ServiceRequest r;
    r.ns = "ns";
    r.key = "ns/" + name;
    r.load_balancer = true;
    r.families = {Family::v4};
    r.shape.ports = {{80, Protocol::tcp}};
    return services[name] = r;
  }
  // The addresses that the service shows afterwards.
  std::string run(const std::string& name) {
    auto& s = services.at(name);
    const auto d = reconcile(s, pools, book, options);
    events.clear();
    for (const auto& e : d.events) events.push_back(fmt::format("{} {}: {}", e.warning ? "Warning" : "Normal", e.reason, e.message));
    next = d.next;
    Transaction t(book, s.key);
    if (d.next == Next::hold) {
      EXPECT_TRUE(t.hold(d.claim));
    }
    if (d.next == Next::release) t.release();
    t.commit();
    if (d.status) s.status = *d.status;
    return join(s.status);
  }
};

TEST(Reconcile, LowestFirstUntilFull) {
  World w(pool("p", "{addresses: [192.0.2.4/30], avoidBuggyIPs: true}"));
  for (const char* name : {"a", "b", "c", "d", "e"}) w.add(name);
  EXPECT_EQ(w.run("a"), "192.0.2.4");
  EXPECT_THAT(w.events, ElementsAre("Normal IPAllocated: Assigned IP 192.0.2.4"));
  EXPECT_EQ(w.run("a"), "192.0.2.4");
  EXPECT_EQ(w.next, Next::done);
  EXPECT_THAT(w.events, IsEmpty());
  EXPECT_EQ(w.run("b"), "192.0.2.5");
  EXPECT_EQ(w.run("c"), "192.0.2.6");
  EXPECT_EQ(w.run("d"), "192.0.2.7");
  EXPECT_EQ(w.run("e"), "");
  EXPECT_EQ(w.next, Next::waiting);
  EXPECT_THAT(w.events, ElementsAre("Warning AllocationFailed: Failed to allocate IP: no free address of the service's families in any pool"));
  w.services.at("b").load_balancer = false;
  EXPECT_EQ(w.run("b"), "");
  EXPECT_EQ(w.run("e"), "192.0.2.5");
}

TEST(Reconcile, BuggyAddressesAreLeftOut) {
  World w(pool("p", "{addresses: [192.0.2.254-192.0.3.1], avoidBuggyIPs: true}"));
  for (const char* name : {"a", "b", "c"}) w.add(name);
  EXPECT_EQ(w.run("a"), "192.0.2.254");
  EXPECT_EQ(w.run("b"), "192.0.3.1");
  EXPECT_EQ(w.run("c"), "");
  w.services.at("c").wanted = ips({"192.0.3.0"});
  EXPECT_EQ(w.run("c"), "");
  EXPECT_THAT(w.events.at(0), HasSubstr("192.0.3.0 is in no pool"));
}

// One service on its own: what it asks for, and what it gets.
TEST(Reconcile, WhatAServiceAsksFor) {
  const std::string pools = pool("auto", "{addresses: [192.0.2.0/28]}") + pool("byhand", "{addresses: [198.51.100.0/28], autoAssign: false}") +
                            pool("both", "{addresses: [203.0.113.0/28, '2001:db8::/124'], autoAssign: false}") +
                            pool("teamx", "{addresses: [10.0.0.0/28], autoAssign: false, serviceAllocation: {namespaceSelectors: [{matchLabels: {team: x}}]}}");
  struct Row {
    const char* story;
    void (*ask)(ServiceRequest&);
    const char* gets;  // empty: nothing
    const char* says = "";
  };
  const Row rows[] = {
      {"nothing in particular", [](ServiceRequest&) {}, "192.0.2.0"},
      {"an address", [](ServiceRequest& r) { r.wanted = ips({"192.0.2.9"}); }, "192.0.2.9"},
      {"an address of a pool that assigns nothing by itself", [](ServiceRequest& r) { r.wanted = ips({"198.51.100.3"}); }, "198.51.100.3"},
      {"an address of no pool", [](ServiceRequest& r) { r.wanted = ips({"192.0.2.77"}); }, "", "192.0.2.77 is in no pool"},
      {"an address of the wrong family", [](ServiceRequest& r) { r.wanted = ips({"2001:db8::1"}); }, "", "does not fit the service's address families"},
      {"a pool", [](ServiceRequest& r) { r.pool = "byhand"; }, "198.51.100.0"},
      {"a pool that is not there", [](ServiceRequest& r) { r.pool = "nowhere"; }, "", "there is no pool \"nowhere\""},
      {"a pool for others", [](ServiceRequest& r) { r.pool = "teamx"; }, "", "pool teamx is not for this service"},
      {"a pool for its namespace", [](ServiceRequest& r) { r.pool = "teamx", r.namespace_labels = {{"team", "x"}}; }, "10.0.0.0"},
      {"an address of a pool for others", [](ServiceRequest& r) { r.wanted = ips({"10.0.0.1"}); }, "", "pool teamx is not for this service"},
      {"pool and address", [](ServiceRequest& r) { r.pool = "byhand", r.wanted = ips({"198.51.100.5"}); }, "198.51.100.5"},
      {"pool and address of another", [](ServiceRequest& r) { r.pool = "byhand", r.wanted = ips({"192.0.2.5"}); }, "", "192.0.2.5 is not in pool byhand"},
      {"a malformed annotation", [](ServiceRequest& r) { r.problem = "metadata.annotations[x]: bad"; }, "", "metadata.annotations[x]: bad"},
      {"both families", [](ServiceRequest& r) { r.pool = "both", r.families = {Family::v4, Family::v6}, r.family_policy = FamilyPolicy::require_dual; },
       "203.0.113.0, 2001:db8::"},
      {"both families, IPv6 first", [](ServiceRequest& r) { r.pool = "both", r.families = {Family::v6, Family::v4}, r.family_policy = FamilyPolicy::require_dual; },
       "2001:db8::, 203.0.113.0"},
      {"both families where no pool has them", [](ServiceRequest& r) { r.families = {Family::v4, Family::v6}, r.family_policy = FamilyPolicy::require_dual; }, "",
       "no free address of the service's families"},
      {"both families if possible", [](ServiceRequest& r) { r.families = {Family::v6, Family::v4}, r.family_policy = FamilyPolicy::prefer_dual; }, "192.0.2.0",
       "Assigned IP 192.0.2.0"},
      {"two addresses by name", [](ServiceRequest& r) {
         r.families = {Family::v4, Family::v6}, r.family_policy = FamilyPolicy::require_dual, r.wanted = ips({"203.0.113.9", "2001:db8::9"});
       }, "203.0.113.9, 2001:db8::9"},
      {"one of two families by name", [](ServiceRequest& r) {
         r.families = {Family::v4, Family::v6}, r.family_policy = FamilyPolicy::require_dual, r.wanted = ips({"203.0.113.9"});
       }, "", "does not fit"},
      {"another class", [](ServiceRequest& r) { r.load_balancer_class = "example.com/other"; }, ""},
      {"no load balancer", [](ServiceRequest& r) { r.load_balancer = false; }, ""},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.story);
    World w(pools);
    row.ask(w.add("a"));
    EXPECT_EQ(w.run("a"), row.gets);
    EXPECT_THAT(w.events.empty() ? "" : w.events.front(), HasSubstr(row.says));
    EXPECT_EQ(w.book.find("ns/a") != nullptr, row.gets[0] != '\0');
  }
}

TEST(Reconcile, OurClass) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}"));
  w.options.load_balancer_class = "fairlead.io/lb";
  w.add("none");
  w.add("ours").load_balancer_class = "fairlead.io/lb";
  EXPECT_EQ(w.run("none"), "");
  EXPECT_EQ(w.run("ours"), "192.0.2.0");
}

TEST(Reconcile, OrderOfPools) {
  World w(pool("a-open", "{addresses: [10.0.0.0/32]}") + pool("b-last", "{addresses: [10.0.1.0/32], serviceAllocation: {namespaces: [ns]}}") +
          pool("c-second", "{addresses: [10.0.2.0/32], serviceAllocation: {priority: 20, namespaces: [ns]}}") +
          pool("d-first", "{addresses: [10.0.3.0/32], serviceAllocation: {priority: 10, serviceSelectors: [{matchLabels: {app: web}}]}}") +
          pool("e-others", "{addresses: [10.0.4.0/32], serviceAllocation: {priority: 1, namespaces: [elsewhere]}}"));
  for (const char* name : {"1", "2", "3", "4", "5"}) w.add(name).labels = {{"app", "web"}};
  EXPECT_EQ(w.run("1"), "10.0.3.0");
  EXPECT_EQ(w.run("2"), "10.0.2.0");
  EXPECT_EQ(w.run("3"), "10.0.1.0");
  EXPECT_EQ(w.run("4"), "10.0.0.0");
  EXPECT_EQ(w.run("5"), "");
}

TEST(Reconcile, Sharing) {
  struct Row {
    const char* story;
    void (*first)(ServiceRequest&);
    void (*second)(ServiceRequest&);
    const char* says;  // empty: they share
  };
  const auto key = [](ServiceRequest& r) { r.shape.sharing_key = "k"; };
  const Row rows[] = {
      {"same key, other port", key, [](ServiceRequest& r) { r.shape = {{}, "k", {{443, Protocol::tcp}}, ""}; }, ""},
      {"same port, other protocol", key, [](ServiceRequest& r) { r.shape = {{}, "k", {{80, Protocol::udp}}, ""}; }, ""},
      {"same port", key, [](ServiceRequest& r) { r.shape = {{}, "k", {{80, Protocol::tcp}}, ""}; }, "held by service ns/1, which also uses port 80/TCP"},
      {"another key", key, [](ServiceRequest& r) { r.shape = {{}, "other", {{443, Protocol::tcp}}, ""}; }, "which has another sharing key"},
      {"no key", [](ServiceRequest&) {}, [](ServiceRequest& r) { r.shape = {{}, "k", {{443, Protocol::tcp}}, ""}; }, "which shares it with nobody"},
      {"local traffic for other pods", key, [](ServiceRequest& r) { r.shape = {{}, "k", {{443, Protocol::tcp}}, "local:app=x,"}; }, "keeps traffic on the node"},
      {"local traffic for the same pods", [](ServiceRequest& r) { r.shape.sharing_key = "k", r.shape.backends = "local:app=x,"; },
       [](ServiceRequest& r) { r.shape = {{}, "k", {{443, Protocol::tcp}}, "local:app=x,"}; }, ""},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.story);
    const bool shares = row.says[0] == '\0';
    World w(pool("p", "{addresses: [192.0.2.0/28]}"));
    row.first(w.add("1"));
    row.second(w.add("2"));
    EXPECT_EQ(w.run("1"), "192.0.2.0");
    EXPECT_EQ(w.run("2"), shares ? "192.0.2.0" : "192.0.2.1") << "found by itself";
    World named(pool("p", "{addresses: [192.0.2.0/28]}"));
    row.first(named.add("1"));
    row.second(named.add("2"));
    EXPECT_EQ(named.run("1"), "192.0.2.0");
    named.services.at("2").wanted = ips({"192.0.2.0"});
    EXPECT_EQ(named.run("2"), shares ? "192.0.2.0" : "") << "asked for by name";
    EXPECT_THAT(named.events.at(0), HasSubstr(row.says));
  }
}

TEST(Reconcile, APortThatCollidesMovesTheOneThatChanged) {
  World w(pool("p", "{addresses: [192.0.2.0/31]}"));
  w.add("1").shape.sharing_key = "k";
  w.add("2").shape = {{}, "k", {{443, Protocol::tcp}}, ""};
  EXPECT_EQ(w.run("1"), "192.0.2.0");
  EXPECT_EQ(w.run("2"), "192.0.2.0");
  w.services.at("2").shape.ports = {{80, Protocol::tcp}};
  EXPECT_EQ(w.run("2"), "192.0.2.1");
  EXPECT_THAT(w.events, ElementsAre("Warning AddressConflict: 192.0.2.0 is held by service ns/1, which also uses port 80/TCP", "Normal IPAllocated: Assigned IP 192.0.2.1"));
  EXPECT_EQ(w.run("1"), "192.0.2.0");
  // With nowhere to go it has to let go.
  w.services.at("2").wanted = ips({"192.0.2.0"});
  EXPECT_EQ(w.run("2"), "192.0.2.1") << "a wish that cannot be fulfilled costs nothing";
  EXPECT_THAT(w.events.at(0), HasSubstr("the service keeps 192.0.2.1"));
}

TEST(Reconcile, ConflictWithNowhereToGo) {
  World w(pool("p", "{addresses: [192.0.2.0/32]}"));
  w.add("1").shape.sharing_key = "k";
  w.add("2").shape = {{}, "k", {{443, Protocol::tcp}}, ""};
  EXPECT_EQ(w.run("1"), "192.0.2.0");
  EXPECT_EQ(w.run("2"), "192.0.2.0");
  w.services.at("2").shape.ports = {{80, Protocol::tcp}};
  EXPECT_EQ(w.run("2"), "");
  EXPECT_EQ(w.next, Next::release);
  EXPECT_EQ(w.book.find("ns/2"), nullptr);
  w.services.at("2").shape.ports = {{8080, Protocol::tcp}};
  EXPECT_EQ(w.run("2"), "192.0.2.0");
}

TEST(Reconcile, WishesThatChange) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}") + pool("q", "{addresses: [198.51.100.0/28, '2001:db8::/124']}"));
  auto& s = w.add("a");
  EXPECT_EQ(w.run("a"), "192.0.2.0");
  s.wanted = ips({"192.0.2.5"});
  EXPECT_EQ(w.run("a"), "192.0.2.5");
  s.wanted = ips({"192.0.3.5"});
  EXPECT_EQ(w.run("a"), "192.0.2.5");
  EXPECT_THAT(w.events, ElementsAre("Warning AllocationFailed: Failed to allocate IP: 192.0.3.5 is in no pool; the service keeps 192.0.2.5"));
  s.wanted.clear();
  s.pool = "q";
  EXPECT_EQ(w.run("a"), "198.51.100.0");
  s.families = {Family::v4, Family::v6};
  s.family_policy = FamilyPolicy::require_dual;
  EXPECT_EQ(w.run("a"), "198.51.100.0, 2001:db8::") << "what it has stays";
  s.families = {Family::v6};
  s.family_policy = FamilyPolicy::single;
  EXPECT_EQ(w.run("a"), "2001:db8::");
  EXPECT_TRUE(w.book.holders(ips({"198.51.100.0"})[0]).empty());
  s.problem = "metadata.annotations[x]: bad";
  EXPECT_EQ(w.run("a"), "2001:db8::");
  EXPECT_THAT(w.events, ElementsAre("Warning AllocationFailed: metadata.annotations[x]: bad; the service keeps 2001:db8::"));
}

TEST(Reconcile, APoolThatShrinksCutsNobodyOff) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}"));
  w.add("a");
  w.add("b");
  EXPECT_EQ(w.run("a"), "192.0.2.0");
  w.set_pools(pool("p", "{addresses: [192.0.2.8/29]}"));
  EXPECT_EQ(w.run("a"), "192.0.2.0");
  EXPECT_EQ(w.events.size(), 1u);
  EXPECT_THAT(w.events.at(0), HasSubstr("Warning AddressOutsidePools: 192.0.2.0 is in no pool any more"));
  EXPECT_EQ(w.run("b"), "192.0.2.8");
  w.services.at("a").wanted = ips({"192.0.2.9"});
  EXPECT_EQ(w.run("a"), "192.0.2.9");
  w.set_pools("");
  w.services.at("b").load_balancer = false;
  EXPECT_EQ(w.run("b"), "");
  w.add("c");
  EXPECT_EQ(w.run("c"), "");
  EXPECT_THAT(w.events.at(0), HasSubstr("there are no address pools"));
}

// Whoever wrote the status by hand, the book is right.
TEST(Reconcile, AStatusThatIsWrongIsWrittenAgain) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}"));
  auto& a = w.add("a");
  w.add("b");
  EXPECT_EQ(w.run("a"), "192.0.2.0");
  a.status.clear();
  EXPECT_EQ(w.run("a"), "192.0.2.0");
  a.status = ips({"10.9.9.9"});
  EXPECT_EQ(w.run("a"), "192.0.2.0");
  auto& gone = w.add("gone");
  gone.load_balancer = false;
  gone.status = ips({"192.0.2.3"});
  EXPECT_EQ(w.run("gone"), "") << "changed its type while nobody looked";
  gone.status = ips({"172.16.0.1"});
  EXPECT_EQ(w.run("gone"), "172.16.0.1") << "somebody else's address";
}

TEST(Adopt, ARestartLosesNothing) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}"));
  for (const char* name : {"a", "b", "c"}) w.add(name);
  for (const char* name : {"c", "b", "a"}) w.run(name);
  const auto before = w.services;
  w.book = {};
  std::vector<ServiceRequest> all;
  for (const auto& [n, s] : w.services) all.push_back(s);
  EXPECT_EQ(adopt(all, w.book, w.options).size(), 3u);
  w.add("new");
  EXPECT_EQ(w.run("new"), "192.0.2.3");
  for (const auto& [n, s] : before) {
    EXPECT_EQ(w.run(n), join(s.status));
    EXPECT_EQ(w.next, Next::done);
  }
}

TEST(Adopt, TwoOwnersOfOneAddress) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}"));
  w.add("old").status = ips({"192.0.2.0"});
  w.add("young").status = ips({"192.0.2.0"});
  const auto adopted = adopt({w.services.at("old"), w.services.at("young")}, w.book, w.options);
  ASSERT_EQ(adopted.size(), 1u);
  EXPECT_EQ(adopted[0].first, "ns/old");
  const auto findings = audit({w.services.at("old"), w.services.at("young")}, w.pools, w.book, w.options);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].service, "ns/young");
  EXPECT_THAT(findings[0].event.message, HasSubstr("shows 192.0.2.0, which is not allocated to it, it is held by ns/old"));
  EXPECT_EQ(w.run("old"), "192.0.2.0");
  EXPECT_EQ(w.run("young"), "192.0.2.1");
}

TEST(Adopt, AnAddressThatIsStillShownIsNobodyElses) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}"));
  auto& was = w.add("was");
  was.load_balancer = false;  // its type changed while no controller ran
  was.status = ips({"192.0.2.0"});
  w.add("wants");
  EXPECT_EQ(adopt({w.services.at("was"), w.services.at("wants")}, w.book, w.options).size(), 1u);
  EXPECT_EQ(w.run("wants"), "192.0.2.1");
  EXPECT_EQ(w.run("was"), "");
  EXPECT_EQ(w.book.find("ns/was"), nullptr);
  w.add("next");
  EXPECT_EQ(w.run("next"), "192.0.2.0");
}

TEST(Audit, FindsWhatDisagrees) {
  World w(pool("p", "{addresses: [192.0.2.0/28]}"));
  for (const char* name : {"good", "leaked", "hidden", "outside"}) w.add(name), w.run(name);
  w.set_pools(pool("p", "{addresses: [192.0.2.0-192.0.2.2]}"));
  w.services.at("hidden").status.clear();
  std::vector<ServiceRequest> all;
  for (const auto& [n, s] : w.services)
    if (n != "leaked") all.push_back(s);
  std::vector<std::string> found;
  for (const auto& f : audit(all, w.pools, w.book, w.options)) found.push_back(fmt::format("{} {}{}", f.service, f.event.reason, f.leak ? " leak" : ""));
  EXPECT_THAT(found, testing::UnorderedElementsAre("ns/hidden AddressNotShown", "ns/outside AddressOutsidePools", "ns/leaked AddressLeaked leak"));
}

TEST(Transaction, WhatIsGivenUpStaysTakenUntilTheEnd) {
  Allocations book;
  const auto a = ips({"192.0.2.1"}), b = ips({"192.0.2.2"});
  const Claim old{a, "", {}, ""}, young{b, "", {}, ""};
  {
    Transaction t(book, "x");
    ASSERT_TRUE(t.hold(old));
    t.commit();
  }
  {
    Transaction t(book, "x");
    ASSERT_TRUE(t.hold(young));
    EXPECT_EQ(book.find("x")->addresses, b);
    EXPECT_FALSE(book.admits("y", old, a[0])) << "not free before the commit";
    EXPECT_FALSE(book.admits("y", old, b[0]));
  }  // reverted: nobody committed
  EXPECT_EQ(book.find("x")->addresses, a);
  EXPECT_TRUE(book.admits("y", old, b[0]));
  {
    Transaction t(book, "x");
    t.release();
    EXPECT_EQ(book.find("x"), nullptr);
    EXPECT_FALSE(book.admits("y", old, a[0]));
    t.commit();
  }
  EXPECT_TRUE(book.admits("y", old, a[0]));
  EXPECT_TRUE(book.all().empty());
}

}  // namespace
}  // namespace fairlead::lb
