#include "controlplane/apiserver/command.h"

#include <CLI/CLI.hpp>
#include <boost/asio/signal_set.hpp>
#include <iostream>
#include <thread>

#include "base/log.h"
#include "controlplane/apiserver/flags.h"

namespace fairlead::apiserver {
namespace {

Task<> serve_until_signal(net::io_context& io, etcd::Kv& store, Options options, int& exit_code) {
  const auto executor = co_await net::this_coro::executor;
  net::signal_set signals(executor, SIGINT, SIGTERM);
  auto server = co_await start(executor, store, std::move(options));
  if (!server) {
    log::error("{}", server.error().message);
    exit_code = 1;
    io.stop();
    co_return;
  }
  auto [ec, number] = co_await signals.async_wait(use_result);
  if (!ec) log::info("signal {}: stopping", number);
  co_await (*server)->stop();
  io.stop();
}

}  // namespace

int run_apiserver(int argc, char** argv) {
  CLI::App app{"The Kubernetes API server of Fairlead, on its embedded store or an etcd cluster.", "fairlead apiserver"};
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  const auto level = log::parse_level(flags.log_level);
  if (!level) {
    std::cerr << "--log-level: " << level.error().message << "\n";
    return 2;
  }
  log::init({"apiserver", *level, flags.log_json});
  if (auto ok = resolve(flags); !ok) {
    std::cerr << ok.error().message << "\n";
    return 2;
  }
  raise_file_limit();
  auto store = open_store(flags);
  if (!store) {
    log::error("{}", store.error().message);
    return 1;
  }
  const auto threads = flags.threads ? flags.threads : std::max(1u, std::thread::hardware_concurrency());
  int exit_code = 0;
  net::io_context io(static_cast<int>(threads));
  net::co_spawn(io, serve_until_signal(io, **store, flags.options, exit_code), net::detached);
  std::vector<std::thread> workers;
  for (unsigned i = 1; i < threads; ++i) workers.emplace_back([&io] { io.run(); });
  io.run();
  for (auto& w : workers) w.join();
  store->reset();  // before the executor that its completions use
  return exit_code;
}

}  // namespace fairlead::apiserver
