// How the service proxy's work grows with the cluster: plan and first sync, one endpoint change, restart, memory. Runs in a
// network namespace of its own against the real kernel (root); prints a table.
//
// The baseline in nftables mode: the rule set that kube-proxy 1.36 has for the same services, brought in by nft, the program that
// kube-proxy runs for it; a change is the transaction that kube-proxy's partial sync makes (the service's chain flushed, its one rule with
// its anonymous map added). It is what is left of kube-proxy if its own work cost nothing, so the ratios flatter it. Up to 5,000
// services, as nft takes minutes beyond.
//
//   proxy_bench [nftables | iptables-nft | iptables-legacy | ipvs-nft | ipvs-legacy] [services ...]
//       default: nftables 100 1000 5000 10000 30000; 10 endpoints each
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/process.h"
#include "base/scope_guard.h"
#include "iptables/dataplane.h"
#include "ipvs/dataplane.h"
#include "netlink/rt_socket.h"
#include "nftables/dataplane.h"
#include "proxy/planner.h"
#include "proxy/state.h"

namespace {

using namespace fairlead;
using namespace fairlead::proxy;
using Clock = std::chrono::steady_clock;

constexpr unsigned kEndpoints = 10;
constexpr unsigned kMostForPeer = 5000;

double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

// What this thread and the tools it ran really used: on a busy machine the only figure that compares.
double cpu_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  rusage tools{};
  ::getrusage(RUSAGE_CHILDREN, &tools);
  const auto ms = [](const timeval& v) { return static_cast<double>(v.tv_sec) * 1e3 + static_cast<double>(v.tv_usec) / 1e3; };
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6 + ms(tools.ru_utime) + ms(tools.ru_stime);
}

std::string mode = "nftables";

Result<std::unique_ptr<Dataplane>> open_dataplane() {
  if (mode == "nftables") return nftables::open_dataplane();
  if (mode.starts_with("ipvs-")) {
    ipvs::Options o;
    o.iptables_backend = mode.substr(5);
    return ipvs::open_dataplane(o);
  }
  iptables::Options o;
  o.backend = mode == "iptables-legacy" ? iptables::Backend::legacy : iptables::Backend::nft;
  return iptables::open_dataplane(o);
}

// A change of a large table takes iptables-legacy a second.
unsigned changes_to_make() { return mode == "iptables-legacy" ? 40 : mode == "iptables-nft" ? 200 : 400; }

double kb_of(const char* file, std::string_view key) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line))
    if (line.starts_with(key)) return std::atof(line.c_str() + key.size() + 1);
  return 0;
}
double rss_mb() { return kb_of("/proc/self/status", "VmRSS") / 1024; }
double kernel_mb() {
  return (kb_of("/proc/meminfo", "Slab") + kb_of("/proc/meminfo", "Percpu") + kb_of("/proc/meminfo", "VmallocUsed")) / 1024;
}

IpAddress endpoint_ip(unsigned service, unsigned i) { return IpAddress::v4(10, 128, 0, 0).plus(service * 16ull + i + 1); }

Slice make_slice(unsigned service, unsigned first, unsigned count) {
  Slice s;
  s.name = fmt::format("service-{}-abcde", service);
  s.ports = {{"http", Protocol::tcp, 8080}};
  for (unsigned i = first; i < first + count; ++i) {
    Endpoint e;
    e.ip = endpoint_ip(service, i);
    e.node = Atom(fmt::format("node-{}", (service + i) % 500));
    s.endpoints.push_back(e);
  }
  return s;
}

Service make_service(unsigned n) {
  Service s;
  s.key = fmt::format("namespace-{}/service-{}", n % 100, n);
  s.cluster_ips = {IpAddress::v4(10, 96, 0, 0).plus(n + 1)};
  s.ports = {{"http", Protocol::tcp, 80, 0}};
  return s;
}

struct Row {
  double plan_ms, sync_ms, sync_cpu, cpu50, p50, p99, max, restart_ms, rss, kernel;
  std::size_t objects;
};

