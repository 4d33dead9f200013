#include "lb/pools_read.h"

#include <boost/json.hpp>
#include <charconv>

namespace fairlead::lb {
namespace {

constexpr std::size_t kMaxRanges = 10'000;    // of one pool
constexpr std::size_t kMaxCommunities = 100;  // of one advertisement, of each form
constexpr const char* kNoEffect = ": is not known here and has no effect";

Result<> read_ranges(ObjectFields& spec, Pool& pool) {
  std::vector<std::string> texts;
  FL_CHECK(spec.read("addresses", texts));
  if (texts.empty()) return fail(ErrorCode::invalid_argument, "spec.addresses: needs at least one block or range");
  if (texts.size() > kMaxRanges) return fail(ErrorCode::invalid_argument, "spec.addresses: {} entries, at most {}", texts.size(), kMaxRanges);
  std::map<AddressRange, std::size_t> seen;  // disjoint, so neighbours by first address are enough to look at
  for (std::size_t i = 0; i < texts.size(); ++i) {
    FL_TRY_CTX(const auto r, AddressRange::parse(texts[i]), "spec.addresses[{}]", i);
    const auto after = seen.lower_bound(r);
    for (auto it : {after, after == seen.begin() ? seen.end() : std::prev(after)})
      if (it != seen.end() && it->first.overlaps(r))
        return fail(ErrorCode::invalid_argument, "spec.addresses[{}]: {} overlaps spec.addresses[{}]", i, texts[i], it->second);
    seen.emplace(r, i);
    pool.ranges.push_back(r);
  }
  return {};
}

Result<> read_allocation(ObjectFields& spec, Pool& pool, Notes& notes) {
  const auto* v = spec.get("serviceAllocation");
  if (!v) return {};
  if (!v->is_object()) return fail(ErrorCode::invalid_argument, "spec.serviceAllocation: must be an object");
  ObjectFields f(v->get_object(), "spec.serviceAllocation");
  ServiceAllocation a;
  std::vector<std::string> namespaces;
  FL_CHECK(f.read("priority", a.priority));
  FL_CHECK(f.read("namespaces", namespaces));
  FL_CHECK(f.read("namespaceSelectors", a.namespace_selectors));
  FL_CHECK(f.read("serviceSelectors", a.service_selectors));
  a.namespaces = {namespaces.begin(), namespaces.end()};
  for (const auto& u : f.unknown()) notes.push_back(u + kNoEffect);
  pool.allocation = std::move(a);
  return {};
}

Result<> read_scope(ObjectFields& spec, AdvertisementScope& a) {
  FL_CHECK(spec.read("ipAddressPools", a.pools));
  FL_CHECK(spec.read("ipAddressPoolSelectors", a.pool_selectors));
  FL_CHECK(spec.read("nodeSelectors", a.node_selectors));
  return {};
}

// As many numbers as `out` has room for, with colons between them.
bool parse_numbers(std::string_view text, std::span<std::uint32_t> out, std::uint64_t most) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const bool last = i + 1 == out.size();
    const auto colon = text.find(':');
    if ((colon == std::string_view::npos) != last) return false;
    const auto part = text.substr(0, colon);
    std::uint64_t v = 0;
    const auto [end, ec] = std::from_chars(part.data(), part.data() + part.size(), v);
    if (ec != std::errc{} || end != part.data() + part.size() || v > most) return false;
    out[i] = static_cast<std::uint32_t>(v);
    if (!last) text.remove_prefix(colon + 1);
  }
  return true;
}

bool add_community(BgpAdvertisement& a, std::string_view text) {
  constexpr std::string_view large = "large:";
  if (text.starts_with(large)) {
    std::array<std::uint32_t, 3> v;
    if (!parse_numbers(text.substr(large.size()), v, UINT32_MAX)) return false;
    a.large_communities.insert({v[0], v[1], v[2]});
    return true;
  }
  std::array<std::uint32_t, 2> v;
  if (!parse_numbers(text, v, UINT16_MAX)) return false;
  a.communities.insert(v[0] << 16 | v[1]);
  return true;
}

// The length of the largest block that lies within the range whole.
unsigned largest_block(const AddressRange& r) {
  unsigned least = r.first.bits();
  for (auto at = r.first;;) {
    // The largest block that begins here and ends in the range.
    unsigned length = at.bits();
    while (length > 0) {
      const Prefix wider(at, length - 1);
      if (wider.first() != at || r.last < wider.last()) break;
      --length;
    }
    least = std::min(least, length);
    const auto last = Prefix(at, length).last();
    const auto next = next_address(last);
    if (!next || !(last < r.last)) return least;
    at = *next;
  }
}

