// The Node object, the patches that go to the API, admission, and who may ask the server.
#include <gmock/gmock.h>

#include <boost/json/parse.hpp>

#include "controlplane/kubelet/node_reporter.h"
#include "controlplane/kubelet/server.h"
#include "tests/controlplane/kubelet/pods.h"

namespace fairlead::kubelet {
namespace {

using namespace testing_pods;
using testing::HasSubstr;

TEST(Taints, Flag) {
  const auto t = parse_taints("a=b:NoSchedule,c:NoExecute,d=:PreferNoSchedule");
  ASSERT_TRUE(t);
  ASSERT_EQ(t->size(), 3u);
  EXPECT_EQ((*t)[0].value(), "b");
  EXPECT_EQ((*t)[1].key(), "c");
  EXPECT_EQ((*t)[2].effect(), "PreferNoSchedule");
  EXPECT_TRUE(parse_taints("")->empty());
  for (const char* bad : {"a", "a=b", "a:Never", ":NoSchedule", "a=b:"}) EXPECT_FALSE(parse_taints(bad)) << bad;
  EXPECT_EQ(parse_labels("a=b,c=")->at("c"), "");
  for (const char* bad : {"a", "=b"}) EXPECT_FALSE(parse_labels(bad)) << bad;
}

NodeHealth healthy() {
  NodeHealth h;
  h.runtime_answers = true;
  h.runtime = {true, true, "", ""};
  h.version = {"containerd", "1.6.20"};
  h.available_memory_bytes = 1ll << 30;
  return h;
}

Settings settings() {
  Settings s;
  s.node_name = "n1";
  s.node_ips = {"192.168.0.1"};
  return s;
}

std::string condition(const corev1::NodeStatus& s, const std::string& type) {
  for (const auto& c : s.conditions())
    if (c.type() == type) return c.status() + " " + c.reason();
  return "";
}

TEST(NodeStatus, Conditions) {
  Machine m{4, 8ll << 30, 100ll << 30, "id", "uuid", "boot", "6.1", "Debian", "amd64"};
  const auto status = [&](const NodeHealth& h) { return make_node_status(settings(), m, {}, h, {}, {}, at(5)); };
  const auto good = status(healthy());
  EXPECT_EQ(condition(good, "Ready"), "True KubeletReady");
  EXPECT_EQ(condition(good, "MemoryPressure"), "False KubeletHasSufficientMemory");
  EXPECT_EQ(good.capacity().at("cpu").string(), "4");
  EXPECT_EQ(good.capacity().at("memory").string(), "8388608Ki");
  EXPECT_EQ(good.capacity().at("pods").string(), "110");
  EXPECT_EQ(good.addresses(0).address(), "192.168.0.1");
  EXPECT_EQ(good.nodeinfo().containerruntimeversion(), "containerd://1.6.20");
  EXPECT_EQ(good.daemonendpoints().kubeletendpoint().port(), 10250);
  NodeHealth h = healthy();
  h.runtime.network_ready = false;
  EXPECT_EQ(condition(status(h), "Ready"), "False KubeletNotReady");
  h = healthy();
  h.runtime_answers = false;
  EXPECT_EQ(condition(status(h), "Ready"), "False KubeletNotReady");
  h = healthy();
  h.available_memory_bytes = 1 << 20;
  h.free_storage = 0.05;
  h.free_pids = 5;
  EXPECT_EQ(condition(status(h), "MemoryPressure"), "True KubeletHasInsufficientMemory");
  EXPECT_EQ(condition(status(h), "DiskPressure"), "True KubeletHasDiskPressure");
  EXPECT_EQ(condition(status(h), "PIDPressure"), "True KubeletHasInsufficientPID");
}

TEST(NodeStatus, HeartbeatsAloneAreNoChange) {
  const Machine m{};
  const auto first = make_node_status(settings(), m, {}, healthy(), {}, {}, at(5));
  const auto second = make_node_status(settings(), m, {}, healthy(), {}, first, at(50));
  EXPECT_FALSE(node_status_changed(first, second));
  EXPECT_EQ(second.conditions(0).lasttransitiontime().seconds(), first.conditions(0).lasttransitiontime().seconds());
  EXPECT_GT(second.conditions(0).lastheartbeattime().seconds(), first.conditions(0).lastheartbeattime().seconds());
  NodeHealth h = healthy();
  h.runtime_answers = false;
  EXPECT_TRUE(node_status_changed(first, make_node_status(settings(), m, {}, h, {}, first, at(50))));
  EXPECT_EQ(node_status_patch(first, first), "");
  EXPECT_THAT(node_status_patch(first, second), HasSubstr("conditions"));
  EXPECT_THAT(node_status_patch(first, second), testing::Not(HasSubstr("capacity")));
}

TEST(Node, LabelsAndTaints) {
  NodeIdentity identity;
  identity.labels = {{"zone", "a"}};
  identity.taints = *parse_taints("k:NoSchedule");
  Machine m;
  m.architecture = "amd64";
  const auto node = make_node(settings(), m, identity);
  EXPECT_EQ(node.metadata().labels().at("kubernetes.io/hostname"), "n1");
  EXPECT_EQ(node.metadata().labels().at("kubernetes.io/arch"), "amd64");
  EXPECT_EQ(node.metadata().labels().at("zone"), "a");
  EXPECT_EQ(node.spec().taints(0).key(), "k");
}

TEST(StatusPatch, OnlyWhatDiffers) {
  corev1::PodStatus from, to;
  from.set_phase("Pending");
  from.set_podip("10.0.0.1");
  from.add_podips()->set_ip("10.0.0.1");
  from.set_message("wait");
  from.set_nominatednodename("scheduler's");
  auto* c = from.add_conditions();
  c->set_type("Ready");
  c->set_status("False");
  to = from;
  to.clear_nominatednodename();  // not ours: not touched
  EXPECT_EQ(status_patch("u1", from, to), "");
  to.set_phase("Running");
  to.clear_message();
  to.set_podip("10.0.0.2");
  to.mutable_podips(0)->set_ip("10.0.0.2");
  EXPECT_EQ(boost::json::parse(status_patch("u1", from, to)),
            boost::json::parse(R"({"metadata":{"uid":"u1"},"status":{"phase":"Running","message":null,"podIP":"10.0.0.2",
              "podIPs":[{"$patch":"replace"},{"ip":"10.0.0.2"}]}})"));
}

TEST(StatusPatch, AConditionLosesItsReason) {
  corev1::PodStatus from, to;
  auto* c = from.add_conditions();
  c->set_type("Ready");
  c->set_status("False");
  c->set_reason("ContainersNotReady");
  c->set_message("containers with unready status: [app]");
  c = to.add_conditions();
  c->set_type("Ready");
  c->set_status("True");
  EXPECT_EQ(boost::json::parse(status_patch("u1", from, to)),
            boost::json::parse(R"({"metadata":{"uid":"u1"},"status":{"conditions":[
              {"type":"Ready","status":"True","reason":null,"message":null}]}})"));
}

