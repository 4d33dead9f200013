// What must be true before `up` touches anything: root, programs, kernel features, images, free address blocks. Each
// problem says what is missing and what to do about it; all problems are reported at once.
#pragma once

#include <string>
#include <vector>

#include "lab/topology.h"

namespace fairlead::lab {

struct Problem {
  std::string what;
  std::string remedy;
};
std::vector<Problem> preflight(const Plan& plan);

// The names of the OCI archives in the folder, sorted.
std::vector<std::string> image_archives(const std::string& dir);

}  // namespace fairlead::lab
