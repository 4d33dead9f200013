// How fast and how large the apiserver is: requests per second over HTTPS, watch latency and fan-out, memory with many pods.
// The server runs in a process of its own (this program with --serve), the clients in this one, on the same machine.
//   apiserver_bench [--pods N] [--seconds S] [--connections C]
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "base/files.h"
#include "base/http/client.h"
#include "base/log.h"
#include "base/process.h"
#include "kube/codec.h"
#include "kube/kubeconfig.h"
#include "tests/controlplane/apiserver/test_server.h"

namespace fairlead::apiserver::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;
constexpr char kProtobuf[] = "application/vnd.kubernetes.protobuf";

struct Settings {
  int pods = 10'000;
  int seconds = 3;
  int connections = 16;
};

int serve(const char* dir) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  log::init({"apiserver", log::Level::warn, false});
  TestServer server({}, dir);
  server.kubeconfig();
  if (!write_file_atomic(std::string(dir) + "/ready", "yes")) return 1;
  int signal = 0;
  sigwait(&set, &signal);
  return 0;
}

struct Load {
  std::uint64_t done = 0, failed = 0, bytes = 0;
  std::vector<double> milliseconds;
};

class Bench {
 public:
  Bench(Settings s, kube::RestConfig config, pid_t server) : settings_(s), config_(std::move(config)), server_(server) {}

  std::shared_ptr<http::Client> client() {
    http::ClientOptions o;
    o.base_url = config_.server;
    o.tls.emplace();
    o.tls->ca_pem = config_.ca_pem;
    o.tls->certificate_pem = config_.certificate_pem;
    o.tls->key_pem = config_.key_pem;
    return *http::make_client(io_.get_executor(), o);
  }

  template <typename F>
  void run(F f) {
    bool done = false;
    net::co_spawn(io_, std::move(f), [&](std::exception_ptr) { done = true; });
    io_.restart();
    while (!done) io_.run_one();
  }

  static http::Request request(std::string method, std::string target, std::string body = {}, std::string accept = {}) {
    http::Request r;
    r.method = std::move(method);
    r.target = std::move(target);
    r.body = std::move(body);
    if (!r.body.empty()) r.headers.set("Content-Type", "application/json");
    if (!accept.empty()) r.headers.set("Accept", accept);
    return r;
  }

  using Make = std::function<http::Request(std::uint64_t n)>;
  static Task<> worker(std::shared_ptr<http::Client> c, const Make* make, std::uint64_t* next, std::uint64_t limit, Clock::time_point end,
                       Load* load, int* running) {
    while (Clock::now() < end && *next < limit) {
      const auto start = Clock::now();
      auto got = co_await c->request((*make)((*next)++), seconds(60));
      if (got && got->status < 300) {
        ++load->done;
        load->bytes += got->body.size();
      } else {
        if (load->failed++ == 0) std::cerr << (got ? got->body : got.error().message) << "\n";
      }
      load->milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
    --*running;
  }
  Load measure(const char* what, Make make, std::uint64_t limit = ~0ull, int connections = 0) {
    Load load;
    std::uint64_t next = 0;
    const int n = connections ? connections : settings_.connections;
    int running = n;
    const auto cpu_before = server_cpu_seconds();
    const auto start = Clock::now();
    const auto end = limit == ~0ull ? start + seconds(settings_.seconds) : Clock::time_point::max();
    std::vector<std::shared_ptr<http::Client>> clients;
    for (int i = 0; i < n; ++i) {
      clients.push_back(client());
      net::co_spawn(io_, worker(clients.back(), &make, &next, limit, end, &load, &running), net::detached);
    }
    io_.restart();
    while (running > 0) io_.run_one();
    const auto took = std::chrono::duration<double>(Clock::now() - start).count();
    std::sort(load.milliseconds.begin(), load.milliseconds.end());
    const auto at = [&](double q) { return load.milliseconds.empty() ? 0.0 : load.milliseconds[std::min(load.milliseconds.size() - 1, static_cast<std::size_t>(q * load.milliseconds.size()))]; };
    const auto cpu = (server_cpu_seconds() - cpu_before) * 1e6 / std::max<double>(1, static_cast<double>(load.done));
    std::printf("%-46s %9.0f /s  p50 %7.2f ms  p99 %7.2f ms  %8.1f MB/s  %8.0f us server CPU each%s\n", what, load.done / took, at(0.5), at(0.99), load.bytes / took / 1e6, cpu,
                load.failed ? "  FAILED" : "");
    std::fflush(stdout);
    return load;
  }

  // Tells more than the wall clock on a machine that does other things too.
  double server_cpu_seconds() const {
    std::ifstream f("/proc/" + std::to_string(server_) + "/stat");
    std::string text((std::istreambuf_iterator<char>(f)), {});
    long user = 0, system = 0;
    std::sscanf(text.c_str() + text.rfind(')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system);
    return static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }
  double server_rss_mib() const {
    std::ifstream f("/proc/" + std::to_string(server_) + "/status");
    for (std::string line; std::getline(f, line);)
      if (line.starts_with("VmRSS:")) return std::stod(line.substr(6)) / 1024;
    return 0;
  }
  void memory(const char* when) const { std::printf("%-46s %9.1f MiB resident\n", when, server_rss_mib()); }

  static std::string pod(const std::string& name) {
    return R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":")" + name +
           R"(","labels":{"app":"web","pod-template-hash":"6b7c4f8d9","tier":"front"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",)"
           R"("name":"web-6b7c4f8d9","uid":"2b8a9f0e-0000-4000-8000-000000000000","controller":true,"blockOwnerDeletion":true}]},"spec":{"nodeName":"n)" +
           std::to_string(std::hash<std::string>{}(name) % 100) +
           R"(","containers":[{"name":"web","image":"registry.example.com/web:1.25","ports":[{"containerPort":80,"name":"http"}],)"
           R"("resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"256Mi"}},"env":[{"name":"A","value":"b"}],)"
           R"("readinessProbe":{"httpGet":{"path":"/ready","port":80}}}]}})";
  }

