// Where pools, peers and advertisements come from: a folder of YAML files, or the API, where they are custom resources of
// metallb.io in one namespace, as MetalLB's users have them. Both give the same texts to parse_pools().
//
// read() is cheap when nothing changed. It answers nullopt while the objects are not known yet (the API has not listed them):
// the pools are then neither empty nor anything else. A kind that the API does not serve has no objects.
// Threads: the client's executor. Owner: the caller; stop() before destruction where it was started.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kube/api.h"
#include "kube/client.h"
#include "kube/proto/core/v1/config.pb.h"
#include "lb/pools.h"

namespace fairlead::lb {

struct PoolLocation {
  std::string dir;           // a folder of YAML files; else
  std::string ns;            // the namespace of the custom resources
  Result<> check() const;    // exactly one of them
};

class PoolSource {
 public:
  virtual ~PoolSource() = default;
  virtual void start() {}
  virtual Task<> stop() { co_return; }
  virtual Result<std::optional<std::vector<PoolText>>> read() = 0;
  // The object that a diagnostic is about (its label), to hang an Event on; a file's objects have none.
  virtual std::optional<corev1::ObjectReference> reference(const std::string& label) const {
    (void)label;
    return std::nullopt;
  }
};

std::unique_ptr<PoolSource> make_pool_source(std::shared_ptr<kube::Client> client, const PoolLocation& location);

// Once, for a command that looks and ends.
Task<Result<std::vector<PoolText>>> read_pools_once(std::shared_ptr<kube::Client> client, PoolLocation location);

}  // namespace fairlead::lb
