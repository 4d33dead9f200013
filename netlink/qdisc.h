// Queueing disciplines for rate limits: a token bucket at a link's root, and an ingress hook that redirects what arrives
// on one link to another one (an ifb), where a token bucket shapes it. Pure.
// Sources: net/sched/sch_tbf.c, sch_ingress.c, cls_matchall.c, act_mirred.c; tc-tbf(8).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "netlink/message.h"

namespace fairlead::netlink {

struct Tbf {
  std::uint64_t rate = 0;      // bytes per second
  std::uint64_t burst = 0;     // bytes; the bucket's size
  std::uint32_t latency_us = 25'000;  // longest wait in the queue
  bool operator==(const Tbf&) const = default;
};

struct Qdisc {
  std::uint32_t link = 0;
  std::uint32_t handle = 0;
  std::uint32_t parent = 0;
  std::string kind;
  std::optional<Tbf> tbf;      // latency_us is derived from the queue limit
};

Bytes build_add_tbf(std::uint32_t link, const Tbf& tbf);     // at the root; already_exists
Bytes build_add_ingress(std::uint32_t link);
Bytes build_add_redirect(std::uint32_t link, std::uint32_t to);  // everything that arrives on link leaves through `to`
Bytes build_dump_qdiscs(std::uint32_t link);
Result<Qdisc> parse_qdisc(const MessageView& m);

}  // namespace fairlead::netlink
