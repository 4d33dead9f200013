#include "ipvs/kernel_netlink.h"

#include <linux/netlink.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <thread>

#include "iptables/kernel_process.h"
#include "iptables/model.h"
#include "ipvs/address_watch.h"
#include "ipvs/genl_socket.h"
#include "ipvs/layout.h"
#include "ipvs/retry.h"
#include "ipvs/text.h"
#include "ipvs/wire.h"
#include "netlink/netns.h"
#include "netlink/rt_socket.h"
#include "netlink/socket.h"

namespace fairlead::ipvs {
namespace {

using netlink::Bytes;
using netlink::MessageView;
using netlink::RtSocket;
using netlink::Socket;

constexpr std::size_t kLongestScheduler = 15;
const ServerKey kProbe{Protocol::tcp, {IpAddress::v4(198, 51, 100, 0), 20000}};  // documentation address, RFC 5737

class NetlinkKernel final : public Kernel {
 public:
  NetlinkKernel(netlink::NetNs ns, GenlSocket genl, Socket nf, RtSocket rt, std::unique_ptr<iptables::Kernel> tables)
      : ns_(std::move(ns)), genl_(std::move(genl)), nf_(std::move(nf)), rt_(std::move(rt)), type_(genl_.type()), tables_(std::move(tables)) {}

  Result<State> list(Family family) override {
    State s;
    s.family = family;
    // A kernel without IPv6 holds nothing of it, and its tools fail.
    if (family == Family::v6 && ::access("/proc/sys/net/ipv6", F_OK) != 0) return s;
    FL_CHECK(list_addresses(s));
    FL_CHECK(list_sets(s));
    FL_TRY(const auto rules, list_rules(family));
    s.rules = rules;
    FL_TRY(s.timeouts, list_timeouts());
    FL_TRY(const auto seen, dump_servers(family));
    for (const auto& one : seen) {
      auto real = real_servers(one.server.key);
      if (!real && is_gone(real.error())) continue;  // meanwhile
      if (!real) return fail(std::move(real).error());
      s.servers[one.server.key] = {one.server, std::move(*real)};
    }
    return s;
  }

  Result<std::vector<RealServer>> real_servers(const ServerKey& key) override {
    FL_TRY(const auto seen, dump_real(key));
    std::vector<RealServer> out;
    out.reserve(seen.size());
    for (const auto& r : seen) out.push_back(r.real);
    std::sort(out.begin(), out.end(), [](const RealServer& a, const RealServer& b) { return a.address < b.address; });
    return out;
  }

  Result<CommitReport> commit(Family family, const std::vector<Op>& ops) override {
    CommitReport report;
    for (std::size_t i = 0; i < ops.size();) {
      std::size_t end = i + 1;
      while (end < ops.size() && way_of(ops[end]) == way_of(ops[i])) ++end;
      const std::span<const Op> run(ops.data() + i, end - i);
      switch (way_of(ops[i])) {
        case Way::ipvs: FL_CHECK(send(genl_, run, report, [this](const Op& op, bool edit) { return ipvs_message(op, edit); })); break;
        case Way::set: FL_CHECK(send(nf_, run, report, [](const Op& op, bool) { return set_message(op); })); break;
        case Way::address: {
          FL_TRY_CTX(const auto link, rt_.link(kLinkName), "{}", kLinkName);
          FL_CHECK(send(rt_.socket(), run, report, [&](const Op& op, bool) { return address_message(op, link.index); }));
          break;
        }
        case Way::other:
          for (const auto& op : run) FL_CHECK(single(family, op));
          break;
      }
      i = end;
    }
    return report;
  }

