#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace fairlead {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return "invalid argument";
    case ErrorCode::not_found: return "not found";
    case ErrorCode::already_exists: return "already exists";
    case ErrorCode::conflict: return "conflict";
    case ErrorCode::expired: return "expired";
    case ErrorCode::permission_denied: return "permission denied";
    case ErrorCode::unauthenticated: return "unauthenticated";
    case ErrorCode::resource_exhausted: return "resource exhausted";
    case ErrorCode::failed_precondition: return "failed precondition";
    case ErrorCode::unavailable: return "unavailable";
    case ErrorCode::timeout: return "timeout";
    case ErrorCode::cancelled: return "cancelled";
    case ErrorCode::unimplemented: return "unimplemented";
    case ErrorCode::data_loss: return "data loss";
    case ErrorCode::internal: return "internal";
  }
  return "unknown";
}

static ErrorCode code_of_errno(int err) {
  switch (err) {
    case EINVAL: return ErrorCode::invalid_argument;
    case ENOENT: case ESRCH: case ENODEV: case ENXIO: case EADDRNOTAVAIL: return ErrorCode::not_found;
    case EEXIST: case EADDRINUSE: return ErrorCode::already_exists;
    case EPERM: case EACCES: return ErrorCode::permission_denied;
    case EBUSY: case EAGAIN: case EINTR: case ECONNREFUSED: case ECONNRESET: case ENETUNREACH: case EHOSTUNREACH:
    case EPIPE: return ErrorCode::unavailable;
    case ENOMEM: case ENOBUFS: case ENOSPC: case EMFILE: case ENFILE: case EDQUOT: return ErrorCode::resource_exhausted;
    case ETIMEDOUT: return ErrorCode::timeout;
    case ECANCELED: return ErrorCode::cancelled;
    case EOPNOTSUPP: case ENOSYS: case EPROTONOSUPPORT: case EAFNOSUPPORT: return ErrorCode::unimplemented;
    default: return ErrorCode::internal;
  }
}

Error errno_error(int err, std::string_view what) {
  return Error{code_of_errno(err), fmt::format("{}: {}", what, std::strerror(err)), err};
}

}  // namespace fairlead
