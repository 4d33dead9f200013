// Leader election through a Lease object, compatible with Kubernetes' own (client-go): of all processes that use the same
// Lease one is the leader, as long as clocks run at about the same speed (their times may differ: what counts is how long
// the Lease has not changed as seen from here).
//
//   LeaderElector elector(client, {.ns = "kube-system", .name = "fairlead", .identity = host + "_" + uuid},
//                         {.started = [&] { controllers.start(); }, .stopped = [&] { exit_daemon(); }});
//   elector.start();
//
// The leader renews every retry_period and gives up by itself renew_deadline after its last success, before anybody else may
// take over (lease_duration). After that it tries to win again. stop() gives the Lease back, so the next one need not wait.
// Threads: the client's executor; callbacks run there and must not block.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "kube/api.h"
#include "kube/client.h"
#include "kube/proto/coordination/v1.pb.h"

namespace fairlead::kube {

struct LeaderElectionOptions {
  std::string ns;
  std::string name;
  std::string identity;  // unique among all that take part
  std::chrono::milliseconds lease_duration{15'000};
  std::chrono::milliseconds renew_deadline{10'000};
  std::chrono::milliseconds retry_period{2'000};
  const Clock* clock = nullptr;  // null: the system's. Outlives the elector.
};

struct LeaderCallbacks {
  std::function<void()> started;                           // leads from now on
  std::function<void()> stopped;                           // does not lead any more
  std::function<void(const std::string&)> leader_changed;  // the identity of the leader, as seen in the Lease
};

// The decision part, without I/O. observe() what the API holds, then act on decide().
class LeaseView {
 public:
  explicit LeaseView(const LeaderElectionOptions& options) : options_(options) {}

  enum class Action { create, take, renew, wait };
  void observe(const std::optional<coordinationv1::Lease>& lease, SteadyTime now);
  Action decide(SteadyTime now) const;
  // What to write for create, take or renew; keeps metadata, so a concurrent change is a conflict.
  coordinationv1::Lease next(Action action, WallTime wall) const;
  coordinationv1::Lease released(WallTime wall) const;
  std::string holder() const;
  bool holds() const { return holder() == options_.identity && !options_.identity.empty(); }

 private:
  const LeaderElectionOptions& options_;
  std::optional<coordinationv1::Lease> lease_;
  SteadyTime changed_{};  // when its content was last seen to change
};

class LeaderElector {
 public:
  LeaderElector(std::shared_ptr<Client> client, LeaderElectionOptions options, LeaderCallbacks callbacks);
  ~LeaderElector();
  LeaderElector(const LeaderElector&) = delete;
  LeaderElector& operator=(const LeaderElector&) = delete;

  Result<> start();  // invalid_argument when the durations make no sense or a name is missing
  Task<> stop();     // stops leading (calling `stopped`), then gives the Lease back
  bool is_leader() const;
  // Until when it leads unless it renews again; nullopt when it does not. For work that must not outlive leading even where this
  // process is stopped and goes on later: compare with the clock before each step of it.
  std::optional<SteadyTime> leads_until() const;
  std::string leader() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fairlead::kube
