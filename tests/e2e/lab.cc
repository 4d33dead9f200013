#include "tests/e2e/lab.h"

#include <signal.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <iostream>
#include <regex>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "base/random.h"

namespace fairlead::e2e {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
constexpr const char* kKubeconfig = "/var/lib/fairlead/lab/kubeconfig";

std::string bin(const std::string& name) {
  const char* dir = std::getenv("FAIRLEAD_BIN");
  return (dir != nullptr ? std::string(dir) : std::string("build/release/bin")) + "/" + name;
}

json::value status() {
  const auto o = run({"fairlead", "status", "--json"});
  boost::system::error_code ec;
  auto v = json::parse(o.out, ec);
  return ec ? json::value() : v;
}

std::string trimmed(std::string s) {
  while (!s.empty() && s.back() == '\n') s.pop_back();
  return s;
}

}  // namespace

std::ostream& operator<<(std::ostream& os, const Output& o) { return os << "exit code " << o.code << "\n" << o.out << o.err; }

std::ostream& operator<<(std::ostream& os, const Tally& t) {
  os << t.requests << " requests, " << t.failed << " failed, " << t.retried << " retried";
  for (const auto& [pod, n] : t.by_pod) os << "; " << pod << " " << n;
  return os;
}

Output run(std::vector<std::string> argv, const std::string& stdin_text, const std::string& netns) {
  if (argv[0] == "fairlead" || argv[0] == "fairlead-demo") argv[0] = bin(argv[0]);
  ProcessOptions o;
  o.argv = std::move(argv);
  if (!netns.empty()) o.netns = "/run/netns/" + netns;
  auto r = run_command(o, stdin_text);
  if (!r) return {-1, "", r.error().message};
  return {r->status.signal != 0 ? 128 + r->status.signal : r->status.code, r->stdout_text, r->stderr_text};
}

std::string kubectl_program() {
  const char* path = std::getenv("FAIRLEAD_KUBECTL");
  return path != nullptr && *path != '\0' ? path : "kubectl";
}

Output kubectl(std::vector<std::string> args, const std::string& stdin_text) {
  args.insert(args.begin(), {kubectl_program(), "--kubeconfig", kKubeconfig});
  return run(std::move(args), stdin_text);
}

std::string get(std::vector<std::string> args) {
  const auto o = kubectl(args);
  EXPECT_TRUE(o.ok()) << "kubectl " << testing::PrintToString(args) << "\n" << o;
  return trimmed(o.out);
}

Output apply(const std::string& yaml) { return kubectl({"apply", "-f", "-"}, yaml); }

bool eventually(std::chrono::milliseconds timeout, const std::function<bool()>& condition) {
  const auto until = SystemClock::get().steady() + timeout;
  for (;;) {
    if (condition()) return true;
    if (SystemClock::get().steady() > until) return false;
    std::this_thread::sleep_for(20ms);
  }
}

Tally parse_tally(const std::string& text) {
  Tally t;
  std::smatch m;
  static const std::regex head(R"(requests (\d+), failed (\d+), retried (\d+))");
  if (!std::regex_search(text, m, head)) return t;
  t.requests = std::stol(m[1]);
  t.failed = std::stol(m[2]);
  t.retried = std::stol(m[3]);
  static const std::regex row(R"(\n\s+(\d+)  (\S+))");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), row); it != std::sregex_iterator(); ++it)
    t.by_pod[(*it)[2]] = std::stol((*it)[1]);
  return t;
}

static Tally fetch(const std::string& netns, const std::string& url, int count, std::vector<std::string> more) {
  std::vector<std::string> argv{"fairlead-demo", "fetch", url, "--count", std::to_string(count), "--summary"};
  argv.insert(argv.end(), more.begin(), more.end());
  const auto o = run(argv, {}, netns);
  auto t = parse_tally(o.out);
  if (t.failed != 0) std::cerr << url << " from " << (netns.empty() ? "outside" : netns) << ": " << o << "\n";
  return t;
}

Tally fetch_from_node(const std::string& node, const std::string& url, int count, std::vector<std::string> more) {
  return fetch(node_netns(node), url, count, std::move(more));
}

Tally fetch_from_outside(const std::string& url, int count, std::vector<std::string> more) {
  return fetch({}, url, count, std::move(more));
}

