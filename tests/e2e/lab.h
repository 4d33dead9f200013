// The end-to-end fixture: one lab for the whole test program, driven only through what a user has: the fairlead binary, the
// real kubectl, HTTP requests from nodes, pods and outside. Each helper prints the command and its output when it fails.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/process.h"

namespace fairlead::e2e {

struct Output {
  int code = -1;
  std::string out;
  std::string err;
  bool ok() const { return code == 0; }
};
std::ostream& operator<<(std::ostream& os, const Output& o);

// argv[0] "fairlead", "fairlead-demo" are those of this build.
Output run(std::vector<std::string> argv, const std::string& stdin_text = {}, const std::string& netns = {});
// FAIRLEAD_KUBECTL, or the one in PATH.
std::string kubectl_program();
Output kubectl(std::vector<std::string> args, const std::string& stdin_text = {});
// kubectl, expected to succeed; its output without the last newline.
std::string get(std::vector<std::string> args);
Output apply(const std::string& yaml);

bool eventually(std::chrono::milliseconds timeout, const std::function<bool()>& condition);

// What `fairlead-demo fetch --summary` counted.
struct Tally {
  long requests = 0, failed = -1, retried = 0;
  std::map<std::string, long> by_pod;
};
std::ostream& operator<<(std::ostream& os, const Tally& t);
Tally parse_tally(const std::string& text);
Tally fetch_from_node(const std::string& node, const std::string& url, int count, std::vector<std::string> more = {});
Tally fetch_from_outside(const std::string& url, int count, std::vector<std::string> more = {});
Tally fetch_from_pod(const std::string& node, const std::string& url, int count);  // runs a pod on that node to its end

// A client that keeps asking in the background until stop().
class BackgroundClient {
 public:
  BackgroundClient(std::string netns, std::string url, std::vector<std::string> more);
  ~BackgroundClient();
  Tally stop();

 private:
  Process process_;
  std::string file_;
  bool stopped_ = false;
};

struct NodeInfo {
  std::string name;
  std::string ip;
  std::string netns;
};
const std::vector<NodeInfo>& nodes();
std::string node_netns(const std::string& node);
pid_t component_pid(const std::string& node, const std::string& component);  // 0: not running

// `fairlead up` with these flags, and `fairlead down` with a look at whether anything is left.
void lab_up(const std::vector<std::string>& flags = {});
void lab_down();

// Starts the lab before the first test and removes it after the last; the removal itself is checked to leave nothing.
class LabEnvironment : public testing::Environment {
 public:
  void SetUp() override;
  void TearDown() override;
};

}  // namespace fairlead::e2e
