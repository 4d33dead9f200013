// Printers of Pod, ReplicaSet and Deployment.
#include <fmt/core.h>

#include <algorithm>
#include <optional>

#include "controlplane/apiserver/tables/table.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/core/v1/pod.pb.h"

namespace fairlead::apiserver {
namespace {

struct PodSummary {
  std::string reason;
  int ready = 0;
  int total = 0;
  int restarts = 0;
  std::optional<WallTime> last_restart;
};

void count_restarts(const corev1::ContainerStatus& c, int& restarts, std::optional<WallTime>& last) {
  restarts += c.restartcount();
  if (!c.laststate().has_terminated() || !c.laststate().terminated().has_finishedat()) return;
  const auto at = from_time(c.laststate().terminated().finishedat());
  if (!last || *last < at) last = at;
}

std::string exit_text(const corev1::ContainerStateTerminated& t) {
  if (!t.reason().empty()) return t.reason();
  return t.signal() ? fmt::format("Signal:{}", t.signal()) : fmt::format("ExitCode:{}", t.exitcode());
}

bool has_true_condition(const corev1::Pod& pod, std::string_view type) {
  for (const auto& c : pod.status().conditions())
    if (c.type() == type) return c.status() == "True";
  return false;
}

bool restartable_init(const corev1::Pod& pod, const std::string& name) {
  for (const auto& c : pod.spec().initcontainers())
    if (c.name() == name) return c.restartpolicy() == "Always";
  return false;
}

// True while init containers are still at work; the reason tells how far they are.
bool summarise_init(const corev1::Pod& pod, PodSummary& s, int& sidecar_restarts, std::optional<WallTime>& sidecar_last) {
  for (int i = 0; i < pod.status().initcontainerstatuses_size(); ++i) {
    const auto& c = pod.status().initcontainerstatuses(i);
    const bool sidecar = restartable_init(pod, c.name());
    count_restarts(c, s.restarts, s.last_restart);
    if (sidecar) count_restarts(c, sidecar_restarts, sidecar_last);
    const auto& state = c.state();
    if (state.has_terminated() && state.terminated().exitcode() == 0) continue;
    if (sidecar && c.started()) {
      if (c.ready()) ++s.ready;
      continue;
    }
    if (state.has_terminated())
      s.reason = "Init:" + exit_text(state.terminated());
    else if (state.has_waiting() && !state.waiting().reason().empty() && state.waiting().reason() != "PodInitializing")
      s.reason = "Init:" + state.waiting().reason();
    else
      s.reason = fmt::format("Init:{}/{}", i, pod.spec().initcontainers_size());
    return true;
  }
  return false;
}

void summarise_main(const corev1::Pod& pod, PodSummary& s) {
  bool running = false;
  for (int i = pod.status().containerstatuses_size() - 1; i >= 0; --i) {
    const auto& c = pod.status().containerstatuses(i);
    count_restarts(c, s.restarts, s.last_restart);
    if (c.state().has_waiting() && !c.state().waiting().reason().empty()) {
      s.reason = c.state().waiting().reason();
    } else if (c.state().has_terminated()) {
      s.reason = exit_text(c.state().terminated());
    } else if (c.ready() && c.state().has_running()) {
      running = true;
      ++s.ready;
    }
  }
  if (s.reason == "Completed" && running) s.reason = has_true_condition(pod, "Ready") ? "Running" : "NotReady";
}

PodSummary summarise(const corev1::Pod& pod) {
  PodSummary s;
  s.reason = pod.status().reason().empty() ? pod.status().phase() : pod.status().reason();
  for (const auto& c : pod.status().conditions())
    if (c.type() == "PodScheduled" && c.reason() == "SchedulingGated") s.reason = c.reason();
  s.total = pod.spec().containers_size();
  for (const auto& c : pod.spec().initcontainers())
    if (c.restartpolicy() == "Always") ++s.total;
  int sidecar_restarts = 0;
  std::optional<WallTime> sidecar_last;
  const bool initialising = summarise_init(pod, s, sidecar_restarts, sidecar_last);
  if (!initialising || has_true_condition(pod, "Initialized")) {
    s.restarts = sidecar_restarts;
    s.last_restart = sidecar_last;
    summarise_main(pod, s);
  }
  const auto& phase = pod.status().phase();
  if (pod.metadata().has_deletiontimestamp()) {
    if (pod.status().reason() == "NodeLost")
      s.reason = "Unknown";
    else if (phase != "Succeeded" && phase != "Failed")
      s.reason = "Terminating";
  }
  return s;
}

std::string or_none(const std::string& s) { return s.empty() ? "<none>" : s; }

std::string readiness_gates(const corev1::Pod& pod) {
  if (pod.spec().readinessgates_size() == 0) return "<none>";
  int met = 0;
  for (const auto& g : pod.spec().readinessgates()) met += has_true_condition(pod, g.conditiontype());
  return fmt::format("{}/{}", met, pod.spec().readinessgates_size());
}

void print_pod(const Message& o, WallTime now, Row& row) {
  const auto& pod = static_cast<const corev1::Pod&>(o);
  const auto s = summarise(pod);
  const auto& m = pod.metadata();
  auto restarts = std::to_string(s.restarts);
  if (s.restarts && s.last_restart) restarts += fmt::format(" ({} ago)", human_duration(now - *s.last_restart));
  const auto& ip = pod.status().podips_size() ? pod.status().podips(0).ip() : pod.status().podip();
  row.cells = {m.name(),
               fmt::format("{}/{}", s.ready, s.total),
               s.reason,
               restarts,
               age_of(m.creationtimestamp(), m.has_creationtimestamp(), now),
               or_none(ip),
               or_none(pod.spec().nodename()),
               or_none(pod.status().nominatednodename()),
               readiness_gates(pod)};
  if (pod.status().phase() == "Succeeded")
    row.conditions.push_back({{"type", "Completed"}, {"status", "True"}, {"reason", "Succeeded"},
                              {"message", "The pod has completed successfully."}});
  else if (pod.status().phase() == "Failed")
    row.conditions.push_back({{"type", "Completed"}, {"status", "True"}, {"reason", "Failed"}, {"message", "The pod failed."}});
}

struct ContainerNames {
  std::string names, images;
  explicit ContainerNames(const corev1::PodSpec& spec) {
    for (const auto& c : spec.containers()) {
      names += (names.empty() ? "" : ",") + c.name();
      images += (images.empty() ? "" : ",") + c.image();
    }
  }
};

void print_replica_set(const Message& o, WallTime now, Row& row) {
  const auto& rs = static_cast<const appsv1::ReplicaSet&>(o);
  const auto& m = rs.metadata();
  const ContainerNames c(rs.spec().template_().spec());
  row.cells = {m.name(), rs.spec().replicas(), rs.status().replicas(), rs.status().readyreplicas(),
               age_of(m.creationtimestamp(), m.has_creationtimestamp(), now), c.names, c.images, selector_text(rs.spec().selector())};
}

void print_deployment(const Message& o, WallTime now, Row& row) {
  const auto& d = static_cast<const appsv1::Deployment&>(o);
  const auto& m = d.metadata();
  const ContainerNames c(d.spec().template_().spec());
  row.cells = {m.name(), fmt::format("{}/{}", d.status().readyreplicas(), d.spec().replicas()), d.status().updatedreplicas(),
               d.status().availablereplicas(), age_of(m.creationtimestamp(), m.has_creationtimestamp(), now), c.names, c.images,
               selector_text(d.spec().selector())};
}

constexpr Column kContainers{"Containers", "string", "", "Names of each container in the template.", 1};
constexpr Column kImages{"Images", "string", "", "Images referenced by each container in the template.", 1};
constexpr Column kSelector{"Selector", "string", "", "Label selector for pods.", 1};

}  // namespace

const TablePrinter& pod_printer() {
  static const TablePrinter p({kNameColumn,
                               {"Ready", "string", "", "Containers that are ready, of all that count for readiness.", 0},
                               {"Status", "string", "", "The most telling state of the containers in this pod.", 0},
                               {"Restarts", "string", "", "Restarts of the containers, and when the last one was.", 0},
                               kAgeColumn,
                               {"IP", "string", "", "Primary address of the pod.", 1},
                               {"Node", "string", "", "Node that the pod is assigned to.", 1},
                               {"Nominated Node", "string", "", "Node where preemption makes room for this pod.", 1},
                               {"Readiness Gates", "string", "", "Extra conditions that are met, of all that are asked for.", 1}},
                              print_pod);
  return p;
}

const TablePrinter& replica_set_printer() {
  static const TablePrinter p({kNameColumn,
                               {"Desired", "integer", "", "Pods that are wanted.", 0},
                               {"Current", "integer", "", "Pods that exist.", 0},
                               {"Ready", "integer", "", "Pods that are ready.", 0},
                               kAgeColumn, kContainers, kImages, kSelector},
                              print_replica_set);
  return p;
}

const TablePrinter& deployment_printer() {
  static const TablePrinter p({kNameColumn,
                               {"Ready", "string", "", "Pods that are ready, of those wanted.", 0},
                               {"Up-to-date", "string", "", "Pods that have the newest template.", 0},
                               {"Available", "string", "", "Pods that have been ready for minReadySeconds.", 0},
                               kAgeColumn, kContainers, kImages, kSelector},
                              print_deployment);
  return p;
}

}  // namespace fairlead::apiserver
