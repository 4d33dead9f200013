// `fairlead etcd`: the embedded store as a server with etcd's flags, and offline work on its files.
#pragma once

namespace fairlead::etcd {

// argv[0] is the command's name. 0 ended by a signal or done, 1 failed, 2 usage.
int run_etcd(int argc, char** argv);

}  // namespace fairlead::etcd
