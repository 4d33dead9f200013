// Dataplane: the seam between the service proxy and the kernel. Three implementations: nftables/, iptables/, ipvs/.
//
// Contract
// - apply() makes the kernel equal to all that was applied so far plus this delta. It returns only when the kernel has
//   confirmed. After an error the caller keeps the delta and calls again with it (merged with newer changes); the dataplane
//   must then look at the kernel again rather than trust its memory.
// - The first apply() has delta.full set. What an earlier process left in the kernel is adopted: listed, compared, and only
//   differences are written, so a restart that changes nothing writes nothing.
// - A delta costs what it is worth: no listing, no full render and no process started when one service changed.
// - Order inside one apply: create before use, delete after last use; no packet may see a half-written service.
// - Everything in the kernel is recognisable as Fairlead's by a process without memory; nothing else is ever touched.
// - A service that the dataplane cannot express is reported in ApplyReport::skipped with its reason; others are applied.
// Threads: calls block and come from one thread at a time (the runner's worker). Owner: the sync runner.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "proxy/decide.h"
#include "proxy/plan.h"

namespace fairlead::proxy {

struct ApplyReport {
  std::size_t services = 0;     // looked at
  std::size_t operations = 0;   // kernel objects written or removed; 0: nothing was different
  std::size_t batches = 0;      // atomic transactions
  std::size_t retries = 0;      // after EBUSY, ENOBUFS, EINTR ...
  bool full = false;            // the kernel was listed and compared
  bool call_again = false;      // something is to be tidied up: call apply() in a second, with an empty delta if need be
  std::vector<std::pair<ServiceKey, std::string>> skipped;
  std::chrono::nanoseconds duration{0};
};

// One difference between what should be in the kernel and what is: the step that would put it right, in the words of the
// dataplane's tool ("add element ip fairlead-proxy services { 10.96.0.1 . tcp . 80 : goto cluster-3 }").
using Drift = std::string;

// What was counted since the rule of this frontend or endpoint was written, as far as the dataplane counts: connections
// everywhere, packets and bytes in IPVS alone (flow_account.h has them for the others).
struct Traffic {
  ServiceKey service;
  std::string port_name;
  Protocol protocol = Protocol::tcp;
  SocketAddress frontend;
  SocketAddress backend;  // unspecified: the frontend's total
  std::uint64_t connections = 0;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
};

// What only one mode can tell and kube-proxy has a metric of: its name without "kubeproxy_", as of the last look at the kernel.
struct Figure {
  std::string name;
  metrics::Labels labels;
  double value = 0;
};

class Dataplane {
 public:
  virtual ~Dataplane() = default;
  virtual std::string_view name() const = 0;  // "nftables", "iptables", "ipvs"
  virtual Result<ApplyReport> apply(const PlanDelta& delta) = 0;
  // Deletes everything of ours from the kernel. Works without any apply() before it.
  virtual Result<> remove_all_owned() = 0;
  // Lists the kernel and compares it with a plan, writing nothing. Empty: no drift. Works without any apply() before it.
  virtual Result<std::vector<Drift>> verify(const Plan& plan) = 0;
  // What the rules that are in the kernel now would do to a packet. Works without any apply() before it.
  virtual Result<Decision> trace(const Packet& packet) = 0;
  virtual Result<std::vector<Traffic>> traffic() = 0;
  virtual Result<std::vector<Figure>> figures() { return std::vector<Figure>{}; }
  // The rules for a plan as text, without touching any kernel.
  virtual std::string render_text(const Plan& plan) const = 0;
  // Called from any thread when somebody else changed our objects in the kernel; the runner then applies a full delta.
  virtual void on_foreign_change(std::function<void()> handler) = 0;
};

}  // namespace fairlead::proxy
