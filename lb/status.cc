#include "lb/status.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "base/clock.h"
#include "base/version.h"
#include "kube/api.h"
#include "kube/client.h"
#include "kube/kubeconfig.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "lb/pool_source.h"

namespace fairlead::lb {
namespace {

struct Flags {
  std::string kubeconfig;
  PoolLocation pools;
  std::string lease_namespace = "kube-system";
  std::string lease_name = "fairlead-lb-controller";
  ReconcileOptions options;
};

struct Announced {
  std::string key;  // "ns/name address"
  std::string node;
  bool bgp = false;
  bool withdrawn = false;
  std::int64_t when = 0;
};

// "announcing 192.0.2.1 from node "n1" with protocol "layer2"", as the speakers' Events say it.
std::optional<Announced> read_announcement(const corev1::Event& e) {
  const std::string& m = e.message();
  const std::string_view middle = " from node \"";
  const auto first = m.find(' '), at = m.find(middle);
  if (at == std::string::npos || first >= at) return std::nullopt;
  const auto node = at + middle.size();
  Announced a;
  a.key = e.involvedobject().namespace_() + "/" + e.involvedobject().name() + " " + m.substr(first + 1, at - first - 1);
  a.node = m.substr(node, m.find('"', node) - node);
  a.bgp = m.ends_with("protocol \"bgp\"");
  a.withdrawn = e.reason() == "nodeWithdrawn";
  a.when = e.lasttimestamp().seconds();
  return a;
}

// The last word of each node counts; on the LAN that of the last node.
void read_announcements(const std::vector<corev1::Event>& events, StatusFacts& facts) {
  std::vector<Announced> all;
  for (const auto& e : events)
    if (auto a = read_announcement(e)) all.push_back(std::move(*a));
  // At the same second a withdrawal goes first: whoever announces again has said so after it.
  std::stable_sort(all.begin(), all.end(), [](const Announced& a, const Announced& b) { return std::pair(a.when, !a.withdrawn) < std::pair(b.when, !b.withdrawn); });
  for (const auto& a : all) {
    if (!a.bgp)
      facts.announced[a.key] = a.node;
    else if (a.withdrawn)
      facts.routed[a.key].erase(a.node);
    else
      facts.routed[a.key].insert(a.node);
  }
}

void read_sessions(const std::vector<coordinationv1::Lease>& leases, std::int64_t now, StatusFacts& facts) {
  for (const auto& l : leases) {
    const auto it = l.metadata().annotations().find(bgp::kSessionsAnnotation);
    if (it == l.metadata().annotations().end()) continue;
    const bool stale = now - l.spec().renewtime().seconds() > bgp::kReportStale.count();
    for (auto& r : bgp::read_reports(l.spec().holderidentity(), it->second)) facts.sessions.push_back({std::move(r), stale});
  }
}

Task<Result<StatusFacts>> gather(std::shared_ptr<kube::Client> client, Flags f) {
  StatusFacts facts;
  auto texts = co_await read_pools_once(client, f.pools);
  if (!texts) co_return fail(std::move(texts).error());
  facts.pools = parse_pools(*texts);
  const kube::ListOptions all;
  auto services = co_await client->list<corev1::Service>("", all);
  if (!services) co_return fail(std::move(services).error().with("list services"));
  for (const auto& s : *services) facts.services.push_back(read_request(s));
  std::vector<corev1::Event> announcements;
  for (const std::string reason : {"nodeAssigned", "nodeWithdrawn"}) {
    kube::ListOptions about;
    about.field_selector = "reason=" + reason;
    auto events = co_await client->list<corev1::Event>("", about);
    if (!events) co_return fail(std::move(events).error().with("list events"));
    std::move(events->begin(), events->end(), std::back_inserter(announcements));
  }
  read_announcements(announcements, facts);
  auto leases = co_await client->list<coordinationv1::Lease>(f.lease_namespace, all);
  if (!leases) co_return fail(std::move(leases).error().with("list leases"));
  read_sessions(*leases, std::chrono::duration_cast<std::chrono::seconds>(SystemClock::get().wall().time_since_epoch()).count(), facts);
  auto lease = co_await client->get<coordinationv1::Lease>(f.lease_namespace, f.lease_name);
  if (!lease && lease.error().code != ErrorCode::not_found) co_return fail(std::move(lease).error().with("lease {}/{}", f.lease_namespace, f.lease_name));
  if (lease) facts.leader = lease->spec().holderidentity();
  co_return facts;
}

Result<std::string> status(const Flags& f) {
  FL_TRY_CTX(const auto config, f.kubeconfig.empty() ? kube::in_cluster_config() : kube::load_kubeconfig(f.kubeconfig), "--kubeconfig {}", f.kubeconfig);
  net::io_context io;
  FL_TRY(const auto client, kube::make_client(io.get_executor(), config, fmt::format("fairlead-lb-status/{}", kVersion)));
  Result<StatusFacts> facts = fail(ErrorCode::internal, "no answer");
  net::co_spawn(io, gather(client, f), [&](std::exception_ptr, Result<StatusFacts> r) {
    facts = std::move(r);
    io.stop();
  });
  io.run();
  if (!facts) return fail(std::move(facts).error());
  return status_text(*facts, f.options);
}

}  // namespace

int run_status(int argc, char** argv) {
  CLI::App app("Shows address pools, assignments, announcing nodes and BGP sessions", "fairlead lb status");
  Flags f;
  if (const char* env = ::getenv("KUBECONFIG")) f.kubeconfig = env;
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the apiserver; default: KUBECONFIG, else the pod's service account");
  app.add_option("--pools", f.pools.dir, "folder with the YAML of the pools");
  app.add_option("--pools-namespace", f.pools.ns, "read them from the API instead: the namespace of the custom resources");
  app.add_option("--lb-class", f.options.load_balancer_class, "spec.loadBalancerClass of the Services to show; empty: those without one");
  app.add_option("--leader-elect-resource-namespace", f.lease_namespace, "namespace of the controllers' and speakers' Leases")->capture_default_str();
  app.add_option("--leader-elect-resource-name", f.lease_name, "name of the controllers' Lease")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  const auto located = f.pools.check();
  const auto text = located ? status(f) : Result<std::string>(fail(located.error()));
  if (!text) {
    std::cerr << "fairlead lb status: " << text.error().message << "\n";
    return 1;
  }
  std::cout << *text;
  return 0;
}

}  // namespace fairlead::lb
