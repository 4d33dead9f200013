// How long a router takes to learn of N address blocks, until they stand in its kernel, and to forget them; announced by us or by
// whatever two given commands start and end (a BIRD or FRR beside us). tests/bench/lb/bgp makes the namespaces and calls it:
//   bgp_bench ROUTER_NETNS N ROUNDS ours ROUTER_ADDRESS
//   bgp_bench ROUTER_NETNS N ROUNDS commands "ANNOUNCE COMMAND" "WITHDRAW COMMAND"
#include <algorithm>
#include <cstdio>
#include <future>
#include <functional>
#include <sstream>
#include <thread>

#include "base/process.h"
#include "lb/bgp/sessions.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::lb::bgp {
namespace {

using Clock = std::chrono::steady_clock;

struct Rounds {
  std::vector<double> come, go;  // ms
};

class Router {
 public:
  Router(const std::string& netns, std::size_t blocks) : blocks_(blocks) {
    const auto ns = netlink::NetNs::open(std::string(netlink::kNetNsFolder) + "/" + netns);
    if (!ns) die(ns.error().message);
    rt_.emplace(*netlink::RtSocket::open_in(ns->fd()));
  }
  // Milliseconds from the call of `change` until the kernel has that many blocks.
  double time(const std::function<void()>& change, bool present) {
    const auto from = Clock::now();
    change();
    while (count() != (present ? blocks_ : 0)) {
      if (Clock::now() - from > std::chrono::seconds(60)) die("the router did not converge within a minute");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return std::chrono::duration<double, std::milli>(Clock::now() - from).count();
  }
  [[noreturn]] static void die(const std::string& why) {
    std::fprintf(stderr, "bgp_bench: %s\n", why.c_str());
    std::exit(1);
  }

 private:
  std::size_t count() {
    const auto all = rt_->routes({.family = Family::v4, .table = RT_TABLE_MAIN});
    if (!all) die(all.error().message);
    return static_cast<std::size_t>(std::count_if(all->begin(), all->end(), [](const auto& r) { return r.destination.length() == 32 && r.destination.address().bytes()[0] == 10; }));
  }
  std::size_t blocks_;
  std::optional<netlink::RtSocket> rt_;
};

Rounds measure(Router& router, int rounds, const std::function<void()>& announce, const std::function<void()>& withdraw) {
  Rounds out;
  for (int i = 0; i < rounds; ++i) {
    out.come.push_back(router.time(announce, true));
    out.go.push_back(router.time(withdraw, false));
  }
  return out;
}

Rounds ours(Router& router, std::size_t blocks, int rounds, const std::string& address) {
  net::io_context io;
  Sessions sessions(io.get_executor(), 0, [](const std::string&, const action::Tell&) {});
  BgpPlan plan;
  auto& c = plan.peers["router"].config;
  c.my_asn = 64512;
  c.peer_asn = 64500;
  c.address = *IpAddress::parse(address);
  c.router_id = 1;
  c.connect_retry = std::chrono::seconds(1);
  std::thread thread([&] {
    const auto guard = net::make_work_guard(io);
    io.run();
  });
  const auto on_loop = [&](const std::function<void()>& f) {
    std::promise<void> done;
    net::post(io, [&] {
      f();
      done.set_value();
    });
    done.get_future().wait();
  };
  const auto set = [&] { on_loop([&] { sessions.set(plan, {}); }); };
  set();
  for (bool up = false; !up;) {
    on_loop([&] { up = sessions.status().at(0).state == State::established; });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  auto out = measure(
      router, rounds,
      [&] {
        for (std::size_t i = 0; i < blocks; ++i) plan.peers["router"].routes[Prefix(IpAddress::v4(10, 0, 0, 0).plus(i), 32)] = {};
        set();
      },
      [&] {
        plan.peers["router"].routes.clear();
        set();
      });
  on_loop([&] { sessions.set({}, {}); });
  io.stop();
  thread.join();
  return out;
}

void run(const std::string& command) {
  std::istringstream words(command);
  ProcessOptions o;
  for (std::string w; words >> w;) o.argv.push_back(w);
  const auto out = run_command(o, {}, std::chrono::seconds(60));
  if (!out || !out->status.ok()) Router::die(command + ": " + (out ? out->stderr_text + out->stdout_text : out.error().message));
}

void print(const char* what, std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  std::printf("  %-9s p50 %8.1f ms   max %8.1f ms\n", what, ms[ms.size() / 2], ms.back());
}

}  // namespace
}  // namespace fairlead::lb::bgp

int main(int argc, char** argv) {
  using namespace fairlead::lb::bgp;
  const std::vector<std::string> a(argv + 1, argv + argc);
  if (a.size() < 5 || (a[3] == "commands" && a.size() < 6)) Router::die("ROUTER_NETNS N ROUNDS ours ADDRESS | commands ANNOUNCE WITHDRAW");
  const auto blocks = static_cast<std::size_t>(std::stoul(a[1]));
  Router router(a[0], blocks);
  const auto r = a[3] == "ours" ? ours(router, blocks, std::stoi(a[2]), a[4]) : measure(router, std::stoi(a[2]), [&] { run(a[4]); }, [&] { run(a[5]); });
  print("announced", r.come);
  print("withdrawn", r.go);
  return 0;
}
