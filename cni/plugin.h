// Plugin: one call of the CNI plugin from environment and stdin to stdout and exit code. Everything outside comes in
// through Services, so tests can run verbs in this process, with a kernel that fails where they want.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cni/config.h"
#include "cni/ipam/lmdb_book.h"
#include "cni/kernel.h"
#include "cni/request.h"

namespace fairlead::cni {

struct Services {
  std::function<CniResult<std::unique_ptr<Kernel>>(const std::string& pod_netns)> open_kernel;
  std::function<BootTime()> now;
  std::function<CniResult<StoreScope>()> scope;
  // Runs an IPAM plugin of that type; its output.
  std::function<CniResult<std::string>(const std::string& type, const Request& r, Verb verb, const std::string& conf)> delegate;
  std::function<CniResult<>(const std::string& netns, const std::string& ifname)> remove_in_pod;
};
Services real_services();

// The text for stdout ("" when a verb prints nothing).
CniResult<std::string> run_verb(const Services& s, const Request& r, const NetConf& c);

struct Outcome {
  std::string out;
  int exit_code = 0;
};
// Parses, runs, and turns an error into the JSON that the specification wants.
Outcome run_plugin(const Services& s, const Environment& environment, std::string_view stdin_text);

}  // namespace fairlead::cni
