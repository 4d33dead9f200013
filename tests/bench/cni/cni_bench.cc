// The plugin as a runtime meets it: a process per call, timed from start to exit, beside the reference plugins on the same
// machine in the same run (interleaved, so that both see the same noise). Each plugin has a host namespace of its own, with a
// link to a LAN as any node has one, so that a node with a thousand pods is what it says. The pods' namespaces are made before
// the clock runs and go after it: the kernel takes them down under the same lock. Needs root.
//
//   cni_bench [--pods N] [--crowd N] [--parallel N] [--only TEXT]      FAIRLEAD_BIN: folder of fairlead-cni
//
// With host ports a pod of the reference plugins is two processes: bridge, and portmap behind it in the chain.
// What grows where, and what of it is the kernel's own: cni_steps_bench.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "cni/agent/sweeper.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"

namespace {

using fairlead::Fd;
using fairlead::netlink::NetNs;

struct Plugin {
  std::string name, program, conf;   // PORT in the configuration: a host port that no other pod has
  NetNs host, lan;
  bool agent;   // the node agent runs there and deletes links
  std::string chained = {}, chained_conf = {};   // a second plugin, with PREV for the first one's result; may be empty
};

double now_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

struct Call {
  pid_t pid = -1;
  double started = 0;
};

Call start(const Plugin& p, const std::string& program, const char* verb, const std::string& id, const NetNs& ns, int conf_fd, int out_fd) {
  std::vector<std::string> env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=/usr/lib/cni", "CNI_IFNAME=eth0", std::string("CNI_COMMAND=") + verb, "CNI_CONTAINERID=" + id,
                                  fmt::format("CNI_NETNS=/proc/{}/fd/{}", getpid(), ns.fd())};
  std::vector<char*> envp;
  for (auto& e : env) envp.push_back(e.data());
  envp.push_back(nullptr);
  char* argv[] = {const_cast<char*>(program.c_str()), nullptr};
  posix_spawn_file_actions_t a;
  ::posix_spawn_file_actions_init(&a);
  ::posix_spawn_file_actions_adddup2(&a, conf_fd, 0);
  ::posix_spawn_file_actions_adddup2(&a, out_fd, 1);
  if (::setns(p.host.fd(), CLONE_NEWNET) != 0) std::exit(1);
  Call c{.started = now_ms()};
  const int err = ::posix_spawn(&c.pid, program.c_str(), &a, nullptr, argv, envp.data());
  ::posix_spawn_file_actions_destroy(&a);
  if (err != 0) {
    std::fprintf(stderr, "%s: %s\n", program.c_str(), std::strerror(err));
    std::exit(1);
  }
  return c;
}

// The configuration as a file that every process reads from its start.
Fd conf_file(const std::string& text) {
  char path[] = "/tmp/cni-bench-XXXXXX";
  Fd fd(::mkstemp(path));
  ::unlink(path);
  if (::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) std::exit(1);
  return Fd(::open(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), O_RDONLY));
}

double finish(const Call& c) {
  int status = 0;
  ::waitpid(c.pid, &status, 0);
  const double took = now_ms() - c.started;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "a call failed (%d)\n", status);
    std::exit(1);
  }
  return took;
}

std::string with(std::string text, const std::string& word, const std::string& value) {
  if (const auto at = text.find(word); at != std::string::npos) text.replace(at, word.size(), value);
  return text;
}

double one(const Plugin& p, const std::string& program, const char* verb, const std::string& id, const NetNs& ns, const std::string& text, std::string* out) {
  const Fd conf = conf_file(text), printed(::memfd_create("out", MFD_CLOEXEC));
  const double took = finish(start(p, program, verb, id, ns, conf.get(), printed.get()));
  if (out != nullptr) {
    out->assign(1 << 16, '\0');
    const ssize_t n = ::pread(printed.get(), out->data(), out->size(), 0);
    out->resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  }
  return took;
}

