#include "cni/error.h"

namespace fairlead::cni {

CniError from_error(const Error& e, Code fallback) {
  switch (e.code) {
    case ErrorCode::timeout:
    case ErrorCode::unavailable: return {Code::try_again_later, e.message, ""};
    case ErrorCode::unimplemented: return {Code::unsupported_kernel, e.message, ""};
    default: return {fallback, e.message, ""};
  }
}

}  // namespace fairlead::cni
