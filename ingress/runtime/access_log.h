// The access log's lines: one JSON object, or the common log format with what people add to it. Text of clients is escaped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ingress/runtime/worker.h"

namespace fairlead::ingress {

struct AccessRecord {
  const Peer* peer = nullptr;
  const RequestHead* request = nullptr;
  unsigned http_version = 11;
  unsigned status = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  std::int64_t micros = 0;
  const Route* route = nullptr;
  const Upstream* upstream = nullptr;
  const SocketAddress* endpoint = nullptr;
  unsigned tries = 0;
  std::string_view request_id;
  std::string_view note;  // why the router answered itself
};

std::string format_access(AccessLog format, const AccessRecord& record, std::uint64_t wall_ms);
// One log line of a failed try, at most a few a second.
void log_backend_failure(const Upstream& upstream, const SocketAddress& endpoint, std::string_view why);

}  // namespace fairlead::ingress
