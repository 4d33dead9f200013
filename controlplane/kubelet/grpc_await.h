// Awaiting one unary gRPC call from a coroutine: the callback comes on a thread of gRPC's and is posted to the executor.
// Include only in files that include gRPC anyway.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>

#include "base/asio.h"

namespace fairlead::kubelet {

// The status of a call that ended, with the response behind it.
template <typename Response>
struct RpcOutcome {
  grpc::Status status;
  std::shared_ptr<Response> response;
};

// start(context, request, response, callback) is a function of a stub's async() interface.
template <typename Response, typename Request, typename Start>
Task<RpcOutcome<Response>> await_rpc(net::any_io_executor executor, std::shared_ptr<Request> request,
                                     std::chrono::milliseconds timeout, Start start) {
  struct State {
    grpc::ClientContext context;
    std::shared_ptr<Request> request;
    Response response;
    grpc::Status status;
  };
  auto state = std::make_shared<State>();
  state->request = std::move(request);
  state->context.set_deadline(std::chrono::system_clock::now() + timeout);
  // The tracked executor keeps the event loop alive until gRPC has answered.
  const auto loop = net::prefer(executor, net::execution::outstanding_work.tracked);
  auto initiate = [&state, &start, &loop](auto handler) {
    auto h = std::make_shared<decltype(handler)>(std::move(handler));
    start(&state->context, state->request.get(), &state->response, [state, h, loop](grpc::Status status) {
      state->status = std::move(status);
      net::post(loop, [h]() mutable { (*h)(); });
    });
  };
  co_await net::async_initiate<decltype(net::use_awaitable), void()>(initiate, net::use_awaitable);
  co_return RpcOutcome<Response>{state->status, std::shared_ptr<Response>(state, &state->response)};
}

}  // namespace fairlead::kubelet
