// Removing a lab without a trace, also a broken one: processes (by recorded pid and start time), network namespaces, links,
// nft table, cgroups, files. Each step finds its own leftovers, so it works after a crash at any point and may be repeated.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "lab/topology.h"

namespace fairlead::lab {

struct Teardown {
  std::vector<std::string> removed;   // what was there, for people
  std::vector<std::string> problems;  // what could not be removed, with the reason
};
Teardown remove_lab(const Options& options);

// What a lab (or a crashed one) has on this machine; empty: nothing.
std::vector<std::string> find_leftovers(const Options& options);

}  // namespace fairlead::lab
