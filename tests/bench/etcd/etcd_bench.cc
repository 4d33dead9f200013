// Both servers, one after the other, each alone: the same client, the same disk, the same load. Prints one table.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/process.h"
#include "controlplane/etcd/remote.h"

namespace fairlead::etcd {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

struct Options {
  std::string ours, theirs = "/usr/bin/etcd", dir = "/var/tmp";
  int keys = 1'000'000, writes_one = 2000, writes_many = 60'000, reads = 60'000, watchers = 1000;
};

struct Row {
  std::string name;
  std::vector<std::string> cells;
};

class Server {
 public:
  Server(bool ours, const Options& o) : ours_(ours), options_(o), data_(o.dir + (ours ? "/bench-ours" : "/bench-etcd")) {
    std::filesystem::remove_all(data_);
  }
  ~Server() {
    stop(SIGTERM);
    std::filesystem::remove_all(data_);
  }
  // Until the first read is answered.
  double start() {
    ProcessOptions p;
    p.argv = {ours_ ? options_.ours : options_.theirs, "--data-dir", data_, "--listen-client-urls", url(), "--advertise-client-urls", url(),
              "--quota-backend-bytes", "8589934592"};
    if (!ours_)
      p.argv.insert(p.argv.end(), {"--listen-peer-urls", "http://127.0.0.1:23881", "--initial-advertise-peer-urls", "http://127.0.0.1:23881",
                                   "--initial-cluster", "default=http://127.0.0.1:23881"});
    p.stdout_file = p.stderr_file = data_ + ".log";
    const auto begin = Clock::now();
    process_.emplace(Process::start(p).value());
    for (;;) {
      auto r = Remote::connect({.endpoints = {url()}, .dial_timeout = std::chrono::milliseconds(100)});
      if (r && answers(**r)) return seconds_since(begin);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  void stop(int signal) {
    if (!process_) return;
    (void)process_->kill(signal);
    (void)process_->wait();
    process_.reset();
  }
  std::string url() const { return ours_ ? "http://127.0.0.1:23870" : "http://127.0.0.1:23880"; }
  long resident_mb(const char* field) const {
    std::ifstream f("/proc/" + std::to_string(process_->pid()) + "/status");
    for (std::string line; std::getline(f, line);)
      if (line.starts_with(field)) return std::atol(line.c_str() + std::strlen(field)) / 1024;
    return 0;
  }

 private:
  static bool answers(Remote& kv) {
    net::io_context io;
    bool ok = false;
    net::co_spawn(io, kv.range({.key = "x"}), [&](std::exception_ptr, Result<RangeResponse> r) { ok = r.has_value(); });
    io.run();
    return ok;
  }
  const bool ours_;
  const Options& options_;
  const std::string data_;
  std::optional<Process> process_;
};

struct Load {
  double per_second = 0, p50_us = 0, p99_us = 0, max_us = 0;
  std::string text() const { return fmt::format("{:.0f}/s p50 {:.0f} p99 {:.0f} max {:.0f} us", per_second, p50_us, p99_us, max_us); }
};

// `clients` calls at a time over several connections, `total` in all. `call(kv, i)` is one of them.
template <typename Call>
Load run_load(const std::string& url, int clients, int total, Call call) {
  std::vector<std::shared_ptr<Remote>> connections;
  for (int i = 0; i < std::min(clients, 20); ++i) connections.push_back(Remote::connect({.endpoints = {url}, .request_timeout = std::chrono::milliseconds(60'000)}).value());
  net::io_context io;
  std::vector<double> took(static_cast<std::size_t>(total));
  int next = 0, failed = 0;
  const auto begin = Clock::now();
  auto client = [&](std::shared_ptr<Remote> kv) -> Task<> {
    for (;;) {
      const int i = next++;
      if (i >= total) co_return;
      const auto t = Clock::now();
      const bool ok = co_await call(*kv, i);
      if (!ok) ++failed;
      took[static_cast<std::size_t>(i)] = seconds_since(t) * 1e6;
    }
  };
  for (int c = 0; c < clients; ++c) net::co_spawn(io, client(connections[static_cast<std::size_t>(c) % connections.size()]), net::detached);
  io.run();
  const auto all = seconds_since(begin);
  if (failed) std::fprintf(stderr, "%d of %d calls failed\n", failed, total);
  std::sort(took.begin(), took.end());
  return {total / all, took[took.size() / 2], took[took.size() * 99 / 100], took.back()};
}

Task<bool> put_one(Remote& kv, int i, int space) {
  PutRequest p;
  p.key = fmt::format("/registry/configmaps/ns-{:03}/name-{:08}", i % 500, i % space);
  p.value.assign(256, 'v');
  auto r = co_await kv.put(std::move(p));
  co_return r.has_value();
}

Task<bool> get_one(Remote& kv, int i, int space) {
  RangeRequest g;
  const int k = static_cast<int>((static_cast<long>(i) * 7919) % space);
  g.key = fmt::format("/registry/configmaps/ns-{:03}/name-{:08}", k % 500, k);
  auto r = co_await kv.range(std::move(g));
  co_return r.has_value() && r->kvs.size() == 1;
}

// Every watcher gets every event: the time until all have them all.
std::string fan_out(const std::string& url, int watchers, int events) {
  std::vector<std::shared_ptr<Remote>> connections;
  for (int i = 0; i < 10; ++i) connections.push_back(Remote::connect({.endpoints = {url}}).value());
  net::io_context io;
  int ready = 0, finished = 0;
  Clock::time_point begin, end;
  auto writer = [&]() -> Task<> {
    begin = Clock::now();
    for (int i = 0; i < events; ++i) {
      PutRequest p;
      p.key = "fan/key";
      p.value.assign(256, 'f');
      auto r = co_await connections[0]->put(std::move(p));
      if (!r) co_return;
    }
  };
  auto watcher = [&](Remote& kv) -> Task<> {
    WatchRequest w;
    w.key = "fan/";
    w.range_end = "fan0";
    auto stream = co_await kv.watch(std::move(w));
    if (!stream) co_return;
    if (++ready == watchers) net::co_spawn(io, writer(), net::detached);
    for (int got = 0; got < events;) {
      auto batch = co_await (*stream)->next();
      if (!batch) co_return;
      got += static_cast<int>(batch->events.size());
    }
    if (++finished == watchers) end = Clock::now();
  };
  for (int i = 0; i < watchers; ++i) net::co_spawn(io, watcher(*connections[static_cast<std::size_t>(i) % connections.size()]), net::detached);
  io.run_for(std::chrono::seconds(120));
  if (finished < watchers) return fmt::format("{} of {} watchers finished", finished, watchers);
  const auto t = std::chrono::duration<double>(end - begin).count();
  return fmt::format("{:.0f} events/s", watchers * static_cast<double>(events) / t);
}

void measure(bool ours, const Options& o, std::vector<Row>& rows) {
  std::size_t at = 0;
  const auto tell = [&](const std::string& name, const std::string& cell) {
    if (at == rows.size()) rows.push_back({name, {}});
    rows[at++].cells.push_back(cell);
    std::fprintf(stderr, "%s: %s: %s\n", ours ? "fairlead" : "etcd", name.c_str(), cell.c_str());
  };
  Server server(ours, o);
  tell("start, empty", fmt::format("{:.0f} ms", server.start() * 1e3));
  tell("writes, 1 client", run_load(server.url(), 1, o.writes_one, [&](Remote& kv, int i) { return put_one(kv, i, o.keys); }).text());
  tell("writes, 1000 clients", run_load(server.url(), 1000, o.writes_many, [&](Remote& kv, int i) { return put_one(kv, i, o.keys); }).text());
  const int there = std::min(o.keys, o.writes_many);
  tell("reads, 1 client", run_load(server.url(), 1, o.reads / 20, [&](Remote& kv, int i) { return get_one(kv, i, there); }).text());
  tell("reads, 1000 clients", run_load(server.url(), 1000, o.reads, [&](Remote& kv, int i) { return get_one(kv, i, there); }).text());
  tell(fmt::format("{} watchers of one prefix", o.watchers), fan_out(server.url(), o.watchers, 200));
  const auto load = run_load(server.url(), 1000, o.keys, [&](Remote& kv, int i) { return put_one(kv, i, o.keys); });
  tell(fmt::format("writing {} keys", o.keys), fmt::format("{:.0f}/s", load.per_second));
  std::this_thread::sleep_for(std::chrono::seconds(35));  // both give memory back after a while
  tell("memory then (resident, anonymous)", fmt::format("{} MB, {} MB", server.resident_mb("VmRSS:"), server.resident_mb("RssAnon:")));
  server.stop(SIGKILL);
  tell("start after kill -9 with them", fmt::format("{:.0f} ms", server.start() * 1e3));
  tell("memory after that start", fmt::format("{} MB, {} MB", server.resident_mb("VmRSS:"), server.resident_mb("RssAnon:")));
}

int run(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const auto eq = a.find('=');
    const auto name = a.substr(0, eq), value = eq == std::string::npos ? "" : a.substr(eq + 1);
    if (name == "--ours") o.ours = value;
    else if (name == "--etcd") o.theirs = value;
    else if (name == "--dir") o.dir = value;
    else if (name == "--keys") o.keys = std::stoi(value);
    else if (name == "--writes") o.writes_many = std::stoi(value);
    else {
      std::fprintf(stderr, "unknown flag %s\n", a.c_str());
      return 2;
    }
  }
  std::vector<Row> rows;
  measure(true, o, rows);
  if (std::filesystem::exists(o.theirs)) measure(false, o, rows);
  std::printf("\n| | fairlead | etcd |\n|---|---|---|\n");
  for (const auto& r : rows) {
    std::printf("| %s |", r.name.c_str());
    for (const auto& c : r.cells) std::printf(" %s |", c.c_str());
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace fairlead::etcd

int main(int argc, char** argv) { return fairlead::etcd::run(argc, argv); }
