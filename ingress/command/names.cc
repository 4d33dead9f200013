#include "ingress/command/names.h"

#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>

#include <algorithm>
#include <boost/asio/thread_pool.hpp>
#include <thread>

#include "base/log.h"
#include "base/scope_guard.h"

namespace fairlead::ingress {
namespace {

constexpr std::size_t kMostNames = 1000, kMostAddresses = 64;
constexpr unsigned kLeastSeconds = 5, kMostSeconds = 300;
constexpr int kMostBytes = 16 << 10;

// One question, with the library's search list and retries. Blocks.
Lookup ask(const std::string& name, const std::optional<SocketAddress>& server, Family family) {
  struct __res_state state {};
  if (::res_ninit(&state) != 0) return {};
  const ScopeGuard close([&] { ::res_nclose(&state); });
  state.retrans = 2;
  state.retry = 2;
  if (server) {
    state.nscount = 1;
    state.nsaddr_list[0].sin_family = AF_INET;
    state.nsaddr_list[0].sin_port = htons(server->port);
    state.nsaddr_list[0].sin_addr.s_addr = htonl(server->ip.v4_host_order());
  }
  std::vector<unsigned char> message(kMostBytes);
  const int n = ::res_nsearch(&state, name.c_str(), ns_c_in, family == Family::v4 ? ns_t_a : ns_t_aaaa, message.data(), kMostBytes);
  if (n < 0) {
    Lookup out;
    out.final = state.res_h_errno == HOST_NOT_FOUND || state.res_h_errno == NO_DATA;
    return out;
  }
  message.resize(static_cast<std::size_t>(std::min(n, kMostBytes)));
  return read_answer(message, family).value_or(Lookup{});
}

}  // namespace

std::optional<Lookup> read_answer(const std::vector<unsigned char>& message, Family family) {
  ns_msg parsed;
  if (::ns_initparse(message.data(), static_cast<int>(message.size()), &parsed) != 0) return std::nullopt;
  Lookup out;
  out.final = true;
  out.ttl_seconds = kMostSeconds;
  const auto size = family == Family::v4 ? 4u : 16u;
  for (int i = 0; i < ns_msg_count(parsed, ns_s_an); ++i) {
    ns_rr record;
    if (::ns_parserr(&parsed, ns_s_an, i, &record) != 0) return std::nullopt;
    // Aliases on the way bound the time as well.
    out.ttl_seconds = std::min(out.ttl_seconds, static_cast<unsigned>(ns_rr_ttl(record)));
    if (ns_rr_type(record) != (family == Family::v4 ? ns_t_a : ns_t_aaaa) || ns_rr_rdlen(record) != size || out.addresses.size() >= kMostAddresses) continue;
    const auto ip = IpAddress::from_bytes({ns_rr_rdata(record), size});
    if (ip) out.addresses.push_back(*ip);
  }
  std::sort(out.addresses.begin(), out.addresses.end());
  out.addresses.erase(std::unique(out.addresses.begin(), out.addresses.end()), out.addresses.end());
  return out;
}

struct Names::Impl : std::enable_shared_from_this<Names::Impl> {
  struct Entry {
    std::vector<IpAddress> addresses;
    bool known = false;
    std::unique_ptr<net::steady_timer> timer;
    std::uint64_t number = 0;  // a name that comes back is another entry
  };

  Impl(net::any_io_executor e, NamesOptions o, std::function<void()> c) : executor(std::move(e)), options(std::move(o)), changed(std::move(c)) {}

  net::any_io_executor executor;
  NamesOptions options;
  std::function<void()> changed;
  std::map<std::string, Entry> entries;
  std::uint64_t next_number = 0;
  bool stopped = false;
  std::shared_ptr<net::thread_pool> threads = std::make_shared<net::thread_pool>(2);

  void start(const std::string& name, std::uint64_t number) {
    net::post(*threads, [weak = weak_from_this(), executor = executor, server = options.server, name, number] {
      auto v4 = ask(name, server, Family::v4);
      const auto v6 = ask(name, server, Family::v6);
      const bool final = v4.final && v6.final;
      v4.ttl_seconds = !v6.addresses.empty() && !v4.addresses.empty() ? std::min(v4.ttl_seconds, v6.ttl_seconds) : std::max(v4.ttl_seconds, v6.ttl_seconds);
      v4.addresses.insert(v4.addresses.end(), v6.addresses.begin(), v6.addresses.end());
      // One family that is not answered does not take the other's addresses away.
      v4.final = final || !v4.addresses.empty();
      net::post(executor, [weak, name, number, found = std::move(v4)]() mutable {
        if (const auto self = weak.lock()) self->take(name, number, std::move(found));
      });
    });
  }

  void take(const std::string& name, std::uint64_t number, Lookup found) {
    const auto it = entries.find(name);
    if (stopped || it == entries.end() || it->second.number != number) return;
    auto& e = it->second;
    const auto seconds = found.final && !found.addresses.empty() ? std::clamp(found.ttl_seconds, kLeastSeconds, kMostSeconds) : kLeastSeconds;
    e.timer->expires_after(std::chrono::seconds(seconds));
    e.timer->async_wait([weak = weak_from_this(), name, number](const boost::system::error_code& ec) {
      const auto self = weak.lock();
      if (!ec && self && !self->stopped) self->start(name, number);
    });
    if (!found.final) {
      log::warn("name {}: no DNS server answers{}", name, e.known ? "; what was found last stays" : "");
      return;
    }
    if (e.known && e.addresses == found.addresses) return;
    e.known = true;
    e.addresses = std::move(found.addresses);
    changed();
  }
};

Names::Names(net::any_io_executor executor, NamesOptions options, std::function<void()> changed)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options), std::move(changed))) {}
Names::~Names() { stop(); }

void Names::follow(const std::set<std::string>& names) {
  auto& entries = impl_->entries;
  std::erase_if(entries, [&](const auto& e) { return !names.contains(e.first); });
  for (const auto& name : names) {
    if (entries.contains(name) || impl_->stopped) continue;
    if (entries.size() >= kMostNames) return log::warn("more than {} names outside of the cluster; {} and others are not looked up", kMostNames, name);
    auto& e = entries[name];
    e.number = ++impl_->next_number;
    e.timer = std::make_unique<net::steady_timer>(impl_->executor);
    impl_->start(name, e.number);
  }
}

std::map<std::string, std::vector<IpAddress>> Names::found() const {
  std::map<std::string, std::vector<IpAddress>> out;
  for (const auto& [name, e] : impl_->entries)
    if (e.known) out[name] = e.addresses;
  return out;
}

void Names::stop() {
  if (std::exchange(impl_->stopped, true)) return;
  for (auto& [name, e] : impl_->entries) e.timer->cancel();
  // Lookups that are under way may take their time; nobody waits for them.
  impl_->threads->stop();
  std::thread([threads = std::move(impl_->threads)] { threads->join(); }).detach();
}

}  // namespace fairlead::ingress
