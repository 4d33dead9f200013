#include "controlplane/kubelet/probe_state.h"

namespace fairlead::kubelet {

std::string_view to_string(ProbeKind kind) {
  return kind == ProbeKind::readiness ? "Readiness" : kind == ProbeKind::liveness ? "Liveness" : "Startup";
}

std::optional<bool> ProbeState::on_result(bool success, std::chrono::milliseconds elapsed) {
  using std::chrono::milliseconds;
  // Early attempts are for probes that wait for the first success.
  const bool waiting = timing_.eager && kind_ != ProbeKind::liveness && !verdict_.value_or(false);
  const bool regular = elapsed >= next_counted_;
  if (regular) next_counted_ = elapsed - elapsed % timing_.period + timing_.period;
  next_ = timing_.period;
  if (waiting && !success) {
    next_ = std::min({early_, timing_.period, std::max(next_counted_ - elapsed, milliseconds(1))});
    early_ = std::min(early_ * 2, timing_.period);
  }
  counted_ = success || regular;
  if (!counted_) return std::nullopt;
  row_ = last_ == success ? row_ + 1 : 1;
  last_ = success;
  const int threshold = success ? timing_.success_threshold : timing_.failure_threshold;
  if (row_ < threshold || verdict_ == success) return std::nullopt;
  verdict_ = success;
  return success;
}

}  // namespace fairlead::kubelet
