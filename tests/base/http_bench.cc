// Requests a second that the HTTP server answers on keep-alive connections, with the client in another thread of this
// process (so on two cores both halves have one each), and what an idle connection costs in memory.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <boost/asio/executor_work_guard.hpp>
#include <thread>

#include "base/files.h"
#include "base/http/server.h"
#include "base/http/tls.h"
#include "base/http/transport.h"
#include "base/pki.h"

namespace fairlead::http {
namespace {

template <typename T>
T must(Result<T> r) {
  if (!r) {
    std::fprintf(stderr, "%s\n", r.error().message.c_str());
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(*r);
}

Task<Response> answer(Request) {
  Response r;
  r.headers.add("Content-Type", "application/json");
  r.body.assign(200, 'x');
  co_return r;
}

Task<Result<>> wait_for_end(BodyWriter& w) {
  co_await w.closed();
  co_return Result<>{};
}

Task<Response> hold(Request) {
  Response r;
  r.stream = wait_for_end;
  co_return r;
}

struct Running {
  explicit Running(bool tls, Handler handler = answer, int threads = 1) : work(net::make_work_guard(context)) {
    ServerOptions o;
    o.listen = {IpAddress::v4(127, 0, 0, 1), 0};
    o.max_connections = 100'000;
    if (tls) {
      const std::string base = "/tmp/http_bench." + std::to_string(::getpid());
      const auto ca = must(pki::make_ca("bench", std::chrono::hours(1)));
      const auto pair = must(pki::make_server(ca, {"bench", {}}, {{}, {IpAddress::v4(127, 0, 0, 1)}}, std::chrono::hours(1)));
      must(write_file_atomic(base + ".cert", pair.certificate_pem));
      must(write_file_atomic(base + ".key", pair.key_pem));
      o.tls = TlsOptions{base + ".cert", base + ".key", ""};
      server = must(serve(context.get_executor(), o, std::move(handler)));
      ::unlink((base + ".cert").c_str());
      ::unlink((base + ".key").c_str());
      ClientTls c;
      c.ca_pem = ca.certificate_pem;
      client_tls = must(make_client_context(c));
    } else {
      server = must(serve(context.get_executor(), o, std::move(handler)));
    }
    for (int i = 0; i < threads; ++i) pool.emplace_back([this] { context.run(); });
  }
  ~Running() {
    server.reset();
    work.reset();
    context.stop();
    for (auto& t : pool) t.join();
  }
  net::io_context context;
  net::executor_work_guard<net::io_context::executor_type> work;
  std::unique_ptr<Server> server;
  SslContext client_tls;
  std::vector<std::thread> pool;
};

Task<> open_connection(Transport& t, SocketAddress to, SslContext tls) {
  (void)to;
  if (tls) {
    must(t.use_tls(tls, false, "127.0.0.1"));
    auto ok = co_await t.handshake();
    must(std::move(ok));
  }
}

Task<> ask(Transport& t, std::int64_t times) {
  const std::string request =
      "GET /api/v1/namespaces/default/pods/web-0 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n";
  std::string in;
  for (std::int64_t i = 0; i < times; ++i) {
    const Transport::Pieces pieces{request};
    auto sent = co_await t.write(pieces);
    must(std::move(sent));
    in.clear();
    while (in.size() < 200 || in.find("\r\n\r\n") + 4 + 200 > in.size()) {
      auto n = co_await t.read(in, 65536, true);
      if (must(std::move(n)) == 0) std::abort();
    }
  }
}

void requests(benchmark::State& state, bool tls) {
  const auto connections = static_cast<std::size_t>(state.range(0));
  Running server(tls);
  net::io_context loop(1);
  std::vector<std::unique_ptr<Transport>> open;
  for (std::size_t i = 0; i < connections; ++i) {
    net::ip::tcp::socket s(loop.get_executor());
    s.connect(to_endpoint(server.server->address()));
    open.push_back(std::make_unique<Transport>(std::move(s)));
    net::co_spawn(loop, open_connection(*open.back(), server.server->address(), server.client_tls), net::detached);
  }
  loop.run();
  constexpr std::int64_t kEach = 200;
  for (auto _ : state) {
    for (auto& t : open) net::co_spawn(loop, ask(*t, kEach), net::detached);
    loop.restart();
    loop.run();
  }
  state.SetItemsProcessed(state.iterations() * kEach * static_cast<std::int64_t>(connections));
}
BENCHMARK_CAPTURE(requests, plain, false)->Arg(1)->Arg(16)->Arg(128)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(requests, tls, true)->Arg(1)->Arg(16)->Arg(128)->UseRealTime()->Unit(benchmark::kMillisecond);

// Bytes of heap for each open watch that has nothing to tell. Both ends are here: the client's end is part of the figure for TLS.
void idle_watches(benchmark::State& state, bool tls) {
  for (auto _ : state) {
    Running server(tls, hold);
    net::io_context loop(1);
    std::vector<std::unique_ptr<Transport>> open;
    const auto before = mallinfo2().uordblks;
    for (int i = 0; i < 500; ++i) {
      net::ip::tcp::socket s(loop.get_executor());
      s.connect(to_endpoint(server.server->address()));
      open.push_back(std::make_unique<Transport>(std::move(s)));
      const auto body = [&]() -> Task<> {
        auto& t = *open.back();
        co_await open_connection(t, server.server->address(), server.client_tls);
        const std::string request = "GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        const Transport::Pieces pieces{request};
        auto sent = co_await t.write(pieces);
        must(std::move(sent));
        std::string in;
        auto n = co_await t.read(in, 65536, true);
        must(std::move(n));
      };
      net::co_spawn(loop, body, net::detached);
      loop.restart();
      loop.run();
    }
    state.counters["bytes_each"] = static_cast<double>(mallinfo2().uordblks - before) / 500;
  }
}
BENCHMARK_CAPTURE(idle_watches, plain, false)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(idle_watches, tls_both_ends, true)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fairlead::http

BENCHMARK_MAIN();
