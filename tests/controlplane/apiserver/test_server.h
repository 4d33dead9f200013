// TestServer: a whole apiserver on loopback with a store in a folder of its own, fresh certificates, and kubeconfigs for
// kubectl. It runs on threads of its own until it is destroyed; restart() stops it and starts another on the same store.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/pki.h"
#include "controlplane/apiserver/apiserver.h"

namespace fairlead::apiserver::test {

class TestServer {
 public:
  using Tune = std::function<void(Options&)>;
  explicit TestServer(Tune tune = {}, std::string dir = {});  // dir: kept afterwards; empty: a temporary one
  ~TestServer();
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  void restart();
  const std::string& dir() const { return dir_; }
  std::string url() const;
  Port port() const { return port_; }
  const pki::KeyPair& ca() const { return ca_; }
  // Path of a kubeconfig for that identity.
  std::string kubeconfig(const std::string& user = "admin", const std::vector<std::string>& groups = {"system:masters"});

 private:
  void start();
  void stop();
  struct Running;
  std::string dir_;
  bool temporary_;
  Tune tune_;
  Port port_ = 0;
  pki::KeyPair ca_;
  std::unique_ptr<Running> running_;
};

// Runs a shell command line with KUBECONFIG set; what it printed on stdout and stderr, together and apart.
struct Ran {
  int exit_code = -1;
  std::string out;
  std::string err;
  std::string all() const { return out + err; }
};
Ran run_shell(const std::string& kubeconfig, const std::string& command, const std::string& input = {});

// Objects that controllers would make in a whole cluster: the default service account of a namespace.
void make_default_service_account(const std::string& kubeconfig, const std::string& kubectl, const std::string& ns = "default");

}  // namespace fairlead::apiserver::test
