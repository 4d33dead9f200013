// Result<T>: a value or an Error. Every fallible function in Fairlead returns one; exceptions do not cross a function
// that we wrote (libraries that throw are wrapped where they are called).
//
// An Error has a code (what a caller may act on), a message (what a person reads) and, from system calls, errno.
// Context is added on the way up, outermost first: "start proxy: read kubeconfig: open /x: No such file or directory".
//
//   Result<Config> load(const std::string& path) {
//     FL_TRY(auto text, read_file(path));             // returns the error to our caller
//     FL_TRY_CTX(auto yaml, parse(text), "parse {}", path);
//     FL_CHECK(validate(yaml));                       // for Result<void>
//     return Config{yaml};
//   }
// In coroutines use FL_CO_TRY, FL_CO_TRY_CTX and FL_CO_CHECK, which co_return.
//
// Threads: values, no shared state. Names follow std::expected, so that a later switch is one alias.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace fairlead {

enum class ErrorCode {
  invalid_argument,     // the caller's input is wrong; retrying cannot help
  not_found,
  already_exists,
  conflict,             // somebody else changed it first; read again and retry
  expired,              // a revision or token is too old; list again
  permission_denied,
  unauthenticated,
  resource_exhausted,   // a limit was reached; later may work
  failed_precondition,  // the system is not in the needed state
  unavailable,          // the other side is away; retry with backoff
  timeout,
  cancelled,
  unimplemented,
  data_loss,            // stored bytes are not what was written
  internal,
};
std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;
  int sys_errno = 0;

  // Adds context in front: "context: message".
  template <typename... A>
  Error with(fmt::format_string<A...> f, A&&... a) && {
    message = fmt::format(f, std::forward<A>(a)...) + ": " + message;
    return std::move(*this);
  }
  // True where the same call may succeed later without any change by the caller.
  bool retryable() const {
    return code == ErrorCode::unavailable || code == ErrorCode::timeout || code == ErrorCode::resource_exhausted;
  }
  bool operator==(const Error&) const = default;
};

template <typename T = void>
using Result = tl::expected<T, Error>;
using Failure = tl::unexpected<Error>;

inline Failure fail(Error e) { return Failure(std::move(e)); }
template <typename... A>
Failure fail(ErrorCode code, fmt::format_string<A...> f, A&&... a) {
  return Failure(Error{code, fmt::format(f, std::forward<A>(a)...), 0});
}

// An Error from errno: the code follows the errno, the message is "what: strerror".
Error errno_error(int err, std::string_view what);
template <typename... A>
Failure fail_errno(int err, fmt::format_string<A...> f, A&&... a) {
  return Failure(errno_error(err, fmt::format(f, std::forward<A>(a)...)));
}

}  // namespace fairlead

#define FL_CAT2(a, b) a##b
#define FL_CAT(a, b) FL_CAT2(a, b)
#define FL_TRY_IMPL(tmp, decl, expr, ret, ...)                                        \
  auto tmp = (expr);                                                                  \
  if (!tmp) [[unlikely]] ret ::fairlead::fail(std::move(tmp).error() __VA_ARGS__);    \
  decl = std::move(*tmp)
#define FL_CHECK_IMPL(tmp, expr, ret, ...) \
  if (auto tmp = (expr); !tmp) [[unlikely]] ret ::fairlead::fail(std::move(tmp).error() __VA_ARGS__)

#define FL_TRY(decl, ...) FL_TRY_IMPL(FL_CAT(fl_r_, __COUNTER__), decl, (__VA_ARGS__), return)
#define FL_CO_TRY(decl, ...) FL_TRY_IMPL(FL_CAT(fl_r_, __COUNTER__), decl, (__VA_ARGS__), co_return)
// The first two arguments are the declaration and the expression, the rest is the context's format and arguments.
#define FL_TRY_CTX(decl, expr, ...) FL_TRY_IMPL(FL_CAT(fl_r_, __COUNTER__), decl, expr, return, .with(__VA_ARGS__))
#define FL_CO_TRY_CTX(decl, expr, ...) FL_TRY_IMPL(FL_CAT(fl_r_, __COUNTER__), decl, expr, co_return, .with(__VA_ARGS__))
#define FL_CHECK(...) FL_CHECK_IMPL(FL_CAT(fl_r_, __COUNTER__), (__VA_ARGS__), return)
#define FL_CO_CHECK(...) FL_CHECK_IMPL(FL_CAT(fl_r_, __COUNTER__), (__VA_ARGS__), co_return)
#define FL_CHECK_CTX(expr, ...) FL_CHECK_IMPL(FL_CAT(fl_r_, __COUNTER__), expr, return, .with(__VA_ARGS__))
#define FL_CO_CHECK_CTX(expr, ...) FL_CHECK_IMPL(FL_CAT(fl_r_, __COUNTER__), expr, co_return, .with(__VA_ARGS__))