  Result<std::vector<Counters>> counters(Family family) override {
    FL_TRY(const auto seen, dump_servers(family));
    std::vector<Counters> out;
    for (const auto& s : seen) {
      out.push_back({s.server.key, {}, s.counted.connections, s.counted.packets, s.counted.bytes});
      const auto real = dump_real(s.server.key);
      if (!real && is_gone(real.error())) continue;
      if (!real) return fail(real.error());
      for (const auto& r : *real) out.push_back({s.server.key, r.real.address, r.counted.connections, r.counted.packets, r.counted.bytes});
    }
    return out;
  }

  Result<> watch(std::function<void()> handler) override {
    watch_.reset();
    if (!handler) return {};
    FL_TRY(watch_, AddressWatch::start(ns_.fd(), std::string(kLinkName), rt_.socket().port_id(), std::move(handler)));
    return {};
  }

  // Asking means trying: the kernel loads a scheduler's module when a virtual server wants it.
  Result<bool> has_scheduler(const std::string& name) override {
    if (name.empty() || name.size() > kLongestScheduler) return false;
    const VirtualServer probe{kProbe, name, 0, 0};
    auto added = genl_.request(wire::build_server(type_, wire::Verb::add, probe), "try scheduler " + name);
    if (!added && added.error().sys_errno == ENOENT) return false;
    const bool left = !added && added.error().sys_errno == EEXIST;  // by an attempt that was interrupted
    if (left) added = genl_.request(wire::build_server(type_, wire::Verb::edit, probe), "try scheduler " + name);
    auto removed = genl_.request(wire::build_server(type_, wire::Verb::remove, probe), "remove the trial server");
    if (!added && added.error().sys_errno == ENOENT) return false;
    if (!added) return fail(std::move(added).error());
    if (!removed) return fail(std::move(removed).error());
    return true;
  }

 private:
  enum class Way { ipvs, set, address, other };
  static Way way_of(const Op& op) {
    struct Visitor {
      Way operator()(const op::AddServer&) const { return Way::ipvs; }
      Way operator()(const op::EditServer&) const { return Way::ipvs; }
      Way operator()(const op::DeleteServer&) const { return Way::ipvs; }
      Way operator()(const op::AddReal&) const { return Way::ipvs; }
      Way operator()(const op::EditReal&) const { return Way::ipvs; }
      Way operator()(const op::DeleteReal&) const { return Way::ipvs; }
      Way operator()(const op::SetTimeouts&) const { return Way::ipvs; }
      Way operator()(const op::CreateSet&) const { return Way::set; }
      Way operator()(const op::DestroySet&) const { return Way::set; }
      Way operator()(const op::AddEntry&) const { return Way::set; }
      Way operator()(const op::DeleteEntry&) const { return Way::set; }
      Way operator()(const op::Bind&) const { return Way::address; }
      Way operator()(const op::Unbind&) const { return Way::address; }
      Way operator()(const op::EnsureLink&) const { return Way::other; }
      Way operator()(const op::DeleteLink&) const { return Way::other; }
      Way operator()(const op::WriteRules&) const { return Way::other; }
    };
    return std::visit(Visitor{}, op);
  }

