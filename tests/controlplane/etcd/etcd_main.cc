// The etcd command alone, for tests and measurements that must not wait for the whole of Fairlead to be linked.
#include "controlplane/etcd/command.h"

int main(int argc, char** argv) { return fairlead::etcd::run_etcd(argc, argv); }
