// The command `fairlead scheduler`, with kube-scheduler's flag names.
#pragma once

namespace fairlead::scheduler {

int run_scheduler(int argc, char** argv);

}  // namespace fairlead::scheduler
