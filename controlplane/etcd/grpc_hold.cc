#include "controlplane/etcd/grpc_hold.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

namespace fairlead::etcd {

void hold_grpc() {
  // Never destroyed on purpose. It listens nowhere.
  static auto* const server = [] {
    static auto* const service = new grpc::CallbackGenericService;
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(service);
    return builder.BuildAndStart().release();
  }();
  (void)server;
}

}  // namespace fairlead::etcd
