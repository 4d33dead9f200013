#include "lb/speaker.h"

#include <algorithm>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/ip/v6_only.hpp>

#include "base/event.h"
#include "base/log.h"
#include "kube/events.h"
#include "kube/informer.h"
#include "lb/bgp/speaker.h"
#include "lb/l2/announcer.h"
#include "lb/l2/leases.h"
#include "lb/facts.h"
#include "lb/pool_watch.h"

namespace fairlead::lb {
namespace {

using l2::Heartbeat;
using l2::kMaxHeartbeat;
using net::ip::udp;
constexpr int kDatagramsAtOnce = 256;

udp::endpoint to_udp(const IpAddress& ip, Port port) { return {net::ip::make_address(ip.to_string()), port}; }

class SpeakerImpl final : public Speaker, public std::enable_shared_from_this<SpeakerImpl> {
 public:
  SpeakerImpl(std::shared_ptr<kube::Client> client, SpeakerOptions options, metrics::Registry& registry)
      : options_(std::move(options)), registry_(registry), pools_(make_pool_source(client, options_.pools)), executor_(client->executor()),
        services_(kube::make_informer<corev1::Service>(client)), nodes_(kube::make_informer<corev1::Node>(client)),
        slices_(kube::make_informer<discoveryv1::EndpointSlice>(client)),
        events_(client, {.component = "fairlead-lb-speaker", .host = options_.node_name, .limits = {}}), announcer_(executor_, [this](const IpAddress& ip) { return may_speak(ip); }),
        membership_(options_.membership, now()),
        leases_(client, {.ns = options_.lease_namespace, .node = options_.node_name, .duration = options_.address_lease_duration}, [this] { look_again(); }),
        bgp_(client, {.node_name = options_.node_name, .listen_port = options_.bgp_listen_port, .lease_namespace = options_.lease_namespace}, registry, events_, references(),
             [this] { look_again(); }),
        socket_(executor_), timer_(executor_), ended_(executor_) {}

  Result<> start() {
    FL_CHECK_CTX(pools_.start(), "pools");
    FL_TRY(links_, l2::read_links());
    FL_CHECK(open_socket());
    FL_CHECK(bgp_.start());
    services_->on_change([this](const auto&) { dirty_ = true; });
    slices_->on_change([this](const auto&) { dirty_ = true; });
    nodes_->on_change([this](const kube::Change<corev1::Node>& c) {
      // Nodes report often; most of it is nothing to us.
      if (!c.before || !c.after || node_facts(*c.before) != node_facts(*c.after)) dirty_ = true;
    });
    services_->start();
    slices_->start();
    nodes_->start();
    listen();
    net::co_spawn(executor_, run(shared_from_this()), net::detached);
    return {};
  }

  Task<> stop() override {
    stopping_ = true;
    timer_.cancel();
    co_await ended_.wait();
    // First silence, then the word: whoever hears it may take over.
    announcer_.set({}, links_);
    if (options_.address_leases) co_await leases_.stop();
    const std::chrono::milliseconds pause{5};
    for (int i = 0; i < 3; ++i) {
      send({options_.node_name, true, true});
      co_await sleep_for(pause);
    }
    co_await bgp_.stop();
    boost::system::error_code ec;
    socket_.close(ec);
    co_await services_->stop();
    co_await slices_->stop();
    co_await nodes_->stop();
    co_await pools_.stop();
    events_.stop();
  }

 private:
  // Asked before each frame. A process that was stopped for a while must not answer with what it believed before.
  bool may_speak(const IpAddress& ip) const {
    return membership_.fresh(now()) && (!options_.address_leases || leases_.holds(ip, now()));
  }

  void look_again() {
    dirty_ = true;
    timer_.cancel();
  }

  static SteadyTime now() { return SystemClock::get().steady(); }

  // Both families; a machine without IPv6 has IPv4 alone.
  Result<> open_socket() {
    boost::system::error_code ec;
    socket_.open(udp::v6(), ec);
    v6_ = !ec;
    if (v6_) socket_.set_option(net::ip::v6_only(false), ec);
    if (!v6_) socket_.open(udp::v4(), ec);
    if (ec) return fail(asio_error(ec, "heartbeat socket"));
    const udp::endpoint any(v6_ ? udp::v6() : udp::v4(), options_.heartbeat_port);
    socket_.bind(any, ec);
    if (ec) return fail(asio_error(ec, fmt::format("--heartbeat-port {}", options_.heartbeat_port)));
    socket_.non_blocking(true, ec);
    if (ec) return fail(asio_error(ec, "heartbeat socket"));
    return {};
  }

  void listen() {
    socket_.async_wait(udp::socket::wait_read, [self = weak_from_this()](const boost::system::error_code& ec) {
      const auto speaker = self.lock();
      if (!speaker || ec || speaker->stopping_) return;
      speaker->receive();
      speaker->listen();
    });
  }

