// CniError: what the plugin prints when it fails, with the codes of the CNI specification (containernetworking/cni
// SPEC.md, "Error"). 1 to 99 belong to the specification, 100 and above are Fairlead's own and listed in docs/cni.md.
// CniResult<T> is Result<T> with this error; CNI_TRY and CNI_CHECK are its FL_TRY and FL_CHECK.
#pragma once

#include <string>
#include <tl/expected.hpp>

#include "base/result.h"

namespace fairlead::cni {

enum class Code : unsigned {
  incompatible_version = 1,
  unsupported_field = 2,
  unknown_container = 3,      // the runtime need not clean up
  invalid_environment = 4,
  io_failure = 5,
  failed_to_decode = 6,
  invalid_config = 7,
  try_again_later = 11,
  not_available = 50,         // STATUS: the plugin can not serve ADD
  not_available_limited = 51, // STATUS: and existing containers may be limited
  kernel = 100,               // the kernel refused a step
  already_attached = 101,     // this container and interface are attached already
  no_address = 102,           // the address ranges are used up
  check_failed = 103,         // CHECK found a difference
  delegate_failed = 104,      // a delegated IPAM plugin failed without a CNI error
  unsupported_kernel = 105,   // the kernel lacks a feature; the message names it
  port_taken = 106,           // a host port is in use by another pod
  internal = 999,
};

struct CniError {
  Code code = Code::internal;
  std::string msg;
  std::string details;
  CniError with(std::string_view context) && {
    msg = std::string(context) + ": " + msg;
    return std::move(*this);
  }
  bool operator==(const CniError&) const = default;
};

template <typename T = void>
using CniResult = tl::expected<T, CniError>;

inline tl::unexpected<CniError> cni_fail(CniError e) { return tl::unexpected<CniError>(std::move(e)); }
template <typename... A>
tl::unexpected<CniError> cni_fail(Code code, fmt::format_string<A...> f, A&&... a) {
  return tl::unexpected<CniError>(CniError{code, fmt::format(f, std::forward<A>(a)...), ""});
}
// From an error of the layers below; `fallback` where its code says nothing to a runtime.
CniError from_error(const Error& e, Code fallback);
template <typename T>
CniResult<T> lift(Result<T> r, Code fallback) {
  if (!r) return cni_fail(from_error(r.error(), fallback));
  if constexpr (std::is_void_v<T>)
    return {};
  else
    return std::move(*r);
}

}  // namespace fairlead::cni

#define CNI_TRY_IMPL(tmp, decl, expr)                                                       \
  auto tmp = (expr);                                                                        \
  if (!tmp) [[unlikely]] return ::fairlead::cni::cni_fail(std::move(tmp).error());          \
  decl = std::move(*tmp)
#define CNI_CHECK_IMPL(tmp, expr) \
  if (auto tmp = (expr); !tmp) [[unlikely]] return ::fairlead::cni::cni_fail(std::move(tmp).error())
#define CNI_TRY(decl, ...) CNI_TRY_IMPL(FL_CAT(cni_r_, __COUNTER__), decl, (__VA_ARGS__))
#define CNI_CHECK(...) CNI_CHECK_IMPL(FL_CAT(cni_r_, __COUNTER__), (__VA_ARGS__))
