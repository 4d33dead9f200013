// Connection: one TCP connection to a router, with the socket options of BGP. Bytes are written in order, in the background;
// what arrives is handed to a callback. After close() nothing is called back any more. Internal to lb/bgp.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>

#include "base/asio.h"
#include "base/fd.h"
#include "lb/bgp/peer.h"

namespace fairlead::lb::bgp {

struct ConnectionEvents {
  std::function<void(Result<>)> connected;   // of open() alone
  std::function<void(View)> received;
  std::function<void(std::string)> closed;   // by the router, or by an error
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(net::any_io_executor executor, ConnectionEvents events) : stream_(std::move(executor)), linger_(stream_.get_executor()), events_(std::move(events)) {}

  // Begins to connect; `connected` tells how it went. In the network namespace of the calling thread.
  Result<> open(const PeerConfig& config);
  // Takes a connection that the router has opened.
  Result<> accept(Fd fd, const PeerConfig& config);
  void write(Bytes bytes);
  // Nothing is read and called back any more; what was written goes out, within a second.
  void close();
  bool done() const { return !stream_.is_open(); }
  Result<IpAddress> local_address() const;

 private:
  void wait_connected();
  void read();
  void flush();
  void broke(const std::string& why);
  void broke_later(const std::string& why);
  void shut();

  net::posix::stream_descriptor stream_;
  net::steady_timer linger_;
  ConnectionEvents events_;
  Bytes out_;
  bool waits_to_write_ = false;
  bool closing_ = false;
};

// A socket that listens for routers. MD5 keys are set on it with set_key().
Result<Fd> listen_for_routers(Family family, Port port);
// The key of connections with this router; empty: none. Also on a listening socket.
Result<> set_key(int socket, const IpAddress& router, const std::string& password);

}  // namespace fairlead::lb::bgp