  void receive() {
    std::array<char, kMaxHeartbeat + 1> buffer;
    for (int i = 0; i < kDatagramsAtOnce; ++i) {
      udp::endpoint from;
      boost::system::error_code ec;
      const auto n = socket_.receive_from(net::buffer(buffer), from, 0, ec);
      if (ec) return;
      const auto h = Heartbeat::decode({buffer.data(), n});
      if (!h || h->node == options_.node_name || !speaks_for(from.address(), h->node)) {
        registry_.counter("fairlead_lb_heartbeats_refused_total", "Datagrams that are no heartbeat of a node that we know").inc();
        continue;
      }
      membership_.heard(*h, now());
      if (h->leaving) timer_.cancel();
    }
  }

  bool speaks_for(const net::ip::address& from, const std::string& node) const {
    const auto it = peers_.find(node);
    if (it == peers_.end()) return false;
    const auto plain = from.is_v6() && from.to_v6().is_v4_mapped() ? net::ip::address(net::ip::make_address_v4(net::ip::v4_mapped, from.to_v6())) : from;
    const auto ip = IpAddress::parse(plain.to_string());
    return ip && std::find(it->second.begin(), it->second.end(), *ip) != it->second.end();
  }

  void send(const Heartbeat& h) {
    const auto bytes = h.encode();
    for (const auto& [node, addresses] : peers_) {
      if (addresses.empty()) continue;
      auto to = to_udp(addresses.front(), options_.heartbeat_port);
      if (v6_ && to.address().is_v4()) to.address(net::ip::make_address_v6(net::ip::v4_mapped, to.address().to_v4()));
      boost::system::error_code ec;
      socket_.send_to(net::buffer(bytes), to, 0, ec);
    }
  }

  static Task<> run(std::shared_ptr<SpeakerImpl> self) {
    co_await self->loop();
    self->ended_.set();
  }

  Task<> loop() {
    auto next_look = now() + options_.pools_interval;
    while (!stopping_) {
      if (now() >= next_look) {
        look();
        next_look = now() + options_.pools_interval;
      }
      membership_.tick(now());
      const bool settled = synced() && membership_.settled(now());
      send({options_.node_name, false, settled});
      auto alive = membership_.alive(now());
      // Somebody is back: while it was away, one side of the LAN may have been told of another announcer.
      const bool returned = !std::includes(alive_.begin(), alive_.end(), alive.begin(), alive.end());
      if (dirty_ || alive != alive_ || settled != settled_ || synced() != was_synced_) {
        was_synced_ = synced();
        alive_ = std::move(alive);
        settled_ = settled;
        dirty_ = false;
        replan();
      }
      if (returned) announcer_.announce_again();
      timer_.expires_after(options_.membership.interval);
      co_await timer_.async_wait(use_result);
    }
  }

  bool synced() const { return pools_.known() && services_->has_synced() && nodes_->has_synced() && slices_->has_synced(); }

  void look() {
    if (pools_.look()) dirty_ = true;
    auto links = l2::read_links();
    if (!links) {
      log::warn("links: {}", links.error().message);
    } else if (*links != links_ || !problems_.empty()) {
      links_ = std::move(*links);
      dirty_ = true;
    }
    publish();
  }

  void replan() {
    Facts f;
    f.self = options_.node_name;
    f.settled = settled_;
    f.alive = alive_;
    f.pools = &pools_.pools();
    f.links = links_;
    peers_.clear();
    nodes_->for_each([&](const std::shared_ptr<const corev1::Node>& n) {
      f.nodes.push_back(node_facts(*n));
      if (f.nodes.back().name != options_.node_name) peers_[f.nodes.back().name] = f.nodes.back().addresses;
    });
    std::map<std::string, std::vector<std::shared_ptr<const discoveryv1::EndpointSlice>>> by_service;
    slices_->for_each([&](const std::shared_ptr<const discoveryv1::EndpointSlice>& s) {
      const auto it = s->metadata().labels().find("kubernetes.io/service-name");
      if (it != s->metadata().labels().end()) by_service[s->metadata().namespace_() + "/" + it->second].push_back(s);
    });
    services_->for_each([&](const std::shared_ptr<const corev1::Service>& s) {
      auto facts = service_facts(*s, by_service[s->metadata().namespace_() + "/" + s->metadata().name()], options_.load_balancer_class);
      if (!facts.addresses.empty()) f.services.push_back(std::move(facts));
    });
    auto plan = l2::plan_announcements(f);
    if (options_.address_leases) keep_leased(plan);
    carry_out(std::move(plan));
    // Routers are told nothing before everything is known: one that kept our routes over a restart must not drop some of them.
    if (synced()) bgp_.update(std::move(f));
  }

