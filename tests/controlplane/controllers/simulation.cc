#include "tests/controlplane/controllers/simulation.h"

#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/coordination/v1.pb.h"
#include "kube/proto/core/v1/config.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/core/v1/service.pb.h"
#include "kube/proto/discovery/v1.pb.h"
#include "tests/controlplane/controllers/make.h"

namespace fairlead::controllers {
namespace {

template <typename T>
T without_uid(T object) {
  object.mutable_metadata()->clear_uid();
  return object;
}

void set_image(Simulation& s, const std::string& image) {
  s.edit<appsv1::Deployment>("default", "web", [&](appsv1::Deployment& d) {
    d.mutable_spec()->mutable_template_()->mutable_spec()->mutable_containers(0)->set_image(image);
  });
}
void scale(Simulation& s, int n) {
  s.edit<appsv1::Deployment>("default", "web", [&](appsv1::Deployment& d) { d.mutable_spec()->set_replicas(n); });
}
int pods_of_image(Simulation& s, const std::string& image) {
  return s.pods([&](const corev1::Pod& p) { return is_pod_active(p) && is_pod_ready(p) && p.spec().containers(0).image() == image; });
}
template <typename T>
int named(Simulation& s) {
  const auto objects = s.all<T>("default");
  return static_cast<int>(std::count_if(objects.begin(), objects.end(), [](const T& o) { return o.metadata().name().starts_with("web"); }));
}
// Everything that the Deployment and its Service made, but for Events.
int traces(Simulation& s) {
  return named<corev1::Pod>(s) + named<appsv1::ReplicaSet>(s) + named<appsv1::Deployment>(s) + named<discoveryv1::EndpointSlice>(s) +
         named<corev1::Endpoints>(s) + named<corev1::Service>(s);
}
}  // namespace

struct FakeAgent::State : std::enable_shared_from_this<FakeAgent::State> {
  std::shared_ptr<kube::Client> client;
  std::shared_ptr<Behaviour> behaviour;
  std::string node;
  int number;
  int addresses = 0;
  std::shared_ptr<kube::Informer<corev1::Pod>> pods;
  std::set<std::string> starting, ending;
  bool stopped = false;
  net::steady_timer timer;

  State(std::shared_ptr<kube::Client> c, std::shared_ptr<Behaviour> b, std::string n, int i)
      : client(std::move(c)), behaviour(std::move(b)), node(std::move(n)), number(i), timer(client->executor()) {
    kube::InformerOptions o;
    o.field_selector = "spec.nodeName=" + node;
    pods = kube::make_informer<corev1::Pod>(client, o);
  }

  void on_pod(const kube::Change<corev1::Pod>& c) {
    if (!c.after || stopped) return;
    const auto& uid = c.after->metadata().uid();
    if (c.after->metadata().has_deletiontimestamp()) {
      if (ending.insert(uid).second) net::co_spawn(client->executor(), end(shared_from_this(), c.after), net::detached);
    } else if (c.after->status().phase() == "Pending" && starting.insert(uid).second) {
      net::co_spawn(client->executor(), run(shared_from_this(), c.after), net::detached);
    }
  }

  static Task<> run(std::shared_ptr<State> self, std::shared_ptr<const corev1::Pod> pod) {
    co_await sleep_for(self->behaviour->start);
    while (!self->stopped) {
      auto current = self->pods->get(key_of(*pod));
      if (!current || current->metadata().uid() != pod->metadata().uid()) co_return;
      corev1::Pod next = *current;
      auto* s = next.mutable_status();
      s->set_phase("Running");
      const std::string ip = fmt::format("10.244.{}.{}", self->number, ++self->addresses % 250 + 2);
      s->set_podip(ip);
      s->clear_podips();
      s->add_podips()->set_ip(ip);
      auto* c = find_condition(*s->mutable_conditions(), "Ready");
      if (!c) c = s->add_conditions();
      c->set_type("Ready");
      c->set_status(self->behaviour->ready ? "True" : "False");
      *c->mutable_lasttransitiontime() = to_time(SystemClock::get().wall());
      auto r = co_await self->client->update<corev1::Pod>(next, "status");
      if (r || r.error().code == ErrorCode::not_found) co_return;
      co_await sleep_for(std::chrono::milliseconds(2));
    }
  }

