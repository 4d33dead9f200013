#include "controlplane/kubelet/agent.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "base/log.h"
#include "kube/quantity.h"

namespace fairlead::kubelet {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLookPeriod{1'000};
// After a hint that a container ended: the runtime's own books follow within some milliseconds.
constexpr std::array<milliseconds, 5> kQuick{milliseconds(3), milliseconds(15), milliseconds(40), milliseconds(100),
                                             milliseconds(250)};
constexpr milliseconds kStopPoll{5};
constexpr std::chrono::seconds kTendPeriod{10};

bool ended(const corev1::Pod& pod) { return pod.status().phase() == "Succeeded" || pod.status().phase() == "Failed"; }

}  // namespace

struct Agent::Seen {
  std::string fingerprint;
  std::string name, ns;
  std::int64_t grace = -1;
  std::vector<std::string> containers;
};

Agent::Agent(AgentOptions options)
    : options_(std::move(options)),
      volumes_(options_.settings, options_.objects),
      cgroups_(options_.cgroup_mount),
      context_{options_.executor, *options_.clock, options_.settings, options_.runtime, options_.objects,
               volumes_,          cgroups_,        *options_.api,     options_.event,   [this] { expect_change(false); }},
      wakeup_(options_.executor),
      tend_wakeup_(options_.executor) {}

Agent::~Agent() = default;

void Agent::start() {
  loops_ = 2;
  options_.runtime->on_activity([this] { expect_change(true); });
  options_.objects->on_change([this](const std::string& uid) { objects_changed(uid); });
  net::co_spawn(options_.executor, look_loop(), [this](std::exception_ptr) { --loops_; });
  net::co_spawn(options_.executor, tend_loop(), [this](std::exception_ptr) { --loops_; });
}

Task<> Agent::stop() {
  stopping_ = true;
  options_.runtime->on_activity({});
  for (auto& [uid, worker] : workers_) worker->stop();
  wakeup_.notify();
  tend_wakeup_.notify();
  while (loops_ > 0) co_await sleep_for(kStopPoll);
  // Actions under way hold their worker; they refer to this agent.
  for (const auto& [uid, worker] : workers_)
    while (worker.use_count() > 1) co_await sleep_for(kStopPoll);
  workers_.clear();
}

void Agent::expect_change(bool burst) {
  if (burst) quick_looks_ = kQuick.size();
  wakeup_.notify();
}

void Agent::set_pod(std::shared_ptr<const corev1::Pod> pod) {
  if (stopping_) return;
  const std::string& uid = pod->metadata().uid();
  if (const auto it = workers_.find(uid); it != workers_.end()) return it->second->update(std::move(pod));
  const auto refusal = admit(*pod);
  auto worker = std::make_shared<PodWorker>(context_, pod, PodWorker::Origin::api);
  workers_[uid] = worker;
  if (refusal && !ended(*pod) && !fingerprints_.contains(uid)) {
    options_.event(*pod, "", "Warning", refusal->reason.c_str(), refusal->message);
    worker->reject(*refusal);
  }
  worker->start();
}

void Agent::forget_pod(const std::string& uid) {
  if (const auto it = workers_.find(uid); it != workers_.end()) it->second->gone();
  wakeup_.notify();
}

void Agent::set_synced() {
  synced_ = true;
  wakeup_.notify();
}

void Agent::objects_changed(const std::string& pod_uid) {
  if (const auto it = workers_.find(pod_uid); it != workers_.end()) it->second->objects_changed();
}

// ---- looking at the runtime

Task<> Agent::look_loop() {
  while (!stopping_) {
    const bool ok = co_await look();
    if (stopping_) break;
    std::erase_if(workers_, [](const auto& w) { return w.second->finished(); });
    if (ok && synced_ && !swept_) {
      swept_ = true;
      sweep_folders();
    }
    if (quick_looks_ > 0)
      co_await wakeup_.wait(kQuick[kQuick.size() - quick_looks_--]);
    else
      co_await wakeup_.wait(kLookPeriod);
  }
}

Task<> Agent::tend_loop() {
  while (!stopping_) {
    co_await tend_wakeup_.wait(kTendPeriod);
    std::vector<std::shared_ptr<PodWorker>> all;
    for (const auto& [uid, worker] : workers_) all.push_back(worker);
    for (const auto& worker : all) {
      if (stopping_) break;
      co_await worker->tend();
    }
  }
}

Task<bool> Agent::look() {
  auto sandboxes = co_await options_.runtime->list_sandboxes("");
  if (!sandboxes) {
    log::debug("{}", sandboxes.error().message);
    co_return false;
  }
  auto containers = co_await options_.runtime->list_containers("");
  if (!containers) {
    log::debug("{}", containers.error().message);
    co_return false;
  }
  std::map<std::string, std::set<std::string>> parts;
  std::map<std::string, Seen> seen;
  for (const SandboxRecord& s : *sandboxes) {
    if (s.pod_uid.empty()) continue;  // not a pod's
    parts[s.pod_uid].insert(s.id + (s.ready ? "+" : "-"));
    seen[s.pod_uid].name = s.pod_name;
    seen[s.pod_uid].ns = s.pod_namespace;
  }
  for (const ContainerRecord& c : *containers) {
    if (c.pod_uid.empty()) continue;
    parts[c.pod_uid].insert(fmt::format("{}:{}", c.id, static_cast<int>(c.phase)));
    Seen& s = seen[c.pod_uid];
    s.name = c.pod_name;
    s.ns = c.pod_namespace;
    s.grace = std::max(s.grace, c.grace_period);
    s.containers.push_back(c.name);
  }
  for (auto& [uid, ids] : parts)
    for (const std::string& id : ids) seen[uid].fingerprint += id + " ";
  last_look_ = options_.clock->steady();
  handle_seen(std::move(seen));
  co_return true;
}

void Agent::handle_seen(std::map<std::string, Seen> seen) {
  std::map<std::string, std::string> now;
  for (auto& [uid, s] : seen) {
    const auto before = fingerprints_.find(uid);
    const bool changed = before == fingerprints_.end() || before->second != s.fingerprint;
    const auto worker = workers_.find(uid);
    if (worker != workers_.end()) {
      if (changed) worker->second->runtime_changed();
    } else if (synced_ && !stopping_) {
      adopt_orphan(uid, s);
    }
    now[uid] = std::move(s.fingerprint);
  }
  for (const auto& [uid, fingerprint] : fingerprints_)  // all of a pod vanished
    if (const auto worker = workers_.find(uid); worker != workers_.end() && !now.contains(uid)) worker->second->runtime_changed();
  fingerprints_ = std::move(now);
}

// A pod of which only the runtime knows: it is stopped in order and removed.
void Agent::adopt_orphan(const std::string& uid, const Seen& seen) {
  log::info("pod {}/{} ({}) is not in the API any more: removing it", seen.ns, seen.name, uid);
  auto pod = std::make_shared<corev1::Pod>();
  pod->mutable_metadata()->set_uid(uid);
  pod->mutable_metadata()->set_name(seen.name);
  pod->mutable_metadata()->set_namespace_(seen.ns);
  pod->mutable_spec()->set_terminationgraceperiodseconds(seen.grace >= 0 ? seen.grace : 30);
  for (const std::string& name : std::set<std::string>(seen.containers.begin(), seen.containers.end()))
    pod->mutable_spec()->add_containers()->set_name(name);
  auto worker = std::make_shared<PodWorker>(context_, std::move(pod), PodWorker::Origin::orphan);
  workers_[uid] = worker;
  worker->start();
}

// Folders of pods that went while no agent ran.
void Agent::sweep_folders() {
  std::error_code ec;
  const std::filesystem::path root = options_.settings.root_dir + "/pods";
  for (std::filesystem::directory_iterator it(root, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string uid = it->path().filename().string();
    if (workers_.contains(uid)) continue;
    auto r = volumes_.teardown(uid);
    if (!r) log::warn("folder of a pod that is gone: {}", r.error().message);
    for (const std::string& path : pod_cgroups(options_.settings, uid)) (void)cgroups_.remove(path);
  }
}

// ---- admission

std::optional<Waiting> Agent::admit(const corev1::Pod& pod) const {
  std::vector<std::shared_ptr<const corev1::Pod>> others;
  for (const auto& [uid, worker] : workers_) others.push_back(worker->pod());
  return admission_refusal(pod, others, options_.settings);
}

std::optional<Waiting> admission_refusal(const corev1::Pod& pod, const std::vector<std::shared_ptr<const corev1::Pod>>& others,
                                         const Settings& settings) {
  int count = 0;
  std::int64_t cpu = 0, memory = 0;
  const auto add = [&](const corev1::Pod& p) {
    for (const auto& c : p.spec().containers()) {
      for (const char* resource : {"cpu", "memory"}) {
        const auto it = c.resources().requests().find(resource);
        if (it == c.resources().requests().end()) continue;
        const auto q = kube::Quantity::parse(it->second.string());
        if (q) (resource[0] == 'c' ? cpu : memory) += resource[0] == 'c' ? q->milli() : q->value();
      }
    }
  };
  const auto host_ports = [](const corev1::Pod& p) {
    std::set<std::string> out;
    for (const auto& c : p.spec().containers())
      for (const auto& port : c.ports())
        if (port.hostport() > 0)
          out.insert(fmt::format("{}/{}/{}", port.hostip(), port.hostport(), port.protocol().empty() ? "TCP" : port.protocol()));
    return out;
  };
  const std::set<std::string> wanted = host_ports(pod);
  for (const auto& other : others) {
    if (ended(*other) || other->metadata().uid() == pod.metadata().uid()) continue;
    ++count;
    add(*other);
    for (const std::string& port : host_ports(*other))
      if (wanted.contains(port))
        return Waiting{"NodePorts", fmt::format("host port {} is in use by pod {}/{}", port, other->metadata().namespace_(),
                                                other->metadata().name())};
  }
  if (count >= settings.max_pods)
    return Waiting{"OutOfpods", fmt::format("Node didn't have enough resource: pods, requested: 1, used: {}, capacity: {}", count,
                                            settings.max_pods)};
  const std::int64_t used_cpu = cpu, used_memory = memory;
  add(pod);
  if (settings.cpu_milli > 0 && cpu > settings.cpu_milli && cpu > used_cpu)
    return Waiting{"OutOfcpu", fmt::format("Node didn't have enough resource: cpu, requested: {}, used: {}, capacity: {}",
                                           cpu - used_cpu, used_cpu, settings.cpu_milli)};
  if (settings.memory_bytes > 0 && memory > settings.memory_bytes && memory > used_memory)
    return Waiting{"OutOfmemory", fmt::format("Node didn't have enough resource: memory, requested: {}, used: {}, capacity: {}",
                                              memory - used_memory, used_memory, settings.memory_bytes)};
  return std::nullopt;
}

// ---- for the server

const PodWorker* Agent::find(const std::string& ns, const std::string& name) const {
  const PodWorker* out = nullptr;
  for (const auto& [uid, worker] : workers_) {
    const auto& m = worker->pod()->metadata();
    if (m.name() != name || m.namespace_() != ns) continue;
    if (!out || out->pod()->metadata().creationtimestamp().seconds() < m.creationtimestamp().seconds()) out = worker.get();
  }
  return out;
}

std::vector<std::shared_ptr<const corev1::Pod>> Agent::pods() const {
  std::vector<std::shared_ptr<const corev1::Pod>> out;
  for (const auto& [uid, worker] : workers_) {
    auto pod = std::make_shared<corev1::Pod>(*worker->pod());
    *pod->mutable_status() = worker->status();
    out.push_back(std::move(pod));
  }
  return out;
}

std::size_t Agent::running_containers() const {
  std::size_t n = 0;
  for (const auto& [uid, worker] : workers_)
    for (const ContainerRecord& c : worker->observed().containers) n += c.phase == ContainerPhase::running;
  return n;
}

}  // namespace fairlead::kubelet
