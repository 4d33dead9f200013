// Discovery: which groups, versions and resources there are, in the legacy documents (/api, /apis, one per group version) and
// the aggregated one (Accept: ...;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList). Made once at start from the table of
// kinds. Pure. Source: staging/src/k8s.io/apiserver/pkg/endpoints/discovery, KEP-3352.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "controlplane/apiserver/resource.h"

namespace fairlead::apiserver {

struct DiscoveryDocuments {
  std::map<std::string, std::string, std::less<>> legacy;      // by path: "/api", "/apis", "/apis/apps", "/apis/apps/v1"
  std::map<std::string, std::string, std::less<>> aggregated;  // "/api", "/apis"; v2
  std::map<std::string, std::string, std::less<>> etags;       // of the aggregated ones, quoted
};
DiscoveryDocuments make_discovery(const Resources& resources, const std::string& server_address);

// The content type of an aggregated answer when the Accept header asks for one, else empty.
std::string wants_aggregated(std::string_view accept);

}  // namespace fairlead::apiserver
