// `fairlead ingress`: the router as a daemon, from files or from the API; `fairlead ingress check`: what it makes of manifests.
#pragma once

namespace fairlead::ingress {

int run_ingress(int argc, char** argv);

}  // namespace fairlead::ingress
