// The connections that the kernel tracks (conntrack): listing them, forgetting single ones, and hearing of those that end.
// The service proxy forgets UDP flows to endpoints that have gone, because such a flow keeps its translation for as long as its
// client keeps sending, and counts packets and bytes of flows where it is asked to.
//
// Who owns them: one thread at a time, as the Socket under each. Network namespace: that of the thread that called open().
// Errors: the kernel's. A flow that ended by itself meanwhile is no error. Sources: linux/netfilter/nfnetlink_conntrack.h,
// net/netfilter/nf_conntrack_netlink.c.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/socket.h"

namespace fairlead::netlink {

struct FlowTuple {
  SocketAddress source, destination;
  bool operator==(const FlowTuple&) const = default;
};

struct Flow {
  Family family = Family::v4;
  std::uint8_t protocol = 0;  // IANA number; only TCP, UDP, SCTP and the like have ports
  FlowTuple original, reply;  // the reply's source is where the packets really go
  std::uint32_t status = 0;   // IPS_*
  std::uint32_t mark = 0;
  std::uint32_t id = 0;
  std::uint16_t zone = 0;
  std::uint32_t timeout_seconds = 0;
  // Both directions; 0 where net.netfilter.nf_conntrack_acct is off.
  std::uint64_t packets = 0, bytes = 0;
  bool translated() const { return reply.source != original.destination; }  // its destination was rewritten
  bool ending() const;  // it is about to leave the table: those who listen are being told, or have been
};

// Reads one message of ctnetlink; nothing when it is not a flow with addresses. Pure.
std::optional<Flow> parse_flow(const MessageView& message);

class Conntrack {
 public:
  static Result<Conntrack> open();
  // Every flow of a family (and of one protocol, if one is named), in no order. begin() is called before the first and
  // again if the kernel asks to start over.
  Result<> list(Family family, std::optional<Protocol> protocol, const std::function<void()>& begin,
                const std::function<void(const Flow&)>& each);
  // The same of translated flows only; kernels before 5.18 look at all and leave the choice to us.
  Result<> list_translated(Family family, const std::function<void(const Flow&)>& each);
  // True if it was there. Only this very flow: a newer one with the same addresses stays.
  Result<bool> forget(const Flow& flow);

 private:
  explicit Conntrack(Socket s) : socket_(std::move(s)) {}
  Socket socket_;
};

// Tells of flows that end, with their final counters. The kernel drops what is not fetched in time, and says so once.
class FlowEnds {
 public:
  static Result<FlowEnds> open();
  // Waits until something is there, then hands over what one datagram brought. True: something came. ErrorCode::resource_exhausted:
  // some were lost; the next call goes on with what came after them.
  Result<bool> receive(std::chrono::milliseconds wait, const std::function<void(const Flow&)>& each);

 private:
  explicit FlowEnds(Socket s) : socket_(std::move(s)) {}
  Socket socket_;
};

}  // namespace fairlead::netlink
