// The speaker: one on each node. It follows Services, EndpointSlices and Nodes, exchanges heartbeats with the other speakers,
// computes which addresses are its to announce on the LAN (l2/plan.h) and answers for those (l2/announcer.h); and it tells
// routers with BGP which addresses this node serves (bgp/speaker.h).
//
// A node that dies is noticed by its silence after `dead_after`, and the next in the election takes over at once. A speaker
// that is told to stop says so and answers nothing any more; the others take over within one datagram. While the API is away
// the last known state counts.
// Heartbeats are accepted only from an address of the Node whose name they carry.
// Threads: the client's executor, one thread. Events nodeAssigned on the Service, metrics under MetalLB's names.
#pragma once

#include <memory>
#include <string>

#include "base/asio.h"
#include "base/metrics.h"
#include "kube/client.h"
#include "lb/l2/membership.h"
#include "lb/pool_source.h"

namespace fairlead::lb {

struct SpeakerOptions {
  std::string node_name;
  PoolLocation pools;
  std::string load_balancer_class;
  Port heartbeat_port = 7473;  // UDP, on all addresses of the node
  l2::MembershipOptions membership;
  bool address_leases = false;  // each address that is announced on the LAN is tied to a Lease (l2/leases.h)
  std::chrono::milliseconds address_lease_duration{5'000};
  Port bgp_listen_port = 0;                    // TCP; 0: routers do not open connections to us
  std::string lease_namespace = "kube-system";  // of Leases that the speaker writes
  std::chrono::milliseconds pools_interval{1'000};  // pools and links are looked at again
};

class Speaker {
 public:
  virtual ~Speaker() = default;
  virtual Task<> stop() = 0;
};

Result<std::shared_ptr<Speaker>> start_speaker(std::shared_ptr<kube::Client> client, SpeakerOptions options, metrics::Registry& registry);

}  // namespace fairlead::lb
