#include "lb/l2/announcer.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "lb/l2/packet.h"
#include "netlink/rt_socket.h"

namespace fairlead::lb::l2 {
namespace {

constexpr std::array<std::chrono::milliseconds, 4> kRepeats{std::chrono::milliseconds(100), std::chrono::milliseconds(400),
                                                            std::chrono::milliseconds(1000), std::chrono::milliseconds(2000)};
constexpr std::size_t kMaxFrame = 2048;
constexpr int kFramesAtOnce = 64;  // before others get their turn

// Lets ARP requests through, and neighbour solicitations.
std::vector<sock_filter> filter_for(std::uint16_t protocol) {
  if (protocol == ETH_P_ARP)
    return {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 20), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1), BPF_STMT(BPF_RET | BPF_K, kMaxFrame), BPF_STMT(BPF_RET | BPF_K, 0)};
  return {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 20), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 0, 3),
          BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 54), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 135, 0, 1),
          BPF_STMT(BPF_RET | BPF_K, kMaxFrame),   BPF_STMT(BPF_RET | BPF_K, 0)};
}

Result<Fd> open_packet_socket(std::uint32_t link, std::uint16_t protocol) {
  // Protocol 0: nothing arrives before the filter is in place and the link is chosen.
  Fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "packet socket");
  auto code = filter_for(protocol);
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0) return fail_errno(errno, "packet filter");
  const int on = 1;
  if (::setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0) return fail_errno(errno, "PACKET_IGNORE_OUTGOING");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = static_cast<int>(link);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return fail_errno(errno, "bind packet socket");
  return fd;
}

}  // namespace

struct Announcer::Impl : std::enable_shared_from_this<Announcer::Impl> {
  struct Socket {
    net::posix::stream_descriptor stream;
    bool broken = false;
    explicit Socket(net::any_io_executor e, Fd fd) : stream(std::move(e), fd.release()) {}
  };
  struct OpenLink {
    LinkFacts facts;
    std::shared_ptr<Socket> arp, ndp;
    Fd groups;                     // an IPv6 socket that is member of the addresses' groups
    std::set<IpAddress> joined;
  };
  struct Repeat {
    IpAddress ip;
    std::uint32_t link;
    SteadyTime when;
  };

  Impl(net::any_io_executor e, MaySpeak m) : executor(e), timer(e), may_speak(std::move(m)) {}

  std::vector<std::string> set(const Plan& wanted, const std::vector<LinkFacts>& all) {
    std::vector<std::string> problems;
    const Plan before = std::exchange(plan, wanted);
    std::set<std::uint32_t> used;
    for (const auto& [ip, a] : plan) used.insert(a.links.begin(), a.links.end());
    for (auto it = links.begin(); it != links.end();) {
      const auto now = std::find_if(all.begin(), all.end(), [&](const LinkFacts& l) { return l.index == it->first; });
      const bool keep = used.contains(it->first) && now != all.end() && now->mac == it->second.facts.mac && !it->second.arp->broken && !it->second.ndp->broken;
      if (keep) {
        ++it;
        continue;
      }
      close(it->second);
      it = links.erase(it);
    }
    std::set<std::uint32_t> fresh;
    for (const auto& l : all) {
      if (!used.contains(l.index) || links.contains(l.index)) continue;
      if (auto opened = open(l); !opened)
        problems.push_back(fmt::format("link {}: {}", l.name, opened.error().message));
      else
        fresh.insert(l.index);
    }
    for (auto& [index, l] : links) join_groups(l, index, problems);
    std::erase_if(repeats, [&](const Repeat& r) {
      const auto it = plan.find(r.ip);
      return it == plan.end() || !it->second.links.contains(r.link);
    });
    for (const auto& [ip, a] : plan) {
      const auto was = before.find(ip);
      for (const auto link : a.links)
        if (was == before.end() || !was->second.links.contains(link) || fresh.contains(link)) announce_new(ip, link);
    }
    schedule();
    return problems;
  }

  Result<> open(const LinkFacts& facts) {
    FL_TRY(Fd arp, open_packet_socket(facts.index, ETH_P_ARP));
    FL_TRY(Fd ndp, open_packet_socket(facts.index, ETH_P_IPV6));
    OpenLink l;
    l.facts = facts;
    l.arp = std::make_shared<Socket>(executor, std::move(arp));
    l.ndp = std::make_shared<Socket>(executor, std::move(ndp));
    listen(l.arp, facts.index);
    listen(l.ndp, facts.index);
    links.emplace(facts.index, std::move(l));
    return {};
  }

  static void close(OpenLink& l) {
    boost::system::error_code ec;
    for (auto& s : {l.arp, l.ndp}) s->stream.close(ec);
  }

