// Attaching containers: ADD, DEL, CHECK, GC, STATUS of a network of ours.
#include <boost/json/serialize.hpp>

#include "base/files.h"
#include "base/scope_guard.h"
#include "cni/check.h"
#include "cni/verbs.h"

namespace fairlead::cni {
namespace {

// Addresses, plan and record come into being in one transaction: from then on DEL knows all it needs.
CniResult<AttachPlan> lease_and_plan(const Services& s, LeaseStore& store, const Request& r, const NetConf& c) {
  const AllocationRequest q = allocation_request(s, store, r, c);
  const auto work = [&](LeaseBook& b) -> CniResult<AttachPlan> {
    CNI_TRY(const auto ips, lease_in(b, q, c));
    CNI_TRY(auto plan, attach_plan(c, r, ips, c.ipam.routes));
    if (const auto text = to_text(record_of(plan)); !text.empty()) CNI_CHECK(lift(b.set_record(q.owner, text), Code::io_failure));
    return plan;
  };
  return with_orphans_freed(s, store, c, Code::no_address, [&] { return store.write(work); });
}

CniResult<std::string> add_with_own_addresses(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(auto kernel, s.open_kernel(r.netns));
  CNI_TRY(auto store, open_store(s, c));
  CNI_TRY(const Fd lock, store.lock(owner_of(r)));
  CNI_TRY(const auto plan, lease_and_plan(s, store, r, c));
  auto undo = on_exit([&] { (void)give_back(s, store, owner_of(r)); });
  CNI_CHECK(with_orphans_freed(s, store, c, Code::port_taken, [&] { return execute(*kernel, plan.steps); }));
  undo.dismiss();
  return text_of(plan.attachment, c.version);
}

CniResult<Attachment> delegated_addresses(const Services& s, const Request& r, const NetConf& c, std::string& out) {
  CNI_TRY(out, s.delegate(c.ipam.type, r, Verb::add, c.text));
  const auto doc = parse_json(out);
  if (!doc) return cni_fail(Code::delegate_failed, "{} printed no result: {}", c.ipam.type, doc.error().msg);
  auto a = parse_attachment(Field(*doc));
  if (!a) return cni_fail(Code::delegate_failed, "{} printed a result that cannot be read: {}", c.ipam.type, a.error().msg);
  if (a->ips.empty()) return cni_fail(Code::delegate_failed, "{} assigned no address", c.ipam.type);
  return std::move(*a);
}

CniResult<> record(LeaseStore& store, const Request& r, const AttachPlan& plan, const std::string& delegated) {
  AttachmentRecord whole = record_of(plan);
  whole.delegated = delegated;
  const auto text = to_text(whole);
  const auto work = [&](LeaseBook& b) { return lift(b.set_record(owner_of(r), text), Code::io_failure); };
  return store.write(work);
}

// The link comes first: dhcp talks over it. What the addresses need is put on it afterwards.
CniResult<std::string> add_with_delegated_addresses(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(auto kernel, s.open_kernel(r.netns));
  CNI_TRY(auto store, open_store(s, c));
  CNI_TRY(const Fd lock, store.lock(owner_of(r)));
  CNI_TRY(const auto link, link_plan(c, r));
  CNI_CHECK(execute(*kernel, link.steps));
  auto take_away = on_exit([&] {
    (void)s.delegate(c.ipam.type, r, Verb::del, c.text);
    (void)revert(*kernel, link.steps);
    (void)give_back(s, store, owner_of(r));
  });
  std::string printed;
  CNI_TRY(const auto got, delegated_addresses(s, r, c, printed));
  NetConf with_dns = c;
  if (!got.dns.empty()) with_dns.ipam.dns = got.dns;
  CNI_TRY(auto plan, attach_plan(with_dns, r, got.ips, got.routes));
  std::erase_if(plan.steps, [](const Step& step) { return std::holds_alternative<CreateVeth>(step); });
  CNI_CHECK(record(store, r, plan, printed));
  CNI_CHECK(execute(*kernel, plan.steps));
  take_away.dismiss();
  return text_of(plan.attachment, c.version);
}

CniResult<std::string> add(const Services& s, const Request& r, const NetConf& c) {
  CNI_CHECK(check_netns(r));
  return c.ipam.builtin ? add_with_own_addresses(s, r, c) : add_with_delegated_addresses(s, r, c);
}

// DEL makes no store, except where leases have to be imported first: else this one would come back with a later import.
CniResult<std::optional<LeaseStore>> store_for_del(const Services& s, const NetConf& c) {
  if (c.ipam.host_local_dir.empty()) return existing_store(s, c);
  CNI_TRY(auto store, open_store(s, c));
  return std::optional<LeaseStore>(std::move(store));
}

CniResult<std::string> del(const Services& s, const Request& r, const NetConf& c) {
  // Before the link: dhcp says good-bye over it. Its failure must not keep the link, and the runtime comes again.
  CniResult<std::string> delegated;
  if (!c.ipam.builtin) delegated = s.delegate(c.ipam.type, r, Verb::del, c.text);
  CNI_TRY(auto kernel, s.open_kernel(""));
  CNI_TRY(auto store, store_for_del(s, c));
  CNI_CHECK(detach(*kernel, store ? &*store : nullptr, owner_of(r), s.now()));
  // A pod that another plugin attached before this node was switched over: its interface has no host end of our name.
  if (!c.ipam.host_local_dir.empty() && !r.netns.empty()) CNI_CHECK(s.remove_in_pod(r.netns, r.ifname));
  CNI_CHECK(std::move(delegated));
  return std::string();
}

// The configuration as it came, with the delegate's own result as prevResult.
CniResult<std::string> conf_for_delegated_check(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(auto store, existing_store(s, c));
  if (!store) return c.text;
  CNI_TRY(const auto own, read_record(&*store, owner_of(r)));
  if (own.delegated.empty()) return c.text;
  CNI_TRY(auto doc, parse_json(c.text));
  CNI_TRY(auto result, parse_json(own.delegated));
  doc.as_object()["prevResult"] = std::move(result);
  return boost::json::serialize(doc);
}

CniResult<std::vector<AssignedIp>> expected_addresses(const Services& s, const Request& r, const NetConf& c) {
  if (!c.ipam.builtin) {
    CNI_TRY(const auto conf, conf_for_delegated_check(s, r, c));
    CNI_CHECK(s.delegate(c.ipam.type, r, Verb::check, conf));
    // What was reported is what is expected; the delegate has confirmed it.
    std::vector<AssignedIp> ips;
    for (const AssignedIp& ip : c.prev_result->ips)
      if (ip.interface && c.prev_result->interfaces[*ip.interface].name == r.ifname) ips.push_back({.address = ip.address, .gateway = ip.gateway, .interface = {}});
    return ips;
  }
  CNI_TRY(auto ips, leased(s, r, c));
  if (ips.size() < c.ipam.ranges.size())
    return cni_fail(Code::check_failed, "container {} interface {} has {} leases, the network gives {}", r.container_id, r.ifname, ips.size(), c.ipam.ranges.size());
  return ips;
}

CniResult<std::string> check(const Services& s, const Request& r, const NetConf& c) {
  if (!c.prev_result) return cni_fail(Code::invalid_config, "invalid configuration: prevResult: is missing, CHECK needs it");
  CNI_CHECK(check_netns(r));
  CNI_TRY(const auto ips, expected_addresses(s, r, c));
  NetConf fresh = c;
  fresh.prev_result.reset();
  CNI_TRY(const auto plan, attach_plan(fresh, r, ips, c.ipam.builtin ? c.ipam.routes : c.prev_result->routes));
  CNI_TRY(auto kernel, s.open_kernel(r.netns));
  CNI_TRY(const auto observed, kernel->observe(host_link_name(owner_of(r)), r.ifname));
  auto wrong = differences(plan, *c.prev_result, r, observed);
  const auto own = record_of(plan);
  if (!own.nat.empty()) {
    CNI_TRY(const bool there, kernel->nat_present(own.nat));
    if (!there) wrong.push_back("a host port or the masquerading is missing");
  }
  if (!own.hosts_file.empty() && !path_exists(own.hosts_file)) wrong.push_back("the hosts file " + own.hosts_file + " is missing");
  if (wrong.empty()) return std::string();
  std::string all;
  for (const auto& w : wrong) all += (all.empty() ? "" : "; ") + w;
  return cni_fail(Code::check_failed, "{}", all);
}

CniResult<std::string> gc(const Services& s, const Request& r, const NetConf& c) {
  CNI_TRY(const auto valid, valid_owners(c));
  CNI_TRY(auto store, existing_store(s, c));
  CNI_TRY(auto kernel, s.open_kernel(""));
  CNI_TRY(const auto done, collect_invalid(*kernel, store ? &*store : nullptr, c.name, valid, s.now()));
  if (!c.ipam.builtin) CNI_CHECK(s.delegate(c.ipam.type, r, Verb::gc, c.text));
  if (done.failed.empty()) return std::string();
  CniError e = done.failed.front().second;
  e.details = fmt::format("{} attachments collected, {} could not be", done.owners.size(), done.failed.size());
  return cni_fail(std::move(e));
}

CniResult<std::string> status(const Services& s, const Request& r, const NetConf& c) {
  const auto unavailable = [](const CniError& e) { return cni_fail(Code::not_available, "{}", e.msg); };
  if (auto kernel = s.open_kernel(""); !kernel) return unavailable(kernel.error());
  if (!c.ipam.builtin) {
    CNI_CHECK(s.delegate(c.ipam.type, r, Verb::status, c.text));
    return std::string();
  }
  auto store = open_store(s, c);
  if (!store) return unavailable(store.error());
  if (auto free = try_allocation(s, *store, c); !free) return unavailable(free.error());
  return std::string();
}

}  // namespace

CniResult<std::string> run_network(const Services& s, const Request& r, const NetConf& c) {
  switch (r.verb) {
    case Verb::add: return add(s, r, c);
    case Verb::del: return del(s, r, c);
    case Verb::check: return check(s, r, c);
    case Verb::gc: return gc(s, r, c);
    case Verb::status: return status(s, r, c);
    case Verb::version: break;
  }
  return std::string();
}

}  // namespace fairlead::cni
