#include "controlplane/kubelet/probe_grpc.h"

#include "controlplane/kubelet/grpc_await.h"
#include "controlplane/kubelet/proto/health.grpc.pb.h"

namespace fairlead::kubelet {

Task<ProbeResult> probe_grpc(std::string address, std::string service, std::chrono::milliseconds timeout) {
  namespace health = ::grpc::health::v1;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a probe is about a new connection
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  std::shared_ptr<health::Health::Stub> stub = health::Health::NewStub(channel);
  auto request = std::make_shared<health::HealthCheckRequest>();
  request->set_service(std::move(service));
  auto start = [stub](auto* context, const auto* q, auto* r, auto done) { stub->async()->Check(context, q, r, std::move(done)); };
  const auto executor = co_await net::this_coro::executor;
  auto outcome = co_await await_rpc<health::HealthCheckResponse>(executor, std::move(request), timeout, std::move(start));
  if (!outcome.status.ok()) co_return ProbeResult{false, "gRPC probe failed: " + outcome.status.error_message()};
  if (outcome.response->status() != health::HealthCheckResponse::SERVING)
    co_return ProbeResult{false, fmt::format("gRPC service unhealthy (responded with \"{}\")",
                                             health::HealthCheckResponse::ServingStatus_Name(outcome.response->status()))};
  co_return ProbeResult{true, {}};
}

}  // namespace fairlead::kubelet