  static Task<> end(std::shared_ptr<State> self, std::shared_ptr<const corev1::Pod> pod) {
    co_await sleep_for(self->behaviour->end);
    kube::DeleteOptions options;
    options.uid = pod->metadata().uid();
    options.grace_period_seconds = 0;
    while (!self->stopped) {
      auto r = co_await self->client->delete_object(kube::kind_of<corev1::Pod>(), pod->metadata().namespace_(), pod->metadata().name(), options);
      if (r || r.error().code == ErrorCode::not_found || r.error().code == ErrorCode::conflict) co_return;
      co_await sleep_for(std::chrono::milliseconds(2));
    }
  }

  corev1::Node make_node() const {
    corev1::Node n;
    n.mutable_metadata()->set_name(node);
    (*n.mutable_metadata()->mutable_labels())["kubernetes.io/hostname"] = node;
    auto& a = *n.mutable_status()->mutable_allocatable();
    a["cpu"].set_string("4");
    a["memory"].set_string("8Gi");
    a["pods"].set_string("110");
    auto* c = n.mutable_status()->add_conditions();
    c->set_type("Ready");
    c->set_status("True");
    return n;
  }

  static Task<> report(std::shared_ptr<State> self) {
    while (!self->stopped) {
      auto created = co_await self->client->create<corev1::Node>(self->make_node());
      if (created || created.error().code == ErrorCode::already_exists) break;
      co_await sleep_for(std::chrono::milliseconds(2));
    }
    while (!self->stopped) {
      if (self->behaviour->leases) {
        auto lease = co_await self->client->get<coordinationv1::Lease>("kube-node-lease", self->node);
        coordinationv1::Lease l;
        if (lease) l = *lease;
        l.mutable_metadata()->set_namespace_("kube-node-lease");
        l.mutable_metadata()->set_name(self->node);
        const auto now = std::chrono::duration_cast<std::chrono::microseconds>(SystemClock::get().wall().time_since_epoch());
        l.mutable_spec()->mutable_renewtime()->set_seconds(now.count() / 1'000'000);
        l.mutable_spec()->mutable_renewtime()->set_nanos(static_cast<int>(now.count() % 1'000'000 * 1000));
        if (lease) {
          auto r = co_await self->client->update<coordinationv1::Lease>(l);
          (void)r;
        } else {
          auto r = co_await self->client->create<coordinationv1::Lease>(l);
          (void)r;
        }
      }
      self->timer.expires_after(std::chrono::milliseconds(50));
      auto waited = co_await self->timer.async_wait(use_result);
      (void)waited;
    }
  }
};

FakeAgent::FakeAgent(std::shared_ptr<kube::Client> client, std::string node, int number)
    : state_(std::make_shared<State>(std::move(client), behaviour, std::move(node), number)) {}

void FakeAgent::start() {
  state_->pods->on_change([s = std::weak_ptr(state_)](const kube::Change<corev1::Pod>& c) {
    if (auto self = s.lock()) self->on_pod(c);
  });
  state_->pods->start();
  net::co_spawn(state_->client->executor(), State::report(state_), net::detached);
}

Task<> FakeAgent::stop() {
  state_->stopped = true;
  state_->timer.cancel();
  return state_->pods->stop();
}

void Simulation::start(int nodes) {
  for (const char* ns : {"default", "kube-system", "kube-node-lease"}) {
    corev1::Namespace n;
    n.mutable_metadata()->set_name(ns);
    if (fake) fake->put(n);  // a real apiserver has them
  }
  if (fake) fake->namespaces_required = true;
  for (int i = 0; i < nodes; ++i) {
    agents.push_back(std::make_unique<FakeAgent>(client, "n" + std::to_string(i), i));
    agents.back()->start();
  }
  manager = controllers::start(client, options).value();
  scheduler::Options s;
  s.random = &random;
  s.queue.initial_backoff = std::chrono::milliseconds(20);
  s.queue.max_backoff = std::chrono::milliseconds(100);
  scheduler = scheduler::start(client, s).value();
  ASSERT_TRUE(until([&] { return manager->synced() && scheduler->synced(); }));
}

void Simulation::stop() {
  if (std::exchange(stopped, true) || !scheduler) return;
  bool done = false;
  net::co_spawn(
      io,
      [](Simulation& s, bool& d) -> Task<> {
        for (auto& a : s.agents) co_await a->stop();
        co_await s.scheduler->stop();
        co_await s.manager->stop();
        d = true;
      }(*this, done),
      net::detached);
  EXPECT_TRUE(until([&] { return done; })) << "everything stops when it is told to";
  run_for(std::chrono::milliseconds(20));
}

Result<> Simulation::remove(const kube::Kind& kind, const std::string& ns, const std::string& name, const std::string& policy) {
  kube::DeleteOptions options_;
  options_.propagation_policy = policy;
  // As a person would: again while the API fails now and then; gone already is as good as done.
  Result<> last;
  for (int attempt = 0; attempt < 20; ++attempt) {
    std::optional<Result<>> done;
    net::co_spawn(io, client->delete_object(kind, ns, name, options_), [&](std::exception_ptr, Result<> r) { done = std::move(r); });
    EXPECT_TRUE(until([&] { return done.has_value(); }));
    last = *done;
    if (last || (attempt > 0 && last.error().code == ErrorCode::not_found)) return {};
  }
  return last;
}

bool Simulation::until(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    io.restart();
    io.run_for(std::chrono::milliseconds(1));
  }
  return true;
}