  void all() {
    const auto setup = client();
    run([&]() -> Task<> {
      auto made = co_await setup->request(request("POST", "/api/v1/namespaces/default/serviceaccounts", R"({"metadata":{"name":"default"}})"), seconds(10));
      (void)made;
    });
    memory("started, empty");
    const std::string pods = "/api/v1/namespaces/default/pods", maps = "/api/v1/namespaces/default/configmaps";
    measure("create configmap, 1 connection", [&](auto n) { return request("POST", maps, fmt::format(R"({{"metadata":{{"name":"s{}"}},"data":{{"k":"v"}}}})", n)); }, ~0ull, 1);
    measure("create configmap", [&](auto n) { return request("POST", maps, fmt::format(R"({{"metadata":{{"name":"c{}"}},"data":{{"k":"v"}}}})", n)); });
    measure("create configmap, 256 connections", [&](auto n) { return request("POST", maps, fmt::format(R"({{"metadata":{{"name":"d{}"}},"data":{{"k":"v"}}}})", n)); }, ~0ull, 256);
    measure(fmt::format("create pod ({} of them)", settings_.pods).c_str(), [&](auto n) { return request("POST", pods, pod("p" + std::to_string(n))); },
            static_cast<std::uint64_t>(settings_.pods), 64);
    memory(fmt::format("{} pods", settings_.pods).c_str());
    const auto some = [&](std::uint64_t n) { return pods + "/p" + std::to_string(n * 7919 % static_cast<std::uint64_t>(settings_.pods)); };
    measure("get pod, JSON, 1 connection", [&](auto n) { return request("GET", some(n)); }, ~0ull, 1);
    measure("get pod, JSON", [&](auto n) { return request("GET", some(n)); });
    measure("get pod, protobuf", [&](auto n) { return request("GET", some(n), "", kProtobuf); });
    measure("list 500 pods, JSON", [&](auto) { return request("GET", pods + "?limit=500"); });
    measure("list 500 pods, Table", [&](auto) { return request("GET", pods + "?limit=500", "", "application/json;as=Table;v=v1;g=meta.k8s.io"); });
    measure("list 500 pods, protobuf", [&](auto) { return request("GET", pods + "?limit=500", "", kProtobuf); });
    measure("list pods of one node (of all), protobuf", [&](auto n) { return request("GET", fmt::format("/api/v1/pods?fieldSelector=spec.nodeName%3Dn{}", n % 100), "", kProtobuf); });
    measure("list all pods, protobuf", [&](auto) { return request("GET", "/api/v1/pods", "", kProtobuf); }, ~0ull, 2);
    measure("list all pods, JSON", [&](auto) { return request("GET", "/api/v1/pods"); }, ~0ull, 2);
    measure("patch pod status (merge)", [&](auto n) {
      auto r = request("PATCH", some(n) + "/status", fmt::format(R"({{"status":{{"phase":"Running","podIP":"10.0.0.{}"}}}})", n % 250));
      r.headers.set("Content-Type", "application/merge-patch+json");
      return r;
    });
    memory("after all that");
    watch_latency(1);
    watch_latency(100);
    watch_latency(1'000);
    memory("with 1,000 watchers");
  }

 private:
  struct Seen {
    std::size_t watchers_opened = 0, events = 0;
    Clock::time_point last;
  };
  static Task<> watcher(std::shared_ptr<http::Client> c, Seen* seen, bool* stop) {
    auto opened = co_await c->open(request("GET", "/api/v1/namespaces/default/configmaps?watch=true&labelSelector=bench", "", kProtobuf), seconds(60));
    ++seen->watchers_opened;
    if (!opened) co_return;
    while (!*stop) {
      auto piece = co_await (*opened)->read_some(seconds(60));
      if (!piece || piece->empty()) co_return;
      ++seen->events;
      seen->last = Clock::now();
    }
  }
  // From sending a write until the last of n watchers has it.
  void watch_latency(std::size_t n) {
    auto seen = std::make_unique<Seen>();
    bool stop = false;
    std::vector<std::shared_ptr<http::Client>> clients;
    for (std::size_t i = 0; i < n; ++i) {
      clients.push_back(client());
      net::co_spawn(io_, watcher(clients.back(), seen.get(), &stop), net::detached);
    }
    io_.restart();
    while (seen->watchers_opened < n) io_.run_one();
    const auto writer = client();
    std::vector<double> ms;
    for (int i = 0; i < (n >= 1'000 ? 20 : 200); ++i) {
      const auto before = seen->events;
      const auto start = Clock::now();
      run([&]() -> Task<> {
        auto made = co_await writer->request(request("POST", "/api/v1/namespaces/default/configmaps",
                                                     R"({"metadata":{"generateName":"w-","labels":{"bench":"1"}},"data":{"k":"v"}})"), seconds(60));
        (void)made;
      });
      io_.restart();
      while (seen->events < before + n) io_.run_one();
      ms.push_back(std::chrono::duration<double, std::milli>(seen->last - start).count());
    }
    std::sort(ms.begin(), ms.end());
    std::printf("%-46s p50 %7.2f ms  p99 %7.2f ms\n", fmt::format("write until {} watcher{} have it", n, n == 1 ? "" : "s").c_str(), ms[ms.size() / 2],
                ms[ms.size() * 99 / 100]);
    std::fflush(stdout);
    stop = true;
    if (n < 1'000) clients.clear();
    keep_.insert(keep_.end(), clients.begin(), clients.end());
    seen_.push_back(std::move(seen));
  }

  Settings settings_;
  kube::RestConfig config_;
  pid_t server_;
  net::io_context io_{1};
  std::vector<std::shared_ptr<http::Client>> keep_;
  std::vector<std::unique_ptr<Seen>> seen_;
};

int main_bench(int argc, char** argv) {
  Settings s;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--pods") s.pods = std::atoi(argv[i + 1]);
    if (flag == "--seconds") s.seconds = std::atoi(argv[i + 1]);
    if (flag == "--connections") s.connections = std::atoi(argv[i + 1]);
  }
  char path[] = "/tmp/fairlead-apiserver-bench-XXXXXX";
  const std::string dir = ::mkdtemp(path);
  ProcessOptions p;
  p.argv = {"/proc/self/exe", "--serve", dir};
  p.argv[0] = std::filesystem::read_symlink("/proc/self/exe").string();
  auto server = Process::start(p);
  if (!server) {
    std::cerr << server.error().message << "\n";
    return 1;
  }
  const auto start = Clock::now();
  while (!path_exists(dir + "/ready") && Clock::now() - start < seconds(30)) ::usleep(5'000);
  const auto config = kube::load_kubeconfig(dir + "/admin.kubeconfig");
  if (config) {
    Bench bench(s, *config, server->pid());
    bench.all();
  }
  (void)server->kill(SIGTERM);
  (void)server->wait();
  std::filesystem::remove_all(dir);
  return config ? 0 : 1;
}

}  // namespace
}  // namespace fairlead::apiserver::test

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--serve") return fairlead::apiserver::test::serve(argv[2]);
  return fairlead::apiserver::test::main_bench(argc, argv);
}
