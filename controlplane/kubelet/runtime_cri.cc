#include "controlplane/kubelet/runtime_cri.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <charconv>

#include "controlplane/kubelet/containerd_events.h"
#include "controlplane/kubelet/grpc_await.h"
#include "controlplane/kubelet/proto/cri.grpc.pb.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::seconds;
constexpr seconds kShort{10};     // status and lists
constexpr seconds kNormal{120};   // creating, starting, removing
constexpr seconds kSandbox{240};  // waits for the network
constexpr seconds kPull{30 * 60};
constexpr std::size_t kMaxExecOutput = 16u << 20;

ErrorCode code_of(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::NOT_FOUND: return ErrorCode::not_found;
    case grpc::StatusCode::ALREADY_EXISTS: return ErrorCode::already_exists;
    case grpc::StatusCode::INVALID_ARGUMENT: return ErrorCode::invalid_argument;
    case grpc::StatusCode::DEADLINE_EXCEEDED: return ErrorCode::timeout;
    case grpc::StatusCode::UNAVAILABLE: return ErrorCode::unavailable;
    case grpc::StatusCode::CANCELLED: return ErrorCode::cancelled;
    case grpc::StatusCode::RESOURCE_EXHAUSTED: return ErrorCode::resource_exhausted;
    case grpc::StatusCode::FAILED_PRECONDITION: return ErrorCode::failed_precondition;
    case grpc::StatusCode::PERMISSION_DENIED: return ErrorCode::permission_denied;
    case grpc::StatusCode::UNIMPLEMENTED: return ErrorCode::unimplemented;
    default: return ErrorCode::internal;
  }
}

WallTime from_nanos(std::int64_t ns) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::nanoseconds(std::max<std::int64_t>(ns, 0))));
}

template <typename Map>
std::string value_of(const Map& map, const char* key) {
  const auto it = map.find(key);
  return it == map.end() ? std::string() : it->second;
}

ContainerPhase phase_of(cri::ContainerState state) {
  switch (state) {
    case cri::CONTAINER_CREATED: return ContainerPhase::created;
    case cri::CONTAINER_RUNNING: return ContainerPhase::running;
    case cri::CONTAINER_EXITED: return ContainerPhase::exited;
    default: return ContainerPhase::unknown;
  }
}

// What Container and ContainerStatus have in common.
template <typename Message>
ContainerRecord container_record(const Message& m) {
  ContainerRecord r;
  r.id = m.id();
  r.name = m.metadata().name();
  r.attempt = m.metadata().attempt();
  r.phase = phase_of(m.state());
  r.image = m.image().image();
  r.image_ref = m.image_ref();
  r.created_at = from_nanos(m.created_at());
  r.pod_uid = value_of(m.labels(), kLabelPodUid);
  r.pod_name = value_of(m.labels(), kLabelPodName);
  r.pod_namespace = value_of(m.labels(), kLabelPodNamespace);
  const std::string grace = value_of(m.annotations(), kAnnotationGracePeriod);
  std::from_chars(grace.data(), grace.data() + grace.size(), r.grace_period);
  return r;
}

SandboxRecord sandbox_record(const cri::PodSandboxMetadata& metadata, const std::string& id, cri::PodSandboxState state,
                             std::int64_t created_at) {
  SandboxRecord r;
  r.id = id;
  r.attempt = metadata.attempt();
  r.ready = state == cri::SANDBOX_READY;
  r.created_at = from_nanos(created_at);
  r.pod_uid = metadata.uid();
  r.pod_name = metadata.name();
  r.pod_namespace = metadata.namespace_();
  return r;
}

ImageRecord image_record(const cri::Image& image) {
  ImageRecord r{image.id(), {}, image.size(), image.username()};
  r.names.assign(image.repo_tags().begin(), image.repo_tags().end());
  r.names.insert(r.names.end(), image.repo_digests().begin(), image.repo_digests().end());
  if (image.has_uid()) r.user = std::to_string(image.uid().value());
  return r;
}

class CriRuntime final : public Runtime {
 public:
  CriRuntime(net::any_io_executor executor, std::shared_ptr<grpc::Channel> channel)
      : executor_(std::move(executor)),
        channel_(channel),
        runtime_(cri::RuntimeService::NewStub(channel)),
        images_(cri::ImageService::NewStub(channel)) {}