void Simulation::run_for(std::chrono::milliseconds time) {
  io.restart();
  io.run_for(time);
}

int Simulation::pods(const std::function<bool(const corev1::Pod&)>& f) {
  int n = 0;
  for (const auto& p : all<corev1::Pod>()) n += f(p);
  return n;
}

int Simulation::ready_pods() {
  return pods([](const corev1::Pod& p) { return is_pod_ready(p) && is_pod_active(p); });
}

std::multiset<std::string> Simulation::ready_endpoints(const std::string& service) {
  std::multiset<std::string> out;
  for (const auto& s : all<discoveryv1::EndpointSlice>()) {
    const auto label = s.metadata().labels().find("kubernetes.io/service-name");
    if (label == s.metadata().labels().end() || label->second != service) continue;
    for (const auto& e : s.endpoints()) {
      if (e.conditions().ready()) out.insert(e.targetref().name());
    }
  }
  return out;
}

void life_of_a_deployment(Simulation& s, bool calm) {
  s.start(3);
  s.put(without_uid(test_service()));
  s.put(without_uid(test_deployment(10)));
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 10; }));
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 10; }));
  std::map<std::string, int> on_node;
  for (const auto& p : s.all<corev1::Pod>()) ++on_node[p.spec().nodename()];
  // A create whose answer was lost is done again, so without calm there is a pod too many for a moment.
  for (const auto& [node, n] : on_node) EXPECT_GE(n, calm ? 3 : 1) << "spread over the nodes: " << node;
  ASSERT_TRUE(s.until([&] { return s.find<appsv1::Deployment>("default", "web")->status().availablereplicas() == 10; }));
  if (calm && s.fake) {
    EXPECT_EQ(s.fake->calls["create Pod"], 10) << "no pod is created twice";
  }

  scale(s, 4);
  ASSERT_TRUE(s.until([&] { return s.pods() == 4 && s.ready_endpoints("web").size() == 4; }));
  scale(s, 8);
  ASSERT_TRUE(s.until([&] { return s.ready_pods() == 8 && s.ready_endpoints("web").size() == 8; }));

  int fewest = 100, most = 0;
  set_image(s, "web:2");
  ASSERT_TRUE(s.until([&] {
    fewest = std::min(fewest, s.ready_pods());
    most = std::max(most, s.pods(is_pod_active));
    return pods_of_image(s, "web:2") == 8 && s.pods() == 8;
  }));
  EXPECT_GE(fewest, 6) << "maxUnavailable 25 % of 8";
  if (calm) {
    EXPECT_LE(most, 10) << "maxSurge 25 % of 8";
  }
  ASSERT_TRUE(s.until([&] { return s.ready_endpoints("web").size() == 8; }));
  ASSERT_TRUE(s.until([&] {
    const auto d = s.find<appsv1::Deployment>("default", "web");
    const auto* c = find_condition(d->status().conditions(), "Progressing");
    return c && c->reason() == "NewReplicaSetAvailable" && d->status().updatedreplicas() == 8;
  }));
  EXPECT_EQ(s.find<appsv1::Deployment>("default", "web")->metadata().annotations().at("deployment.kubernetes.io/revision"), "2");

  ASSERT_TRUE(s.remove(kube::kind_of<appsv1::Deployment>(), "default", "web", "Background"));
  ASSERT_TRUE(s.remove(kube::kind_of<corev1::Service>(), "default", "web", "Background"));
  EXPECT_TRUE(s.until([&] { return traces(s) == 0; })) << traces(s) << " objects are left";
  s.stop();
}

}  // namespace fairlead::controllers
