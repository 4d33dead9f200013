// What the service proxy's rules cost a connection. Three namespaces, client - node - server; connect, one request, one answer,
// reset, again and again for a fixed time, several rounds in turn:
//
//   direct      client and server on one link, no node between them
//   routed      through the node, no rules
//   one rule    through one hand-written DNAT rule on the node, as the yardstick
//   service     through a ClusterIP among N services with 10 endpoints each
//   accounting  the same with flow accounting: each end of a connection is read, live ones are listed
//
// with the processor time that both ends and the kernel spent on one connection, the figure that compares on a busy machine;
// and the time from connect() to the answer of the first connection to each of many services, which nobody has used before.
//   path_bench [seconds per figure]
#include <arpa/inet.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#include "nftables/dataplane.h"
#include "proxy/flow_reader.h"
#include "tests/proxy/testnet.h"
#include "tests/proxy/world.h"

namespace {

using namespace fairlead;
using namespace fairlead::proxy;
using namespace fairlead::proxy::testing;
using Steady = std::chrono::steady_clock;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

sockaddr_in socket_address(const SocketAddress& a) {
  sockaddr_in s{};
  s.sin_family = AF_INET;
  s.sin_port = htons(a.port);
  std::memcpy(&s.sin_addr, a.ip.bytes().data(), 4);
  return s;
}

// Answers each connection's one request with as much.
class EchoServer {
 public:
  EchoServer(const testnet::Namespace& ns, Port port) {
    ns.in([&] {
      fd_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const int one = 1;
      ::setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
      auto a = socket_address({IpAddress{}, port});
      if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) < 0 || ::listen(fd_.get(), 4096) < 0) die("listen");
    });
    thread_ = std::thread([this] {
      while (!stop_) {
        pollfd p{fd_.get(), POLLIN, 0};
        if (::poll(&p, 1, 100) <= 0) continue;
        const Fd c(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        char b[64];
        const auto n = c ? ::recv(c.get(), b, sizeof b, 0) : -1;
        if (n > 0) [[maybe_unused]] const auto sent = ::send(c.get(), b, static_cast<std::size_t>(n), MSG_NOSIGNAL);
        if (n > 0) [[maybe_unused]] const auto end = ::recv(c.get(), b, sizeof b, 0);  // the client's reset
      }
    });
  }
  ~EchoServer() {
    stop_ = true;
    thread_.join();
  }

