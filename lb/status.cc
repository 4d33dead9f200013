#include "lb/status.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/version.h"
#include "kube/api.h"
#include "kube/client.h"
#include "kube/kubeconfig.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::lb {
namespace {

struct Flags {
  std::string kubeconfig;
  std::string pools_dir;
  std::string lease_namespace = "kube-system";
  std::string lease_name = "fairlead-lb-controller";
  ReconcileOptions options;
};

// "announcing 192.0.2.1 from node "n1" with protocol "layer2"", as the speakers' Events say it.
void read_announcement(const corev1::Event& e, std::map<std::string, std::pair<std::int64_t, std::string>>& newest) {
  const std::string& m = e.message();
  const std::string_view head = "announcing ", middle = " from node \"";
  const auto at = m.find(middle);
  if (e.reason() != "nodeAssigned" || !m.starts_with(head) || at == std::string::npos) return;
  const auto address = m.substr(head.size(), at - head.size());
  const auto node = m.substr(at + middle.size(), m.find('"', at + middle.size()) - at - middle.size());
  auto& entry = newest[e.involvedobject().namespace_() + "/" + e.involvedobject().name() + " " + address];
  if (e.lasttimestamp().seconds() >= entry.first) entry = {e.lasttimestamp().seconds(), node};
}

Task<Result<StatusFacts>> gather(std::shared_ptr<kube::Client> client, Flags f) {
  StatusFacts facts;
  FL_CO_TRY(const auto texts, read_pool_dir(f.pools_dir));
  facts.pools = parse_pools(texts);
  const kube::ListOptions all;
  kube::ListOptions announcements;
  announcements.field_selector = "reason=nodeAssigned";
  auto services = co_await client->list<corev1::Service>("", all);
  if (!services) co_return fail(std::move(services).error().with("list services"));
  for (const auto& s : *services) facts.services.push_back(read_request(s));
  auto events = co_await client->list<corev1::Event>("", announcements);
  if (!events) co_return fail(std::move(events).error().with("list events"));
  std::map<std::string, std::pair<std::int64_t, std::string>> newest;
  for (const auto& e : *events) read_announcement(e, newest);
  for (auto& [key, entry] : newest) facts.announced[key] = entry.second;
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
  CLI::App app("Shows address pools, assignments and announcing nodes", "fairlead lb status");
  Flags f;
  if (const char* env = ::getenv("KUBECONFIG")) f.kubeconfig = env;
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the apiserver; default: KUBECONFIG, else the pod's service account");
  app.add_option("--pools", f.pools_dir, "folder with the YAML of the pools")->required();
  app.add_option("--lb-class", f.options.load_balancer_class, "spec.loadBalancerClass of the Services to show; empty: those without one");
  app.add_option("--leader-elect-resource-namespace", f.lease_namespace, "namespace of the controllers' Lease")->capture_default_str();
  app.add_option("--leader-elect-resource-name", f.lease_name, "name of the controllers' Lease")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  const auto text = status(f);
  if (!text) {
    std::cerr << "fairlead lb status: " << text.error().message << "\n";
    return 1;
  }
  std::cout << *text;
  return 0;
}

}  // namespace fairlead::lb
