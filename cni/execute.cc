#include "cni/kernel.h"

namespace fairlead::cni {

CniResult<> revert(Kernel& kernel, const std::vector<Step>& steps) {
  CniResult<> outcome;
  for (auto it = steps.rbegin(); it != steps.rend(); ++it)
    if (auto undone = kernel.undo(*it); !undone && outcome) outcome = undone;
  if (auto settled = kernel.settle(); !settled && outcome) outcome = settled;
  return outcome;
}

CniResult<> execute(Kernel& kernel, const std::vector<Step>& steps) {
  std::vector<Step> begun;
  for (const Step& s : steps) {
    begun.push_back(s);
    auto done = kernel.apply(s);
    if (done) continue;
    // already_exists on creation: the object is somebody else's, so it is not ours to take away.
    if (done.error().code == Code::already_attached) begun.pop_back();
    CniError e = std::move(done).error();
    if (auto undone = revert(kernel, begun); !undone) e.details = "while undoing: " + undone.error().msg;
    return cni_fail(std::move(e));
  }
  return {};
}

}  // namespace fairlead::cni