void die(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

Row measure(unsigned services) {
  if (::unshare(CLONE_NEWNET) < 0) die("needs root: a network namespace of its own");
  // IPVS asks the routing table what an endpoint is, and there must be one.
  if (auto rt = netlink::RtSocket::open(); !rt || !rt->set_up("lo")) die("lo cannot be brought up");
  Row row{};
  GlobalPlan global;
  global.local.kind = LocalDetector::Kind::cidrs;
  global.local.cidrs = {*Prefix::parse("10.128.0.0/9")};
  global.node_ports.all = true;
  const NodeFacts node{"node-1", "zone-1", {IpAddress::v4(192, 168, 0, 1)}};
  ProxyState state;
  for (unsigned n = 0; n < services; ++n) {
    auto s = make_service(n);
    const auto key = s.key;
    state.set_service(key, std::move(s));
    state.set_slice(fmt::format("x/service-{}-abcde", n), std::pair{key, make_slice(n, 0, kEndpoints)});
  }
  auto dataplane = open_dataplane();
  if (!dataplane) die(dataplane.error().message);
  Planner planner(global, node);
  const double kernel_before = kernel_mb();

  auto t = Clock::now();
  double cpu = cpu_ms();
  const auto changes = state.take(true);
  planner.update(changes);
  const auto full = planner.current().full_delta();
  row.plan_ms = ms_since(t);
  auto report = (*dataplane)->apply(full);
  row.sync_ms = ms_since(t);
  row.sync_cpu = cpu_ms() - cpu;
  if (!report) die(report.error().message);
  row.objects = report->operations;
  if (std::getenv("FAIRLEAD_BENCH_SYNC_ONLY")) return row;
  (*dataplane)->on_foreign_change([] {});
  row.kernel = kernel_mb() - kernel_before;
  row.rss = rss_mb();

  std::vector<double> each, each_cpu;
  for (unsigned i = 0; i < changes_to_make(); ++i) {
    const unsigned n = i / 2 * 7919u % services;
    t = Clock::now();
    cpu = cpu_ms();
    // Alternately one endpoint less, somewhere in the middle, and back again.
    Slice s = make_slice(n, 0, kEndpoints);
    if (i % 2 == 0) s.endpoints.erase(s.endpoints.begin() + 3);
    state.set_slice(fmt::format("x/service-{}-abcde", n), std::pair{make_service(n).key, std::move(s)});
    const auto delta = planner.update(state.take());
    report = (*dataplane)->apply(delta);
    if (!report) die(report.error().message);
    each.push_back(ms_since(t));
    each_cpu.push_back(cpu_ms() - cpu);
  }
  std::sort(each.begin(), each.end());
  std::sort(each_cpu.begin(), each_cpu.end());
  row.cpu50 = each_cpu[each_cpu.size() / 2];
  row.p50 = each[each.size() / 2];
  row.p99 = each[each.size() * 99 / 100];
  row.max = each.back();

  // A new process that finds everything in place.
  auto again = open_dataplane();
  if (!again) die(again.error().message);
  t = Clock::now();
  report = (*again)->apply(planner.current().full_delta());
  row.restart_ms = ms_since(t);
  if (!report) die(report.error().message);
  if (report->operations != 0) die(fmt::format("a restart wrote {} objects", report->operations));
  if (auto done = (*again)->remove_all_owned(); !done) die(done.error().message);
  return row;
}

// ---- the baseline

std::string peer_chain(unsigned n) { return fmt::format("service-{:08X}-namespace-{}/service-{}/tcp/http", n * 2654435761u, n % 100, n); }

std::string peer_rule(unsigned n, unsigned endpoints) {
  std::string map;
  for (unsigned i = 0; i < endpoints; ++i) map += fmt::format("{}{} : {} . 8080", i ? ", " : "", i, endpoint_ip(n, i).to_string());
  return fmt::format("meta l4proto tcp dnat ip to numgen random mod {} map {{ {} }}", endpoints, map);
}

std::string peer_rule_set(unsigned services) {
  std::string out = "add table ip kube-proxy\n"
                    "add set ip kube-proxy cluster-ips { type ipv4_addr; }\n"
                    "add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n"
                    "add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }\n"
                    "add chain ip kube-proxy mark-for-masquerade\n"
                    "add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000\n"
                    "add chain ip kube-proxy masquerading\n"
                    "add rule ip kube-proxy masquerading mark and 0x4000 == 0 return\n"
                    "add rule ip kube-proxy masquerading mark set mark xor 0x4000\n"
                    "add rule ip kube-proxy masquerading masquerade fully-random\n"
                    "add chain ip kube-proxy services\n"
                    "add rule ip kube-proxy services ip daddr @cluster-ips ip saddr != 10.128.0.0/9 jump mark-for-masquerade\n"
                    "add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips\n"
                    "add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100; }\n"
                    "add rule ip kube-proxy nat-prerouting jump services\n"
                    "add chain ip kube-proxy nat-output { type nat hook output priority -100; }\n"
                    "add rule ip kube-proxy nat-output jump services\n"
                    "add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100; }\n"
                    "add rule ip kube-proxy nat-postrouting jump masquerading\n"
                    "add chain ip kube-proxy filter-forward { type filter hook forward priority 0; }\n"
                    "add rule ip kube-proxy filter-forward ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services\n";
  for (unsigned n = 0; n < services; ++n) {
    const auto ip = make_service(n).cluster_ips[0].to_string(), chain = peer_chain(n);
    out += fmt::format("add chain ip kube-proxy {0}\nadd rule ip kube-proxy {0} {1}\n", chain, peer_rule(n, kEndpoints));
    out += fmt::format("add element ip kube-proxy cluster-ips {{ {} }}\n", ip);
    out += fmt::format("add element ip kube-proxy service-ips {{ {} . tcp . 80 comment \"namespace-{}/service-{}:http\" : goto {} }}\n", ip, n % 100, n, chain);
  }
  return out;
}

void nft(const std::string& file, const std::string& text) {
  std::ofstream(file) << text;
  auto p = Process::start({.argv = {"nft", "-f", file}, .stdin_file = "/dev/null"});
  if (!p) die(p.error().message);
  const auto status = p->wait();
  if (!status || !status->ok()) die("nft refused the baseline's rules");
}

Row measure_peer(unsigned services) {
  if (::unshare(CLONE_NEWNET) < 0) die("needs root: a network namespace of its own");
  const auto file = fmt::format("{}/fairlead-bench-{}.nft", std::filesystem::temp_directory_path().string(), ::getpid());
  const auto clean = on_exit([&] { ::unlink(file.c_str()); });
  Row row{};
  const auto rules = peer_rule_set(services);
  const double kernel_before = kernel_mb();
  auto t = Clock::now();
  double cpu = cpu_ms();
  nft(file, rules);
  row.sync_ms = ms_since(t);
  row.sync_cpu = cpu_ms() - cpu;
  row.kernel = kernel_mb() - kernel_before;
  std::vector<double> each, each_cpu;
  for (unsigned i = 0; i < 20; ++i) {
    const unsigned n = i / 2 * 7919u % services;
    t = Clock::now();
    cpu = cpu_ms();
    nft(file, fmt::format("flush chain ip kube-proxy {0}\nadd rule ip kube-proxy {0} {1}\n", peer_chain(n), peer_rule(n, i % 2 ? kEndpoints : kEndpoints - 1)));
    each.push_back(ms_since(t));
    each_cpu.push_back(cpu_ms() - cpu);
  }
  std::sort(each.begin(), each.end());
  std::sort(each_cpu.begin(), each_cpu.end());
  row.cpu50 = each_cpu[each_cpu.size() / 2];
  row.p50 = each[each.size() / 2];
  row.p99 = row.max = each.back();
  rusage tools{};
  ::getrusage(RUSAGE_CHILDREN, &tools);
  row.rss = static_cast<double>(tools.ru_maxrss) / 1024;
  return row;
}

// Each in a process of its own: memory is what that size needs.
Row in_a_process(const std::function<Row()>& f) {
  std::fflush(stdout);
  int ends[2];
  if (::pipe(ends) < 0) die("pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    const Row r = f();
    ::_exit(::write(ends[1], &r, sizeof r) == sizeof r ? 0 : 1);
  }
  ::close(ends[1]);
  Row r{};
  const bool whole = ::read(ends[0], &r, sizeof r) == sizeof r;
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0 || !whole) std::exit(1);
  return r;
}