  void join_groups(OpenLink& l, std::uint32_t index, std::vector<std::string>& problems) {
    std::set<IpAddress> groups;
    for (const auto& [ip, a] : plan)
      if (ip.is_v6() && a.links.contains(index)) groups.insert(solicited_node_group(ip));
    if (groups == l.joined) return;
    if (!l.groups) l.groups = Fd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto change = [&](const IpAddress& g, int option) {
      ipv6_mreq m{};
      std::copy(g.bytes().begin(), g.bytes().end(), m.ipv6mr_multiaddr.s6_addr);
      m.ipv6mr_interface = index;
      return l.groups && ::setsockopt(l.groups.get(), IPPROTO_IPV6, option, &m, sizeof m) == 0;
    };
    std::set<IpAddress> joined;
    for (const auto& g : groups) {
      if (l.joined.contains(g) || change(g, IPV6_JOIN_GROUP))
        joined.insert(g);
      else
        problems.push_back(errno_error(errno, fmt::format("link {}: join {}", l.facts.name, g.to_string())).message);
    }
    for (const auto& g : l.joined)
      if (!groups.contains(g)) change(g, IPV6_LEAVE_GROUP);
    l.joined = std::move(joined);
  }

  void listen(const std::shared_ptr<Socket>& socket, std::uint32_t link) {
    socket->stream.async_wait(net::posix::stream_descriptor::wait_read, [self = weak_from_this(), socket, link](const boost::system::error_code& ec) {
      const auto impl = self.lock();
      if (!impl || ec) return;
      impl->receive(*socket, link);
      if (socket->stream.is_open() && !socket->broken) impl->listen(socket, link);
    });
  }

  void receive(Socket& socket, std::uint32_t link) {
    std::array<std::uint8_t, kMaxFrame> buffer;
    for (int i = 0; i < kFramesAtOnce; ++i) {
      const auto n = ::recv(socket.stream.native_handle(), buffer.data(), buffer.size(), 0);
      if (n < 0) {
        // ENETDOWN comes once when the link goes down and the socket lives on; anything else opens it anew.
        if (errno != EAGAIN && errno != EINTR && errno != ENETDOWN) socket.broken = true;
        return;
      }
      if (const auto q = parse_question({buffer.data(), static_cast<std::size_t>(n)})) answer(*q, link);
    }
  }

  void answer(const Question& q, std::uint32_t link) {
    const auto a = plan.find(q.target);
    const auto l = links.find(link);
    if (a == plan.end() || l == links.end() || !a->second.links.contains(link) || !may_speak(q.target)) return;
    ++stats.questions;
    if (send(l->second, q.target, build_answer(q, l->second.facts.mac))) ++stats.answers;
  }

  static bool send(OpenLink& l, const IpAddress& ip, const Frame& frame) {
    auto& socket = ip.is_v4() ? l.arp : l.ndp;
    return ::send(socket->stream.native_handle(), frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
  }

  void announce(const IpAddress& ip, std::uint32_t link) {
    const auto l = links.find(link);
    if (l == links.end() || !may_speak(ip)) return;
    for (const auto& frame : build_announcement(ip, l->second.facts.mac))
      if (send(l->second, ip, frame)) ++stats.announcements;
  }

  void announce_new(const IpAddress& ip, std::uint32_t link) {
    announce(ip, link);
    const auto now = SystemClock::get().steady();
    for (const auto after : kRepeats) repeats.push_back({ip, link, now + after});
  }

  void schedule() {
    if (repeats.empty()) {
      timer.cancel();
      return;
    }
    const auto next = std::min_element(repeats.begin(), repeats.end(), [](const Repeat& a, const Repeat& b) { return a.when < b.when; });
    timer.expires_at(next->when);
    timer.async_wait([self = weak_from_this()](const boost::system::error_code& ec) {
      const auto impl = self.lock();
      if (!impl || ec) return;
      const auto now = SystemClock::get().steady();
      for (const auto& r : impl->repeats)
        if (r.when <= now) impl->announce(r.ip, r.link);
      std::erase_if(impl->repeats, [&](const Repeat& due) { return due.when <= now; });
      impl->schedule();
    });
  }

  net::any_io_executor executor;
  net::steady_timer timer;
  MaySpeak may_speak;
  Plan plan;
  std::map<std::uint32_t, OpenLink> links;
  std::vector<Repeat> repeats;
  AnnouncerStats stats;
};

Announcer::Announcer(net::any_io_executor executor, MaySpeak may_speak) : impl_(std::make_shared<Impl>(std::move(executor), std::move(may_speak))) {}

Announcer::~Announcer() {
  impl_->timer.cancel();
  for (auto& [index, l] : impl_->links) Impl::close(l);
}

std::vector<std::string> Announcer::set(const Plan& plan, const std::vector<LinkFacts>& links) { return impl_->set(plan, links); }
void Announcer::announce_again() {
  impl_->repeats.clear();
  for (const auto& [ip, a] : impl_->plan)
    for (const auto link : a.links) impl_->announce_new(ip, link);
  impl_->schedule();
}

AnnouncerStats Announcer::stats() const { return impl_->stats; }

Result<std::vector<LinkFacts>> read_links() {
  FL_TRY(auto rt, netlink::RtSocket::open());
  FL_TRY(const auto links, rt.links());
  FL_TRY(const auto addresses, rt.addresses());
  std::vector<LinkFacts> out;
  for (const auto& l : links) {
    if (l.loopback() || !l.up() || !l.mac || l.mac->is_zero() || !(l.flags & IFF_BROADCAST)) continue;
    LinkFacts f{l.index, l.name, *l.mac, {}};
    for (const auto& a : addresses)
      if (a.link == l.index) f.addresses.push_back(a.ip);
    out.push_back(std::move(f));
  }
  return out;
}

}  // namespace fairlead::lb::l2
