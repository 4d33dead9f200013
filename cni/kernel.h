// Kernel: the port between the plugin and the machine. apply() carries one step of a plan out, undo() takes it back and is
// silent when there is nothing to take back; observe() reads what CHECK compares. NetlinkKernel is the real one; tests put
// one in front of it that fails, or dies, at a chosen step.
//
// Links go in two moves. undo() sets a link aside: down, so that nothing passes it and its routes are gone, and into the
// group kDoomedGroup. settle() deletes that group, whoever put links there: a deletion costs the kernel tens of milliseconds
// of grace periods, most of them under its one lock, so that of many processes deleting at once one does it for all; and
// where the node agent runs, it does it for everybody (sweep.h).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cni/plan.h"
#include "netlink/address.h"
#include "netlink/route.h"

namespace fairlead::cni {

// Any number that nobody else uses (`ip link show group` prints it).
inline constexpr std::uint32_t kDoomedGroup = 0x464c4454;

struct Observed {
  std::optional<netlink::Link> host_link, pod_link;
  std::vector<netlink::Address> pod_addresses;
  std::vector<netlink::Route> pod_routes;
  std::vector<netlink::Route> host_routes;   // over the host link
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual CniResult<> apply(const Step& step) = 0;
  virtual CniResult<> undo(const Step& step) = 0;
  virtual CniResult<> settle() = 0;   // after the last undo()
  virtual CniResult<Observed> observe(const std::string& host_link, const std::string& pod_link) = 0;
  virtual CniResult<bool> nat_present(const PodNat& nat) = 0;
  // Names and aliases of all links on the host.
  virtual CniResult<std::vector<netlink::Link>> host_links() = 0;
  virtual CniResult<> set_loopback(bool up) = 0;     // the pod's
  virtual CniResult<bool> loopback_up() = 0;
};

// Works on the calling thread's namespace as the host and on the namespace at this path as the pod (empty: none; steps
// inside the pod are then errors).
CniResult<std::unique_ptr<Kernel>> open_kernel(const std::string& pod_netns);

// Applies the steps in order. When one fails, it and those before it are undone in reverse order.
CniResult<> execute(Kernel& kernel, const std::vector<Step>& steps);
// Undoes the steps in reverse order, all of them whatever happens; the first error is returned.
CniResult<> revert(Kernel& kernel, const std::vector<Step>& steps);

}  // namespace fairlead::cni
