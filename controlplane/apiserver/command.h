// The command `fairlead apiserver`: the apiserver with its embedded store, with kube-apiserver's flag names.
#pragma once

namespace fairlead::apiserver {

int run_apiserver(int argc, char** argv);

}  // namespace fairlead::apiserver