  Bytes ipvs_message(const Op& op, bool edit) const {
    using wire::Verb;
    const Verb add = edit ? Verb::edit : Verb::add;
    if (const auto* o = std::get_if<op::AddServer>(&op)) return wire::build_server(type_, add, o->server);
    if (const auto* o = std::get_if<op::EditServer>(&op)) return wire::build_server(type_, Verb::edit, o->server);
    if (const auto* o = std::get_if<op::DeleteServer>(&op)) return wire::build_server(type_, Verb::remove, {o->key, {}, 0, 0});
    if (const auto* o = std::get_if<op::AddReal>(&op)) return wire::build_real(type_, add, o->key, o->real);
    if (const auto* o = std::get_if<op::EditReal>(&op)) return wire::build_real(type_, Verb::edit, o->key, o->real);
    if (const auto* o = std::get_if<op::DeleteReal>(&op)) return wire::build_real(type_, Verb::remove, o->key, {o->address, 0, 0});
    return wire::build_set_timeouts(type_, std::get<op::SetTimeouts>(op).timeouts);
  }
  static Bytes set_message(const Op& op) {
    if (const auto* o = std::get_if<op::CreateSet>(&op)) return wire::build_create_set(o->set);
    if (const auto* o = std::get_if<op::DestroySet>(&op)) return wire::build_destroy_set(o->name);
    if (const auto* o = std::get_if<op::AddEntry>(&op)) return wire::build_entry(true, o->set, o->entry);
    const auto& o = std::get<op::DeleteEntry>(op);
    return wire::build_entry(false, o.set, o.entry);
  }
  static Bytes address_message(const Op& op, std::uint32_t link) {
    const auto* bind = std::get_if<op::Bind>(&op);
    const auto& ip = bind ? bind->ip : std::get<op::Unbind>(op).ip;
    netlink::Address a;
    a.link = link;
    a.ip = {ip, ip.bits()};
    a.no_dad = ip.is_v6();
    return bind ? netlink::build_add_address(a, true) : netlink::build_delete_address(a);
  }

  using Message = std::function<Bytes(const Op&, bool edit)>;
  template <typename S>
  static Result<> send(S& socket, std::span<const Op> run, CommitReport& report, Message message) {
    Courier c;
    c.message = std::move(message);
    c.send = [&](std::vector<Bytes> messages) { return socket.request_all(std::move(messages), "commit"); };
    c.pause = [](std::chrono::milliseconds d) { std::this_thread::sleep_for(d); };
    FL_TRY(auto carried, carry_out(run, c));
    report.retries += carried.retries;
    std::move(carried.refused.begin(), carried.refused.end(), std::back_inserter(report.refused));
    return {};
  }

  Result<> single(Family family, const Op& op) {
    if (std::holds_alternative<op::EnsureLink>(op)) {
      netlink::LinkSpec spec;
      spec.name = kLinkName;
      spec.kind = netlink::DummyKind{};
      const auto done = rt_.create_link(spec);
      if (!done && done.error().code != ErrorCode::already_exists) return fail(done.error());
      return {};
    }
    if (std::holds_alternative<op::DeleteLink>(op)) return rt_.remove_link(kLinkName);
    return tables_->restore(family, restore_input(std::get<op::WriteRules>(op)));
  }

  Result<> list_addresses(State& s) {
    FL_TRY(const auto link, rt_.find_link(kLinkName));
    if (link && link->kind != "dummy") return fail(ErrorCode::failed_precondition, "link {} is no dummy but a {}; remove it", kLinkName, link->kind);
    s.link = link.has_value();
    FL_TRY(const auto all, rt_.addresses(s.family));
    for (const auto& a : all) {
      const auto& ip = a.ip.address;
      if (link && a.link == link->index) {
        if (!ip.is_link_local()) s.bound.insert(ip);
      } else if (!ip.is_loopback() && !ip.is_link_local()) {
        s.node_addresses.push_back(ip);
      }
    }
    std::sort(s.node_addresses.begin(), s.node_addresses.end());
    s.node_addresses.erase(std::unique(s.node_addresses.begin(), s.node_addresses.end()), s.node_addresses.end());
    return {};
  }

  Result<> list_sets(State& s) {
    std::vector<wire::SeenSet> heads;
    FL_CHECK(nf_.dump(wire::build_dump_sets(), "list sets", [&] { heads.clear(); },
                      [&](const MessageView& m) -> Result<> {
                        if (auto seen = wire::parse_set(m, nullptr); seen && !seen->type.empty() && is_proxy_set(seen->name, s.family))
                          heads.push_back(std::move(*seen));
                        return {};
                      }));
    for (const auto& head : heads) {
      if (!head.spec) return fail(ErrorCode::failed_precondition, "ipset {} is a {}, which is none of ours; remove it", head.name, head.type);
      SetContents contents{*head.spec, {}};
      if (contents.spec.type == SetType::port) contents.spec.family = s.family;
      const auto listed = nf_.dump(wire::build_dump_set(head.name), "list set " + head.name, [&] { contents.entries.clear(); },
                                   [&](const MessageView& m) -> Result<> {
                                     auto seen = wire::parse_set(m, &contents.spec);
                                     if (!seen) return fail(ErrorCode::data_loss, "ipset {} holds an entry that cannot be read", head.name);
                                     contents.entries.insert(seen->entries.begin(), seen->entries.end());
                                     return {};
                                   });
      if (!listed && is_gone(listed.error())) continue;  // meanwhile
      FL_CHECK(listed);
      s.sets.emplace(head.name, std::move(contents));
    }
    return {};
  }

