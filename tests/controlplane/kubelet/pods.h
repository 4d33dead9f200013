// Short ways to write pods and what a runtime shows of them, for tables in tests.
#pragma once

#include <memory>
#include <string>

#include "controlplane/kubelet/decide.h"

namespace fairlead::kubelet::testing_pods {

// Times in tests count from here.
inline WallTime at(double seconds) {
  return WallTime(std::chrono::hours(24 * 365 * 56)) +
         std::chrono::duration_cast<WallTime::duration>(std::chrono::duration<double>(seconds));
}

inline corev1::Pod pod(const std::string& restart_policy = "Always") {
  corev1::Pod p;
  p.mutable_metadata()->set_name("web");
  p.mutable_metadata()->set_namespace_("default");
  p.mutable_metadata()->set_uid("u1");
  p.mutable_metadata()->set_generation(3);
  p.mutable_spec()->set_restartpolicy(restart_policy);
  return p;
}
inline corev1::Container* add_main(corev1::Pod& p, const std::string& name) {
  auto* c = p.mutable_spec()->add_containers();
  c->set_name(name);
  c->set_image("img:1");
  return c;
}
inline corev1::Container* add_init(corev1::Pod& p, const std::string& name, bool sidecar = false) {
  auto* c = p.mutable_spec()->add_initcontainers();
  c->set_name(name);
  c->set_image("img:1");
  if (sidecar) c->set_restartpolicy("Always");
  return c;
}

inline SandboxRecord sandbox(const std::string& id, bool ready = true, unsigned attempt = 0) {
  SandboxRecord s;
  s.id = id;
  s.ready = ready;
  s.attempt = attempt;
  s.ips = {"10.0.0.7"};
  s.created_at = at(attempt);
  return s;
}
inline ContainerRecord running(const std::string& name, const std::string& sandbox_id = "s0", unsigned attempt = 0) {
  ContainerRecord r;
  r.id = name + "-" + sandbox_id + "-" + std::to_string(attempt);
  r.name = name;
  r.sandbox_id = sandbox_id;
  r.attempt = attempt;
  r.phase = ContainerPhase::running;
  r.started_at = at(1);
  r.created_at = at(1);
  return r;
}
inline ContainerRecord exited(const std::string& name, int code, const std::string& sandbox_id = "s0", unsigned attempt = 0,
                              double finished = 10) {
  ContainerRecord r = running(name, sandbox_id, attempt);
  r.phase = ContainerPhase::exited;
  r.exit_code = code;
  r.finished_at = at(finished);
  return r;
}

inline PodObservation observed(std::vector<SandboxRecord> sandboxes, std::vector<ContainerRecord> containers = {}) {
  PodObservation o{std::move(sandboxes), std::move(containers)};
  o.sort();
  return o;
}

inline PodMemory memory() {
  PodMemory m;
  m.volumes = VolumeState::ready;
  m.start_time = at(0);
  return m;
}

// "create sandbox 0; start app 0" ...; "finished" at the end when it is.
inline std::string text(const Decision& d) {
  std::string out;
  for (const Action& a : d.actions) out += (out.empty() ? "" : "; ") + to_string(a);
  if (d.finished) out += out.empty() ? "finished" : "; finished";
  return out;
}

}  // namespace fairlead::kubelet::testing_pods