void compare(unsigned services, const Row& ours, const Row& peer) {
  const auto line = [&](std::string_view what, double a, double b) { fmt::print("{:>8}   {:<34} {:>12.3f} {:>12.3f} {:>9.4f}\n", services, what, a, b, a / b); };
  const auto per_endpoint = [&](double mb) { return mb * 1048576 / (services * kEndpoints); };
  line("first sync, ms", ours.sync_ms, peer.sync_ms);
  line("first sync, CPU ms", ours.sync_cpu, peer.sync_cpu);
  line("one change, p50, ms", ours.p50, peer.p50);
  line("one change, p99, ms", ours.p99, peer.p99);
  line("one change, CPU ms", ours.cpu50, peer.cpu50);
  line("resident memory, MB (peer: nft's)", ours.rss, peer.rss);
  line("kernel memory, bytes per endpoint", per_endpoint(ours.kernel), per_endpoint(peer.kernel));
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<unsigned> sizes;
  const std::string_view first = argc > 1 ? argv[1] : "";
  const bool named = first == "nftables" || first.starts_with("iptables-") || first.starts_with("ipvs-");
  if (named) mode = argv[1];
  for (int i = named ? 2 : 1; i < argc; ++i) sizes.push_back(static_cast<unsigned>(std::max(1, std::atoi(argv[i]))));
  if (sizes.empty()) sizes = {100, 1000, 5000, 10000, 30000};
  fmt::print("services x {} endpoints, {} dataplane, first sync into an empty namespace\n\n", kEndpoints, mode);
  fmt::print("{:>8} {:>9} {:>9} {:>9} {:>11} {:>11} {:>11} {:>11} {:>9} {:>11} {:>8} {:>12} {:>14}\n", "services", "plan ms", "sync ms", "CPU ms", "change CPU", "change p50",
             "change p99", "change max", "objects", "restart ms", "RSS MB", "kernel MB", "B/endpoint");
  std::vector<Row> rows;
  for (const unsigned n : sizes) {
    const auto& r = rows.emplace_back(in_a_process([n] { return measure(n); }));
    fmt::print("{:>8} {:>9.1f} {:>9.1f} {:>9.1f} {:>8.3f} ms {:>8.3f} ms {:>8.3f} ms {:>8.3f} ms {:>9} {:>11.1f} {:>8.1f} {:>12.1f} {:>14.0f}\n", n, r.plan_ms,
               r.sync_ms, r.sync_cpu, r.cpu50, r.p50, r.p99, r.max, r.objects, r.restart_ms, r.rss, r.kernel, r.kernel * 1048576 / (n * kEndpoints));
  }
  fmt::print("\nsync: from complete lists to the kernel's confirmation (plan included). change: one endpoint removed or added.\n"
             "restart: list, compare, write nothing. kernel: growth of slab, per-cpu and vmalloc memory while syncing.\n");
  fmt::print("\ngrowth, of the first row's: services, and first sync, one change p50, p99, memory\n\n");
  for (std::size_t i = 0; i < sizes.size(); ++i)
    fmt::print("{:>8.0f}x {:>9.1f}x {:>9.2f}x {:>9.2f}x {:>9.1f}x\n", static_cast<double>(sizes[i]) / sizes[0], rows[i].sync_ms / rows[0].sync_ms,
               rows[i].p50 / rows[0].p50, rows[i].p99 / rows[0].p99, rows[i].rss / rows[0].rss);
  if (mode != "nftables") return 0;
  fmt::print("\nbeside the baseline: kube-proxy's rule set of the same services, brought in and changed by nft\n\n{:>8}   {:<34} {:>12} {:>12} {:>9}\n", "services", "figure",
             "fairlead", "baseline", "ratio");
  for (std::size_t i = 0; i < sizes.size(); ++i)
    if (sizes[i] <= kMostForPeer) compare(sizes[i], rows[i], in_a_process([n = sizes[i]] { return measure_peer(n); }));
}
