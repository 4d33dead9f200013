// pods/log: asks the node agent and passes the bytes on as they come.
#include <boost/asio/experimental/awaitable_operators.hpp>

#include "controlplane/apiserver/core.h"
#include "controlplane/apiserver/handlers/context.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::apiserver {
namespace {

constexpr auto kConnect = std::chrono::seconds(15);
constexpr auto kIdle = std::chrono::hours(4);  // a followed log may be silent for long
constexpr int kNodePort = 10'250;

// Which container: the one asked for, or the only one.
ApiResult<std::string> container_of(const corev1::Pod& pod, const std::string& asked) {
  std::string names;
  const auto list = [&](const auto& containers) {
    for (const auto& c : containers) names += (names.empty() ? "" : " ") + c.name();
  };
  const auto& spec = pod.spec();
  const auto has = [&](const auto& containers) {
    return std::any_of(containers.begin(), containers.end(), [&](const auto& c) { return c.name() == asked; });
  };
  if (!asked.empty()) {
    const bool ephemeral = std::any_of(spec.ephemeralcontainers().begin(), spec.ephemeralcontainers().end(),
                                       [&](const auto& c) { return c.ephemeralcontainercommon().name() == asked; });
    if (has(spec.containers()) || has(spec.initcontainers()) || ephemeral) return asked;
    return api_fail(bad_request(fmt::format("container {} is not valid for pod {}", asked, pod.metadata().name())));
  }
  if (spec.containers_size() == 1) return spec.containers(0).name();
  const auto& annotations = pod.metadata().annotations();
  if (const auto it = annotations.find("kubectl.kubernetes.io/default-container"); it != annotations.end()) return it->second;
  list(spec.containers());
  auto text = fmt::format("a container name must be specified for pod {}, choose one of: [{}]", pod.metadata().name(), names);
  if (spec.initcontainers_size() > 0) {
    names.clear();
    list(spec.initcontainers());
    text += fmt::format(" or one of the init containers: [{}]", names);
  }
  return api_fail(bad_request(std::move(text)));
}

// The parameters that the node agent understands, checked here so that bad ones get a good error.
ApiResult<std::string> log_query(const RequestContext& ctx) {
  field::ErrorList e;
  std::string out;
  const auto add = [&](std::string_view key, std::string_view value) {
    out += (out.empty() ? "?" : "&") + std::string(key) + "=" + http::percent_encode(value);
  };
  const auto number = [&](std::string_view key, std::int64_t at_least) {
    const auto text = ctx.query(key);
    if (text.empty()) return;
    const auto n = parse_resource_version(text);
    if (!n || *n < at_least)
      e.invalid(field::Path(key), text, at_least > 0 ? "must be greater than 0" : "must be greater than or equal to 0");
    else
      add(key, text);
  };
  for (const auto key : {"follow", "previous", "timestamps"})
    if (ctx.flag(key)) add(key, "true");
  number("tailLines", 0);
  number("limitBytes", 1);
  number("sinceSeconds", 1);
  if (const auto since = ctx.query("sinceTime"); !since.empty()) {
    if (!parse_rfc3339(since)) e.invalid(field::Path("sinceTime"), since, "must be an RFC 3339 time");
    if (!ctx.query("sinceSeconds").empty()) e.forbidden(field::Path("sinceTime"), "at most one of `sinceTime` or `sinceSeconds` may be specified");
    add("sinceTime", since);
  }
  if (!e.empty()) return api_fail(invalid("", "PodLogOptions", ctx.info.name, e));
  return out;
}

// Addresses in the order the apiserver prefers them.
ApiResult<std::string> node_url(const Message& object) {
  const auto& node = static_cast<const corev1::Node&>(object);
  const auto reported = node.status().daemonendpoints().kubeletendpoint().port();
  const int port = reported > 0 ? reported : kNodePort;
  for (const std::string_view type : {"InternalIP", "ExternalIP"})
    for (const auto& a : node.status().addresses()) {
      if (a.type() != type) continue;
      return a.address().find(':') == std::string::npos ? fmt::format("https://{}:{}", a.address(), port)
                                                        : fmt::format("https://[{}]:{}", a.address(), port);
    }
  return api_fail(internal(fmt::format("node {} has no address to reach its agent", node.metadata().name())));
}

// Members in this order: the stream must end before the client whose connection it uses.
struct LogSource {
  std::shared_ptr<http::Client> client;
  std::unique_ptr<http::ResponseStream> stream;
};

Task<Result<>> copy_pieces(std::shared_ptr<LogSource> source, http::BodyWriter& writer) {
  while (true) {
    auto piece = co_await source->stream->read_some(kIdle);
    if (!piece) co_return fail(std::move(piece).error());
    if (piece->empty()) co_return Result<>{};
    auto ok = co_await writer.write(*piece);
    if (!ok) co_return ok;
  }
}

// Until the log ends or the client goes, whichever comes first: a followed log may be silent for hours.
Task<Result<>> pass_on(std::shared_ptr<LogSource> source, http::BodyWriter& writer) {
  using namespace net::experimental::awaitable_operators;
  auto first = co_await (copy_pieces(source, writer) || writer.closed());
  if (first.index() == 1) co_return Result<>{};
  co_return std::get<0>(std::move(first));
}

}  // namespace

Task<Reply> handle_log(Core& core, ContextPtr ctx) {
  const auto& info = ctx->info;
  auto found = co_await core.registry->get(*ctx->resource, info.ns, info.name, "");
  if (!found) co_return api_fail(std::move(found).error());
  const auto& pod = static_cast<const corev1::Pod&>(**found);
  API_CO_TRY(const auto container, container_of(pod, ctx->query("container")));
  API_CO_TRY(const auto query, log_query(*ctx));
  if (pod.spec().nodename().empty()) {  // not scheduled: there is no log yet
    co_return make_response(200, "text/plain", "");
  }
  const auto* nodes = core.resources.find("", "v1", "nodes");
  auto node = co_await core.registry->get(*nodes, "", pod.spec().nodename(), "");
  if (!node) co_return api_fail(std::move(node).error());
  API_CO_TRY(const auto url, node_url(**node));
  const auto executor = co_await net::this_coro::executor;
  auto client = core.node_client(executor, url);
  if (!client) co_return api_fail(internal(client.error().message));

  http::Request request;
  request.target = fmt::format("/containerLogs/{}/{}/{}{}", http::percent_encode(info.ns), http::percent_encode(info.name),
                               http::percent_encode(container), query);
  auto opened = co_await (*client)->open(std::move(request), kConnect);
  if (!opened) co_return api_fail(internal(fmt::format("get logs from {}: {}", url, opened.error().message)));
  auto source = std::make_shared<LogSource>(LogSource{std::move(*client), std::move(*opened)});
  if (source->stream->status() != 200) {
    const auto status = source->stream->status();
    auto text = co_await source->stream->read_some(kConnect);
    auto e = status == 404 || status == 400 ? bad_request(text ? *text : "the node agent refused the request")
                                            : internal(fmt::format("node agent answered {}: {}", status, text ? *text : ""));
    co_return api_fail(std::move(e));
  }
  http::Response response;
  response.headers.set("Content-Type", "text/plain");
  response.stream = [source](http::BodyWriter& writer) { return pass_on(source, writer); };
  co_return response;
}

}  // namespace fairlead::apiserver
