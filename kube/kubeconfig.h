// Where the apiserver is and who we are: from a kubeconfig file or from the service account mounted into a pod.
// Tokens, certificates and keys that are files are also named here for the client, which looks at them again every minute. Relative file names are relative to the kubeconfig. What we cannot honour (exec and auth-provider plugins,
// passwords, impersonation, proxies) is refused with an error that names the field: better no connection than a different one.
#pragma once

#include <string>

#include "base/result.h"

namespace fairlead::kube {

struct RestConfig {
  std::string server;  // "https://10.0.0.1:6443"
  std::string ca_pem;
  std::string certificate_pem;  // client certificate
  std::string key_pem;
  std::string token;       // bearer token
  std::string token_file;  // re-read at most every minute; wins over `token`
  // Where certificates and key came from, when they are files: the client re-reads them like the token.
  std::string ca_file;
  std::string certificate_file;
  std::string key_file;
  std::string tls_server_name;
  bool insecure_skip_tls_verify = false;
  std::string ns = "default";
};

// `context` empty: the current-context, or the only one there is.
Result<RestConfig> load_kubeconfig(const std::string& path, const std::string& context = {});
// The same from text; `folder` is where its relative file names start.
Result<RestConfig> parse_kubeconfig(std::string_view text, const std::string& folder, const std::string& context = {});

inline constexpr const char* kServiceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount";
// From KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and the files token, ca.crt and namespace in `folder`.
Result<RestConfig> in_cluster_config(const std::string& folder = kServiceAccountFolder);

// kubeconfig text for one cluster, user and context, with embedded certificates.
std::string write_kubeconfig(const RestConfig& config, const std::string& cluster_name, const std::string& user_name);

}  // namespace fairlead::kube
