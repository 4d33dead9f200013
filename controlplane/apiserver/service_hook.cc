#include "controlplane/apiserver/service_hook.h"

namespace fairlead::apiserver {

Result<> load_service_hook(Core&) { return {}; }

}  // namespace fairlead::apiserver
