// Both servers, one after the other, each alone: the same client, the same disk, the same load. Prints one table, the last column
// being ours over etcd's: of rates more is better, of times and memory less.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/process.h"
#include "controlplane/etcd/proto/rpc.pb.h"
#include "controlplane/etcd/remote.h"
#include "tests/controlplane/etcd/light_client.h"

namespace fairlead::etcd {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

struct Options {
  std::string ours, theirs = "/usr/bin/etcd", dir = "/var/tmp";
  int keys = 1'000'000, writes_one = 2000, writes_many = 60'000, reads = 60'000, watchers = 1000;
  bool check_perf = false;
};

struct Row {
  std::string name;
  std::vector<std::string> cells;
  std::vector<double> values;  // what the ratio is made of
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

int port_of(const std::string& url) { return std::atoi(url.substr(url.rfind(':') + 1).c_str()); }

// `clients` calls at a time over several connections, `total` in all. `make(i)` is one of them, `good` looks at its answer. The
// client is made to cost little (light_client.h): what is measured is the server, on the processors that both share.
template <typename Make, typename Good>
Load run_load(const std::string& url, int clients, int total, const std::string& path, Make make, Good good) {
  LightClient client("127.0.0.1", port_of(url), std::min(clients, 20));
  std::vector<double> took(static_cast<std::size_t>(total));
  int next = 0, failed = 0;
  const auto begin = Clock::now();
  std::function<void(int)> one = [&](int connection) {
    const int i = next++;
    if (i >= total) return;
    LightClient::Request r{.path = path, .body = make(i)};
    r.connection = connection;
    client.call(r, [&, i, connection, t = Clock::now()](const LightClient::Reply& reply) {
      failed += !(reply.grpc == 0 && good(reply));
      took[static_cast<std::size_t>(i)] = seconds_since(t) * 1e6;
      one(connection);
    });
  };
  for (int c = 0; c < clients; ++c) one(c);
  if (!client.run()) std::fprintf(stderr, "the load did not end in time\n");
  const auto all = seconds_since(begin);
  if (failed) std::fprintf(stderr, "%d of %d calls failed\n", failed, total);
  std::sort(took.begin(), took.end());
  return {total / all, took[took.size() / 2], took[took.size() * 99 / 100], took.back()};
}

std::string key_of(int k) { return fmt::format("/registry/configmaps/ns-{:03}/name-{:08}", k % 500, k); }

Load put_load(const std::string& url, int clients, int total, int space) {
  const auto make = [space](int i) {
    etcdserverpb::PutRequest p;
    p.set_key(key_of(i % space));
    p.set_value(std::string(256, 'v'));
    return framed(p);
  };
  return run_load(url, clients, total, "/etcdserverpb.KV/Put", make, [](const auto&) { return true; });
}

// Linearizable reads of one key each.
Load get_load(const std::string& url, int clients, int total, int space) {
  const auto make = [space](int i) {
    etcdserverpb::RangeRequest g;
    g.set_key(key_of(static_cast<int>(static_cast<long>(i) * 7919 % space)));
    return framed(g);
  };
  return run_load(url, clients, total, "/etcdserverpb.KV/Range", make, [](const LightClient::Reply& r) { return r.body.size() > 256; });
}

// Linearizable reads of a namespace: 100 keys, 256 bytes each.
Load list_load(const std::string& url, int clients, int total) {
  const auto make = [](int i) {
    etcdserverpb::RangeRequest g;
    g.set_key(fmt::format("/registry/configmaps/ns-{:03}/", i % 500));
    g.set_range_end(fmt::format("/registry/configmaps/ns-{:03}0", i % 500));
    g.set_limit(100);
    return framed(g);
  };
  return run_load(url, clients, total, "/etcdserverpb.KV/Range", make, [](const LightClient::Reply& r) { return r.body.size() > 100 * 256; });
}

struct FanOut {
  bool complete = false;
  double events_per_second = 0;
};

// Every watcher gets every event of one writer: the time until all have them all.
FanOut fan_out(const std::string& url, int watchers, int events) {
  LightClient client("127.0.0.1", port_of(url), 10);
  etcdserverpb::WatchRequest w;
  w.mutable_create_request()->set_key("fan/");
  w.mutable_create_request()->set_range_end("fan0");
  const auto open = framed(w);
  etcdserverpb::PutRequest p;
  p.set_key("fan/key");
  p.set_value(std::string(256, 'f'));
  const auto put = framed(p);
  int ready = 0, finished = 0, written = 0;
  Clock::time_point begin, end;
  std::function<void()> write = [&] {
    if (written++ < events) client.call({.path = "/etcdserverpb.KV/Put", .body = put}, [&](const LightClient::Reply&) { write(); });
  };
  std::vector<int> got(static_cast<std::size_t>(watchers));
  for (int i = 0; i < watchers; ++i)
    client.call({.path = "/etcdserverpb.Watch/Watch", .body = open, .stays_open = true, .connection = i}, {}, [&, i](std::string_view bytes) {
      etcdserverpb::WatchResponse m;
      if (!m.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
      if (m.created() && ++ready == watchers) {
        begin = Clock::now();
        write();
      }
      auto& n = got[static_cast<std::size_t>(i)];
      n += m.events_size();
      if (m.events_size() == 0 || n < events) return;
      if (++finished < watchers) return;
      end = Clock::now();
      client.stop();
    });
  client.run(std::chrono::minutes(2));
  if (finished < watchers) return {};
  return {true, watchers * static_cast<double>(events) / std::chrono::duration<double>(end - begin).count()};
}

// etcd's own judge, which asks for 15,000 writes/s of 1,000 clients for a minute. Its last lines, and the rate among them.
std::pair<std::string, double> check_perf(const std::string& url) {
  ProcessOptions p;
  p.argv = {"etcdctl", "--endpoints", url, "check", "perf", "--load=xl"};
  p.environment = {"PATH=/usr/bin:/bin", "ETCDCTL_API=3", "HOME=/tmp"};
  const auto r = run_command(p, {}, std::chrono::minutes(5));
  if (!r) return {r.error().message, 0};
  std::string said;
  double rate = 0;
  for (const char* verdict : {"PASS: Throughput is ", "FAIL: Throughput too low: "})
    if (const auto at = r->stdout_text.find(verdict); at != std::string::npos) {
      rate = std::atof(r->stdout_text.c_str() + at + std::strlen(verdict));
      said += fmt::format("{:.4} {:.0f}/s", verdict, rate);
    }
  if (const auto at = r->stdout_text.find("Slowest request took "); at != std::string::npos)
    said += ", slowest " + r->stdout_text.substr(at + 21, r->stdout_text.find('\n', at) - at - 21);
  return {said, rate};
}

// One row of the table: what was measured, in words and as the number that the ratio is about.
void measure(bool ours, const Options& o, std::vector<Row>& rows) {
  std::size_t at = 0;
  const auto tell = [&](const std::string& name, const std::string& cell, double value) {
    if (at == rows.size()) rows.push_back({name, {}, {}});
    rows[at].values.push_back(value);
    rows[at++].cells.push_back(cell);
    std::fprintf(stderr, "%s: %s: %s\n", ours ? "fairlead" : "etcd", name.c_str(), cell.c_str());
  };
  const auto rate = [&](const std::string& name, const Load& l) { tell(name, l.text(), l.per_second); };
  Server server(ours, o);
  const auto started = [&](const std::string& name) {
    const auto seconds = server.start();
    tell(name, fmt::format("{:.0f} ms", seconds * 1e3), seconds);
  };
  const auto memory = [&](const std::string& name) {
    tell(name, fmt::format("{} MB, {} MB", server.resident_mb("VmRSS:"), server.resident_mb("RssAnon:")), static_cast<double>(server.resident_mb("VmRSS:")));
  };
  started("start, empty");
  rate("writes, 1 client", put_load(server.url(), 1, o.writes_one, o.keys));
  rate("writes, 1000 clients", put_load(server.url(), 1000, o.writes_many, o.keys));
  const int there = std::min(o.keys, o.writes_many);
  rate("reads of a key, 1 client", get_load(server.url(), 1, o.reads / 20, there));
  rate("reads of a key, 1000 clients", get_load(server.url(), 1000, o.reads, there));
  rate("reads of 100 keys, 20 clients", list_load(server.url(), 20, o.reads / 20));
  const auto fan = fan_out(server.url(), o.watchers, 200);
  tell(fmt::format("{} watchers of one prefix", o.watchers), fan.complete ? fmt::format("{:.0f} events/s", fan.events_per_second) : "not finished", fan.events_per_second);
  if (o.check_perf) {
    const auto [said, per_second] = check_perf(server.url());
    tell("etcdctl check perf --load=xl", said, per_second);
  }
  rate(fmt::format("writing {} keys", o.keys), put_load(server.url(), 1000, o.keys, o.keys));
  std::this_thread::sleep_for(std::chrono::seconds(35));  // both give memory back after a while
  memory("memory then (resident, anonymous)");
  server.stop(SIGKILL);
  started("start after kill -9 with them");
  memory("memory after that start");
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
    else if (name == "--check-perf") o.check_perf = true;
    else if (name == "--writes") o.writes_many = std::stoi(value);
    else {
      std::fprintf(stderr, "unknown flag %s\n", a.c_str());
      return 2;
    }
  }
  std::vector<Row> rows;
  measure(true, o, rows);
  if (std::filesystem::exists(o.theirs)) measure(false, o, rows);
  std::printf("\n| | fairlead | etcd | fairlead / etcd |\n|---|---|---|---|\n");
  for (const auto& r : rows) {
    std::printf("| %s |", r.name.c_str());
    for (const auto& c : r.cells) std::printf(" %s |", c.c_str());
    if (r.values.size() == 2 && r.values[1] > 0) std::printf(" %.2f |", r.values[0] / r.values[1]);
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace fairlead::etcd

int main(int argc, char** argv) { return fairlead::etcd::run(argc, argv); }
