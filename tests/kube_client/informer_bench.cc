// An informer of 50,000 pods: the time until it has synced, and what its copy costs in memory. The server is a process of
// its own that sends bytes made beforehand, so that this process holds nothing but the informer.
#include <benchmark/benchmark.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/http/server.h"
#include "kube/api.h"
#include "kube/codec.h"
#include "kube/informer.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::kube {
namespace {

constexpr int kPods = 50'000;

template <typename T>
T must(Result<T> r) {
  if (!r) {
    std::fprintf(stderr, "%s\n", r.error().message.c_str());
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(*r);
}

// A pod as a Deployment makes it: two containers, volumes, tolerations, conditions; about 3 KB as protobuf.
corev1::Pod make_pod(int i) {
  corev1::Pod p;
  auto& m = *p.mutable_metadata();
  m.set_name(fmt::format("web-6b7c4f8d9-{:05}", i));
  m.set_namespace_(fmt::format("team-{:02}", i % 50));
  m.set_uid(fmt::format("1b4e28ba-2fa1-11d2-883f-0016d3c{:05}", i));
  m.set_resourceversion(std::to_string(100'000 + i));
  (*m.mutable_labels())["app"] = "web";
  (*m.mutable_labels())["pod-template-hash"] = "6b7c4f8d9";
  (*m.mutable_annotations())["example.org/checksum"] = std::string(64, 'a');
  auto& owner = *m.add_ownerreferences();
  owner.set_kind("ReplicaSet");
  owner.set_name("web-6b7c4f8d9");
  m.add_managedfields()->mutable_fieldsv1()->set_raw(std::string(1200, 'f'));
  auto& s = *p.mutable_spec();
  s.set_nodename(fmt::format("node-{:04}", i % 1000));
  s.set_serviceaccountname("default");
  for (const char* name : {"app", "sidecar"}) {
    auto& c = *s.add_containers();
    c.set_name(name);
    c.set_image(fmt::format("registry.example.org/team/{}:v1.2.3", name));
    for (int e = 0; e < 8; ++e) {
      auto& env = *c.add_env();
      env.set_name(fmt::format("SETTING_{}", e));
      env.set_value("some value of some length");
    }
    c.add_ports()->set_containerport(8080);
    auto& mount = *c.add_volumemounts();
    mount.set_name("kube-api-access");
    mount.set_mountpath("/var/run/secrets/kubernetes.io/serviceaccount");
  }
  s.add_volumes()->set_name("kube-api-access");
  for (const char* key : {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}) {
    auto& t = *s.add_tolerations();
    t.set_key(key);
    t.set_operator_("Exists");
    t.set_effect("NoExecute");
    t.set_tolerationseconds(300);
  }
  auto& st = *p.mutable_status();
  st.set_phase("Running");
  st.set_podip(fmt::format("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255));
  for (const char* type : {"Initialized", "Ready", "ContainersReady", "PodScheduled"}) {
    auto& c = *st.add_conditions();
    c.set_type(type);
    c.set_status("True");
  }
  for (const char* name : {"app", "sidecar"}) {
    auto& c = *st.add_containerstatuses();
    c.set_name(name);
    c.set_ready(true);
    c.set_imageid(fmt::format("registry.example.org/team/{}@sha256:{}", name, std::string(64, 'b')));
    c.set_containerid("containerd://" + std::string(64, 'c'));
  }
  return p;
}

std::string frame(const std::string& type, const Message& object, bool proto) {
  if (!proto) return "{\"type\":\"" + type + "\",\"object\":" + to_json(object) + "}\n";
  metav1::WatchEvent e;
  e.set_type(type);
  e.mutable_object()->set_raw(to_protobuf(object));
  const auto body = e.SerializeAsString();
  const auto n = static_cast<std::uint32_t>(body.size());
  std::string out{static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
  return out + body;
}

Task<Result<>> send_all(std::shared_ptr<std::vector<std::string>> pieces, http::BodyWriter& w) {
  for (const auto& p : *pieces) {
    auto sent = co_await w.write(p);
    if (!sent) co_return sent;
  }
  co_await w.closed();
  co_return Result<>{};
}

[[noreturn]] void run_server(int port_pipe, bool proto) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto pieces = std::make_shared<std::vector<std::string>>(1);
  for (int i = 0; i < kPods; ++i) {
    if (pieces->back().size() > 100'000) pieces->emplace_back();
    pieces->back() += frame("ADDED", make_pod(i), proto);
  }
  corev1::Pod end;
  end.mutable_metadata()->set_resourceversion("999999");
  (*end.mutable_metadata()->mutable_annotations())["k8s.io/initial-events-end"] = "true";
  pieces->push_back(frame("BOOKMARK", end, proto));
  net::io_context context(1);
  http::ServerOptions o;
  o.listen = {IpAddress::v4(127, 0, 0, 1), 0};
  const auto server = must(http::serve(context.get_executor(), o, [pieces, proto](http::Request) -> Task<http::Response> {
    http::Response r;
    r.headers.set("Content-Type", proto ? "application/vnd.kubernetes.protobuf;stream=watch" : "application/json");
    r.stream = [pieces](http::BodyWriter& w) { return send_all(pieces, w); };
    co_return r;
  }));
  const auto port = server->address().port;
  if (::write(port_pipe, &port, sizeof port) != sizeof port) ::_exit(1);
  context.run();
  ::_exit(0);
}

void informer_sync(benchmark::State& state, bool proto, bool slim) {
  int fds[2];
  if (::pipe(fds) != 0) std::abort();
  const pid_t server = ::fork();
  if (server == 0) run_server(fds[1], proto);
  Port port = 0;
  if (::read(fds[0], &port, sizeof port) != sizeof port) std::abort();
  ::close(fds[0]);
  ::close(fds[1]);
  for (auto _ : state) {
    const auto before = mallinfo2().uordblks;
    net::io_context context(1);
    RestConfig config;
    config.server = fmt::format("http://127.0.0.1:{}", port);
    InformerOptions options;
    if (slim) {
      options.transform = [](Message& m) {
        auto& pod = static_cast<corev1::Pod&>(m);
        pod.mutable_spec()->clear_containers();
        pod.mutable_spec()->clear_volumes();
        pod.mutable_status()->clear_containerstatuses();
      };
    }
    const auto informer = make_informer<corev1::Pod>(must(make_client(context.get_executor(), config, "bench")), options);
    informer->start();
    const auto wait = [&]() -> Task<> {
      co_await informer->wait_synced();
      context.stop();
    };
    net::co_spawn(context, wait, net::detached);
    context.run();
    state.counters["objects"] = static_cast<double>(informer->size());
    state.counters["bytes_each"] = static_cast<double>(mallinfo2().uordblks - before) / kPods;
  }
  ::kill(server, SIGKILL);
  ::waitpid(server, nullptr, 0);
}
BENCHMARK_CAPTURE(informer_sync, protobuf, true, false)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(informer_sync, protobuf_slim, true, true)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(informer_sync, json, false, false)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fairlead::kube

BENCHMARK_MAIN();
