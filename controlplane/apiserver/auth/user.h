// User: who a request comes from, after authentication.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace fairlead::apiserver {

struct User {
  std::string name;
  std::string uid;
  std::vector<std::string> groups;
  std::map<std::string, std::vector<std::string>> extra;

  bool in_group(std::string_view g) const { return std::find(groups.begin(), groups.end(), g) != groups.end(); }
  bool anonymous() const { return name == "system:anonymous"; }
};

inline constexpr std::string_view kMasters = "system:masters";
inline constexpr std::string_view kAuthenticated = "system:authenticated";
inline constexpr std::string_view kUnauthenticated = "system:unauthenticated";

}  // namespace fairlead::apiserver
