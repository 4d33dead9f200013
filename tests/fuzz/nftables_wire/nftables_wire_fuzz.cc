// Any bytes as what the kernel's nf_tables sends: tables, chains, rules, sets, elements. What was understood can be printed, and
// a rule that was understood says the same after another trip through the codec.
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "nftables/text.h"
#include "nftables/trace.h"
#include "nftables/wire.h"
#include "tests/fuzz/fuzz.h"

using namespace fairlead;
using namespace fairlead::nftables;

namespace {

std::span<const std::uint8_t> bytes_of(std::string_view s) { return {reinterpret_cast<const std::uint8_t*>(s.data()), s.size()}; }

bool strange(const Rule& r) {
  for (const auto& e : r.exprs)
    if (std::holds_alternative<expr::Other>(e)) return true;
  return false;
}

void check_rule(const Rule& rule, Family family) {
  const std::string text = to_text(rule, family);
  if (strange(rule)) return;
  Batch batch{family, "t", {op::AddRule{"c", rule}}};
  const auto encoded = wire::encode(batch, 1);
  auto rest = std::span<const std::uint8_t>(encoded.bytes);
  while (const auto m = wire::next_message(rest)) {
    if (m->header.type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE)) continue;
    const auto again = wire::decode(NFT_MSG_NEWRULE, family, m->payload.subspan(sizeof(nfgenmsg)));
    FUZZ_CHECK(again.has_value(), text);
    const auto* decoded = std::get_if<wire::RuleMessage>(&*again);
    FUZZ_CHECK(decoded && to_text(decoded->rule, family) == text, text);
  }
}

void check(std::uint8_t type, Family family, std::span<const std::uint8_t> payload) {
  (void)wire::table_of(type, payload);
  const auto m = wire::decode(type, family, payload);
  if (!m) return;
  if (const auto* rule = std::get_if<wire::RuleMessage>(&*m)) check_rule(rule->rule, family);
  if (const auto* chain = std::get_if<wire::ChainMessage>(&*m)) (void)to_text(chain->chain, family);
  if (const auto* elements = std::get_if<wire::ElementsMessage>(&*m)) {
    FUZZ_CHECK(elements->counts.size() == elements->elements.size(), elements->set);
    for (const auto& e : elements->elements) (void)to_text(Set{}, e);
  }
}

}  // namespace

void fuzz_one(std::string_view bytes) {
  // As a stream of messages, and as the payload of each kind.
  auto stream = bytes_of(bytes);
  while (const auto m = wire::next_message(stream))
    if (m->payload.size() >= sizeof(nfgenmsg)) check(static_cast<std::uint8_t>(m->header.type), Family::v4, m->payload.subspan(sizeof(nfgenmsg)));
  for (const std::uint8_t type : {NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWGEN})
    for (const Family f : {Family::v4, Family::v6}) check(type, f, bytes_of(bytes));
}
