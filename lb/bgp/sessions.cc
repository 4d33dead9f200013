#include "lb/bgp/sessions.h"

#include <sys/socket.h>

#include <algorithm>

#include "base/log.h"
#include "lb/bgp/connection.h"

namespace fairlead::lb::bgp {
namespace {

SteadyTime now() { return SystemClock::get().steady(); }

// Our addresses that routers may send to: that of the connection, and the first of the other family on the same link.
std::map<Family, IpAddress> next_hops(const IpAddress& local, const std::vector<LinkFacts>& links) {
  std::map<Family, IpAddress> out{{local.family(), local}};
  for (const auto& l : links) {
    if (std::none_of(l.addresses.begin(), l.addresses.end(), [&](const InterfaceAddress& a) { return a.address == local; })) continue;
    for (const auto& a : l.addresses)
      if (!a.address.is_link_local() && a.length < a.address.bits()) out.emplace(a.address.family(), a.address);
  }
  return out;
}

// The address behind an accepted socket.
std::optional<IpAddress> remote_of(const sockaddr_storage& a) {
  const auto* bytes = a.ss_family == AF_INET ? reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in&>(a).sin_addr)
                                             : reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr);
  const auto ip = IpAddress::from_bytes({bytes, a.ss_family == AF_INET ? 4u : 16u});
  return ip ? std::optional(*ip) : std::nullopt;
}

}  // namespace

struct Sessions::Impl : std::enable_shared_from_this<Sessions::Impl> {
  struct Session {
    std::string name;
    Peer peer;
    Routes routes;
    std::array<std::shared_ptr<Connection>, 2> connections;  // by Side
    net::steady_timer timer;
    Session(std::string n, PeerConfig config, net::any_io_executor e) : name(std::move(n)), peer(std::move(config), SystemRandom::get(), now()), timer(std::move(e)) {}
    std::shared_ptr<Connection>& at(Side s) { return connections[static_cast<std::size_t>(s)]; }
  };
  struct Listener {
    Family family;
    net::posix::stream_descriptor stream;
  };

  Impl(net::any_io_executor e, Port p, Tell t) : executor(std::move(e)), listen_port(p), tell(std::move(t)) {}

  // ---- sessions

  void step(const std::shared_ptr<Session>& s, const PeerEvent& e) {
    for (auto& a : s->peer.on(e, now())) std::visit([&](auto& one) { carry_out(s, one); }, a);
    arm(s);
  }

  void arm(const std::shared_ptr<Session>& s) {
    const auto next = s->peer.next_tick();
    if (next == SteadyTime::max()) {
      s->timer.cancel();
      return;
    }
    s->timer.expires_at(next);
    s->timer.async_wait([weak = weak_from_this(), session = std::weak_ptr(s)](const boost::system::error_code& ec) {
      const auto self = weak.lock();
      const auto one = session.lock();
      if (self && one && !ec) self->step(one, event::Tick{});
    });
  }

  ConnectionEvents events_for(const std::shared_ptr<Session>& s, Side side) {
    // A connection speaks for its session as long as it is the one of its side.
    const auto later = [weak = weak_from_this(), session = std::weak_ptr(s)](auto&& f) {
      const auto self = weak.lock();
      const auto one = session.lock();
      if (self && one) f(*self, one);
    };
    ConnectionEvents e;
    e.connected = [later](Result<> how) {
      later([&](Impl& self, const std::shared_ptr<Session>& one) {
        if (how) return self.connected(one, Side::active);
        self.forget(one, Side::active);
        self.step(one, event::ConnectFailed{how.error().message});
      });
    };
    e.received = [later, side](View bytes) { later([&](Impl& self, const std::shared_ptr<Session>& one) { self.step(one, event::Received{side, bytes}); }); };
    e.closed = [later, side](std::string why) {
      later([&](Impl& self, const std::shared_ptr<Session>& one) {
        self.forget(one, side);
        self.step(one, event::Closed{side, why});
      });
    };
    return e;
  }

  void forget(const std::shared_ptr<Session>& s, Side side) {
    if (const auto c = std::exchange(s->at(side), nullptr)) c->close();
  }

  void connected(const std::shared_ptr<Session>& s, Side side) {
    const auto local = s->at(side)->local_address();
    if (!local) {
      forget(s, side);
      return step(s, event::ConnectFailed{local.error().message});
    }
    step(s, event::Connected{side, next_hops(*local, links)});
  }

  void carry_out(const std::shared_ptr<Session>& s, action::Connect&) {
    const auto c = std::make_shared<Connection>(executor, events_for(s, Side::active));
    const auto opened = c->open(s->peer.config());
    if (opened) {
      s->at(Side::active) = c;
      return;
    }
    // From the loop: the session is in the middle of its actions.
    net::post(executor, [weak = weak_from_this(), session = std::weak_ptr(s), why = opened.error().message] {
      const auto self = weak.lock();
      const auto one = session.lock();
      if (self && one) self->step(one, event::ConnectFailed{why});
    });
  }
  void carry_out(const std::shared_ptr<Session>& s, action::Send& a) {
    if (const auto c = s->at(a.side)) c->write(std::move(a.bytes));
  }
  void carry_out(const std::shared_ptr<Session>& s, action::Close& a) {
    if (const auto& c = s->at(a.side)) farewells.push_back(c);
    std::erase_if(farewells, [](const auto& c) { return c.expired(); });
    forget(s, a.side);
  }
  void carry_out(const std::shared_ptr<Session>& s, action::Tell& a) { tell(s->name, a); }

  // ---- the plan