  Task<Result<RuntimeVersion>> version() override;
  Task<Result<RuntimeConditions>> conditions() override;
  Task<Result<>> set_pod_cidr(std::string pod_cidr) override;
  Task<Result<std::string>> run_sandbox(std::shared_ptr<const cri::PodSandboxConfig> config) override;
  Task<Result<>> stop_sandbox(std::string id) override;
  Task<Result<>> remove_sandbox(std::string id) override;
  Task<Result<SandboxRecord>> sandbox_status(std::string id) override;
  Task<Result<std::vector<SandboxRecord>>> list_sandboxes(std::string pod_uid) override;
  Task<Result<std::string>> create_container(std::string sandbox_id, std::shared_ptr<const cri::ContainerConfig> config,
                                             std::shared_ptr<const cri::PodSandboxConfig> sandbox_config) override;
  Task<Result<>> start_container(std::string id) override;
  Task<Result<>> stop_container(std::string id, seconds grace) override;
  Task<Result<>> remove_container(std::string id) override;
  Task<Result<ContainerRecord>> container_status(std::string id) override;
  Task<Result<std::vector<ContainerRecord>>> list_containers(std::string pod_uid) override;
  Task<Result<>> reopen_log(std::string id) override;
  Task<Result<ExecResult>> exec(std::string id, std::vector<std::string> command, seconds timeout) override;
  Task<Result<ImageRecord>> image_status(std::string reference) override;
  Task<Result<std::string>> pull_image(std::string reference) override;
  Task<Result<std::vector<ImageRecord>>> list_images() override;
  void on_activity(std::function<void()> hint) override {
    listener_.reset();
    if (hint) listener_ = listen_containerd_events(executor_, channel_, std::move(hint));
  }

 private:
  // One unary call: start(context, request, response, callback) is the stub's function.
  template <typename Response, typename Request, typename Start>
  Task<Result<std::shared_ptr<Response>>> call(std::string what, std::shared_ptr<Request> request, seconds timeout, Start start);

  net::any_io_executor executor_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<cri::RuntimeService::Stub> runtime_;
  std::unique_ptr<cri::ImageService::Stub> images_;
  std::unique_ptr<ActivityListener> listener_;
};

template <typename Response, typename Request, typename Start>
Task<Result<std::shared_ptr<Response>>> CriRuntime::call(std::string what, std::shared_ptr<Request> request, seconds timeout,
                                                         Start start) {
  auto outcome = co_await await_rpc<Response>(executor_, std::move(request), timeout, std::move(start));
  if (!outcome.status.ok()) co_return fail(code_of(outcome.status.error_code()), "{}: {}", what, outcome.status.error_message());
  co_return std::move(outcome.response);
}

// The stub's function as a start argument of call().
#define FL_RPC(stub, Method)                                              \
  [this](auto* context, const auto* request, auto* response, auto done) { \
    stub->async()->Method(context, request, response, std::move(done));   \
  }

Task<Result<RuntimeVersion>> CriRuntime::version() {
  auto request = std::make_shared<cri::VersionRequest>();
  FL_CO_TRY(auto r, co_await call<cri::VersionResponse>("runtime version", request, kShort, FL_RPC(runtime_, Version)));
  co_return RuntimeVersion{r->runtime_name(), r->runtime_version()};
}

Task<Result<RuntimeConditions>> CriRuntime::conditions() {
  auto request = std::make_shared<cri::StatusRequest>();
  FL_CO_TRY(auto r, co_await call<cri::StatusResponse>("runtime status", request, kShort, FL_RPC(runtime_, Status)));
  RuntimeConditions out;
  for (const auto& c : r->status().conditions()) {
    if (c.type() == "RuntimeReady") {
      out.runtime_ready = c.status();
      out.runtime_message = c.message();
    } else if (c.type() == "NetworkReady") {
      out.network_ready = c.status();
      out.network_message = c.message();
    }
  }
  co_return out;
}

Task<Result<>> CriRuntime::set_pod_cidr(std::string pod_cidr) {
  auto request = std::make_shared<cri::UpdateRuntimeConfigRequest>();
  request->mutable_runtime_config()->mutable_network_config()->set_pod_cidr(std::move(pod_cidr));
  FL_CO_CHECK(
      co_await call<cri::UpdateRuntimeConfigResponse>("set pod CIDR", request, kShort, FL_RPC(runtime_, UpdateRuntimeConfig)));
  co_return Result<>{};
}

