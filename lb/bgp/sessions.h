// Sessions: carries out what each Peer says, on TCP. set() makes the sessions those of a plan: new ones are opened, those whose
// settings changed are opened anew, those that are gone end with a Cease, and routes that changed are told at once.
//
// Sockets: TCP MD5 (RFC 2385) where a password is set, TTL 1 towards a router of another AS unless ebgpMultiHop allows more,
// source address, VRF (SO_BINDTODEVICE). With a listen port routers may open the connection as well; only from the addresses of
// configured peers, on IPv4 and IPv6.
//
// Threads: all on the executor given. Owner: destroying it closes everything without a word, which is what a router with
// graceful restart takes for a restart; stop() says farewell first.
// Bounds: a router that does not read for the hold time, or for which more than 1 MiB waits, is cut off.
// Errors: what cannot be opened is told and tried again; set() never fails.
#pragma once

#include <functional>
#include <memory>

#include "base/asio.h"
#include "lb/bgp/plan.h"

namespace fairlead::lb::bgp {

struct SessionStatus {
  std::string peer;     // name of the BGPPeer
  SocketAddress router;
  std::uint32_t my_asn = 0;
  State state = State::idle;
  SteadyTime since;     // of the last coming up or going down
  std::size_t announced = 0;
  std::size_t pending = 0;  // address blocks to announce that the router has not been told of
  std::string last_error;
  PeerCounters counters;
};

class Sessions {
 public:
  using Tell = std::function<void(const std::string& peer, const action::Tell& what)>;

  // listen_port 0: only we open connections.
  Sessions(net::any_io_executor executor, Port listen_port, Tell tell);
  ~Sessions();
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  // Fails when the port cannot be listened on. In the network namespace of the calling thread.
  Result<> start();
  void set(const BgpPlan& plan, const std::vector<LinkFacts>& links);
  // Says farewell on each session and waits until it is written, at most half a second.
  Task<> stop(Farewell farewell);
  std::vector<SessionStatus> status() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fairlead::lb::bgp
