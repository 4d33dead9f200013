// Measures the lab as a user meets it and prints a table for docs/performance.md:
//   time of `fairlead up` until all nodes are Ready,
//   time from `kubectl scale` until the new endpoint is programmed on every node, and of that the part after the pod was Ready,
//   resident memory of each component.
// "Programmed" is what the kernel says: an nft monitor in every node's namespace sees the element with the pod's address.
// Needs root; makes a lab of its own and removes it.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "base/process.h"

namespace fairlead::bench {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using Milliseconds = std::chrono::duration<double, std::milli>;
constexpr const char* kKubeconfig = "/var/lib/fairlead/lab/kubeconfig";
std::string g_bin;

SteadyTime now() { return SystemClock::get().steady(); }
double since(SteadyTime start) { return Milliseconds(now() - start).count(); }

std::string must(std::vector<std::string> argv) {
  if (argv[0] == "fairlead") argv[0] = g_bin + "/fairlead";
  if (argv[0] == "kubectl") argv.insert(argv.begin() + 1, {"--kubeconfig", kKubeconfig});
  auto r = run_command({.argv = argv});
  if (!r || !r->status.ok()) {
    std::cerr << "failed: " << argv[0] << " " << argv.back() << ": " << (r ? r->stderr_text : r.error().message) << "\n";
    std::exit(1);
  }
  return r->stdout_text;
}

struct Figures {
  std::vector<double> values;
  std::string text() {
    std::sort(values.begin(), values.end());
    return fmt::format("{:.0f} | {:.0f} | {:.0f}", values.front(), values[values.size() / 2], values.back());
  }
};

// Lines of a command in a node's namespace, each with the moment at which it was read.
class Monitor {
 public:
  Monitor(const std::string& netns, std::vector<std::string> argv) : file_(fmt::format("/tmp/fairlead-bench-{}-{}", ::getpid(), netns)) {
    ::unlink(file_.c_str());
    if (::mkfifo(file_.c_str(), 0600) != 0) std::abort();
    fd_ = Fd(::open(file_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    auto p = Process::start({.argv = std::move(argv), .environment = {}, .stdout_file = file_, .stderr_file = "/dev/null", .netns = "/run/netns/" + netns});
    if (!p) {
      std::cerr << p.error().message << "\n";
      std::exit(1);
    }
    process_ = std::move(*p);
    thread_ = std::thread([this] { read(); });
  }
  ~Monitor() {
    stop_ = true;
    (void)process_.kill(SIGKILL);
    (void)process_.wait();
    thread_.join();
    ::unlink(file_.c_str());
  }
  // When the text was first seen after `from`.
  std::optional<SteadyTime> seen(const std::string& text, SteadyTime from) {
    const std::lock_guard lock(mutex_);
    for (const auto& [at, line] : lines_)
      if (at >= from && line.find(text) != std::string::npos) return at;
    return std::nullopt;
  }

 private:
  void read() {
    std::string rest;
    while (!stop_) {
      pollfd p{fd_.get(), POLLIN, 0};
      if (::poll(&p, 1, 50) <= 0) continue;
      char buf[65536];
      const auto n = ::read(fd_.get(), buf, sizeof buf);
      const auto at = now();
      if (n <= 0) continue;
      rest.append(buf, static_cast<std::size_t>(n));
      const std::lock_guard lock(mutex_);
      for (std::size_t end; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1)) lines_.emplace_back(at, rest.substr(0, end));
    }
  }
  std::string file_;
  Fd fd_;
  Process process_;
  std::thread thread_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::vector<std::pair<SteadyTime, std::string>> lines_;
};

json::value status() { return json::parse(must({"fairlead", "status", "--json"})); }

void bench_up(int trials) {
  Figures f;
  for (int i = 0; i < trials; ++i) {
    must({"fairlead", "down"});
    const auto start = now();
    must({"fairlead", "up"});
    f.values.push_back(since(start));
  }
  std::cout << fmt::format("| `fairlead up`, 3 nodes, until all are Ready (ms) | {} |\n", f.text());
}

void bench_scale(int trials) {
  must({"kubectl", "create", "deployment", "web", "--image=fairlead.local/demo:1", "--replicas=1"});
  must({"kubectl", "expose", "deployment", "web", "--port=80", "--target-port=8080"});
  must({"kubectl", "rollout", "status", "deployment/web", "--timeout=60s"});
  std::vector<std::unique_ptr<Monitor>> monitors;
  const auto s = status();
  for (const auto& n : s.at("nodes").as_array())
    monitors.push_back(std::make_unique<Monitor>(json::value_to<std::string>(n.at("netns")), std::vector<std::string>{"nft", "monitor", "elements"}));
  Monitor ready("fairlead-control-plane", {"kubectl", "--kubeconfig", kKubeconfig, "get", "pods", "-w", "--no-headers", "-o",
                 "jsonpath={.status.podIP} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}"});
  std::this_thread::sleep_for(1s);
  Figures whole, after_ready;
  for (int i = 0; i < trials; ++i) {
    const auto before = must({"kubectl", "get", "pods", "-o", "jsonpath={.items[*].status.podIP}"});
    const auto start = now();
    must({"kubectl", "scale", "deployment", "web", "--replicas=2"});
    must({"kubectl", "rollout", "status", "deployment/web", "--timeout=60s"});
    std::string ip;
    for (const auto& line : {must({"kubectl", "get", "pods", "-o", "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}"})})
      for (std::size_t at = 0, end; (end = line.find('\n', at)) != std::string::npos; at = end + 1)
        if (before.find(line.substr(at, end - at)) == std::string::npos) ip = line.substr(at, end - at);
    std::this_thread::sleep_for(200ms);
    SteadyTime last = start;
    bool everywhere = !ip.empty();
    for (auto& m : monitors) {
      const auto at = m->seen(ip + " ", start);
      everywhere = everywhere && at;
      if (at) last = std::max(last, *at);
    }
    const auto pod_ready = ready.seen(ip + " True", start);
    if (!everywhere) {
      std::cerr << "trial " << i << ": endpoint " << ip << " was not seen on every node\n";
      std::exit(1);
    }
    whole.values.push_back(Milliseconds(last - start).count());
    if (pod_ready) after_ready.values.push_back(Milliseconds(last - *pod_ready).count());
    must({"kubectl", "scale", "deployment", "web", "--replicas=1"});
    must({"kubectl", "wait", "--for=jsonpath={.status.replicas}=1", "deployment/web", "--timeout=60s"});
    std::this_thread::sleep_for(500ms);
  }
  std::cout << fmt::format("| `kubectl scale` until the endpoint is programmed on all 3 nodes (ms) | {} |\n", whole.text());
  if (!after_ready.values.empty())
    std::cout << fmt::format("| of that, after a watching client saw the pod Ready (ms; negative: before it) | {} |\n", after_ready.text());
}

void bench_memory() {
  std::map<std::string, Figures> by_component;
  const auto s = status();
  for (const auto& n : s.at("nodes").as_array())
    for (const auto& c : n.at("components").as_array())
      if (c.at("residentBytes").to_number<double>() > 0)
        by_component[json::value_to<std::string>(c.at("name"))].values.push_back(c.at("residentBytes").to_number<double>() / 1048576);
  for (auto& [name, f] : by_component) {
    std::sort(f.values.begin(), f.values.end());
    std::cout << fmt::format("| resident memory of {} (MB) | {:.1f} | {:.1f} | {:.1f} |\n", name, f.values.front(), f.values[f.values.size() / 2],
                             f.values.back());
  }
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  using namespace fairlead::bench;
  if (argc < 2) {
    std::cerr << "usage: lab_bench BIN_DIR [TRIALS]\n";
    return 2;
  }
  g_bin = argv[1];
  const int trials = argc > 2 ? std::max(1, std::atoi(argv[2])) : 10;
  std::cout << "| figure | min | median | max |\n|---|---|---|---|\n";
  bench_up(std::max(1, trials / 2));
  bench_scale(trials);
  bench_memory();
  must({"fairlead", "down"});
}
