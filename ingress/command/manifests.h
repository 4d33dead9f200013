// Objects from YAML or JSON files: Ingress, IngressClass, Service, EndpointSlice, Secret, also in Lists; other kinds are skipped.
// A folder is read with all that is in it. load() reads again only what has changed; a file that cannot be read or decoded keeps
// what it gave before and is reported. watch() says when to look again (inotify). Thread: one.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/result.h"
#include "ingress/core/compile.h"

namespace fairlead::ingress {

class Manifests {
 public:
  explicit Manifests(std::vector<std::string> paths) : paths_(std::move(paths)) {}
  // `strict`: the first file that is wrong is an error.
  Result<Objects> load(bool strict, Diagnostics& problems);

 private:
  struct File {
    std::int64_t modified_ns = 0;
    std::uint64_t size = 0, inode = 0;
    Objects objects;
    std::string problem;
  };
  const std::vector<std::string> paths_;
  std::map<std::string, File> files_;
};

// Calls `changed` whenever something below the paths changes, at most every 10 ms. Ends with its coroutine's cancellation.
Task<Result<>> watch_files(std::vector<std::string> paths, std::function<void()> changed);

}  // namespace fairlead::ingress
