// ByteStream: the raw connection that is left after an HTTP upgrade (exec, attach, port-forward), the same on the server's
// and the client's side. Threads: the strand of its connection. Errors: unavailable once the peer has gone.
#pragma once

#include <memory>
#include <string>

#include "base/asio.h"

namespace fairlead::http {

// The bytes of a connection after 101 Switching Protocols. One read and one write at a time; destroying it closes.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  virtual Task<Result<std::string>> read_some() = 0;  // empty: the peer has finished sending
  virtual Task<Result<>> write(std::string_view bytes) = 0;
  virtual void shutdown_write() = 0;
  virtual void close() = 0;  // pending reads and writes fail
};

}  // namespace fairlead::http