// A whole pod: all plugins of the chain, DEL in the opposite order.
double once(const Plugin& p, const char* verb, const std::string& id, const NetNs& ns, int port, std::string& result) {
  const std::string first = with(p.conf, "PORT", std::to_string(port));
  if (p.chained.empty()) return one(p, p.program, verb, id, ns, first, nullptr);
  const auto second = [&] { return with(with(p.chained_conf, "PORT", std::to_string(port)), "PREV", result); };
  if (std::strcmp(verb, "ADD") != 0) {
    const double took = one(p, p.chained, verb, id, ns, second(), nullptr);
    return took + one(p, p.program, verb, id, ns, first, nullptr);
  }
  const double took = one(p, p.program, verb, id, ns, first, &result);
  return took + one(p, p.chained, verb, id, ns, second(), nullptr);
}

void print(const std::string& what, const std::string& who, std::vector<double> t) {
  std::sort(t.begin(), t.end());
  std::printf("| %-34s | %-29s | %7.2f | %7.2f | %7.2f |\n", what.c_str(), who.c_str(), t[t.size() / 2], t[t.size() * 9 / 10], t.front());
  std::fflush(stdout);
}

struct Side {
  Plugin plugin;
  std::unique_ptr<fairlead::cni::LinkSweeper> sweeper;
  std::vector<std::unique_ptr<NetNs>> crowd;
};

Side make_side(std::string name, std::string program, std::string conf, bool agent) {
  Side s{{std::move(name), std::move(program), std::move(conf), *NetNs::create(), *NetNs::create(), agent}, nullptr, {}};
  auto rt = *fairlead::netlink::RtSocket::open_in(s.plugin.host.fd());
  const bool linked = rt.create_link({.name = "eth0", .kind = fairlead::netlink::VethKind{.peer_name = "lan", .peer_netns_fd = s.plugin.lan.fd()}, .up = true}) &&
                      fairlead::netlink::RtSocket::open_in(s.plugin.lan.fd())->set_up("lan") &&
                      rt.add_address({.link = rt.link("eth0")->index, .ip = *fairlead::InterfaceAddress::parse("192.0.2.1/24")});
  if (!linked) {
    std::fprintf(stderr, "cannot make a link for %s\n", s.plugin.name.c_str());
    std::exit(1);
  }
  if (!agent) return s;
  if (::setns(s.plugin.host.fd(), CLONE_NEWNET) != 0) std::exit(1);
  auto started = fairlead::cni::LinkSweeper::start();
  if (!started) {
    std::fprintf(stderr, "%s\n", started.error().message.c_str());
    std::exit(1);
  }
  s.sweeper = std::move(*started);
  return s;
}

std::unique_ptr<NetNs> fresh() { return std::make_unique<NetNs>(std::move(*NetNs::create())); }

void measure(std::vector<Side>& sides, const std::string& what, int pods) {
  std::vector<std::vector<double>> add(sides.size()), del(sides.size());
  std::vector<std::unique_ptr<NetNs>> namespaces;
  for (std::size_t i = 0; i < pods * sides.size(); ++i) namespaces.push_back(fresh());
  std::size_t next = 0;
  for (int i = 0; i < pods; ++i)
    for (std::size_t s = 0; s < sides.size(); ++s) {
      const auto& ns = namespaces[next++];
      const std::string id = fmt::format("m{}-{}-{}", s, what.size(), i);
      std::string result;
      add[s].push_back(once(sides[s].plugin, "ADD", id, *ns, 60000, result));
      del[s].push_back(once(sides[s].plugin, "DEL", id, *ns, 60000, result));
    }
  for (std::size_t s = 0; s < sides.size(); ++s) print("ADD, " + what, sides[s].plugin.name, add[s]);
  for (std::size_t s = 0; s < sides.size(); ++s) print("DEL, " + what, sides[s].plugin.name, del[s]);
}

void fill(Side& s, int count, int tag) {
  while (static_cast<int>(s.crowd.size()) < count) {
    auto ns = fresh();
    std::string result;
    once(s.plugin, "ADD", fmt::format("crowd{}-{}", tag, s.crowd.size()), *ns, 10000 + static_cast<int>(s.crowd.size()), result);
    s.crowd.push_back(std::move(ns));
  }
}

