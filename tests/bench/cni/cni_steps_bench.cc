// Which step of an ADD or DEL costs what, and which of them grows with the pods on the node: verbs in this process, each step
// timed by a port in front of the kernel, on an empty node and on one with a crowd. Beside it the least that the kernel asks
// for any pod ("bare"): one request makes a veth across namespaces, one takes it up, one adds a route, one takes it away.
// What grows there is the kernel's own. A host has an address on a link of its own, as any node. Needs root.
//
//   cni_steps_bench [--pods N] [--crowd N] [--families 4|46] [--only 'bridge, host port']
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#include "cni/agent/sweeper.h"
#include "cni/plugin.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace fairlead::cni {
namespace {

using netlink::NetNs;
using netlink::RtSocket;

double cpu_us() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}
double us_now() { return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Name of a step or request -> microseconds of each call, in the order of their first use.
struct Times {
  std::vector<std::string> names;
  struct Call {
    std::vector<double> us, cpu;
  };
  std::map<std::string, Call> of;
  void add(const std::string& name, double us, double cpu) {
    if (!of.contains(name)) names.push_back(name);
    of[name].us.push_back(us);
    of[name].cpu.push_back(cpu);
  }
};

template <typename F>
auto timed(Times& t, const std::string& name, F f) {
  const double begin = us_now(), cpu = cpu_us();
  auto r = f();
  t.add(name, us_now() - begin, cpu_us() - cpu);
  return r;
}

std::string name_of(const Step& s) {
  static constexpr const char* kNames[] = {"forwarding", "host gateway", "bridge", "vlan gateway", "make veth", "name host link", "open host link", "bridge port", "host routes", "set up pod",
                                           "sysctls", "limit to pod", "limit from pod", "host ports", "hosts file", "await carrier"};
  static_assert(std::variant_size_v<Step> == std::size(kNames));
  return kNames[s.index()];
}

class TimedKernel final : public Kernel {
 public:
  TimedKernel(std::unique_ptr<Kernel> inner, Times* times) : inner_(std::move(inner)), times_(times) {}
  CniResult<> apply(const Step& s) override {
    return timed(*times_, "ADD: " + name_of(s), [&] { return inner_->apply(s); });
  }
  CniResult<> undo(const Step& s) override {
    return timed(*times_, "DEL: undo " + name_of(s), [&] { return inner_->undo(s); });
  }
  CniResult<> settle() override {
    return timed(*times_, "DEL: ask the agent", [&] { return inner_->settle(); });
  }
  CniResult<Observed> observe(const std::string& a, const std::string& b) override { return inner_->observe(a, b); }
  CniResult<bool> nat_present(const PodNat& n) override { return inner_->nat_present(n); }
  CniResult<std::vector<netlink::Link>> host_links() override { return inner_->host_links(); }
  CniResult<> set_loopback(bool up) override { return inner_->set_loopback(up); }
  CniResult<bool> loopback_up() override { return inner_->loopback_up(); }

 private:
  std::unique_ptr<Kernel> inner_;
  Times* times_;
};

void must(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

// A node: a namespace with a link to a LAN, as a first link, so that it has an address.
struct Node {
  NetNs ns = *NetNs::create();
  NetNs lan = *NetNs::create();
  std::vector<NetNs> crowd;
  Node() {
    auto rt = *RtSocket::open_in(ns.fd());
    must(rt.create_link({.name = "eth0", .kind = netlink::VethKind{.peer_name = "lan", .peer_netns_fd = lan.fd()}, .up = true}).has_value(), "eth0");
    must(RtSocket::open_in(lan.fd())->set_up("lan").has_value(), "lan");
    must(rt.add_address({.link = rt.link("eth0")->index, .ip = *InterfaceAddress::parse("192.0.2.1/24")}).has_value(), "address");
    must(rt.add_address({.link = rt.link("eth0")->index, .ip = *InterfaceAddress::parse("2001:db8::1/64"), .no_dad = true}).has_value(), "address");
  }
};

struct Network {
  std::string wiring, ranges, folder;
  bool host_port = false;
  std::string conf(int port) const {
    return fmt::format(R"({{"cniVersion":"1.0.0","name":"{0}","type":"fairlead-cni","wiring":"{0}","ipam":{{"ranges":[{1}],"dataDir":"{2}"}}{3}}})", wiring, ranges, folder,
                       host_port ? fmt::format(R"(,"runtimeConfig":{{"portMappings":[{{"hostPort":{},"containerPort":80,"protocol":"tcp"}}]}})", port) : "");
  }
};

void verb(const Node& node, const Network& net, const char* what, const std::string& id, int port, const NetNs& pod, Times* times) {
  Services services = real_services();
  if (times != nullptr)
    services.open_kernel = [=](const std::string& netns) -> CniResult<std::unique_ptr<Kernel>> {
      auto inner = open_kernel(netns);
      if (!inner) return cni_fail(inner.error());
      return std::make_unique<TimedKernel>(std::move(*inner), times);
    };
  const Environment environment = [&](const std::string& name) -> std::optional<std::string> {
    if (name == "CNI_COMMAND") return what;
    if (name == "CNI_CONTAINERID") return id;
    if (name == "CNI_NETNS") return fmt::format("/proc/{}/fd/{}", getpid(), pod.fd());
    if (name == "CNI_IFNAME") return "eth0";
    if (name == "CNI_PATH") return "/x";
    return std::nullopt;
  };
  Outcome o;
  must(netlink::run_in_netns(node.ns.fd(), [&] {
         const double begin = us_now(), cpu = cpu_us();
         o = run_plugin(services, environment, net.conf(port));
         if (times != nullptr) times->add(fmt::format("{}: all of it", what), us_now() - begin, cpu_us() - cpu);
       }).has_value(),
       "enter the namespace");
  must(o.exit_code == 0, o.out);
}

Times plugin_steps(Node& node, const Network& net, int pods, int tag) {
  Times t;
  std::vector<NetNs> namespaces;
  for (int i = 0; i < pods; ++i) namespaces.push_back(*NetNs::create());
  for (int i = 0; i < pods; ++i) {
    const std::string id = fmt::format("m{}-{}", tag, i);
    verb(node, net, "ADD", id, 40000, namespaces[i], &t);
    verb(node, net, "DEL", id, 40000, namespaces[i], &t);
  }
  return t;
}

// The floor: what any plugin asks of the kernel for a pod, in as few requests as it takes.
Times bare_steps(Node& node, int pods, bool keep) {
  Times t;
  auto rt = *RtSocket::open_in(node.ns.fd());
  std::vector<NetNs> namespaces;
  for (int i = 0; i < pods; ++i) namespaces.push_back(*NetNs::create());
  for (int i = 0; i < pods; ++i) {
    const NetNs& pod = namespaces[i];
    const std::string name = fmt::format("b{}", node.crowd.size() + i);
    auto inside = *RtSocket::open_in(pod.fd());
    const double begin = us_now(), cpu = cpu_us();
    must(timed(t, "bare: make veth", [&] { return rt.create_link({.name = name, .kind = netlink::VethKind{.peer_name = "eth0", .peer_netns_fd = pod.fd()}, .up = true}); }).has_value(), "veth");
    const auto index = timed(t, "bare: read it", [&] { return rt.link(name); })->index;
    must(timed(t, "bare: take the pod's end up", [&] { return inside.set_up("eth0"); }).has_value(), "up");
    const auto n = static_cast<std::uint8_t>(node.crowd.size() + i);
    must(timed(t, "bare: route", [&] {
           return rt.add_route({.destination = {IpAddress::v4(10, 77, static_cast<std::uint8_t>((node.crowd.size() + i) >> 8), n), 32}, .next_hops = {{.link = index}}, .scope = RT_SCOPE_LINK});
         }).has_value(), "route");
    t.add("bare: all of it", us_now() - begin, cpu_us() - cpu);
    if (keep) continue;
    must(timed(t, "bare: set aside", [&] { return rt.set_aside(name, kDoomedGroup); }).has_value(), "set aside");
    must(rt.delete_group(kDoomedGroup).has_value(), "delete");
  }
  if (keep) std::move(namespaces.begin(), namespaces.end(), std::back_inserter(node.crowd));
  return t;
}

double middle(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

void print(const std::string& who, const Times& few, const Times& many) {
  for (const auto& name : few.names) {
    const Times::Call a = few.of.at(name), b = many.of.contains(name) ? many.of.at(name) : Times::Call{};
    std::printf("| %-18s | %-28s | %8.0f | %8.0f | %8.0f | %8.0f | %+7.0f |\n", who.c_str(), name.c_str(), middle(a.us), middle(a.cpu), middle(b.us), middle(b.cpu), middle(b.cpu) - middle(a.cpu));
  }
  std::fflush(stdout);
}

int number(int argc, char** argv, const char* flag, int otherwise) {
  for (int i = 1; i + 1 < argc; ++i)
    if (std::strcmp(argv[i], flag) == 0) return std::atoi(argv[i + 1]);
  return otherwise;
}

std::string text(int argc, char** argv, const char* flag) {
  for (int i = 1; i + 1 < argc; ++i)
    if (std::strcmp(argv[i], flag) == 0) return argv[i + 1];
  return "";
}

int run(int argc, char** argv) {
  const int pods = number(argc, argv, "--pods", 60), crowd = number(argc, argv, "--crowd", 1000), families = number(argc, argv, "--families", 4);
  rlimit files{65536, 65536};
  ::setrlimit(RLIMIT_NOFILE, &files);
  const std::string folder = fmt::format("/run/cni-steps-{}", getpid());
  std::printf("microseconds per call, medians; growth is of processor time\n| %-18s | %-28s | %8s | %8s | %8s | %8s | %7s |\n|---|---|---|---|---|---|---|\n", "network", "step", "empty", "CPU",
              fmt::format("{} pods", crowd).c_str(), "CPU", "growth");
  const std::string only = text(argc, argv, "--only");
  if (only.empty() || only == "kernel alone") {
    Node node;
    const Times few = bare_steps(node, pods, false);
    bare_steps(node, crowd, true);
    print("kernel alone", few, bare_steps(node, pods, false));
  }
  int tag = 0;
  for (const bool host_port : {false, true})
    for (const char* wiring : {"routed", "bridge"}) {
      const std::string name = fmt::format("{}{}", wiring, host_port ? ", host port" : "");
      if (!only.empty() && name != only) continue;
      Node node;
      const Network net{wiring, families == 4 ? R"([{"subnet":"10.1.0.0/16"}])" : R"([{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00:1::/64"}])", fmt::format("{}/{}", folder, tag), host_port};
      std::unique_ptr<LinkSweeper> agent;
      must(netlink::run_in_netns(node.ns.fd(), [&] { agent = std::move(*LinkSweeper::start()); }).has_value(), "agent");
      plugin_steps(node, net, 2, tag++);
      const Times few = plugin_steps(node, net, std::min(pods, 60), tag++);
      for (int i = 0; i < crowd; ++i) {
        node.crowd.push_back(*NetNs::create());
        verb(node, net, "ADD", fmt::format("crowd{}", i), 1000 + i, node.crowd.back(), nullptr);
      }
      print(name, few, plugin_steps(node, net, pods, tag++));
    }
  std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace fairlead::cni

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "cni_steps_bench needs root\n");
    return 1;
  }
  return fairlead::cni::run(argc, argv);
}
