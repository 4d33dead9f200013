#include "controlplane/kubelet/server.h"

#include <algorithm>

#include "base/files.h"
#include "controlplane/kubelet/log_reader.h"
#include "kube/codec.h"

namespace fairlead::kubelet {
namespace {

http::Response text_answer(unsigned status, std::string body) {
  http::Response r;
  r.status = status;
  r.headers.set("Content-Type", "text/plain; charset=utf-8");
  if (body.empty() || body.back() != '\n') body += '\n';
  r.body = std::move(body);
  return r;
}

std::vector<std::string> split_path(const std::string& path) {
  std::vector<std::string> out;
  std::size_t at = 1;
  while (at <= path.size()) {
    const auto slash = std::min(path.find('/', at), path.size());
    out.push_back(path.substr(at, slash - at));
    at = slash + 1;
  }
  return out;
}

bool has_container(const corev1::Pod& pod, const std::string& name) {
  const auto is = [&](const corev1::Container& c) { return c.name() == name; };
  return std::any_of(pod.spec().containers().begin(), pod.spec().containers().end(), is) ||
         std::any_of(pod.spec().initcontainers().begin(), pod.spec().initcontainers().end(), is);
}

// Names of pods and containers never hold these; a path must not leave its folder.
bool plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

std::string waiting_reason(const corev1::PodStatus& status, const std::string& container) {
  const auto look = [&](const auto& list) -> std::string {
    for (const auto& s : list)
      if (s.name() == container && s.state().has_waiting()) return s.state().waiting().reason();
    return {};
  };
  std::string out = look(status.containerstatuses());
  return out.empty() ? look(status.initcontainerstatuses()) : out;
}

}  // namespace

Result<> authorize(const http::Peer& peer) {
  if (peer.common_name.empty()) return fail(ErrorCode::unauthenticated, "Unauthorized");
  const bool master =
      std::find(peer.organizations.begin(), peer.organizations.end(), "system:masters") != peer.organizations.end();
  if (master || peer.common_name == ApiServerIdentity{}.user) return {};
  return fail(ErrorCode::permission_denied, "Forbidden (user={})", peer.common_name);
}

http::Handler NodeServer::handler() {
  return [this](http::Request request) { return answer(std::move(request)); };
}

Task<http::Response> NodeServer::answer(http::Request request) {
  const auto target = http::Target::parse(request.target);
  if (!target) co_return text_answer(400, target.error().message);
  const bool health = target->path == "/healthz" || target->path == "/livez" || target->path == "/readyz";
  if (!health) {
    if (auto ok = authorize(request.peer); !ok)
      co_return text_answer(ok.error().code == ErrorCode::unauthenticated ? 401 : 403, ok.error().message);
  }
  if (auto own = health_.handle(request)) co_return std::move(*own);
  if (request.method != "GET" && request.method != "POST") co_return text_answer(405, "method not allowed");
  const std::string& path = target->path;
  if (path.rfind("/containerLogs/", 0) == 0) co_return logs(*target);
  if (path == "/pods" || path == "/pods/" || path == "/runningpods/") co_return pods();
  for (const char* streaming : {"/exec/", "/attach/", "/portForward/", "/run/"})
    if (path.rfind(streaming, 0) == 0) co_return text_answer(501, fmt::format("{} is not served by this node agent yet", path));
  co_return text_answer(404, "404 page not found");
}

http::Response NodeServer::pods() const {
  std::string body = R"({"kind":"PodList","apiVersion":"v1","metadata":{},"items":[)";
  bool first = true;
  for (const auto& pod : agent_.pods()) {
    if (!first) body += ',';
    first = false;
    body += kube::to_json(*pod);
  }
  http::Response r;
  r.headers.set("Content-Type", "application/json");
  r.body = body + "]}\n";
  return r;
}

http::Response NodeServer::logs(const http::Target& target) {
  const auto parts = split_path(target.path);
  if (parts.size() != 4 || !plain_name(parts[1]) || !plain_name(parts[2]) || !plain_name(parts[3]))
    return text_answer(400, "the path is /containerLogs/NAMESPACE/POD/CONTAINER");
  const std::string &ns = parts[1], &name = parts[2], &container = parts[3];
  const auto options = parse_log_options(
      [&](const char* key) -> std::optional<std::string> {
        const auto v = target.get(key);
        return v ? std::optional<std::string>(*v) : std::nullopt;
      },
      std::chrono::system_clock::now());
  if (!options) return text_answer(400, options.error().message);
  const PodWorker* worker = agent_.find(ns, name);
  if (!worker) return text_answer(404, fmt::format("pod {}/{} is not on this node", ns, name));
  if (!has_container(*worker->pod(), container))
    return text_answer(404, fmt::format("container {} is not valid for pod {}", container, name));
  const ContainerRecord* newest = worker->observed().newest(container);
  const ContainerRecord* record = newest;
  if (options->previous)
    record = newest && newest->phase == ContainerPhase::exited && !worker->observed().previous(container)
                 ? nullptr
                 : worker->observed().previous(container);
  if (!record && options->previous)
    return text_answer(400, fmt::format("previous terminated container \"{}\" in pod \"{}\" not found", container, name));
  if (!record || record->phase == ContainerPhase::created) {
    const std::string reason = waiting_reason(worker->status(), container);
    return text_answer(400, fmt::format("container \"{}\" in pod \"{}\" is waiting to start: {}", container, name,
                                        reason.empty() ? "ContainerCreating" : reason));
  }
  const auto& meta = worker->pod()->metadata();
  LogStream stream;
  stream.path = pod_log_dir(agent_.settings(), ns, name, meta.uid()) + "/" + container_log_path(container, record->attempt);
  stream.options = *options;
  if (!path_exists(stream.path))
    return text_answer(404, fmt::format("the log of container \"{}\" in pod \"{}\" is gone", container, name));
  // The agent may forget the pod while its log is followed.
  stream.ended = [this, ns, name, uid = meta.uid(), container, id = record->id] {
    const PodWorker* w = agent_.find(ns, name);
    const ContainerRecord* now = w && w->uid() == uid ? w->observed().newest(container) : nullptr;
    return !now || now->id != id || now->phase != ContainerPhase::running;
  };
  http::Response r;
  r.headers.set("Content-Type", "text/plain");
  r.stream = [stream](http::BodyWriter& body) mutable -> Task<Result<>> {
    stream.write = [&body](std::string text) -> Task<Result<>> {
      auto sent = co_await body.write(text);
      co_return sent;
    };
    stream.stopped = [&body] { return body.is_closed(); };
    auto done = co_await stream_log(stream);
    co_return done;
  };
  return r;
}

}  // namespace fairlead::kubelet
