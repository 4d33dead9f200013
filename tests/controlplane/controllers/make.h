// Objects for controller tests, said briefly.
#pragma once

#include <memory>
#include <string>

#include "controlplane/controllers/objects.h"
#include "kube/proto/apps/v1.pb.h"
#include "kube/proto/core/v1/node.pb.h"
#include "kube/proto/core/v1/pod.pb.h"
#include "kube/proto/core/v1/service.pb.h"

namespace fairlead::controllers {

inline const WallTime epoch = WallTime(std::chrono::seconds(1'800'000'000));

struct TestPod {
  corev1::Pod pod;
  explicit TestPod(const std::string& name) {
    auto* m = pod.mutable_metadata();
    m->set_name(name);
    m->set_namespace_("default");
    m->set_uid("uid-" + name);
    *m->mutable_creationtimestamp() = to_time(epoch);
    (*m->mutable_labels())["app"] = "web";
    pod.mutable_spec()->add_containers()->set_name("c");
    pod.mutable_status()->set_phase("Pending");
  }
  TestPod& on(const std::string& node) { return pod.mutable_spec()->set_nodename(node), *this; }
  TestPod& phase(const std::string& p) { return pod.mutable_status()->set_phase(p), *this; }
  TestPod& ready(bool yes = true, WallTime since = epoch) {
    auto* c = find_condition(*pod.mutable_status()->mutable_conditions(), "Ready");
    if (!c) c = pod.mutable_status()->add_conditions();
    c->set_type("Ready");
    c->set_status(yes ? "True" : "False");
    *c->mutable_lasttransitiontime() = to_time(since);
    return phase("Running");
  }
  TestPod& ip(const std::string& v4, const std::string& v6 = "") {
    pod.mutable_status()->set_podip(v4.empty() ? v6 : v4);
    if (!v4.empty()) pod.mutable_status()->add_podips()->set_ip(v4);
    if (!v6.empty()) pod.mutable_status()->add_podips()->set_ip(v6);
    return *this;
  }
  TestPod& label(const std::string& k, const std::string& v) { return (*pod.mutable_metadata()->mutable_labels())[k] = v, *this; }
  TestPod& annotate(const std::string& k, const std::string& v) { return (*pod.mutable_metadata()->mutable_annotations())[k] = v, *this; }
  TestPod& deleting() { return *pod.mutable_metadata()->mutable_deletiontimestamp() = to_time(epoch), *this; }
  TestPod& created(WallTime t) { return *pod.mutable_metadata()->mutable_creationtimestamp() = to_time(t), *this; }
  TestPod& restarts(int n) { return pod.mutable_status()->add_containerstatuses()->set_restartcount(n), *this; }
  TestPod& owned(const std::string& kind, const std::string& name, const std::string& uid) {
    auto* r = pod.mutable_metadata()->add_ownerreferences();
    r->set_kind(kind);
    r->set_name(name);
    r->set_uid(uid);
    r->set_controller(true);
    return *this;
  }
  TestPod& port(const std::string& name, int number, const std::string& protocol = "TCP") {
    auto* p = pod.mutable_spec()->mutable_containers(0)->add_ports();
    p->set_name(name);
    p->set_containerport(number);
    p->set_protocol(protocol);
    return *this;
  }
  std::shared_ptr<const corev1::Pod> get() const { return std::make_shared<const corev1::Pod>(pod); }
};

inline std::shared_ptr<const corev1::Node> test_node(const std::string& name, const std::string& zone = "", const std::string& ready = "True") {
  auto n = std::make_shared<corev1::Node>();
  n->mutable_metadata()->set_name(name);
  n->mutable_metadata()->set_uid("uid-" + name);
  if (!zone.empty()) (*n->mutable_metadata()->mutable_labels())["topology.kubernetes.io/zone"] = zone;
  auto* c = n->mutable_status()->add_conditions();
  c->set_type("Ready");
  c->set_status(ready);
  return n;
}

inline corev1::PodTemplateSpec test_template(const std::string& image = "web:1") {
  corev1::PodTemplateSpec t;
  (*t.mutable_metadata()->mutable_labels())["app"] = "web";
  auto* c = t.mutable_spec()->add_containers();
  c->set_name("c");
  c->set_image(image);
  return t;
}

inline appsv1::ReplicaSet test_set(int replicas, const std::string& name = "web-1") {
  appsv1::ReplicaSet rs;
  rs.mutable_metadata()->set_name(name);
  rs.mutable_metadata()->set_namespace_("default");
  rs.mutable_metadata()->set_uid("uid-" + name);
  rs.mutable_metadata()->set_generation(1);
  rs.mutable_spec()->set_replicas(replicas);
  (*rs.mutable_spec()->mutable_selector()->mutable_matchlabels())["app"] = "web";
  *rs.mutable_spec()->mutable_template_() = test_template();
  return rs;
}

inline appsv1::Deployment test_deployment(int replicas, const std::string& surge = "25%", const std::string& unavailable = "25%") {
  appsv1::Deployment d;
  d.mutable_metadata()->set_name("web");
  d.mutable_metadata()->set_namespace_("default");
  d.mutable_metadata()->set_uid("uid-web");
  d.mutable_metadata()->set_generation(1);
  auto* s = d.mutable_spec();
  s->set_replicas(replicas);
  (*s->mutable_selector()->mutable_matchlabels())["app"] = "web";
  *s->mutable_template_() = test_template();
  s->mutable_strategy()->set_type("RollingUpdate");
  const auto set = [](intstr::IntOrString* v, const std::string& text) {
    v->set_type(text.ends_with('%') ? 1 : 0);
    if (text.ends_with('%')) v->set_strval(text);
    else v->set_intval(std::stoi(text));
  };
  set(s->mutable_strategy()->mutable_rollingupdate()->mutable_maxsurge(), surge);
  set(s->mutable_strategy()->mutable_rollingupdate()->mutable_maxunavailable(), unavailable);
  s->set_progressdeadlineseconds(600);
  s->set_revisionhistorylimit(10);
  return d;
}

inline corev1::Service test_service(const std::string& name = "web") {
  corev1::Service s;
  s.mutable_metadata()->set_name(name);
  s.mutable_metadata()->set_namespace_("default");
  s.mutable_metadata()->set_uid("uid-svc-" + name);
  *s.mutable_metadata()->mutable_creationtimestamp() = to_time(epoch);
  (*s.mutable_spec()->mutable_selector())["app"] = "web";
  s.mutable_spec()->set_clusterip("10.96.0.10");
  s.mutable_spec()->add_ipfamilies("IPv4");
  auto* p = s.mutable_spec()->add_ports();
  p->set_name("http");
  p->set_protocol("TCP");
  p->set_port(80);
  p->mutable_targetport()->set_type(0);
  p->mutable_targetport()->set_intval(8080);
  return s;
}

}  // namespace fairlead::controllers
