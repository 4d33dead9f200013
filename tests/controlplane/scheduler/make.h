// Pods and nodes for scheduler tests, said briefly.
#pragma once

#include "base/random.h"
#include "controlplane/scheduler/decide.h"

namespace fairlead::scheduler {

struct NodeMaker {
  corev1::Node node;
  explicit NodeMaker(const std::string& name) {
    node.mutable_metadata()->set_name(name);
    label(hostname_label, name);
    capacity("4", "32Gi").allocatable("pods", "110");
    auto* c = node.mutable_status()->add_conditions();
    c->set_type("Ready");
    c->set_status("True");
  }
  NodeMaker& label(const std::string& k, const std::string& v) { return (*node.mutable_metadata()->mutable_labels())[k] = v, *this; }
  NodeMaker& allocatable(const std::string& k, const std::string& v) {
    (*node.mutable_status()->mutable_allocatable())[k].set_string(v);
    return *this;
  }
  NodeMaker& capacity(const std::string& cpu, const std::string& memory) { return allocatable("cpu", cpu).allocatable("memory", memory); }
  NodeMaker& taint(const std::string& k, const std::string& v, const std::string& effect) {
    auto* t = node.mutable_spec()->add_taints();
    t->set_key(k);
    t->set_value(v);
    t->set_effect(effect);
    return *this;
  }
  NodeMaker& ready(const std::string& status) { return node.mutable_status()->mutable_conditions(0)->set_status(status), *this; }
  NodeMaker& cordon() { return node.mutable_spec()->set_unschedulable(true), *this; }
  std::shared_ptr<const corev1::Node> get() const { return std::make_shared<const corev1::Node>(node); }
};

struct PodMaker {
  corev1::Pod pod;
  explicit PodMaker(const std::string& name, const std::string& ns = "default") {
    pod.mutable_metadata()->set_name(name);
    pod.mutable_metadata()->set_namespace_(ns);
    pod.mutable_metadata()->set_uid("uid-" + ns + "-" + name);
    pod.mutable_spec()->add_containers()->set_name("c");
  }
  corev1::Container& container(int i = 0) { return *pod.mutable_spec()->mutable_containers(i); }
  PodMaker& request(const std::string& k, const std::string& v) {
    (*container().mutable_resources()->mutable_requests())[k].set_string(v);
    return *this;
  }
  PodMaker& label(const std::string& k, const std::string& v) { return (*pod.mutable_metadata()->mutable_labels())[k] = v, *this; }
  PodMaker& on(const std::string& node) { return pod.mutable_spec()->set_nodename(node), *this; }
  PodMaker& priority(int p) { return pod.mutable_spec()->set_priority(p), *this; }
  PodMaker& node_selector(const std::string& k, const std::string& v) {
    (*pod.mutable_spec()->mutable_nodeselector())[k] = v;
    return *this;
  }
  PodMaker& host_port(int port, const std::string& protocol = "TCP", const std::string& ip = "") {
    auto* p = container().add_ports();
    p->set_hostport(port);
    p->set_containerport(port);
    p->set_protocol(protocol);
    p->set_hostip(ip);
    return *this;
  }
  PodMaker& tolerate(const std::string& k, const std::string& op, const std::string& v = "", const std::string& effect = "") {
    auto* t = pod.mutable_spec()->add_tolerations();
    t->set_key(k);
    t->set_operator_(op);
    t->set_value(v);
    t->set_effect(effect);
    return *this;
  }
  PodMaker& spread(int skew, const std::string& key, const std::string& when, const std::string& label, const std::string& value) {
    auto* c = pod.mutable_spec()->add_topologyspreadconstraints();
    c->set_maxskew(skew);
    c->set_topologykey(key);
    c->set_whenunsatisfiable(when);
    (*c->mutable_labelselector()->mutable_matchlabels())[label] = value;
    return *this;
  }
  corev1::PodAffinityTerm* affinity_term(const std::string& key, const std::string& label, const std::string& value, bool anti) {
    auto* a = pod.mutable_spec()->mutable_affinity();
    auto* t = anti ? a->mutable_podantiaffinity()->add_requiredduringschedulingignoredduringexecution()
                   : a->mutable_podaffinity()->add_requiredduringschedulingignoredduringexecution();
    t->set_topologykey(key);
    (*t->mutable_labelselector()->mutable_matchlabels())[label] = value;
    return t;
  }
  PodMaker& near(const std::string& key, const std::string& l, const std::string& v) { return affinity_term(key, l, v, false), *this; }
  PodMaker& apart(const std::string& key, const std::string& l, const std::string& v) { return affinity_term(key, l, v, true), *this; }
  PodInfoPtr get() const {
    return make_pod_info(std::make_shared<const corev1::Pod>(pod)).value();
  }
};

}  // namespace fairlead::scheduler
