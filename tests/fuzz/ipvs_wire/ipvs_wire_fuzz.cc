// What the kernel says about virtual servers, sets and addresses, as datagrams: never read outside them, never a value that cannot be.
#include <string>

#include "ipvs/address_watch.h"
#include "ipvs/layout.h"
#include "ipvs/wire.h"
#include "tests/fuzz/fuzz.h"

namespace {
using namespace fairlead;
using namespace fairlead::ipvs;

bool fits(const Entry& e, const SetSpec& spec) {
  if (spec.type == SetType::port) return true;
  if (e.ip.family() != spec.family) return false;
  const bool pair = spec.type == SetType::ip_port_ip || spec.type == SetType::ip_port_net;
  return !pair || (e.net.family() == spec.family && e.net.length() <= e.ip.bits());
}
}  // namespace

void fuzz_one(std::string_view bytes) {
  const auto messages = netlink::split_messages({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  if (!messages) return;
  AddressBook book("kube-ipvs0", 1);
  for (const auto& m : *messages) {
    (void)book.learn(m);
    if (const auto s = wire::parse_server(m)) {
      FUZZ_CHECK((s->server.flags & flag::hashed) == 0, "the kernel's own flag");
      FUZZ_CHECK((s->server.flags & flag::persistent) || s->server.persistence_seconds == 0, "persistence");
      // What was read can be written, and is the same when it is read again.
      const auto again = wire::build_server(m.header.nlmsg_type, wire::Verb::edit, s->server);
      const auto back = netlink::split_messages(again);
      FUZZ_CHECK(back, "our own message");
      const auto same = wire::parse_server(back->front());
      FUZZ_CHECK(same && same->server == s->server, s->server.scheduler);
    }
    if (const auto r = wire::parse_real(m)) FUZZ_CHECK(r->real.connections < (std::uint64_t{1} << 33), "connections");
    (void)wire::parse_timeouts(m);
    (void)wire::parse_set(m, nullptr);
    for (std::size_t i = 0; i < kSetCount; ++i)
      for (const Family f : {Family::v4, Family::v6}) {
        const auto& spec = set_of(static_cast<SetId>(i), f);
        const auto seen = wire::parse_set(m, &spec);
        if (!seen) continue;
        for (const auto& e : seen->entries) FUZZ_CHECK(fits(e, spec), spec.name);
      }
  }
}