  // The election says who is to have an address; the Lease, who has it.
  void keep_leased(l2::Plan& plan) {
    std::set<IpAddress> elected;
    for (const auto& [ip, a] : plan) elected.insert(ip);
    leases_.want(elected);
    std::erase_if(plan, [&](const auto& entry) { return !leases_.holds(entry.first, now()); });
  }

  void carry_out(l2::Plan plan) {
    const auto problems = announcer_.set(plan, links_);
    for (const auto& p : problems)
      if (std::find(problems_.begin(), problems_.end(), p) == problems_.end()) log::warn("{}", p);
    problems_ = problems;
    for (const auto& [ip, a] : plan)
      for (const auto& key : a.services) {
        const auto was = plan_.find(ip);
        if (was != plan_.end() && was->second.services.contains(key)) continue;
        log::info("announcing {} of service {}", ip.to_string(), key);
        if (const auto s = services_->get(key))
          events_.normal(kube::reference_to(*s), "nodeAssigned", fmt::format("announcing {} from node \"{}\" with protocol \"layer2\"", ip.to_string(), options_.node_name));
      }
    for (const auto& [ip, a] : plan_) {
      const auto is = plan.find(ip);
      if (is == plan.end()) log::info("{} is announced from here no more", ip.to_string());
      for (const auto& key : a.services)
        if (is == plan.end() || !is->second.services.contains(key)) registry_.remove_gauge("metallb_speaker_announced", labels(ip, key));
    }
    for (const auto& [ip, a] : plan)
      for (const auto& key : a.services)
        registry_.gauge("metallb_speaker_announced", "Services announced from this node", labels(ip, key)).set(1);
    plan_ = std::move(plan);
  }

  bgp::References references() {
    bgp::References r;
    r.node = [this]() -> std::optional<corev1::ObjectReference> {
      const auto n = nodes_->get(options_.node_name);
      return n ? std::optional(kube::reference_to(*n)) : std::nullopt;
    };
    r.service = [this](const std::string& key) -> std::optional<corev1::ObjectReference> {
      const auto s = services_->get(key);
      return s ? std::optional(kube::reference_to(*s)) : std::nullopt;
    };
    return r;
  }

  metrics::Labels labels(const IpAddress& ip, const std::string& key) const {
    return {{"service", key}, {"protocol", "layer2"}, {"node", options_.node_name}, {"ip", ip.to_string()}};
  }

  void publish() {
    bgp_.publish();
    const auto s = announcer_.stats();
    registry_.gauge("metallb_layer2_requests_received", "Questions for addresses that we announce").set(static_cast<double>(s.questions));
    registry_.gauge("metallb_layer2_responses_sent", "Answers to them").set(static_cast<double>(s.answers));
    registry_.gauge("metallb_layer2_gratuitous_sent", "Announcements that nobody asked for").set(static_cast<double>(s.announcements));
    registry_.gauge("metallb_k8s_client_config_stale_bool", "1: something of the pools is not in force").set(pools_.stale() ? 1 : 0);
    registry_.gauge("fairlead_lb_speakers_alive", "Other nodes' speakers that we hear").set(static_cast<double>(alive_.size()));
    registry_.gauge("fairlead_lb_speaker_sleeps_total", "Times that this speaker found itself stopped for too long").set(static_cast<double>(membership_.sleeps()));
  }

  SpeakerOptions options_;
  metrics::Registry& registry_;
  PoolWatch pools_;
  net::any_io_executor executor_;
  std::shared_ptr<kube::Informer<corev1::Service>> services_;
  std::shared_ptr<kube::Informer<corev1::Node>> nodes_;
  std::shared_ptr<kube::Informer<discoveryv1::EndpointSlice>> slices_;
  kube::EventRecorder events_;
  l2::Announcer announcer_;
  l2::Membership membership_;
  l2::AddressLeases leases_;
  bgp::BgpSpeaker bgp_;
  udp::socket socket_;
  bool v6_ = false;
  net::steady_timer timer_;
  Event ended_;
  std::vector<LinkFacts> links_;
  std::map<std::string, std::vector<IpAddress>> peers_;  // other nodes, by name
  std::set<std::string> alive_;
  l2::Plan plan_;
  std::vector<std::string> problems_;
  bool settled_ = false;
  bool was_synced_ = false;
  bool dirty_ = true;
  bool stopping_ = false;
};

}  // namespace

Result<std::shared_ptr<Speaker>> start_speaker(std::shared_ptr<kube::Client> client, SpeakerOptions options, metrics::Registry& registry) {
  auto speaker = std::make_shared<SpeakerImpl>(std::move(client), std::move(options), registry);
  FL_CHECK(speaker->start());
  return std::shared_ptr<Speaker>(std::move(speaker));
}

}  // namespace fairlead::lb