 private:
  Fd fd_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// On a thread that lives in the client's namespace.
bool ask_once(const SocketAddress& to) {
  const Fd c(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto a = socket_address(to);
  const linger l{1, 0};
  const timeval wait{5, 0};
  ::setsockopt(c.get(), SOL_SOCKET, SO_LINGER, &l, sizeof l);
  ::setsockopt(c.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  char b[64] = {};
  return ::connect(c.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0 && ::send(c.get(), b, 32, MSG_NOSIGNAL) == 32 &&
         ::recv(c.get(), b, sizeof b, 0) > 0;
}

// Of this whole process: client, server, and what the kernel does for them on the way.
double cpu_us() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

struct PathFigure {
  double per_second = 0, cpu_us = 0;
};

PathFigure rate(const testnet::Namespace& client, const SocketAddress& to, double seconds) {
  PathFigure out;
  client.in([&] {
    const auto begin = Steady::now();
    const double cpu = cpu_us();
    std::size_t n = 0;
    double took = 0;
    do {
      for (int i = 0; i < 50; ++i, ++n)
        if (!ask_once(to)) die("no answer from " + to.to_string());
      took = std::chrono::duration<double>(Steady::now() - begin).count();
    } while (took < seconds);
    out = {static_cast<double>(n) / took, (cpu_us() - cpu) / static_cast<double>(n)};
  });
  return out;
}

Plan services(unsigned count) {
  Snapshot w{global_plan(), node_facts(), {}};
  w.global.service_cidrs = {cidr("10.96.0.0/14")};
  w.global.ipv6 = false;
  for (unsigned n = 0; n < count; ++n) {
    auto s = make_service(fmt::format("s{}", n), IpAddress::v4(10, 96, 0, 0).plus(n + 1).to_string());
    std::vector<Pod> pods;
    for (unsigned i = 0; i < 10; ++i) pods.push_back({fmt::format("10.244.1.{}", 1 + i), "n2"});
    w.services[s.key] = {std::make_shared<const Service>(s), make_endpoints(pods)};
  }
  return plan(w);
}

}  // namespace

int main(int argc, char** argv) {
  if (!testnet::available()) die("needs root: network namespaces of its own");
  const double seconds = argc > 1 ? std::max(0.1, std::atof(argv[1])) : 2;
  const testnet::Namespace client, node, server;
  testnet::connect(client, "eth0", "10.1.0.2/24", node, "in", "10.1.0.1/24");
  testnet::connect(node, "out", "10.2.0.1/24", server, "eth0", "10.2.0.2/24");
  testnet::connect(client, "eth1", "10.3.0.1/24", server, "eth1", "10.3.0.2/24");
  std::string addresses;
  for (int i = 1; i <= 10; ++i) addresses += fmt::format("ip addr add 10.244.1.{}/32 dev lo;", i);
  for (const auto& [ns, command] : {std::pair(&client, std::string("ip route add default via 10.1.0.1")),
                                    std::pair(&server, addresses + "ip route add default via 10.2.0.1"),
                                    std::pair(&node, std::string("ip route add 10.244.1.0/24 via 10.2.0.2; ip route add default via 10.1.0.2"))})
    if (!ns->sh(command)) die("set-up");
  const EchoServer echo(server, 8080);
  const SocketAddress direct{ip("10.3.0.2"), 8080}, routed{ip("10.2.0.2"), 8080}, rule{ip("10.99.0.1"), 80};
  const std::string one_rule = "nft 'add table ip one; add chain ip one c { type nat hook prerouting priority -100; };"
                               "add chain ip one p { type nat hook postrouting priority 100; };"
                               "add rule ip one c ip daddr 10.99.0.1 tcp dport 80 dnat to 10.244.1.1:8080;"
                               "add rule ip one p ip saddr 10.1.0.2 ct status dnat masquerade fully-random'";
  const std::vector<unsigned> sizes{100, 1'000, 10'000, 30'000};
  constexpr int kRounds = 5;
  struct Row {
    std::string name;
    std::vector<PathFigure> figures;
  };
  std::vector<Row> rows{{"direct", {}}, {"routed, no rules", {}}, {"one hand-written rule", {}}};
  for (const auto n : sizes) rows.push_back({fmt::format("service, of {}", n), {}});
  constexpr unsigned kAccounted = 1'000;
  rows.push_back({fmt::format("the same of {}, accounting", kAccounted), {}});
  std::uint64_t losses = 0;
  struct First {
    std::string name;
    double p50, p99;
  };
  std::vector<First> firsts;
  const auto first_connections = [&](std::string name, const std::function<SocketAddress(unsigned)>& to) {
    std::vector<double> each;
    client.in([&] {
      for (unsigned k = 0; k < 100; ++k) {
        const auto begin = Steady::now();
        if (!ask_once(to(k))) die("no answer from a service");
        each.push_back(std::chrono::duration<double, std::micro>(Steady::now() - begin).count());
      }
    });
    std::sort(each.begin(), each.end());
    firsts.push_back({std::move(name), each[each.size() / 2], each[each.size() * 99 / 100]});
  };
  rate(client, direct, 0.2);
  // In turn, so that whatever else the machine does meets them all.
  for (int round = 0; round < kRounds; ++round) {
    rows[0].figures.push_back(rate(client, direct, seconds));
    rows[1].figures.push_back(rate(client, routed, seconds));
    if (!node.sh(one_rule)) die("nft");
    if (round == 0) first_connections("one hand-written rule", [&](unsigned) { return rule; });
    rows[2].figures.push_back(rate(client, rule, seconds));
    if (!node.sh("nft delete table ip one")) die("nft");
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      std::unique_ptr<Dataplane> dataplane;
      node.in([&] {
        auto d = nftables::open_dataplane();
        if (!d) die(d.error().message);
        dataplane = std::move(*d);
        if (auto done = dataplane->apply(services(sizes[i]).full_delta()); !done) die(done.error().message);
      });
      rows[3 + i].figures.push_back(rate(client, {IpAddress::v4(10, 96, 0, 0).plus(sizes[i] / 2), 80}, seconds));
      if (sizes[i] == kAccounted) {
        std::unique_ptr<FlowReader> reader;
        if (!node.sh("sysctl -qw net.netfilter.nf_conntrack_acct=1")) die("sysctl");
        node.in([&] {
          auto r = FlowReader::start();
          if (!r) die(r.error().message);
          reader = std::move(*r);
        });
        reader->plan(services(kAccounted).full_delta());
        rows.back().figures.push_back(rate(client, {IpAddress::v4(10, 96, 0, 0).plus(kAccounted / 2), 80}, seconds));
        losses += reader->losses();
        reader.reset();
        if (!node.sh("sysctl -qw net.netfilter.nf_conntrack_acct=0")) die("sysctl");
      }
      if (round == 0)
        first_connections(rows[3 + i].name, [&](unsigned k) { return SocketAddress{IpAddress::v4(10, 96, 0, 0).plus(1 + k * 7919u % sizes[i]), 80}; });
      if (auto done = dataplane->remove_all_owned(); !done) die(done.error().message);
    }
  }
  const auto sorted = [](const Row& r, double PathFigure::*what) {
    std::vector<double> v;
    for (const auto& f : r.figures) v.push_back(f.*what);
    std::sort(v.begin(), v.end());
    return v;
  };
  const auto middle = static_cast<std::size_t>(kRounds / 2);
  const double yardstick = sorted(rows[2], &PathFigure::cpu_us)[middle], rate_of_rule = sorted(rows[2], &PathFigure::per_second)[middle];
  fmt::print("connect, request, answer, reset: one client thread, {} rounds of {} s in turn\n\n", kRounds, seconds);
  fmt::print("{:<28} {:>10} {:>10} {:>10} {:>18} {:>16} {:>18}\n", "path", "median /s", "min /s", "max /s", "of the one rule's", "CPU us, median", "of the one rule's");
  for (const auto& r : rows) {
    const auto rates = sorted(r, &PathFigure::per_second), cpu = sorted(r, &PathFigure::cpu_us);
    fmt::print("{:<28} {:>10.0f} {:>10.0f} {:>10.0f} {:>17.0f}% {:>16.1f} {:>17.0f}%\n", r.name, rates[middle], rates.front(), rates.back(),
               rates[middle] * 100 / rate_of_rule, cpu[middle], cpu[middle] * 100 / yardstick);
  }
  double slowest = 1e9;
  for (std::size_t i = 0; i < sizes.size(); ++i) slowest = std::min(slowest, sorted(rows[3 + i], &PathFigure::per_second)[middle] / rate_of_rule);
  fmt::print("\nslowest path through a service, of the one rule's rate: {:.2f} (aim: never below 1)\n", slowest);
  fmt::print("\nends of connections that came too fast to be read: {} times\n", losses);
  fmt::print("\nthe first connection to a service, from connect() to the answer, 100 services each\n\n{:<28} {:>10} {:>10} {:>22}\n", "path", "p50 us", "p99 us",
             "p50 of the one rule's");
  for (const auto& f : firsts) fmt::print("{:<28} {:>10.0f} {:>10.0f} {:>21.0f}%\n", f.name, f.p50, f.p99, f.p50 * 100 / firsts[0].p50);
}
