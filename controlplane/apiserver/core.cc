#include "controlplane/apiserver/core.h"

#include "controlplane/apiserver/custom/manager.h"
#include "controlplane/apiserver/discovery.h"
#include "controlplane/apiserver/openapi_documents.h"

namespace fairlead::apiserver {

std::shared_ptr<const Core::Documents> Core::documents() const {
  std::lock_guard lock(documents_mutex_);
  return documents_;
}

void Core::publish_documents(std::vector<OpenApiVersion> versions) {
  auto next = std::make_shared<Documents>();
  const auto address = SocketAddress{options.advertise_address, options.listen.port}.to_string();
  next->discovery = std::make_shared<const DiscoveryDocuments>(make_discovery(resources, address));
  next->custom_openapi = apiserver::custom_openapi(versions);
  std::lock_guard lock(documents_mutex_);
  documents_ = std::move(next);
}

}  // namespace fairlead::apiserver