TEST(Admission, Refusals) {
  Settings s;
  s.max_pods = 2;
  s.cpu_milli = 1000;
  s.memory_bytes = 1 << 30;
  const auto make = [](const std::string& uid, const char* cpu, int host_port = 0) {
    auto p = std::make_shared<corev1::Pod>(testing_pods::pod());
    p->mutable_metadata()->set_uid(uid);
    auto* c = add_main(*p, "app");
    if (*cpu) (*c->mutable_resources()->mutable_requests())["cpu"].set_string(cpu);
    if (host_port) c->add_ports()->set_hostport(host_port);
    return p;
  };
  const auto why = [&](const corev1::Pod& p, std::vector<std::shared_ptr<const corev1::Pod>> others) {
    const auto r = admission_refusal(p, others, s);
    return r ? r->reason : "";
  };
  EXPECT_EQ(why(*make("a", "500m"), {make("b", "500m")}), "");
  EXPECT_EQ(why(*make("a", "501m"), {make("b", "500m")}), "OutOfcpu");
  EXPECT_EQ(why(*make("a", ""), {make("b", "2")}), "");  // asks for nothing: fits however full the node is
  EXPECT_EQ(why(*make("a", ""), {make("b", ""), make("c", "")}), "OutOfpods");
  EXPECT_EQ(why(*make("a", "", 80), {make("b", "", 80)}), "NodePorts");
  auto done = make("b", "900m", 80);
  done->mutable_status()->set_phase("Succeeded");
  EXPECT_EQ(why(*make("a", "500m", 80), {done}), "");
}

TEST(Server, WhoMayAsk) {
  http::Peer peer;
  EXPECT_EQ(authorize(peer).error().code, ErrorCode::unauthenticated);
  peer.common_name = "system:node:n2";
  peer.organizations = {"system:nodes"};
  EXPECT_EQ(authorize(peer).error().code, ErrorCode::permission_denied);
  peer.organizations = {"system:masters"};
  EXPECT_TRUE(authorize(peer));
  peer = {};
  peer.common_name = "kube-apiserver-kubelet-client";
  EXPECT_TRUE(authorize(peer));
}

}  // namespace
}  // namespace fairlead::kubelet
