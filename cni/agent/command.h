// `fairlead cni-agent`: see agent.h. Exit codes: 0 stopped by a signal or cleaned up, 1 failed, 2 usage.
#pragma once

namespace fairlead::cni {
int run_cni_agent(int argc, char** argv);
}
