#include "controlplane/kubelet/handlers.h"

#include "base/http/client.h"
#include "base/version.h"
#include "controlplane/kubelet/probe_grpc.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;

std::string bracketed(const std::string& ip) { return ip.find(':') == std::string::npos ? ip : "[" + ip + "]"; }

Task<ProbeResult> ask_http(ProbeTarget target, corev1::HTTPGetAction get, milliseconds timeout, const char* agent, bool hook) {
  const auto port = resolve_port(get.port(), target.container);
  if (!port) co_return ProbeResult{false, port.error().message};
  const bool tls = get.scheme() == "HTTPS";
  const std::string host = get.host().empty() ? target.pod_ip : get.host();
  http::ClientOptions options;
  options.base_url = fmt::format("{}://{}:{}", tls ? "https" : "http", bracketed(host), *port);
  options.connect_timeout = timeout;
  options.max_idle_connections = 0;                          // each probe is a new connection
  if (tls) options.tls = http::ClientTls{.insecure = true};  // the certificate is the application's own affair
  const auto executor = co_await net::this_coro::executor;
  auto client = http::make_client(executor, options);
  if (!client) co_return ProbeResult{false, client.error().message};
  http::Request request;
  request.target = get.path().empty() ? "/" : get.path()[0] == '/' ? get.path() : "/" + get.path();
  // "kube-probe/1.36": the release without its patch level.
  const std::string_view release = std::string_view(kKubernetesVersion).substr(1);
  request.headers.set("User-Agent", fmt::format("{}/{}", agent, release.substr(0, release.rfind('.'))));
  request.headers.set("Accept", "*/*");
  request.headers.set("Connection", "close");
  for (const auto& h : get.httpheaders()) request.headers.set(h.name(), h.value());
  auto response = co_await (*client)->open(std::move(request), timeout);
  if (!response)
    co_return ProbeResult{false, fmt::format("Get \"{}{}\": {}", options.base_url, get.path(), response.error().message)};
  const unsigned status = (*response)->status();
  if (status >= 200 && status < 400) co_return ProbeResult{true, {}};
  co_return ProbeResult{false, fmt::format("HTTP {} failed with statuscode: {}", hook ? "hook" : "probe", status)};
}

Task<ProbeResult> ask_tcp(ProbeTarget target, corev1::TCPSocketAction tcp, milliseconds timeout) {
  const auto port = resolve_port(tcp.port(), target.container);
  if (!port) co_return ProbeResult{false, port.error().message};
  const std::string host = tcp.host().empty() ? target.pod_ip : tcp.host();
  const auto ip = IpAddress::parse(host);
  if (!ip) co_return ProbeResult{false, fmt::format("TCP probe: \"{}\" is not an address", host)};
  const auto executor = co_await net::this_coro::executor;
  auto socket = std::make_shared<net::ip::tcp::socket>(executor);
  net::steady_timer deadline(executor, timeout);
  deadline.async_wait([socket](const boost::system::error_code& ec) {
    boost::system::error_code ignored;
    if (!ec) socket->close(ignored);
  });
  auto [ec] = co_await socket->async_connect(to_endpoint({*ip, *port}), use_result);
  const bool open = socket->is_open();
  deadline.cancel();
  if (!ec && open) co_return ProbeResult{true, {}};
  co_return ProbeResult{false, fmt::format("dial tcp {}:{}: {}", bracketed(host), *port, open ? ec.message() : "timed out")};
}

Task<ProbeResult> ask_exec(std::shared_ptr<Runtime> runtime, ProbeTarget target, corev1::ExecAction exec, milliseconds timeout) {
  const std::vector<std::string> command(exec.command().begin(), exec.command().end());
  auto r = co_await runtime->exec(target.container_id, command, std::chrono::ceil<std::chrono::seconds>(timeout));
  if (!r) co_return ProbeResult{false, r.error().message};
  if (r->exit_code == 0) co_return ProbeResult{true, {}};
  std::string output = r->stdout_text + r->stderr_text;
  output.resize(std::min<std::size_t>(output.size(), 1024));
  co_return ProbeResult{false, fmt::format("command exited with {}: {}", r->exit_code, output)};
}

}  // namespace

Result<std::uint16_t> resolve_port(const intstr::IntOrString& port, const corev1::Container& container) {
  std::int64_t number = port.intval();
  if (port.type() == 1) {
    number = 0;
    for (const auto& p : container.ports())
      if (p.name() == port.strval()) number = p.containerport();
    if (number == 0) {
      const auto parsed = parse_port(port.strval());
      if (!parsed)
        return fail(ErrorCode::invalid_argument, "container \"{}\" has no port named \"{}\"", container.name(), port.strval());
      number = *parsed;
    }
  }
  if (number < 1 || number > 65535) return fail(ErrorCode::invalid_argument, "invalid port number: {}", number);
  return static_cast<std::uint16_t>(number);
}

Task<ProbeResult> run_probe(std::shared_ptr<Runtime> runtime, ProbeTarget target, corev1::ProbeHandler handler,
                            milliseconds timeout) {
  if (handler.has_exec()) co_return co_await ask_exec(std::move(runtime), std::move(target), handler.exec(), timeout);
  if (handler.has_httpget()) co_return co_await ask_http(std::move(target), handler.httpget(), timeout, "kube-probe", false);
  if (handler.has_tcpsocket()) co_return co_await ask_tcp(std::move(target), handler.tcpsocket(), timeout);
  if (handler.has_grpc()) {
    const std::string address = fmt::format("{}:{}", bracketed(target.pod_ip), handler.grpc().port());
    co_return co_await probe_grpc(address, handler.grpc().service(), timeout);
  }
  co_return ProbeResult{false, "the probe has no handler"};
}

Task<ProbeResult> run_hook(std::shared_ptr<Runtime> runtime, ProbeTarget target, corev1::LifecycleHandler handler,
                           milliseconds timeout) {
  if (handler.has_exec()) co_return co_await ask_exec(std::move(runtime), std::move(target), handler.exec(), timeout);
  if (handler.has_httpget()) co_return co_await ask_http(std::move(target), handler.httpget(), timeout, "kube-lifecycle", true);
  if (handler.has_tcpsocket()) co_return co_await ask_tcp(std::move(target), handler.tcpsocket(), timeout);
  if (handler.has_sleep()) {
    co_await sleep_for(std::min<milliseconds>(std::chrono::seconds(handler.sleep().seconds()), timeout));
    co_return ProbeResult{true, {}};
  }
  co_return ProbeResult{true, {}};
}

}  // namespace fairlead::kubelet
