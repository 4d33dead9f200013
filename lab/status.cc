#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <iostream>

#include "base/files.h"
#include "lab/commands.h"
#include "lab/flags.h"
#include "lab/readiness.h"
#include "lab/state.h"
#include "lab/teardown.h"

namespace fairlead::lab {
namespace {

namespace json = boost::json;

struct ComponentView {
  ComponentStatus status;
  pid_t host_pid = 0;
  std::uint64_t resident_kib = 0;
};
struct NodeView {
  const Node* node = nullptr;
  std::string ready = "unknown";  // "Ready", "NotReady", "unknown"
  bool running = false;
  std::vector<ComponentView> components;
};

std::uint64_t resident_kib(pid_t pid) {
  const auto text = read_file(fmt::format("/proc/{}/status", pid));
  const auto at = text ? text->find("VmRSS:") : std::string::npos;
  return at == std::string::npos ? 0 : std::strtoull(text->c_str() + at + 6, nullptr, 10);
}

NodeView look_at(const Node& node, const State& state, const Result<ClusterView>& cluster) {
  NodeView v{.node = &node};
  const auto init = state.node_inits.find(node.name);
  v.running = init != state.node_inits.end() && alive(init->second);
  if (cluster) {
    const auto it = cluster->ready.find(node.name);
    v.ready = it == cluster->ready.end() ? "unregistered" : it->second ? "Ready" : "NotReady";
  }
  const auto components = load_node_status(node);
  if (!v.running || !components) return v;
  const auto pids = host_pids(init->second);
  for (const auto& c : *components) {
    ComponentView cv{.status = c};
    const auto it = pids.find(c.pid);
    if (c.pid != 0 && it != pids.end()) {
      cv.host_pid = it->second;
      cv.resident_kib = resident_kib(it->second);
    }
    v.components.push_back(cv);
  }
  return v;
}

bool healthy(const NodeView& v) {
  if (!v.running || v.ready != "Ready") return false;
  for (const auto& c : v.components)
    if (c.status.state == "waiting") return false;
  return true;
}

void print_text(const Plan& plan, const State& state, const std::vector<NodeView>& nodes, const Result<ClusterView>& cluster) {
  std::cout << fmt::format("lab       {} (since {})\nAPI       {} ({})\nLAN       {} (this machine: {} on {})\nkubeconfig {}\n",
                           plan.options.state_dir, state.created, plan.server_url(), cluster ? "answers" : cluster.error().message,
                           plan.options.lan.to_string(), plan.host_ip.to_string(), plan.options.bridge, plan.admin_kubeconfig());
  std::cout << (alive(state.supervisor) ? fmt::format("supervisor pid {}\n", state.supervisor.pid)
                                        : std::string("supervisor not running: `fairlead up` resumes the lab\n"));
  for (const auto& v : nodes) {
    std::cout << fmt::format("\n{:<14} {:<13} {:<12} netns {}\n", v.node->name, v.node->ip.to_string(), v.running ? v.ready : "down", v.node->netns);
    for (const auto& c : v.components)
      std::cout << fmt::format("  {:<14} {:<8} pid {:<7} {:>7.1f} MB  restarts {}{}\n", c.status.name, c.status.state,
                               c.host_pid == 0 ? std::string("-") : std::to_string(c.host_pid), static_cast<double>(c.resident_kib) / 1024,
                               c.status.restarts, c.status.last_exit.empty() ? "" : " (last: " + c.status.last_exit + ")");
  }
}

void print_json(const Plan& plan, const State& state, const std::vector<NodeView>& nodes, bool all_healthy) {
  json::array list;
  for (const auto& v : nodes) {
    json::array components;
    for (const auto& c : v.components)
      components.push_back(json::object{{"name", c.status.name}, {"state", c.status.state}, {"pid", c.host_pid},
                                        {"residentBytes", c.resident_kib * 1024}, {"restarts", c.status.restarts}, {"lastExit", c.status.last_exit}});
    list.push_back(json::object{{"name", v.node->name}, {"ip", v.node->ip.to_string()}, {"netns", v.node->netns},
                                {"controlPlane", v.node->control_plane}, {"running", v.running}, {"ready", v.ready}, {"components", components}});
  }
  std::cout << json::serialize(json::object{{"stateDir", plan.options.state_dir}, {"created", state.created}, {"server", plan.server_url()},
                                            {"kubeconfig", plan.admin_kubeconfig()}, {"healthy", all_healthy},
                                            {"supervisorPid", alive(state.supervisor) ? state.supervisor.pid : 0}, {"nodes", list}})
            << "\n";
}

Result<int> status(const Options& options, bool as_json) {
  const auto state = load_state(options.state_dir);
  if (!state && state.error().code == ErrorCode::not_found) {
    const auto left = find_leftovers(options);
    std::cout << (left.empty() ? "there is no lab; start one with: fairlead up\n" : "there is no lab, but remains of one (remove them with: fairlead down):\n");
    for (const auto& l : left) std::cout << "  " << l << "\n";
    return 3;
  }
  if (!state) return fail(state.error());
  FL_TRY(const auto plan, plan_lab(state->options));
  const auto cluster = look(plan, std::chrono::milliseconds(1500));
  std::vector<NodeView> nodes;
  bool all_healthy = alive(state->supervisor);
  for (const auto& n : plan.nodes) {
    nodes.push_back(look_at(n, *state, cluster));
    all_healthy = all_healthy && healthy(nodes.back());
  }
  if (as_json)
    print_json(plan, *state, nodes, all_healthy);
  else
    print_text(plan, *state, nodes, cluster);
  return all_healthy ? 0 : 1;
}

}  // namespace

int run_status(int argc, char** argv) {
  CLI::App app("Show the lab: nodes, components, memory. Exit code 0: healthy, 1: not, 3: there is no lab", "fairlead status");
  Options options = default_options();
  bool as_json = false;
  add_state_dir(app, options);
  app.add_flag("--json", as_json, "Print JSON");
  CLI11_PARSE(app, argc, argv);
  auto r = status(options, as_json);
  if (!r) std::cerr << "fairlead status: " << r.error().message << "\n";
  return r ? *r : 1;
}

}  // namespace fairlead::lab