Task<Result<std::string>> CriRuntime::run_sandbox(std::shared_ptr<const cri::PodSandboxConfig> config) {
  auto request = std::make_shared<cri::RunPodSandboxRequest>();
  *request->mutable_config() = *config;
  FL_CO_TRY(auto r, co_await call<cri::RunPodSandboxResponse>("run sandbox", request, kSandbox, FL_RPC(runtime_, RunPodSandbox)));
  co_return r->pod_sandbox_id();
}

Task<Result<>> CriRuntime::stop_sandbox(std::string id) {
  auto request = std::make_shared<cri::StopPodSandboxRequest>();
  request->set_pod_sandbox_id(std::move(id));
  FL_CO_CHECK(co_await call<cri::StopPodSandboxResponse>("stop sandbox", request, kSandbox, FL_RPC(runtime_, StopPodSandbox)));
  co_return Result<>{};
}

Task<Result<>> CriRuntime::remove_sandbox(std::string id) {
  auto request = std::make_shared<cri::RemovePodSandboxRequest>();
  request->set_pod_sandbox_id(std::move(id));
  FL_CO_CHECK(
      co_await call<cri::RemovePodSandboxResponse>("remove sandbox", request, kNormal, FL_RPC(runtime_, RemovePodSandbox)));
  co_return Result<>{};
}

Task<Result<SandboxRecord>> CriRuntime::sandbox_status(std::string id) {
  auto request = std::make_shared<cri::PodSandboxStatusRequest>();
  request->set_pod_sandbox_id(std::move(id));
  FL_CO_TRY(auto r,
            co_await call<cri::PodSandboxStatusResponse>("sandbox status", request, kShort, FL_RPC(runtime_, PodSandboxStatus)));
  const cri::PodSandboxStatus& s = r->status();
  SandboxRecord out = sandbox_record(s.metadata(), s.id(), s.state(), s.created_at());
  if (!s.network().ip().empty()) out.ips.push_back(s.network().ip());
  for (const auto& more : s.network().additional_ips()) out.ips.push_back(more.ip());
  co_return out;
}

Task<Result<std::vector<SandboxRecord>>> CriRuntime::list_sandboxes(std::string pod_uid) {
  auto request = std::make_shared<cri::ListPodSandboxRequest>();
  if (!pod_uid.empty()) (*request->mutable_filter()->mutable_label_selector())[kLabelPodUid] = std::move(pod_uid);
  FL_CO_TRY(auto r,
            co_await call<cri::ListPodSandboxResponse>("list sandboxes", request, kShort, FL_RPC(runtime_, ListPodSandbox)));
  std::vector<SandboxRecord> out;
  for (const auto& s : r->items()) out.push_back(sandbox_record(s.metadata(), s.id(), s.state(), s.created_at()));
  co_return out;
}

Task<Result<std::string>> CriRuntime::create_container(std::string sandbox_id, std::shared_ptr<const cri::ContainerConfig> config,
                                                       std::shared_ptr<const cri::PodSandboxConfig> sandbox_config) {
  auto request = std::make_shared<cri::CreateContainerRequest>();
  request->set_pod_sandbox_id(std::move(sandbox_id));
  *request->mutable_config() = *config;
  *request->mutable_sandbox_config() = *sandbox_config;
  FL_CO_TRY(auto r,
            co_await call<cri::CreateContainerResponse>("create container", request, kNormal, FL_RPC(runtime_, CreateContainer)));
  co_return r->container_id();
}

Task<Result<>> CriRuntime::start_container(std::string id) {
  auto request = std::make_shared<cri::StartContainerRequest>();
  request->set_container_id(std::move(id));
  FL_CO_CHECK(co_await call<cri::StartContainerResponse>("start container", request, kNormal, FL_RPC(runtime_, StartContainer)));
  co_return Result<>{};
}

Task<Result<>> CriRuntime::stop_container(std::string id, seconds grace) {
  auto request = std::make_shared<cri::StopContainerRequest>();
  request->set_container_id(std::move(id));
  request->set_timeout(grace.count());
  FL_CO_CHECK(
      co_await call<cri::StopContainerResponse>("stop container", request, grace + kNormal, FL_RPC(runtime_, StopContainer)));
  co_return Result<>{};
}

Task<Result<>> CriRuntime::remove_container(std::string id) {
  auto request = std::make_shared<cri::RemoveContainerRequest>();
  request->set_container_id(std::move(id));
  FL_CO_CHECK(
      co_await call<cri::RemoveContainerResponse>("remove container", request, kNormal, FL_RPC(runtime_, RemoveContainer)));
  co_return Result<>{};
}

