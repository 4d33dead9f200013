#include "controlplane/etcd/command.h"

#include <CLI/CLI.hpp>
#include <malloc.h>
#include <sys/resource.h>

#include <boost/asio/signal_set.hpp>
#include <charconv>
#include <deque>
#include <iostream>

#include <fmt/format.h>

#include "base/duration.h"
#include "base/http/server.h"
#include "base/log.h"
#include "controlplane/etcd/server.h"
#include "controlplane/etcd/snapshot.h"

namespace fairlead::etcd {
namespace {

struct Flags {
  std::string name = "default", data_dir = "default.etcd";
  std::vector<std::string> listen{"http://localhost:2379"}, advertise, metrics, ignored;
  std::string cert, key, ca;
  bool client_cert_auth = false;
  std::uint64_t quota = 0;
  std::string compaction_mode = "periodic", compaction_retention = "0", log_level = "info";
  std::uint64_t max_request_bytes = 1536 * 1024;
  std::size_t max_txn_ops = 128;
  double progress_seconds = 600;
  std::string progress_text;
};

struct Url {
  bool tls = false;
  std::string address;  // host:port or unix:path
};

Result<Url> parse_url(const std::string& flag, const std::string& text) {
  for (const auto& [scheme, tls] : {std::pair<std::string_view, bool>{"http://", false}, {"https://", true}, {"unix://", false}, {"unixs://", true}}) {
    if (!text.starts_with(scheme)) continue;
    auto rest = text.substr(scheme.size());
    if (scheme.starts_with("unix")) return Url{tls, "unix:" + rest};
    if (const auto slash = rest.find('/'); slash != std::string::npos) rest.resize(slash);
    if (rest.find(':') == std::string::npos) return fail(ErrorCode::invalid_argument, "{}: {} has no port", flag, text);
    return Url{tls, rest};
  }
  return fail(ErrorCode::invalid_argument, "{}: {} must begin with http://, https:// or unix://", flag, text);
}

// A bare number counts `bare_unit`s, as with etcd's flags; anything else is a duration such as "5m".
Result<std::chrono::milliseconds> parse_age(const std::string& flag, const std::string& text, std::chrono::milliseconds bare_unit) {
  std::int64_t n = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec == std::errc{} && end == text.data() + text.size()) {
    if (n < 0 || n > std::chrono::milliseconds::max() / bare_unit) return fail(ErrorCode::invalid_argument, "{}: {} is out of range", flag, text);
    return n * bare_unit;
  }
  FL_TRY_CTX(const auto d, parse_period(text), "{}", flag);
  return d;
}

int report(const Error& e) {
  std::cerr << "fairlead etcd: " << e.message << "\n";
  return e.code == ErrorCode::invalid_argument ? 2 : 1;
}

// Compacts by age (revisions noted as time passes) or by number.
Task<> compact_by_itself(Store& store, bool by_revision, std::int64_t keep, std::chrono::milliseconds age) {
  std::deque<std::pair<std::chrono::steady_clock::time_point, Revision>> noted;
  const auto step = by_revision ? std::chrono::milliseconds(300'000) : std::max(std::chrono::milliseconds(1000), std::min(age, std::chrono::milliseconds(3'600'000)) / 10);
  for (;;) {
    auto slept = co_await sleep_for(step);
    if (!slept) co_return;
    const auto now = std::chrono::steady_clock::now();
    Revision at = 0;
    if (by_revision) {
      at = store.revision() - keep;
    } else {
      noted.emplace_back(now, store.revision());
      while (!noted.empty() && now - noted.front().first >= age) {
        at = noted.front().second;
        noted.pop_front();
      }
    }
    if (at <= store.compacted()) continue;
    auto done = co_await store.compact(at, false);
    if (done) log::info("compacted revision {}", at);
    else log::warn("compact revision {}: {}", at, done.error().message);
  }
}

// Memory that one burst took goes back to the system.
Task<> trim_memory() {
  for (;;) {
    auto slept = co_await sleep_for(std::chrono::seconds(30));
    if (!slept) co_return;
    ::malloc_trim(0);
  }
}

std::string metrics_text(Store& store) {
  const auto s = store.status();
  std::string out;
  const auto gauge = [&](const char* name, const char* help, double v) {
    out += fmt::format("# HELP {0} {1}\n# TYPE {0} gauge\n{0} {2}\n", name, help, v);
  };
  long pages = 0, resident = 0;
  if (FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = 0;
    std::fclose(f);
  }
  gauge("etcd_server_has_leader", "Whether a leader exists: always, this is the only member.", 1);
  gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the log table's file.", static_cast<double>(s.file_bytes));
  gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the log table in use.", static_cast<double>(s.used_bytes));
  gauge("etcd_server_quota_backend_bytes", "The quota.", static_cast<double>(s.quota_bytes));
  gauge("etcd_debugging_mvcc_keys_total", "Keys alive.", static_cast<double>(s.keys));
  gauge("etcd_debugging_mvcc_current_revision", "The newest revision.", static_cast<double>(s.revision));
  gauge("etcd_debugging_mvcc_compact_revision", "The compacted revision.", static_cast<double>(s.compacted));
  gauge("etcd_debugging_mvcc_watcher_total", "Watchers.", static_cast<double>(s.watchers));
  gauge("process_resident_memory_bytes", "Resident memory.", static_cast<double>(resident) * 4096);
  return out;
}

http::Handler health_handler(Store& store) {
  return [&store](http::Request request) -> Task<http::Response> {
    http::Response r;
    const auto path = request.target.substr(0, request.target.find('?'));
    if (path == "/metrics") {
      r.headers.set("Content-Type", "text/plain; version=0.0.4");
      r.body = metrics_text(store);
    } else if (path == "/health" || path == "/livez" || path == "/readyz") {
      const auto s = store.status();
      const std::string reason = !s.failure.empty() ? s.failure : s.no_space ? "ALARM NOSPACE" : s.corrupt ? "ALARM CORRUPT" : "";
      r.status = reason.empty() ? 200 : 503;
      r.headers.set("Content-Type", "application/json");
      r.body = fmt::format("{{\"health\":\"{}\",\"reason\":\"{}\"}}", reason.empty() ? "true" : "false", reason);
    } else if (path == "/version") {
      r.headers.set("Content-Type", "application/json");
      r.body = fmt::format("{{\"etcdserver\":\"{0}\",\"etcdcluster\":\"3.5.0\"}}", kEmulatedVersion);
    } else {
      r.status = 404;
      r.body = "404 page not found\n";
    }
    co_return r;
  };
}

// One file descriptor for each client: as many as the system allows.
void raise_file_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

Task<> wait_for_signal(net::io_context& io) {
  net::signal_set signals(io, SIGINT, SIGTERM);
  auto [ec, number] = co_await signals.async_wait(use_result);
  if (!ec) log::info("stopping: signal {}", number);
  io.stop();
}

Result<> serve_until_signal(const Flags& f) {
  StoreOptions so;
  so.quota_bytes = f.quota == 0 ? so.quota_bytes : f.quota;
  so.limits.max_txn_ops = f.max_txn_ops;
  so.limits.max_request_bytes = f.max_request_bytes;
  ServerOptions o;
  o.name = f.name;
  o.certificate_file = f.cert;
  o.key_file = f.key;
  o.trusted_ca_file = f.ca;
  o.client_certificates = f.client_cert_auth;
  o.max_request_bytes = f.max_request_bytes;
  o.max_txn_ops = f.max_txn_ops;
  o.advertise_urls = f.advertise.empty() ? f.listen : f.advertise;
  FL_TRY(o.progress_interval, parse_age("--experimental-watch-progress-notify-interval", f.progress_text, std::chrono::seconds(1)));
  for (const auto& text : f.listen) {
    FL_TRY(const auto url, parse_url("--listen-client-urls", text));
    if (url.tls && (f.cert.empty() || f.key.empty()))
      return fail(ErrorCode::invalid_argument, "--listen-client-urls: {} needs --cert-file and --key-file", text);
    if (!url.tls && !f.cert.empty()) return fail(ErrorCode::invalid_argument, "--listen-client-urls: {} is not https:// although --cert-file is given", text);
    o.listen.push_back(url.address);
  }
  if (f.client_cert_auth && f.ca.empty()) return fail(ErrorCode::invalid_argument, "--client-cert-auth needs --trusted-ca-file");
  if (f.compaction_mode != "periodic" && f.compaction_mode != "revision")
    return fail(ErrorCode::invalid_argument, "--auto-compaction-mode: {} is neither periodic nor revision", f.compaction_mode);
  const bool by_revision = f.compaction_mode == "revision";
  FL_TRY(const auto age, parse_age("--auto-compaction-retention", f.compaction_retention, by_revision ? std::chrono::milliseconds(1) : std::chrono::hours(1)));

  raise_file_limit();
  ::mallopt(M_ARENA_MAX, 4);  // memory moves between threads here; many arenas only scatter it
  const auto begin = std::chrono::steady_clock::now();
  FL_TRY(auto store, Store::open(f.data_dir, so));
  net::io_context io;
  std::vector<std::unique_ptr<http::Server>> health;
  for (const auto& text : f.metrics) {
    FL_TRY(const auto url, parse_url("--listen-metrics-urls", text));
    http::ServerOptions h;
    FL_TRY_CTX(h.listen, SocketAddress::parse(url.address), "--listen-metrics-urls");
    FL_TRY_CTX(auto server, http::serve(io.get_executor(), h, health_handler(*store)), "--listen-metrics-urls");
    health.push_back(std::move(server));
  }
  FL_TRY(auto server, Server::start(*store, o));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  const auto s = store->status();
  log::info("serving {} keys at revision {} on {} after {} ms", s.keys, s.revision, fmt::to_string(fmt::join(f.listen, ", ")), took);
  if (age.count() > 0) net::co_spawn(io, compact_by_itself(*store, by_revision, age.count(), age), net::detached);
  net::co_spawn(io, trim_memory(), net::detached);
  net::co_spawn(io, wait_for_signal(io), net::detached);
  io.run();
  health.clear();
  server->stop();
  server.reset();
  store.reset();
  return {};
}

Result<> save(const std::string& file, const std::string& dir) {
  FL_TRY(auto store, Store::open(dir));
  FL_TRY(const auto info, write_snapshot(*store, file));
  std::cout << "snapshot of revision " << info.revision << " saved in " << file << " (" << info.bytes << " bytes)\n";
  return {};
}
Result<> restore(const std::string& file, const std::string& dir) {
  FL_TRY(const auto info, import_snapshot(file, dir));
  std::cout << "restored revision " << info.revision << " into " << dir << "\n";
  return {};
}

}  // namespace

int run_etcd(int argc, char** argv) {
  CLI::App app{"The embedded store as a server: the etcd v3 API on durable storage, one member."};
  app.name(argc > 0 ? argv[0] : "etcd");
  Flags f;
  app.add_option("--name", f.name, "name of this member")->capture_default_str();
  app.add_option("--data-dir", f.data_dir, "folder of the store")->capture_default_str();
  app.add_option("--listen-client-urls", f.listen, "URLs to listen on for clients")->delimiter(',')->capture_default_str();
  app.add_option("--advertise-client-urls", f.advertise, "URLs told to clients by member list")->delimiter(',');
  app.add_option("--listen-metrics-urls", f.metrics, "URLs for /metrics, /health, /livez, /readyz and /version")->delimiter(',');
  app.add_option("--cert-file", f.cert, "server certificate (PEM)");
  app.add_option("--key-file", f.key, "its key (PEM)");
  app.add_option("--trusted-ca-file", f.ca, "clients must show a certificate of this CA (PEM)");
  app.add_flag("--client-cert-auth", f.client_cert_auth, "the CN of a client's certificate is the user; needs --trusted-ca-file");
  app.add_option("--quota-backend-bytes", f.quota, "raise NOSPACE beyond this size; 0: 2 GiB");
  app.add_option("--auto-compaction-mode", f.compaction_mode, "periodic or revision")->capture_default_str();
  app.add_option("--auto-compaction-retention", f.compaction_retention, "5m, 1h, a number of hours, or of revisions; 0: off")->capture_default_str();
  app.add_option("--max-request-bytes", f.max_request_bytes, "largest request")->capture_default_str();
  app.add_option("--max-txn-ops", f.max_txn_ops, "most operations in a transaction")->capture_default_str();
  f.progress_text = "10m";
  app.add_option("--experimental-watch-progress-notify-interval,--watch-progress-notify-interval", f.progress_text, "how often idle watches get a progress note")->capture_default_str();
  app.add_option("--log-level", f.log_level, "debug, info, warn, error")->capture_default_str();
  std::string file;
  auto* snapshot = app.add_subcommand("snapshot", "copies of the whole store in etcd's format, without a server");
  snapshot->require_subcommand(1);
  auto* save_command = snapshot->add_subcommand("save", "write the store in --data-dir to FILE");
  save_command->add_option("FILE", file)->required();
  auto* restore_command = snapshot->add_subcommand("restore", "make a new store in --data-dir from FILE (of this store or of etcd)");
  restore_command->add_option("FILE", file)->required();
  for (auto* c : {save_command, restore_command}) c->add_option("--data-dir", f.data_dir, "folder of the store")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  }
  auto level = log::parse_level(f.log_level);
  if (!level) return report(level.error());
  log::init({.component = "etcd", .level = *level});
  const auto done = save_command->parsed() ? save(file, f.data_dir) : restore_command->parsed() ? restore(file, f.data_dir) : serve_until_signal(f);
  return done ? 0 : report(done.error());
}

}  // namespace fairlead::etcd