void parallel(Side& s, int count, int tag) {
  std::vector<std::unique_ptr<NetNs>> ns;
  std::vector<Fd> confs;
  for (int i = 0; i < count; ++i) {
    ns.push_back(fresh());
    confs.push_back(conf_file(with(s.plugin.conf, "PORT", std::to_string(30000 + i))));
  }
  const Fd nowhere(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  for (const char* verb : {"ADD", "DEL"}) {
    for (auto& c : confs) ::lseek(c.get(), 0, SEEK_SET);
    const double begin = now_ms();
    std::vector<Call> calls;
    for (int i = 0; i < count; ++i) calls.push_back(start(s.plugin, s.plugin.program, verb, fmt::format("par{}-{}", tag, i), *ns[i], confs[i].get(), nowhere.get()));
    for (const Call& c : calls) finish(c);
    print(fmt::format("{} x {}, all at once: total", count, verb), s.plugin.name, {now_ms() - begin});
  }
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

}  // namespace

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "cni_bench needs root\n");
    return 1;
  }
  const int pods = number(argc, argv, "--pods", 100), crowd = number(argc, argv, "--crowd", 0), at_once = number(argc, argv, "--parallel", 64);
  const char* bin = std::getenv("FAIRLEAD_BIN");
  const std::string ours = (bin ? std::string(bin) : std::string("build/release/bin")) + "/fairlead-cni";
  rlimit files{65536, 65536};
  ::setrlimit(RLIMIT_NOFILE, &files);
  const std::string data = fmt::format("/run/cni-bench-{}", getpid());
  const std::string ports = R"("runtimeConfig":{"portMappings":[{"hostPort":PORT,"containerPort":80,"protocol":"tcp"}]})";
  const auto conf = [&](const char* wiring, bool agent, const std::string& more) {
    return fmt::format(R"({{"cniVersion":"1.0.0","name":"{0}","type":"fairlead-cni","wiring":"{0}","ipam":{{"ranges":[[{{"subnet":"10.1.0.0/16"}}]],"dataDir":"{1}/{2}{3}"}}{4}}})", wiring, data, agent,
                       !more.empty(), more.empty() ? "" : "," + more);
  };
  const auto reference = [&](const char* folder) {
    return fmt::format(R"({{"cniVersion":"1.0.0","name":"ref","type":"bridge","bridge":"cni0","isGateway":true,"ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.3.0.0/16"}}]],"routes":[{{"dst":"0.0.0.0/0"}}],"dataDir":"{}/{}"}}}})", data, folder);
  };
  std::vector<Side> sides;
  for (const char* wiring : {"routed", "bridge"})
    for (const bool agent : {true, false})
      sides.push_back(make_side(fmt::format("fairlead-cni {}{}", wiring, agent ? "" : ", no agent"), ours, conf(wiring, agent, ""), agent));
  for (const char* wiring : {"routed", "bridge"}) sides.push_back(make_side(fmt::format("fairlead-cni {}, host port", wiring), ours, conf(wiring, true, ports), true));
  if (std::filesystem::exists("/usr/lib/cni/bridge")) {
    sides.push_back(make_side("bridge + host-local", "/usr/lib/cni/bridge", reference("ref"), false));
    sides.push_back(make_side("bridge + host-local + portmap", "/usr/lib/cni/bridge", reference("ports"), false));
    sides.back().plugin.chained = "/usr/lib/cni/portmap";
    sides.back().plugin.chained_conf = R"({"cniVersion":"1.0.0","name":"ref","type":"portmap",)" + ports + R"(,"prevResult":PREV})";
  } else {
    std::fprintf(stderr, "no /usr/lib/cni/bridge (package containernetworking-plugins): only our own figures\n");
  }
  if (const std::string only = text(argc, argv, "--only"); !only.empty())
    std::erase_if(sides, [&](const Side& s) { return s.plugin.name.find(only) == std::string::npos; });
  for (auto& s : sides) one(s.plugin, s.plugin.program, "VERSION", "warm", *fresh(), s.plugin.conf, nullptr);
  std::printf("| what (ms per call)                 | plugin                        |     p50 |     p90 |     min |\n|---|---|---|---|---|\n");
  measure(sides, "empty node", pods);
  for (std::size_t s = 0; s < sides.size(); ++s)
    if (sides[s].plugin.chained.empty()) parallel(sides[s], at_once, static_cast<int>(s));
  if (crowd > 0) {
    for (std::size_t s = 0; s < sides.size(); ++s) fill(sides[s], crowd, static_cast<int>(s));
    measure(sides, fmt::format("{} pods on the node", crowd), pods);
  }
  std::filesystem::remove_all(data);
  return 0;
}
