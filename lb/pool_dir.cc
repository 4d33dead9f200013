#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "lb/pools.h"

namespace fairlead::lb {

Result<std::vector<PoolText>> read_pool_dir(const std::string& dir) {
  namespace fs = std::filesystem;
  constexpr std::size_t max_files = 1000;
  std::error_code ec;
  std::vector<std::string> names;
  for (fs::directory_iterator it(dir, ec), end; !ec && it != end; it.increment(ec)) {
    const auto name = it->path().filename().string();
    const auto extension = it->path().extension();
    // A mounted ConfigMap has hidden folders beside the links to its files.
    if (name.starts_with('.') || (extension != ".yaml" && extension != ".yml")) continue;
    names.push_back(name);
    if (names.size() > max_files) return fail(ErrorCode::resource_exhausted, "{}: more than {} files", dir, max_files);
  }
  if (ec) return fail_errno(ec.value(), "read folder {}", dir);
  std::sort(names.begin(), names.end());
  std::vector<PoolText> out;
  for (const auto& name : names) {
    FL_TRY(auto text, read_file(dir + "/" + name, 1u << 20));
    out.push_back({name, std::move(text)});
  }
  return out;
}

}  // namespace fairlead::lb
