#include "cmd/fairlead/command.h"

#include "cni/agent/command.h"
#include "controlplane/apiserver/command.h"
#include "controlplane/control_plane.h"
#include "controlplane/controllers/command.h"
#include "controlplane/etcd/command.h"
#include "controlplane/kubelet/command.h"
#include "controlplane/scheduler/command.h"
#include "ingress/command/command.h"
#include "lab/commands.h"
#include "lab/node_init.h"
#include "lab/supervisor.h"
#include "lb/command.h"
#include "proxy/command.h"

namespace fairlead {

std::span<const Command> commands() {
  static constexpr Command all[] = {
      {"up", "A cluster on this machine", "start a lab: one control-plane node and workers", lab::run_up},
      {"status", "A cluster on this machine", "show the lab's nodes and components", lab::run_status},
      {"down", "A cluster on this machine", "remove the lab without a trace", lab::run_down},
      {"proxy", "On every node", "service proxy: ClusterIP, NodePort, LoadBalancer (also called as kube-proxy)", proxy::run_proxy},
      {"kubelet", "On every node", "node agent: runs pods through a container runtime (CRI)", kubelet::run_kubelet},
      {"cni-agent", "On every node", "pod network: CNI configuration and routes between nodes", cni::run_cni_agent},
      {"ingress", "From outside", "HTTP router: Ingress objects, from the API or from files", ingress::run_ingress},
      {"lb", "From outside", "load balancer addresses: controller, speaker, status", lb::run_lb},
      {"control-plane", "Control plane", "store, API server, scheduler and controllers in one process", run_control_plane},
      {"apiserver", "Control plane", "Kubernetes API server with its embedded store", apiserver::run_apiserver},
      {"scheduler", "Control plane", "gives pods a node", scheduler::run_scheduler},
      {"controller-manager", "Control plane", "Deployments, ReplicaSets, EndpointSlices, nodes, namespaces, garbage", controllers::run_controller_manager},
      {"etcd", "Control plane", "the store with the etcd v3 gRPC API", etcd::run_etcd},
      {"trace", "Look", "what would happen to a packet on this node, and why", proxy::run_trace},
      {"lab-supervisor", "", "owner of the lab's nodes", lab::run_lab_supervisor},
      {"lab-node", "", "init of a lab node", lab::run_lab_node},
      {"lab-images", "", "import images into a node", lab::run_lab_images},
  };
  return all;
}

}  // namespace fairlead
