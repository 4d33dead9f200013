// `fairlead up` interrupted at any moment, and `fairlead down`, leave the machine as they found it. The machine itself is
// asked (namespaces, links, mounts, rules, routes, processes, cgroups), not Fairlead.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "base/files.h"
#include "tests/e2e/lab.h"

namespace fairlead::e2e {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Traces = std::set<std::string>;

void add_lines(Traces& to, const std::string& what, const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) to.insert(what + ": " + line);
}

void add_processes(Traces& to) {
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto command = read_file(entry.path().string() + "/cmdline").value_or("");
    std::replace(command.begin(), command.end(), '\0', ' ');
    for (const char* ours : {"/var/lib/fairlead/lab", "lab-supervisor", "lab-node", "/run/fairlead"})
      if (command.find(ours) != std::string::npos) to.insert("process: " + name + " " + command);
  }
}

void add_folders(Traces& to, const std::string& root) {
  std::error_code ec;
  for (fs::recursive_directory_iterator it(root, fs::directory_options::skip_permission_denied, ec), end; it != end && !ec; it.increment(ec))
    if (it->path().filename().string().find("fairlead") != std::string::npos) to.insert("folder: " + it->path().string());
}

Traces traces() {
  Traces out;
  add_lines(out, "namespace", run({"ip", "netns", "list"}).out);
  for (const auto& link : fs::directory_iterator("/sys/class/net")) out.insert("link: " + link.path().filename().string());
  add_lines(out, "mount", read_file("/proc/self/mounts").value_or(""));
  add_lines(out, "table", run({"nft", "list", "tables"}).out);
  add_lines(out, "route", run({"ip", "route", "show", "table", "all"}).out);
  add_processes(out);
  add_folders(out, "/sys/fs/cgroup");
  if (path_exists("/var/lib/fairlead/lab")) out.insert("folder: /var/lib/fairlead/lab");
  return out;
}

Traces beyond(const Traces& before) {
  const auto now = traces();
  Traces more;
  std::set_difference(now.begin(), now.end(), before.begin(), before.end(), std::inserter(more, more.end()));
  return more;
}

Process start_up() {
  const char* dir = std::getenv("FAIRLEAD_BIN");
  ProcessOptions o;
  o.argv = {(dir != nullptr ? std::string(dir) : std::string("build/release/bin")) + "/fairlead", "up"};
  auto p = Process::start(o);
  EXPECT_TRUE(p) << p.error().message;
  return std::move(*p);
}

class TracesTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0u) << "needs root";
    run({"fairlead", "down"});
    before_ = traces();
  }
  void TearDown() override { run({"fairlead", "down"}); }
  Traces before_;
};

TEST_F(TracesTest, AnInterruptedUpTakesBackWhatItMade) {
  for (const auto after : {0ms, 50ms, 150ms, 300ms, 600ms, 1000ms}) {
    SCOPED_TRACE(after.count());
    Process up = start_up();
    std::this_thread::sleep_for(after);
    if (!up.kill(SIGINT)) break;  // it was already done
    const auto ended = up.wait();
    ASSERT_TRUE(ended) << ended.error().message;
    if (ended->signal == 0 && ended->code == 0) {  // it was faster: then it is up, and that is the person's wish
      run({"fairlead", "down"});
      continue;
    }
    EXPECT_TRUE(eventually(10s, [&] { return beyond(before_).empty(); })) << testing::PrintToString(beyond(before_));
  }
}

TEST_F(TracesTest, DownRemovesEverythingAndMayBeRepeated) {
  ASSERT_TRUE(run({"fairlead", "up", "--nodes", "1"}).ok());
  ASSERT_TRUE(kubectl({"create", "deployment", "left", "--image=fairlead.local/demo:1", "--replicas=2"}).ok());
  ASSERT_TRUE(kubectl({"expose", "deployment", "left", "--port=80", "--target-port=8080", "--type=NodePort"}).ok());
  ASSERT_TRUE(kubectl({"rollout", "status", "deployment/left", "--timeout=60s"}).ok());
  EXPECT_FALSE(beyond(before_).empty()) << "or this test sees nothing";
  const auto down = run({"fairlead", "down"});
  EXPECT_TRUE(down.ok()) << down;
  EXPECT_TRUE(eventually(10s, [&] { return beyond(before_).empty(); })) << testing::PrintToString(beyond(before_));
  EXPECT_TRUE(run({"fairlead", "down"}).ok());
}

}  // namespace
}  // namespace fairlead::e2e
