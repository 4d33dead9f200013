#include "netlink/qdisc.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>

#include <algorithm>
#include <array>

namespace fairlead::netlink {
namespace {

// The kernel counts bucket time in ticks of 64 ns (PSCHED_SHIFT 6), the same on every machine since 2.6.31.
constexpr std::uint64_t kNsPerTick = 64;
constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

std::uint32_t saturate(std::uint64_t v) { return static_cast<std::uint32_t>(std::min<std::uint64_t>(v, UINT32_MAX)); }

// Ticks that `bytes` need at `rate`, without overflow for any 64-bit input.
std::uint32_t ticks(std::uint64_t bytes, std::uint64_t rate) {
  if (rate == 0) return UINT32_MAX;
  return saturate(static_cast<std::uint64_t>(std::min<unsigned __int128>(
      static_cast<unsigned __int128>(bytes) * kNsPerSecond / rate / kNsPerTick, UINT32_MAX)));
}

tcmsg header(std::uint32_t link, std::uint32_t handle, std::uint32_t parent) {
  tcmsg t{};
  t.tcm_family = AF_UNSPEC;
  t.tcm_ifindex = static_cast<int>(link);
  t.tcm_handle = handle;
  t.tcm_parent = parent;
  return t;
}

}  // namespace

Bytes build_add_tbf(std::uint32_t link, const Tbf& tbf) {
  MessageBuilder m(RTM_NEWQDISC, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  m.header(header(link, 1u << 16, TC_H_ROOT));
  m.put_string(TCA_KIND, "tbf");
  {
    const auto options = m.nest(TCA_OPTIONS, false);
    tc_tbf_qopt q{};
    q.rate.rate = saturate(tbf.rate);
    q.rate.linklayer = TC_LINKLAYER_ETHERNET;
    q.buffer = ticks(tbf.burst, tbf.rate);
    const unsigned __int128 queued = static_cast<unsigned __int128>(tbf.rate) * tbf.latency_us / 1'000'000 + tbf.burst;
    q.limit = saturate(static_cast<std::uint64_t>(std::min<unsigned __int128>(queued, UINT32_MAX)));
    m.put_value(TCA_TBF_PARMS, q);
    m.put_u32(TCA_TBF_BURST, saturate(tbf.burst));
    if (tbf.rate > UINT32_MAX) m.put_u64(TCA_TBF_RATE64, tbf.rate);
    // The kernel wants a table of 256 transmission times for rates given with a cell size; it reads the link layer from
    // it and computes exactly by itself.
    std::array<std::uint32_t, 256> table{};
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = ticks((i + 1) << q.rate.cell_log, tbf.rate);
    m.put_value(TCA_TBF_RTAB, table);
  }
  return std::move(m).finish();
}

Bytes build_add_ingress(std::uint32_t link) {
  MessageBuilder m(RTM_NEWQDISC, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  m.header(header(link, 0xffff0000u, TC_H_INGRESS));
  m.put_string(TCA_KIND, "ingress");
  return std::move(m).finish();
}

Bytes build_add_redirect(std::uint32_t link, std::uint32_t to) {
  MessageBuilder m(RTM_NEWTFILTER, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  tcmsg t = header(link, 0, 0xffff0000u);
  t.tcm_info = TC_H_MAKE(1u << 16, htons(ETH_P_ALL));  // preference 1, every protocol
  m.header(t);
  m.put_string(TCA_KIND, "u32");
  {
    const auto options = m.nest(TCA_OPTIONS, false);
    // One key that matches everything: 0 under mask 0. u32 is in every kernel; matchall is not.
    tc_u32_sel selector{};
    selector.flags = TC_U32_TERMINAL;
    selector.nkeys = 1;
    Bytes match(sizeof selector + sizeof(tc_u32_key));
    std::memcpy(match.data(), &selector, sizeof selector);
    m.put(TCA_U32_SEL, match);
    const auto actions = m.nest(TCA_U32_ACT, false);
    const auto first = m.nest(1, false);
    m.put_string(TCA_ACT_KIND, "mirred");
    const auto action = m.nest(TCA_ACT_OPTIONS, false);
    tc_mirred p{};
    p.action = TC_ACT_STOLEN;
    p.eaction = TCA_EGRESS_REDIR;
    p.ifindex = to;
    m.put_value(TCA_MIRRED_PARMS, p);
  }
  return std::move(m).finish();
}

Bytes build_dump_qdiscs(std::uint32_t link) {
  MessageBuilder m(RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP);
  m.header(header(link, 0, 0));
  return std::move(m).finish();
}

Result<Qdisc> parse_qdisc(const MessageView& m) {
  if (m.header.nlmsg_type != RTM_NEWQDISC && m.header.nlmsg_type != RTM_DELQDISC)
    return fail(ErrorCode::data_loss, "netlink message of type {} where a qdisc was expected", m.header.nlmsg_type);
  FL_TRY(const auto parsed, m.as<tcmsg>());
  const auto& [h, a] = parsed;
  Qdisc q;
  q.link = static_cast<std::uint32_t>(h.tcm_ifindex);
  q.handle = h.tcm_handle;
  q.parent = h.tcm_parent;
  q.kind = a.string(TCA_KIND).value_or("");
  if (q.kind == "tbf") {
    const Attributes options = a.nested(TCA_OPTIONS);
    if (const auto p = options.value<tc_tbf_qopt>(TCA_TBF_PARMS)) {
      Tbf t;
      t.rate = options.value<std::uint64_t>(TCA_TBF_RATE64).value_or(p->rate.rate);
      t.burst = static_cast<std::uint64_t>(static_cast<unsigned __int128>(t.rate) * p->buffer * kNsPerTick / kNsPerSecond);
      t.latency_us = t.rate == 0 || p->limit < t.burst ? 0 : saturate((p->limit - t.burst) * 1'000'000ull / t.rate);
      q.tbf = t;
    }
  }
  return q;
}

}  // namespace fairlead::netlink
