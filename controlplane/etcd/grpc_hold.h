// gRPC 1.51 ends the threads of its callback interface when the last channel and server that use it go, and may abort when
// new ones come at that moment (a reference count falls below zero). hold_grpc() keeps one idle server for the life of the
// process, so that there is always one left. Any thread, any number of times.
#pragma once

namespace fairlead::etcd {
void hold_grpc();
}
