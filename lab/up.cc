#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <iostream>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"
#include "base/process.h"
#include "lab/commands.h"
#include "lab/files.h"
#include "lab/flags.h"
#include "lab/preflight.h"
#include "lab/readiness.h"
#include "lab/state.h"
#include "base/scope_guard.h"
#include "lab/teardown.h"

namespace fairlead::lab {
namespace {

namespace fs = std::filesystem;
std::atomic<bool> g_interrupted{false};

void say(const std::string& line) { std::cout << "==> " << line << std::endl; }

void catch_interrupts() {
  struct sigaction a {};
  a.sa_handler = [](int) { g_interrupted = true; };
  ::sigaction(SIGINT, &a, nullptr);
  ::sigaction(SIGTERM, &a, nullptr);
}

bool report(const std::vector<Problem>& problems) {
  for (const auto& p : problems) std::cerr << "fairlead up: " << p.what << "\n  what to do: " << p.remedy << "\n";
  return problems.empty();
}

Result<> start_supervisor(const Plan& plan) {
  const auto log_file = plan.options.state_dir + "/supervisor.log";
  FL_TRY(const auto process, Process::start({.argv = {plan.options.bin_dir + "/fairlead", "lab-supervisor", "--state-dir", plan.options.state_dir},
                                             .environment = {},
                                             .stdout_file = log_file,
                                             .stderr_file = log_file,
                                             .netns = {},
                                             .new_session = true}));
  say(fmt::format("supervisor started (pid {}, log {})", process.pid(), log_file));
  return {};
}

// The nodes may be Ready long since: the new supervisor is in charge once lab.json names it.
Result<> wait_supervisor(const Plan& plan) {
  const auto until = SystemClock::get().steady() + std::chrono::seconds(10);
  while (SystemClock::get().steady() < until && !g_interrupted) {
    const auto state = load_state(plan.options.state_dir);
    if (state && alive(state->supervisor)) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return fail(ErrorCode::timeout, "the supervisor did not start; see {}/supervisor.log", plan.options.state_dir);
}

Result<> make_lab(const Plan& plan) {
  FL_CHECK(write_lab_files(plan));
  State s;
  s.options = plan.options;
  s.created = format_rfc3339(SystemClock::get().wall());
  return save_state(s);
}

Result<> copy_kubeconfig(const Plan& plan) {
  if (plan.options.kubeconfig.empty()) return {};
  FL_TRY(const auto text, read_file(plan.admin_kubeconfig()));
  return write_file_atomic(plan.options.kubeconfig, text, 0600);
}

void summary(const Plan& plan, double seconds) {
  const auto config = plan.options.kubeconfig.empty() ? plan.admin_kubeconfig() : plan.options.kubeconfig;
  std::cout << fmt::format("\nThe lab is up: {} nodes Ready in {:.1f} s.\n", plan.nodes.size(), seconds);
  for (const auto& n : plan.nodes)
    std::cout << fmt::format("  {:<14} {:<12} ip netns exec {}\n", n.name, n.ip.to_string(), n.netns);
  std::cout << fmt::format("\n  export KUBECONFIG={}\n  kubectl get nodes -o wide\n  fairlead status\n  fairlead down\n", config);
}

// Says what is there and how to go on, when a lab or the rest of one is in the way.
bool in_the_way(const Options& o) {
  const auto left = find_leftovers(o);
  if (left.empty()) return false;
  std::cerr << "fairlead up: there are remains of an earlier lab:\n";
  for (const auto& l : left) std::cerr << "  " << l << "\n";
  std::cerr << "Remove them with: fairlead down" << (o.state_dir == kDefaultStateDir ? "" : " --state-dir " + o.state_dir) << "\n";
  return true;
}

// A lab whose supervisor died is resumed with the options that it was made with.
Result<int> resume(const State& state) {
  FL_TRY(const auto plan, plan_lab(state.options));
  if (alive(state.supervisor)) {
    std::cerr << fmt::format("fairlead up: a lab is running since {} ({} nodes, supervisor pid {}).\n"
                             "See it with: fairlead status\nRemove it with: fairlead down\n",
                             state.created, plan.nodes.size(), state.supervisor.pid);
    return 1;
  }
  say(fmt::format("the lab of {} has no supervisor; resuming it with its own options", state.created));
  const auto start = SystemClock::get().steady();
  FL_CHECK(start_supervisor(plan));
  FL_CHECK(wait_supervisor(plan));
  FL_CHECK(wait_ready(plan, std::chrono::seconds(90), {say, [] { return g_interrupted.load(); }}));
  summary(plan, std::chrono::duration<double>(SystemClock::get().steady() - start).count());
  return 0;
}

Result<int> create(const Options& options, std::chrono::seconds timeout) {
  FL_TRY(const auto plan, plan_lab(options));
  if (!report(preflight(plan)) || in_the_way(options)) return 1;
  const auto start = SystemClock::get().steady();
  auto undo = on_exit([&] {
    say("removing what was made");
    remove_lab(options);
  });
  FL_CHECK(make_lab(plan));
  if (g_interrupted) return 130;
  FL_CHECK(start_supervisor(plan));
  if (auto r = wait_ready(plan, timeout, {say, [] { return g_interrupted.load(); }}); !r) {
    if (r.error().code == ErrorCode::cancelled) return 130;
    undo.dismiss();  // a lab that does not come up is kept: its logs tell why
    return fail(std::move(r).error().with("the lab did not come up (look at {}/nodes/*/logs, remove it with fairlead down)", options.state_dir));
  }
  FL_CHECK(copy_kubeconfig(plan));
  FL_CHECK(install_ingress_class(plan, std::chrono::seconds(10)));
  undo.dismiss();
  summary(plan, std::chrono::duration<double>(SystemClock::get().steady() - start).count());
  return 0;
}

Result<int> up(const Options& options, std::chrono::seconds timeout) {
  if (::geteuid() != 0) {
    report(preflight({}));
    return 1;
  }
  FL_TRY(const auto lock, lock_lab(options.state_dir));
  // Refused before anything was made: the lock leaves no trace either.
  const auto tidy = on_exit([&] {
    if (path_exists(options.state_dir)) return;
    ::unlink(lock_path(options.state_dir).c_str());
    ::rmdir(fs::path(options.state_dir).parent_path().c_str());  // only if empty
  });
  const auto state = load_state(options.state_dir);
  if (state) return resume(*state);
  if (state.error().code != ErrorCode::not_found) std::cerr << "fairlead up: " << state.error().message << "\n";
  return create(options, timeout);
}

}  // namespace

int run_up(int argc, char** argv) {
  CLI::App app("Start a cluster on this machine: one control-plane node and workers, each in namespaces of its own", "fairlead up");
  Options options = default_options();
  Flags flags;
  unsigned timeout = 90;
  add_state_dir(app, options);
  app.add_option("--nodes", options.workers, "Worker nodes")->capture_default_str();
  app.add_option("--kubeconfig", options.kubeconfig, "Also write the kubeconfig here");
  add_block(app, flags, "--lan", options.lan, "Network of the nodes");
  add_block(app, flags, "--pod-cidr", options.pod_cidr, "Addresses of pods; every node gets a /24 of it");
  add_block(app, flags, "--service-cidr", options.service_cidr, "Addresses of services (ClusterIPs)");
  app.add_option("--pod-network", options.pod_network, "How nodes reach each other's pods")->check(CLI::IsMember({"auto", "host-gw", "vxlan"}))->capture_default_str();
  app.add_option("--bridge", options.bridge, "Name of the bridge that stands for the LAN")->capture_default_str();
  app.add_option("--images", options.images_dir, "Folder of OCI image archives for the nodes");
  app.add_option("--log-level", options.log_level, "debug, info, warn or error")->capture_default_str();
  app.add_option("--timeout", timeout, "Seconds to wait for the nodes")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::error_code ec;
  const auto self = fs::read_symlink("/proc/self/exe", ec);
  options.bin_dir = self.parent_path().string();
  if (options.images_dir.empty()) options.images_dir = (self.parent_path().parent_path() / "images").string();
  if (!options.kubeconfig.empty()) options.kubeconfig = fs::absolute(options.kubeconfig).string();
  if (auto bad = flags.apply(); !bad) {
    std::cerr << "fairlead up: " << bad.error().message << "\n";
    return 2;
  }
  catch_interrupts();
  auto r = up(options, std::chrono::seconds(timeout));
  if (!r) {
    std::cerr << "fairlead up: " << r.error().message << "\n";
    return r.error().code == ErrorCode::invalid_argument ? 2 : 1;
  }
  return *r;
}

}  // namespace fairlead::lab