Tally fetch_from_pod(const std::string& node, const std::string& url, int count) {
  const auto name = "client-" + random_suffix(SystemRandom::get(), 5);
  const auto made = apply(fmt::format(R"(
apiVersion: v1
kind: Pod
metadata: {{name: {}}}
spec:
  restartPolicy: Never
  nodeSelector: {{kubernetes.io/hostname: {}}}
  tolerations: [{{operator: Exists}}]
  containers:
  - name: client
    image: fairlead.local/demo:1
    args: [fetch, "{}", --count, "{}", --summary]
)", name, node, url, count));
  EXPECT_TRUE(made.ok()) << made;
  std::string phase;
  eventually(30s, [&] {
    phase = kubectl({"get", "pod", name, "-o", "jsonpath={.status.phase}"}).out;
    return phase == "Succeeded" || phase == "Failed";
  });
  const auto logs = kubectl({"logs", name});
  EXPECT_EQ(phase, "Succeeded") << kubectl({"describe", "pod", name}) << logs;
  kubectl({"delete", "pod", name, "--wait=false"});
  return parse_tally(logs.out);
}

BackgroundClient::BackgroundClient(std::string netns, std::string url, std::vector<std::string> more)
    : file_(testing::TempDir() + "fairlead-client-" + random_suffix(SystemRandom::get(), 8)) {
  ProcessOptions o;
  o.argv = {bin("fairlead-demo"), "fetch", std::move(url), "--count", "100000000"};
  o.argv.insert(o.argv.end(), more.begin(), more.end());
  if (!netns.empty()) o.netns = "/run/netns/" + netns;
  o.stdout_file = file_;
  o.stderr_file = file_ + ".err";
  auto p = Process::start(o);
  EXPECT_TRUE(p) << p.error().message;
  if (p) process_ = std::move(*p);
}

BackgroundClient::~BackgroundClient() {
  if (!stopped_) stop();
  ::unlink(file_.c_str());
  ::unlink((file_ + ".err").c_str());
}

// One line per answered request on stdout, one per failed request on stderr.
Tally BackgroundClient::stop() {
  stopped_ = true;
  (void)process_.kill(SIGTERM);
  (void)process_.wait();
  Tally t;
  const auto out = read_file(file_).value_or(""), err = read_file(file_ + ".err").value_or("");
  static const std::regex row(R"(pod=(\S+))");
  for (auto it = std::sregex_iterator(out.begin(), out.end(), row); it != std::sregex_iterator(); ++it) ++t.by_pod[(*it)[1]];
  t.failed = static_cast<long>(std::count(err.begin(), err.end(), '\n'));
  for (const auto& [pod, n] : t.by_pod) t.requests += n;
  t.requests += t.failed;
  if (t.failed != 0) std::cerr << "failed requests:\n" << err.substr(0, 2000) << "\n";
  return t;
}

const std::vector<NodeInfo>& nodes() {
  static const std::vector<NodeInfo> all = [] {
    std::vector<NodeInfo> out;
    const auto v = status();
    if (!v.is_object()) return out;
    for (const auto& n : v.at("nodes").as_array())
      out.push_back({json::value_to<std::string>(n.at("name")), json::value_to<std::string>(n.at("ip")), json::value_to<std::string>(n.at("netns"))});
    return out;
  }();
  return all;
}

std::string node_netns(const std::string& node) {
  for (const auto& n : nodes())
    if (n.name == node) return n.netns;
  ADD_FAILURE() << "no node " << node;
  return {};
}

pid_t component_pid(const std::string& node, const std::string& component) {
  const auto v = status();
  if (!v.is_object()) return 0;
  for (const auto& n : v.at("nodes").as_array())
    for (const auto& c : n.at("components").as_array())
      if (n.at("name") == json::string(node) && c.at("name") == json::string(component)) return static_cast<pid_t>(c.at("pid").to_number<int>());
  return 0;
}

void lab_up(const std::vector<std::string>& flags) {
  run({"fairlead", "down"});
  std::vector<std::string> argv{"fairlead", "up"};
  argv.insert(argv.end(), flags.begin(), flags.end());
  const auto up = run(argv);
  ASSERT_TRUE(up.ok()) << up;
  ASSERT_EQ(nodes().size(), 3u);
}

void lab_down() {
  if (std::getenv("FAIRLEAD_KEEP_LAB") != nullptr) return;  // to look at a failure
  const auto down = run({"fairlead", "down"});
  EXPECT_TRUE(down.ok()) << down;
  EXPECT_EQ(run({"fairlead", "status"}).code, 3) << "the lab left something behind";
  EXPECT_EQ(run({"ip", "netns", "list"}).out.find("fairlead"), std::string::npos);
  EXPECT_EQ(run({"ip", "link", "show"}).out.find("fl-"), std::string::npos);
  const auto mounts = read_file("/proc/self/mounts");
  EXPECT_EQ(mounts.value_or("").find("fairlead"), std::string::npos);
}

void LabEnvironment::SetUp() {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  lab_up();
}

void LabEnvironment::TearDown() { lab_down(); }

}  // namespace fairlead::e2e
