// on_exit(f): runs f when the scope ends, unless dismissed. Undo steps are written next to what they undo, so an early
// return can not leak; success calls dismiss().
#pragma once

#include <utility>

namespace fairlead {

template <typename F>
class [[nodiscard]] ScopeGuard {
 public:
  explicit ScopeGuard(F f) : f_(std::move(f)) {}
  ScopeGuard(ScopeGuard&& o) noexcept : f_(std::move(o.f_)), armed_(std::exchange(o.armed_, false)) {}
  ScopeGuard& operator=(ScopeGuard&&) = delete;
  ~ScopeGuard() {
    if (armed_) f_();
  }
  void dismiss() noexcept { armed_ = false; }

 private:
  F f_;
  bool armed_ = true;
};

template <typename F>
ScopeGuard<F> on_exit(F f) {
  return ScopeGuard<F>(std::move(f));
}

}  // namespace fairlead