  Result<Rules> list_rules(Family family) {
    Rules out;
    for (const auto table : iptables::kTables) {
      FL_TRY_CTX(const auto listing, tables_->save(family, table), "list table {}", iptables::to_string(table));
      auto& t = out[std::string(iptables::to_string(table))];
      for (const auto& [name, chain] : listing.chains()) {
        if (!chain.builtin && is_proxy_chain(name)) t.chains[std::string(name)].assign(chain.rules.begin(), chain.rules.end());
        if (!chain.builtin) continue;
        for (const auto& rule : chain.rules)
          if (is_proxy_chain(iptables::target_of(rule))) t.hooks[std::string(name)].emplace_back(rule);
      }
    }
    return out;
  }

  Result<Timeouts> list_timeouts() {
    std::optional<Timeouts> t;
    FL_CHECK(genl_.request(wire::build_get_timeouts(type_), "read timeouts", [&](const MessageView& m) -> Result<> {
      if (auto seen = wire::parse_timeouts(m)) t = *seen;
      return {};
    }));
    if (!t) return fail(ErrorCode::data_loss, "the kernel tells no timeouts");
    return *t;
  }

  Result<std::vector<wire::SeenServer>> dump_servers(Family family) {
    std::vector<wire::SeenServer> out;
    FL_CHECK(genl_.dump(wire::build_dump_servers(type_), "list virtual servers", [&] { out.clear(); },
                        [&](const MessageView& m) -> Result<> {
                          if (auto seen = wire::parse_server(m); seen && seen->server.key.address.ip.family() == family) out.push_back(std::move(*seen));
                          return {};
                        }));
    return out;
  }

  Result<std::vector<wire::SeenReal>> dump_real(const ServerKey& key) {
    std::vector<wire::SeenReal> out;
    FL_CHECK(genl_.dump(wire::build_dump_real(type_, key), "list real servers of " + to_text(key), [&] { out.clear(); },
                        [&](const MessageView& m) -> Result<> {
                          if (auto seen = wire::parse_real(m)) out.push_back(*seen);
                          return {};
                        }));
    return out;
  }

  netlink::NetNs ns_;
  GenlSocket genl_;
  Socket nf_;
  RtSocket rt_;
  std::uint16_t type_;
  std::unique_ptr<iptables::Kernel> tables_;
  std::unique_ptr<AddressWatch> watch_;
};

}  // namespace

Result<std::unique_ptr<Kernel>> open_kernel(std::string_view iptables_backend) {
  FL_TRY(auto ns, netlink::NetNs::current());
  FL_TRY(auto genl, GenlSocket::open("IPVS"));
  FL_TRY(auto nf, Socket::open(NETLINK_NETFILTER));
  FL_TRY(auto rt, RtSocket::open());
  FL_TRY(auto backend, iptables::parse_backend(iptables_backend));
  if (!backend) {
    FL_TRY(backend, iptables::choose_backend());
  }
  FL_TRY(auto tables, iptables::open_kernel(*backend));
  return std::unique_ptr<Kernel>(new NetlinkKernel(std::move(ns), std::move(genl), std::move(nf), std::move(rt), std::move(tables)));
}

}  // namespace fairlead::ipvs
