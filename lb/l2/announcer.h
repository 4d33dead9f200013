// Announcer: answers ARP and neighbour discovery for a set of addresses, and tells the LAN when an address has come here.
//
// set() replaces the set; what is no longer in it is not answered from that moment. A new address is announced at once and
// four more times within two seconds, as such frames get lost and some switches and devices are slow to believe.
// One packet socket per link and protocol with a kernel filter that lets only questions through; IPv6 multicast groups of
// the addresses are joined, so that switches which snoop send us the questions.
//
// Threads: everything on the executor given. Owner: closing is immediate, nothing is answered after destruction.
// Errors: a link that cannot be opened is reported and tried again at the next set(); the others work.
// Source: packet(7); the questions and answers are packet.h's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/asio.h"
#include "lb/l2/plan.h"

namespace fairlead::lb::l2 {

struct AnnouncerStats {
  std::uint64_t questions = 0;      // for addresses of ours
  std::uint64_t answers = 0;
  std::uint64_t announcements = 0;  // frames that nobody asked for
};

class Announcer {
 public:
  // may_speak is asked before each frame: a process that was stopped and goes on finds questions in its sockets that are not its
  // to answer any more, before any timer of it has run.
  using MaySpeak = std::function<bool(const IpAddress& ip)>;
  explicit Announcer(net::any_io_executor executor, MaySpeak may_speak = [](const IpAddress&) { return true; });
  ~Announcer();
  Announcer(const Announcer&) = delete;
  Announcer& operator=(const Announcer&) = delete;

  // Returns what could not be opened.
  std::vector<std::string> set(const Plan& plan, const std::vector<LinkFacts>& links);
  // Announces everything again, as if it were new: the LAN may believe in somebody else since a part of it was away.
  void announce_again();
  AnnouncerStats stats() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Usable links of this network namespace: up, Ethernet, not loopback, with their addresses.
Result<std::vector<LinkFacts>> read_links();

}  // namespace fairlead::lb::l2
