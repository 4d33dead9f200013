// A real etcd, one member or three, started by a test and ended with it (etcd_tools.h says which); where it is missing,
// available() says so and the tests that need it are skipped with that reason.
#pragma once

#include <sys/wait.h>

#include <csignal>
#include <thread>

#include "base/process.h"
#include "controlplane/etcd/remote.h"
#include "tests/controlplane/etcd/etcd_tools.h"
#include "tests/controlplane/etcd/testing.h"

namespace fairlead::etcd {

class RealEtcd {
 public:
  static bool available() { return has_etcd_tool("etcd") && has_etcd_tool("etcdctl"); }

  struct Options {
    int members = 1;
    std::string restore;  // a snapshot to begin with; one member
    // One per member, or empty: addresses instead of 127.0.0.1, paths of network namespaces, data folders of their own ("": in
    // the temporary one).
    std::vector<std::string> hosts, netns, data_dirs;
    // Files; with them the members want client certificates of `ca`. `client_*` are what connect() shows.
    struct Tls {
      std::string ca, certificate, key, client_certificate, client_key;
    };
    std::optional<Tls> tls;
  };
  RealEtcd() : RealEtcd(Options{}) {}
  // Ports come from the process id, so that two test programs do not meet.
  explicit RealEtcd(const Options& options) : tls_(options.tls) {
    const int members = options.members;
    static int cluster = 0;
    const int base = 20'000 + (::getpid() * 37 + cluster++ * 8) % 10'000;
    for (int i = 0; i < members; ++i) {
      const auto n = static_cast<std::size_t>(i);
      const auto pick = [n](const std::vector<std::string>& list) { return n < list.size() ? list[n] : std::string(); };
      auto data = pick(options.data_dirs);
      if (data.empty()) data = fmt::format("{}/m{}", dir_.path(), i);
      members_.push_back({base + 2 * i, base + 2 * i + 1, options.hosts.empty() ? "127.0.0.1" : options.hosts[n], pick(options.netns), data, std::nullopt});
    }
    if (!options.restore.empty()) restore(options.restore);
    for (int i = 0; i < members; ++i) start(i);
  }
  ~RealEtcd() {
    for (int i = 0; i < static_cast<int>(members_.size()); ++i) kill(i);
  }
  void start(int i) {
    auto& m = members_[static_cast<std::size_t>(i)];
    std::string cluster;
    for (std::size_t k = 0; k < members_.size(); ++k) cluster += fmt::format("{}m{}={}", k ? "," : "", k, peer_url(members_[k]));
    ProcessOptions o;
    o.argv = {etcd_tool("etcd"), "--name", fmt::format("m{}", i), "--data-dir", m.data,
              "--listen-client-urls", url(i), "--advertise-client-urls", url(i),
              "--listen-peer-urls", peer_url(m), "--initial-advertise-peer-urls", peer_url(m),
              "--initial-cluster", cluster, "--initial-cluster-token", "fairlead-test"};
    if (tls_)
      o.argv.insert(o.argv.end(), {"--cert-file", tls_->certificate, "--key-file", tls_->key, "--trusted-ca-file", tls_->ca, "--client-cert-auth"});
    o.netns = m.netns;
    o.stdout_file = o.stderr_file = fmt::format("{}/m{}.log", dir_.path(), i);
    auto p = Process::start(o);
    ASSERT_TRUE(p) << p.error().message;
    m.process.emplace(std::move(*p));
  }
  void signal(int i, int number) {
    auto& m = members_[static_cast<std::size_t>(i)];
    if (m.process) (void)m.process->kill(number);
  }
  void kill(int i) {
    auto& m = members_[static_cast<std::size_t>(i)];
    if (!m.process) return;
    (void)m.process->kill(SIGCONT);
    (void)m.process->kill(SIGKILL);
    (void)m.process->wait();
    m.process.reset();
  }
  bool running(int i) {
    auto& m = members_[static_cast<std::size_t>(i)];
    if (!m.process) return false;
    const auto status = m.process->poll();
    return status && !*status;
  }
  std::string url(int i) const {
    const auto& m = members_[static_cast<std::size_t>(i)];
    return fmt::format("http{}://{}:{}", tls_ ? "s" : "", m.host, m.client);
  }
  std::vector<std::string> urls() const {
    std::vector<std::string> out;
    for (int i = 0; i < static_cast<int>(members_.size()); ++i) out.push_back(url(i));
    return out;
  }
  int size() const { return static_cast<int>(members_.size()); }
  // Connected, and a read has been answered.
  std::shared_ptr<Remote> connect(std::chrono::milliseconds request_timeout = std::chrono::milliseconds(10'000)) const {
    return connect(urls(), request_timeout);
  }
  std::shared_ptr<Remote> connect_to(int i) const { return connect({url(i)}, std::chrono::milliseconds(10'000)); }

 private:
  std::shared_ptr<Remote> connect(const std::vector<std::string>& endpoints, std::chrono::milliseconds request_timeout) const {
    for (int i = 0; i < 200; ++i) {
      RemoteOptions o{.endpoints = endpoints, .dial_timeout = std::chrono::milliseconds(1000), .request_timeout = request_timeout};
      if (tls_) o.ca_file = tls_->ca, o.certificate_file = tls_->client_certificate, o.key_file = tls_->client_key;
      auto r = Remote::connect(o);
      if (r && await((*r)->range({.key = "ready"}))) return *r;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    ADD_FAILURE() << "etcd did not start; see its log in " << dir_.path();
    return nullptr;
  }

  void restore(const std::string& file) {
    const auto peer = peer_url(members_[0]);
    ProcessOptions o;
    o.argv = {etcd_tool("etcdctl"), "snapshot", "restore", file, "--name", "m0", "--data-dir", dir_.path() + "/m0", "--initial-cluster", "m0=" + peer,
              "--initial-advertise-peer-urls", peer, "--initial-cluster-token", "fairlead-test"};
    o.environment = {"PATH=/usr/bin:/bin", "ETCDCTL_API=3", "HOME=/tmp"};
    auto r = run_command(o);
    ASSERT_TRUE(r && r->status.ok()) << (r ? r->stderr_text : r.error().message);
  }
  struct Member {
    int client, peer;
    std::string host, netns, data;
    std::optional<Process> process;
  };
  static std::string peer_url(const Member& m) { return fmt::format("http://{}:{}", m.host, m.peer); }
  const std::optional<Options::Tls> tls_;
  TempDir dir_;
  std::vector<Member> members_;
};

}  // namespace fairlead::etcd