Result<> read_asn(ObjectFields& spec, BgpPeer& p) {
  FL_CHECK(spec.read("myASN", p.my_asn, 0, UINT32_MAX));
  if (p.my_asn == 0) return fail(ErrorCode::invalid_argument, "spec.myASN: must be a number from 1 to 4294967295");
  FL_CHECK(spec.read("peerASN", p.peer_asn, 0, UINT32_MAX));
  std::string dynamic;
  FL_CHECK(spec.read("dynamicASN", dynamic));
  if (dynamic.empty() == (p.peer_asn == 0)) return fail(ErrorCode::invalid_argument, "spec: needs one of peerASN and dynamicASN");
  if (dynamic.empty()) return {};
  if (dynamic != "internal" && dynamic != "external") return fail(ErrorCode::invalid_argument, "spec.dynamicASN: {:?}: must be internal or external", dynamic);
  p.asn_rule = dynamic == "internal" ? PeerAsn::internal : PeerAsn::external;
  return {};
}

Result<> read_addresses(ObjectFields& spec, BgpPeer& p) {
  std::optional<IpAddress> address, router_id;
  std::string interface;
  FL_CHECK(spec.read("interface", interface));
  if (!interface.empty()) return fail(ErrorCode::invalid_argument, "spec.interface: a session with whoever is on a link is not supported; give spec.peerAddress");
  FL_CHECK(spec.read("peerAddress", address));
  if (!address) return fail(ErrorCode::invalid_argument, "spec.peerAddress: is missing");
  p.address = *address;
  std::uint32_t port = p.port;
  FL_CHECK(spec.read("peerPort", port, 1, 65535));
  p.port = static_cast<Port>(port);
  FL_CHECK(spec.read("sourceAddress", p.source));
  if (p.source && p.source->family() != p.address.family()) return fail(ErrorCode::invalid_argument, "spec.sourceAddress: is not of the family of spec.peerAddress");
  FL_CHECK(spec.read("routerID", router_id));
  if (router_id && (!router_id->is_v4() || router_id->is_unspecified())) return fail(ErrorCode::invalid_argument, "spec.routerID: must have the form of an IPv4 address, not 0.0.0.0");
  if (router_id) p.router_id = router_id->v4_host_order();
  FL_CHECK(spec.read("vrf", p.vrf));
  if (p.vrf.size() > 15) return fail(ErrorCode::invalid_argument, "spec.vrf: {:?} is no name of a link", p.vrf);
  return {};
}

Result<> read_times(ObjectFields& spec, BgpPeer& p) {
  using std::chrono::seconds;
  std::optional<seconds> hold;
  FL_CHECK(spec.read("holdTime", hold));
  FL_CHECK(spec.read("keepaliveTime", p.keepalive));
  FL_CHECK(spec.read("connectTime", p.connect_time));
  if (hold) p.hold_time = *hold;
  if (p.hold_time != seconds(0) && (p.hold_time < seconds(3) || p.hold_time > seconds(65535)))
    return fail(ErrorCode::invalid_argument, "spec.holdTime: {}s: must be 0, or from 3s to 65535s", p.hold_time.count());
  if (p.keepalive && p.hold_time != seconds(0) && *p.keepalive > p.hold_time)
    return fail(ErrorCode::invalid_argument, "spec.keepaliveTime: {}s: must not be longer than holdTime, {}s", p.keepalive->count(), p.hold_time.count());
  if (p.connect_time && (*p.connect_time < seconds(1) || *p.connect_time > seconds(65535)))
    return fail(ErrorCode::invalid_argument, "spec.connectTime: {}s: must be from 1s to 65535s", p.connect_time->count());
  return {};
}

Result<> read_password(ObjectFields& spec, const std::string& ns, BgpPeer& p) {
  constexpr std::size_t longest = 80;  // TCP_MD5SIG_MAXKEYLEN
  FL_CHECK(spec.read("password", p.password));
  if (p.password.size() > longest) return fail(ErrorCode::invalid_argument, "spec.password: is longer than {} bytes", longest);
  const auto* v = spec.get("passwordSecret");
  if (!v) return {};
  if (!v->is_object()) return fail(ErrorCode::invalid_argument, "spec.passwordSecret: must be an object");
  ObjectFields f(v->get_object(), "spec.passwordSecret");
  std::string name, secret_ns;
  FL_CHECK(f.read("name", name));
  FL_CHECK(f.read("namespace", secret_ns));
  if (name.empty()) return {};
  if (!p.password.empty()) return fail(ErrorCode::invalid_argument, "spec: must not have both password and passwordSecret");
  if (secret_ns.empty()) secret_ns = ns;
  if (secret_ns.empty()) return fail(ErrorCode::invalid_argument, "spec.passwordSecret.namespace: is missing");
  p.password_secret = secret_ns + "/" + name;
  return {};
}

}  // namespace

Result<Pool> read_pool(ObjectFields& spec, Notes& notes) {
  Pool pool;
  FL_CHECK(read_ranges(spec, pool));
  FL_CHECK(spec.read("autoAssign", pool.auto_assign));
  FL_CHECK(spec.read("avoidBuggyIPs", pool.avoid_buggy_ips));
  FL_CHECK(read_allocation(spec, pool, notes));
  return pool;
}

Result<L2Advertisement> read_l2_advertisement(ObjectFields& spec) {
  L2Advertisement a;
  FL_CHECK(read_scope(spec, a));
  FL_CHECK(spec.read("interfaces", a.interfaces));
  return a;
}

