// Where the apiserver is and who we are: from a kubeconfig file or from the service account mounted into a pod.
// Files that hold tokens and certificates are re-read when they change. `exec` credential plugins are refused with a
// clear error (no shell-outs).
#pragma once

#include <string>

#include "base/result.h"

namespace fairlead::kube {

struct RestConfig {
  std::string server;            // "https://10.0.0.1:6443"
  std::string ca_pem;
  std::string certificate_pem;   // client certificate
  std::string key_pem;
  std::string token;             // bearer token
  std::string token_file;        // re-read at most every minute
  std::string tls_server_name;
  bool insecure_skip_tls_verify = false;
  std::string ns = "default";
};

Result<RestConfig> load_kubeconfig(const std::string& path, const std::string& context = {});
Result<RestConfig> in_cluster_config();
// kubeconfig text for one cluster, user and context, with embedded certificates.
std::string write_kubeconfig(const RestConfig& config, const std::string& cluster_name, const std::string& user_name);

}  // namespace fairlead::kube
