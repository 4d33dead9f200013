// CustomResources: makes what CustomResourceDefinitions define be served. Follows the definitions in the store, and for each
// whose names are free: compiles its schemas, fills a watch cache, adds its resources, discovery and OpenAPI documents, and
// writes its conditions NamesAccepted and Established. A definition that is deleted takes no new objects, its objects are
// deleted, and it goes when they are gone.
//
// A definition whose spec changes is served anew: its watchers are closed and resume, as upstream. Every server of a cluster
// does this for itself; conditions and deletions are written by all of them, which does no harm.
//
// Threads: run() is one coroutine beside the requests, which see the outcome through Resources and Core::documents().
#pragma once

#include <map>
#include <memory>
#include <string>

#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/custom/definition.h"

namespace fairlead::apiserver::custom {

struct Collection;

class CustomResources {
 public:
  explicit CustomResources(Core& core);
  ~CustomResources();
  // One round over all definitions, before requests are served.
  Task<> settle();
  // For ever.
  Task<> run();

 private:
  struct Seen;
  std::vector<Seen> definitions() const;
  Task<bool> serve(const Seen& seen);
  Task<> write_conditions(const Seen& seen, std::string conflict);
  Task<bool> empty(const Seen& seen);
  Task<> let_go(const Seen& seen);
  void publish();

  Core& core_;
  const Resource& resource_;                                        // of the definitions
  std::map<std::string, std::shared_ptr<Collection>> collections_;  // by name of the definition
};

}  // namespace fairlead::apiserver::custom