Task<Result<ContainerRecord>> CriRuntime::container_status(std::string id) {
  auto request = std::make_shared<cri::ContainerStatusRequest>();
  request->set_container_id(std::move(id));
  FL_CO_TRY(auto r,
            co_await call<cri::ContainerStatusResponse>("container status", request, kShort, FL_RPC(runtime_, ContainerStatus)));
  const cri::ContainerStatus& s = r->status();
  ContainerRecord out = container_record(s);
  out.started_at = from_nanos(s.started_at());
  out.finished_at = from_nanos(s.finished_at());
  out.exit_code = s.exit_code();
  out.reason = s.reason();
  out.message = s.message();
  out.log_path = s.log_path();
  co_return out;
}

Task<Result<std::vector<ContainerRecord>>> CriRuntime::list_containers(std::string pod_uid) {
  auto request = std::make_shared<cri::ListContainersRequest>();
  if (!pod_uid.empty()) (*request->mutable_filter()->mutable_label_selector())[kLabelPodUid] = std::move(pod_uid);
  FL_CO_TRY(auto r,
            co_await call<cri::ListContainersResponse>("list containers", request, kShort, FL_RPC(runtime_, ListContainers)));
  std::vector<ContainerRecord> out;
  for (const auto& c : r->containers()) {
    out.push_back(container_record(c));
    out.back().sandbox_id = c.pod_sandbox_id();
  }
  co_return out;
}

Task<Result<>> CriRuntime::reopen_log(std::string id) {
  auto request = std::make_shared<cri::ReopenContainerLogRequest>();
  request->set_container_id(std::move(id));
  FL_CO_CHECK(
      co_await call<cri::ReopenContainerLogResponse>("reopen log", request, kShort, FL_RPC(runtime_, ReopenContainerLog)));
  co_return Result<>{};
}

Task<Result<ExecResult>> CriRuntime::exec(std::string id, std::vector<std::string> command, seconds timeout) {
  auto request = std::make_shared<cri::ExecSyncRequest>();
  request->set_container_id(std::move(id));
  for (std::string& word : command) request->add_cmd(std::move(word));
  request->set_timeout(timeout.count());
  const seconds deadline = timeout.count() > 0 ? timeout + kShort : kPull;
  FL_CO_TRY(auto r, co_await call<cri::ExecSyncResponse>("exec", request, deadline, FL_RPC(runtime_, ExecSync)));
  co_return ExecResult{r->exit_code(), r->stdout().substr(0, kMaxExecOutput), r->stderr().substr(0, kMaxExecOutput)};
}

Task<Result<ImageRecord>> CriRuntime::image_status(std::string reference) {
  auto request = std::make_shared<cri::ImageStatusRequest>();
  request->mutable_image()->set_image(std::move(reference));
  FL_CO_TRY(auto r, co_await call<cri::ImageStatusResponse>("image status", request, kShort, FL_RPC(images_, ImageStatus)));
  if (!r->has_image()) co_return ImageRecord{};
  co_return image_record(r->image());
}

Task<Result<std::string>> CriRuntime::pull_image(std::string reference) {
  auto request = std::make_shared<cri::PullImageRequest>();
  request->mutable_image()->set_image(std::move(reference));
  FL_CO_TRY(auto r, co_await call<cri::PullImageResponse>("pull image", request, kPull, FL_RPC(images_, PullImage)));
  co_return r->image_ref();
}

Task<Result<std::vector<ImageRecord>>> CriRuntime::list_images() {
  auto request = std::make_shared<cri::ListImagesRequest>();
  FL_CO_TRY(auto r, co_await call<cri::ListImagesResponse>("list images", request, kShort, FL_RPC(images_, ListImages)));
  std::vector<ImageRecord> out;
  for (const auto& image : r->images()) out.push_back(image_record(image));
  co_return out;
}

}  // namespace

Result<std::shared_ptr<Runtime>> make_cri_runtime(net::any_io_executor executor, const std::string& endpoint) {
  std::string path = endpoint;
  if (path.rfind("unix://", 0) == 0) path = path.substr(7);
  if (path.empty() || path[0] != '/')
    return fail(ErrorCode::invalid_argument, "runtime endpoint \"{}\" is not unix:///path or an absolute path", endpoint);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(16 << 20);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel("unix:" + path, grpc::InsecureChannelCredentials(), arguments);
  return std::make_shared<CriRuntime>(std::move(executor), std::move(channel));
}

}  // namespace fairlead::kubelet
