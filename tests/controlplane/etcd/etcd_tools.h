// Which etcd and etcdctl the tests drive: Debian's, or with FAIRLEAD_ETCD=3.5 those that scripts/etcds fetched.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <string>

namespace fairlead::etcd {

inline std::string chosen_etcd() {
  const char* version = std::getenv("FAIRLEAD_ETCD");
  return version ? version : "";
}

inline std::string etcd_tool(const std::string& name) {
  if (chosen_etcd().empty()) return "/usr/bin/" + name;
  const char* home = std::getenv("HOME");
  return std::string(home ? home : "/root") + "/.cache/fairlead/etcd/" + chosen_etcd() + "/" + name;
}

inline bool has_etcd_tool(const std::string& name) { return ::access(etcd_tool(name).c_str(), X_OK) == 0; }

}  // namespace fairlead::etcd
