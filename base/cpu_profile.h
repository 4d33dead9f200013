// CpuProfile: where this process spends its processor time, as `go tool pprof`, `pprof` and their kin read it (profile.proto, not
// compressed). Samples are call stacks taken by SIGPROF for each hundredth of a second of processor time used by any thread.
// Addresses carry the file they belong to with its build id; names are put to them by the reader, from that file.
//
// At most one at a time in a process: the signal and its timer are the process's. Memory: 8 MB while it runs; what does not fit is
// not taken. While it runs, system calls that wait may be interrupted (EINTR). Owner: whoever started it. Any thread.
// Source: github.com/google/pprof/proto/profile.proto, setitimer(2).
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace fairlead {

class CpuProfile {
 public:
  static Result<CpuProfile> start();  // already_exists: one is running
  ~CpuProfile();
  CpuProfile(CpuProfile&&) noexcept;
  CpuProfile& operator=(CpuProfile&&) = delete;
  // Ends it; the profile.
  std::string finish();

 private:
  struct Run;
  explicit CpuProfile(std::unique_ptr<Run> run);
  std::unique_ptr<Run> run_;
};

}  // namespace fairlead
