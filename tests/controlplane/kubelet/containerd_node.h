// A node for tests of the real runtime: the test process puts itself into namespaces of its own (network, mount, PID), where
// containerd runs with its own root, state and sockets. When the test ends, however it ends, the PID namespace takes all
// processes with it and the mount namespace all mounts; the cgroups are removed by the parent.
//
// run_in_node(argc, argv, tests) is main(): it enters the namespaces and calls tests() there as PID 1.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/process.h"
#include "base/result.h"

namespace fairlead::kubelet::testing_node {

int run_in_node(int argc, char** argv, const std::function<int()>& tests);

// "/run/fairlead-test-<pid of the parent>", a tmpfs of the namespace.
const std::string& node_dir();
// "/fairlead-test-<pid of the parent>", in every cgroup tree.
const std::string& node_cgroup();

// The program fairlead-demo of this build.
std::string demo();

class Containerd {
 public:
  // Starts it and imports the images that the build made. cni: a small plugin of the test's own gives pods addresses.
  static Result<std::unique_ptr<Containerd>> start(bool cni);
  ~Containerd();
  Result<> kill_and_restart();   // SIGKILL, as a crash; what it ran goes on without it
  std::string endpoint() const { return "unix://" + dir_ + "/containerd.sock"; }
  const std::string& dir() const { return dir_; }
  Result<std::string> ctr(std::vector<std::string> words) const;  // in the runtime's namespace k8s.io
  pid_t pid() const { return process_.pid(); }

 private:
  Result<> launch();
  std::string dir_;
  Process process_;
};

// What is left of pods in this node: mounts below the node's folder (but containerd's own), shims, cgroups.
std::string leftovers(const Containerd& containerd);

}  // namespace fairlead::kubelet::testing_node