Result<BgpPeer> read_bgp_peer(ObjectFields& spec, const std::string& ns, Notes& notes) {
  BgpPeer p;
  bool without_multiprotocol = false;
  std::string bfd;
  FL_CHECK(read_asn(spec, p));
  FL_CHECK(read_addresses(spec, p));
  FL_CHECK(read_times(spec, p));
  FL_CHECK(read_password(spec, ns, p));
  FL_CHECK(spec.read("nodeSelectors", p.node_selectors));
  FL_CHECK(spec.read("enableGracefulRestart", p.graceful_restart));
  FL_CHECK(spec.read("ebgpMultiHop", p.multihop));
  FL_CHECK(spec.read("dualStackAddressFamily", p.dual_stack));
  FL_CHECK(spec.read("disableMP", without_multiprotocol));
  FL_CHECK(spec.read("bfdProfile", bfd));
  if (p.multihop && (p.asn_rule == PeerAsn::internal || p.peer_asn == p.my_asn)) return fail(ErrorCode::invalid_argument, "spec.ebgpMultiHop: the router is in our own AS");
  if (without_multiprotocol && p.dual_stack) return fail(ErrorCode::invalid_argument, "spec: must not have both disableMP and dualStackAddressFamily");
  if (!bfd.empty()) notes.push_back(fmt::format("spec.bfdProfile: {}: BFD is not supported; the session works without it and notices a dead router when its hold time is over", bfd));
  return p;
}

Result<BgpAdvertisement> read_bgp_advertisement(ObjectFields& spec) {
  BgpAdvertisement a;
  std::uint32_t v4 = a.aggregation_v4, v6 = a.aggregation_v6;
  FL_CHECK(read_scope(spec, a));
  FL_CHECK(spec.read("aggregationLength", v4, 1, 32));
  FL_CHECK(spec.read("aggregationLengthV6", v6, 1, 128));
  a.aggregation_v4 = v4;
  a.aggregation_v6 = v6;
  std::uint32_t preference = 0;
  FL_CHECK(spec.read("localPref", preference, 0, UINT32_MAX));
  if (preference != 0) a.local_pref = preference;
  FL_CHECK(spec.read("communities", a.community_names));
  if (a.community_names.size() > kMaxCommunities) return fail(ErrorCode::invalid_argument, "spec.communities: {} entries, at most {}", a.community_names.size(), kMaxCommunities);
  FL_CHECK(spec.read("peers", a.peers));
  return a;
}

Result<CommunityAliases> read_communities(ObjectFields& spec, Notes& notes) {
  CommunityAliases c;
  const auto* list = spec.get("communities");
  if (!list) return c;
  if (!list->is_array()) return fail(ErrorCode::invalid_argument, "spec.communities: must be a list");
  for (std::size_t i = 0; i < list->get_array().size(); ++i) {
    const auto& v = list->get_array()[i];
    const auto path = fmt::format("spec.communities[{}]", i);
    if (!v.is_object()) return fail(ErrorCode::invalid_argument, "{}: must be an object", path);
    ObjectFields f(v.get_object(), path);
    std::string name, value;
    FL_CHECK(f.read("name", name));
    FL_CHECK(f.read("value", value));
    BgpAdvertisement trial;
    if (name.empty()) return fail(ErrorCode::invalid_argument, "{}.name: is missing", path);
    if (!add_community(trial, value)) return fail(ErrorCode::invalid_argument, "{}.value: {:?}: must be NUMBER:NUMBER or large:NUMBER:NUMBER:NUMBER", path, value);
    if (!c.values.emplace(name, value).second) return fail(ErrorCode::invalid_argument, "{}.name: {:?} appears twice", path, name);
    for (const auto& u : f.unknown()) notes.push_back(u + kNoEffect);
  }
  return c;
}

Result<> resolve_communities(BgpAdvertisement& a, const std::vector<CommunityAliases>& aliases) {
  a.communities.clear();
  a.large_communities.clear();
  for (std::size_t i = 0; i < a.community_names.size(); ++i) {
    auto text = a.community_names[i];
    for (const auto& c : aliases)
      if (const auto it = c.values.find(text); it != c.values.end()) text = it->second;
    if (!add_community(a, text))
      return fail(ErrorCode::invalid_argument, "spec.communities[{}]: {:?} is neither a value nor a name that a Community gives", i, a.community_names[i]);
  }
  return {};
}

Result<> check_aggregation(const BgpAdvertisement& a, const std::vector<Pool>& pools) {
  for (const auto& p : pools) {
    if (!a.covers(&p)) continue;
    for (const auto& r : p.ranges) {
      const auto wanted = r.first.is_v4() ? a.aggregation_v4 : a.aggregation_v6;
      if (wanted < largest_block(r))
        return fail(ErrorCode::invalid_argument, "spec.aggregationLength{}: {}: a block of this length around an address of IPAddressPool {} reaches beyond {}", r.first.is_v4() ? "" : "V6",
                    wanted, p.name, r.to_string());
    }
  }
  return {};
}

}  // namespace fairlead::lb
