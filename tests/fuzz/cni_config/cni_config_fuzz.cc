// Any text as a network configuration, a record of the lease store, a resolv.conf. An accepted configuration has a plan
// that can be printed, and its result can be read back.
#include <boost/json/serialize.hpp>

#include "cni/ipam/resolv_conf.h"
#include "cni/plan.h"
#include "cni/record.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(std::string_view bytes) {
  using namespace fairlead::cni;
  (void)version_for_error(bytes);
  (void)parse_resolv_conf(bytes);
  (void)parse_alias(bytes);
  if (const auto record = parse_record(bytes); record && !record->empty()) {
    const auto again = parse_record(to_text(*record));
    FUZZ_CHECK(again && (record->nat.empty() ? again->nat.empty() : again->nat == record->nat) && again->hosts_file == record->hosts_file, "a record survives writing and reading");
  }
  const auto c = parse_config(bytes);
  if (!c) {
    FUZZ_CHECK(!c.error().msg.empty(), "an error says something");
    return;
  }
  if (c->role != Role::network) return;
  std::vector<AssignedIp> ips;
  for (const RangeSet& set : c->ipam.ranges) {
    RangeWalk walk(set, {});
    const auto ip = walk.next();
    FUZZ_CHECK(ip && set.find(*ip), "a range set has a usable address");
    const AddressRange* range = set.find(*ip);
    ips.push_back({.address = {*ip, range->subnet.length()}, .gateway = range->gateway, .interface = {}});
  }
  const Request r{.verb = Verb::add, .container_id = "c", .netns = "/n", .ifname = "eth0"};
  const auto plan = attach_plan(*c, r, ips, c->ipam.routes);
  FUZZ_CHECK(plan.has_value(), "an accepted configuration has a plan");
  (void)plan->to_string();
  const boost::json::value result = to_json(plan->attachment, c->version);
  const auto back = parse_attachment(Field(&result, "prevResult"));
  FUZZ_CHECK(back.has_value(), "a result can be read back");
}