  void set(const BgpPlan& plan, const std::vector<LinkFacts>& all_links) {
    links = all_links;
    for (auto it = sessions.begin(); it != sessions.end();) {
      const auto wanted = plan.peers.find(it->first);
      if (wanted != plan.peers.end() && wanted->second.config == it->second->peer.config()) {
        ++it;
        continue;
      }
      set_listener_key(it->second->peer.config(), "");
      step(it->second, event::Stop{wanted == plan.peers.end() ? Farewell::deconfigured : Farewell::changed});
      it = sessions.erase(it);
    }
    for (const auto& [name, p] : plan.peers) {
      auto& s = sessions[name];
      const bool fresh = !s;
      if (fresh) s = std::make_shared<Session>(name, p.config, executor);
      if (fresh) set_listener_key(p.config, p.config.password);
      if (fresh || s->routes != p.routes) {
        s->routes = p.routes;
        step(s, event::SetRoutes{p.routes});
      }
      if (fresh) step(s, event::Tick{});
    }
  }

  // ---- routers that connect to us

  Result<> start() {
    if (listen_port == 0) return {};
    for (const auto family : {Family::v4, Family::v6}) {
      auto fd = listen_for_routers(family, listen_port);
      // A machine without IPv6 has IPv4 alone.
      if (!fd && family == Family::v6 && fd.error().sys_errno == EAFNOSUPPORT) continue;
      if (!fd) return fail(std::move(fd).error());
      listeners.push_back(std::make_shared<Listener>(Listener{family, net::posix::stream_descriptor(executor, fd->release())}));
      listen(listeners.back());
    }
    return {};
  }

  void set_listener_key(const PeerConfig& c, const std::string& password) {
    for (const auto& l : listeners) {
      if (l->family != c.address.family()) continue;
      if (const auto set = set_key(l->stream.native_handle(), c.address, password); !set) log::warn("bgp: {}", set.error().message);
    }
  }

  void listen(const std::shared_ptr<Listener>& l) {
    l->stream.async_wait(net::posix::stream_descriptor::wait_read, [weak = weak_from_this(), l](const boost::system::error_code& ec) {
      const auto self = weak.lock();
      if (!self || ec) return;
      sockaddr_storage from{};
      socklen_t size = sizeof from;
      Fd fd(::accept4(l->stream.native_handle(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (const auto ip = remote_of(from); fd && ip) self->accepted(std::move(fd), *ip);
      if (l->stream.is_open()) self->listen(l);
    });
  }

  void accepted(Fd fd, const IpAddress& from) {
    const auto it = std::find_if(sessions.begin(), sessions.end(), [&](const auto& s) { return s.second->peer.config().address == from && s.second->peer.config().vrf.empty(); });
    if (it == sessions.end()) {
      log::info("bgp: {} is no peer of ours; its connection is closed", from.to_string());
      return;
    }
    const auto s = it->second;
    if (s->at(Side::passive)) {
      // Routers open one at a time: the one before is gone, as far as they know.
      forget(s, Side::passive);
      step(s, event::Closed{Side::passive, "the router has opened a new connection"});
    }
    const auto c = std::make_shared<Connection>(executor, events_for(s, Side::passive));
    if (const auto taken = c->accept(std::move(fd), s->peer.config()); !taken) {
      log::warn("bgp: connection from {}: {}", from.to_string(), taken.error().message);
      return;
    }
    s->at(Side::passive) = c;
    connected(s, Side::passive);
  }

  bool farewells_said() const {
    return std::all_of(farewells.begin(), farewells.end(), [](const auto& weak) {
      const auto c = weak.lock();
      return !c || c->done();
    });
  }

  static Task<> stop(std::shared_ptr<Impl> self, Farewell farewell) {
    boost::system::error_code ec;
    for (const auto& l : self->listeners) l->stream.close(ec);
    for (const auto& [name, s] : self->sessions) self->step(s, event::Stop{farewell});
    self->sessions.clear();
    const std::chrono::milliseconds poll{5};
    for (int i = 0; i < 100 && !self->farewells_said(); ++i) co_await sleep_for(poll);
  }

  net::any_io_executor executor;
  Port listen_port;
  Tell tell;
  std::map<std::string, std::shared_ptr<Session>> sessions;
  std::vector<std::shared_ptr<Listener>> listeners;
  std::vector<std::weak_ptr<Connection>> farewells;  // closed by us, their last bytes perhaps still on the way
  std::vector<LinkFacts> links;
};

Sessions::Sessions(net::any_io_executor executor, Port listen_port, Tell tell) : impl_(std::make_shared<Impl>(std::move(executor), listen_port, std::move(tell))) {}

Sessions::~Sessions() {
  // Without a word: at() connections are dropped, and their descriptors with them.
  for (const auto& [name, s] : impl_->sessions)
    for (const auto side : {Side::active, Side::passive}) impl_->forget(s, side);
  boost::system::error_code ec;
  for (const auto& l : impl_->listeners) l->stream.close(ec);
}

Result<> Sessions::start() { return impl_->start(); }
void Sessions::set(const BgpPlan& plan, const std::vector<LinkFacts>& links) { impl_->set(plan, links); }
Task<> Sessions::stop(Farewell farewell) { return Impl::stop(impl_, farewell); }

std::vector<SessionStatus> Sessions::status() const {
  std::vector<SessionStatus> out;
  for (const auto& [name, s] : impl_->sessions) {
    const auto& p = s->peer;
    SessionStatus one;
    one.peer = name;
    one.router = {p.config().address, p.config().port};
    one.my_asn = p.config().my_asn;
    one.state = p.state();
    one.since = p.since();
    one.announced = p.announced();
    one.pending = s->routes.size() - std::min(s->routes.size(), one.announced);
    one.last_error = p.last_error();
    one.counters = p.counters();
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace fairlead::lb::bgp
