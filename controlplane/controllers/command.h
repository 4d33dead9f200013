// The command `fairlead controller-manager`, with kube-controller-manager's flag names.
#pragma once

namespace fairlead::controllers {

int run_controller_manager(int argc, char** argv);

}  // namespace fairlead::controllers
