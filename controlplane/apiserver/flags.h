// The apiserver's command line, shared by `fairlead apiserver` and `fairlead control-plane`: kube-apiserver's flag names, parsed
// into Options. declare() binds the flags, resolve() checks the texts after parsing and names the flag that is wrong,
// open_store() gives the store they name: the embedded one, or an etcd cluster.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/apiserver/apiserver.h"
#include "controlplane/etcd/remote.h"

namespace fairlead::apiserver {

struct Flags {
  Options options;
  std::string bind_address = "0.0.0.0";
  Port secure_port = 6443;
  std::string advertise_address;
  std::string data_dir = "/var/lib/fairlead/etcd";
  etcd::RemoteOptions etcd;  // no endpoints: the embedded store in data_dir
  std::string cluster_ip_range = "10.96.0.0/16";
  std::string node_port_range = "30000-32767";
  std::vector<std::string> disabled_admission;
  std::string log_level = "info";
  bool log_json = false;
  unsigned threads = 0;
  std::int64_t event_ttl_minutes = 60;
};

void declare(CLI::App& app, Flags& f);
Result<> resolve(Flags& f);
// Waits for a connection to the cluster. The store must end before the executors of its callers do.
Result<std::shared_ptr<etcd::Kv>> open_store(const Flags& f);
// One file descriptor per watch: takes as many as the system allows.
void raise_file_limit();

}  // namespace fairlead::apiserver
