// carry_out(): sends operations that are independent requests, and sends again what failed for a reason that passes (EBUSY, ENOBUFS,
// EINTR, EAGAIN, ENOMEM, a set that is still in use). When answers were lost nobody knows what took effect: what was to be added is
// then edited, what was to be removed may have gone. The socket and the pauses are injected.
#pragma once

#include <chrono>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "ipvs/kernel.h"
#include "ipvs/model.h"
#include "netlink/message.h"

namespace fairlead::ipvs {

struct Courier {
  std::function<netlink::Bytes(const Op&, bool edit)> message;  // edit: what is to be added is there already
  std::function<std::vector<Result<>>(std::vector<netlink::Bytes>)> send;  // one result for each
  std::function<void(std::chrono::milliseconds)> pause;
};

// `retries` counts what was sent again. The error is the first that does not pass, or the last after about half a second; its message
// names the operation.
Result<CommitReport> carry_out(std::span<const Op> ops, const Courier& courier);

// Whether the kernel said that the thing is not there.
bool is_gone(const Error& e);

}  // namespace fairlead::ipvs
