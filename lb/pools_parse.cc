#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "kube/api.h"
#include "kube/codec.h"
#include "kube/proto/apimachinery/meta_v1.pb.h"
#include "lb/pools.h"

namespace fairlead::lb {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxRanges = 10'000;  // of one pool

// Reads members of a JSON object; errors begin with the member's path, members nobody asked for are listed.
class Fields {
 public:
  Fields(const json::object& o, std::string path) : object_(o), path_(std::move(path)) {}

  std::string at(std::string_view name) const { return path_.empty() ? std::string(name) : path_ + "." + std::string(name); }
  const json::value* get(std::string_view name) {
    known_.insert(std::string(name));
    const auto* v = object_.if_contains(name);
    return v && !v->is_null() ? v : nullptr;
  }
  Result<> read(std::string_view name, bool& out) {
    const auto* v = get(name);
    if (!v) return {};
    if (!v->is_bool()) return fail(ErrorCode::invalid_argument, "{}: must be true or false", at(name));
    out = v->get_bool();
    return {};
  }
  Result<> read(std::string_view name, std::uint32_t& out) {
    const auto* v = get(name);
    if (!v) return {};
    if (!v->is_int64() || v->get_int64() < 0 || v->get_int64() > INT32_MAX)
      return fail(ErrorCode::invalid_argument, "{}: must be a whole number, 0 or more", at(name));
    out = static_cast<std::uint32_t>(v->get_int64());
    return {};
  }
  Result<> read(std::string_view name, std::vector<std::string>& out) {
    const auto* v = get(name);
    if (!v) return {};
    if (!v->is_array()) return fail(ErrorCode::invalid_argument, "{}: must be a list", at(name));
    for (std::size_t i = 0; i < v->get_array().size(); ++i) {
      const auto& e = v->get_array()[i];
      if (!e.is_string()) return fail(ErrorCode::invalid_argument, "{}[{}]: must be text", at(name), i);
      out.emplace_back(e.get_string());
    }
    return {};
  }
  Result<> read(std::string_view name, std::vector<kube::LabelSelector>& out) {
    const auto* v = get(name);
    if (!v) return {};
    if (!v->is_array()) return fail(ErrorCode::invalid_argument, "{}: must be a list", at(name));
    for (std::size_t i = 0; i < v->get_array().size(); ++i) {
      metav1::LabelSelector message;
      std::vector<std::string> strict;
      FL_CHECK_CTX(kube::from_json_value(v->get_array()[i], message, {.strict = &strict}), "{}[{}]", at(name), i);
      // A misspelt selector would match everything.
      if (!strict.empty()) return fail(ErrorCode::invalid_argument, "{}[{}]: {}", at(name), i, strict.front());
      FL_TRY_CTX(auto selector, kube::LabelSelector::from(message), "{}[{}]", at(name), i);
      out.push_back(std::move(selector));
    }
    return {};
  }
  std::vector<std::string> unknown() const {
    std::vector<std::string> out;
    for (const auto& m : object_)
      if (!known_.contains(std::string(m.key()))) out.push_back(at(m.key()));
    return out;
  }

 private:
  const json::object& object_;
  std::string path_;
  std::set<std::string> known_;
};

Result<> read_ranges(Fields& spec, Pool& pool) {
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

Result<> read_allocation(Fields& spec, Pool& pool, std::vector<std::string>& unknown) {
  const auto* v = spec.get("serviceAllocation");
  if (!v) return {};
  if (!v->is_object()) return fail(ErrorCode::invalid_argument, "spec.serviceAllocation: must be an object");
  Fields f(v->get_object(), "spec.serviceAllocation");
  ServiceAllocation a;
  std::vector<std::string> namespaces;
  FL_CHECK(f.read("priority", a.priority));
  FL_CHECK(f.read("namespaces", namespaces));
  FL_CHECK(f.read("namespaceSelectors", a.namespace_selectors));
  FL_CHECK(f.read("serviceSelectors", a.service_selectors));
  a.namespaces = {namespaces.begin(), namespaces.end()};
  for (auto& u : f.unknown()) unknown.push_back(std::move(u));
  pool.allocation = std::move(a);
  return {};
}

Result<Pool> read_pool(Fields& spec, std::vector<std::string>& unknown) {
  Pool pool;
  FL_CHECK(read_ranges(spec, pool));
  FL_CHECK(spec.read("autoAssign", pool.auto_assign));
  FL_CHECK(spec.read("avoidBuggyIPs", pool.avoid_buggy_ips));
  FL_CHECK(read_allocation(spec, pool, unknown));
  return pool;
}

Result<L2Advertisement> read_l2(Fields& spec) {
  L2Advertisement a;
  std::vector<std::string> pools, interfaces;
  FL_CHECK(spec.read("ipAddressPools", pools));
  FL_CHECK(spec.read("ipAddressPoolSelectors", a.pool_selectors));
  FL_CHECK(spec.read("nodeSelectors", a.node_selectors));
  FL_CHECK(spec.read("interfaces", interfaces));
  a.pools = {pools.begin(), pools.end()};
  a.interfaces = {interfaces.begin(), interfaces.end()};
  return a;
}

struct Head {
  std::string kind, name;
  std::map<std::string, std::string> labels;
};

Result<Head> read_head(const json::value& v) {
  if (!v.is_object()) return fail(ErrorCode::invalid_argument, "is not an object");
  const auto text = [](const json::object& o, std::string_view name) {
    const auto* m = o.if_contains(name);
    return m && m->is_string() ? std::string(m->get_string()) : std::string();
  };
  const auto& o = v.get_object();
  Head h{text(o, "kind"), {}, {}};
  const auto version = text(o, "apiVersion");
  if (!version.starts_with("metallb.io/")) return fail(ErrorCode::invalid_argument, "apiVersion: {:?} is not of metallb.io", version);
  const auto* meta = o.if_contains("metadata");
  if (meta && meta->is_object()) h.name = text(meta->get_object(), "name");
  if (h.kind.empty()) return fail(ErrorCode::invalid_argument, "kind: is missing");
  if (h.name.empty()) return fail(ErrorCode::invalid_argument, "metadata.name: is missing");
  if (const auto* labels = meta->get_object().if_contains("labels"); labels && labels->is_object())
    for (const auto& l : labels->get_object()) {
      if (!l.value().is_string()) return fail(ErrorCode::invalid_argument, "metadata.labels[{}]: must be text", std::string_view(l.key()));
      h.labels.emplace(l.key(), l.value().get_string());
    }
  return h;
}

template <typename T>
const T* find_by_name(const std::vector<T>& all, std::string_view name) {
  for (const auto& t : all)
    if (t.name == name) return &t;
  return nullptr;
}

class Reader {
 public:
  explicit Reader(const PoolSet& previous) : previous_(previous) {}

  void file(const PoolText& f) {
    auto documents = kube::parse_yaml(f.yaml);
    if (!documents) {
      report(f.file, documents.error().message + "; what it said before stays in force", true);
      for (const auto& p : previous_.pools)
        if (p.file == f.file) keep(pools_, p);
      for (const auto& a : previous_.l2)
        if (a.file == f.file) keep(l2_, a);
      return;
    }
    for (std::size_t i = 0; i < documents->size(); ++i)
      if (!(*documents)[i].is_null()) object((*documents)[i], f.file, i);
  }

  PoolsRead finish() {
    resolve_overlaps();
    for (const auto& a : l2_)
      for (const auto& p : a.pools)
        if (!find_by_name(pools_, p)) report(fmt::format("L2Advertisement {} ({})", a.name, a.file), "spec.ipAddressPools: there is no pool " + p, false);
    const auto by_name = [](const auto& a, const auto& b) { return a.name < b.name; };
    std::sort(pools_.begin(), pools_.end(), by_name);
    std::sort(l2_.begin(), l2_.end(), by_name);
    out_.set = {std::move(pools_), std::move(l2_)};
    return std::move(out_);
  }

 private:
  void report(std::string object, std::string message, bool refused) { out_.diagnostics.push_back({std::move(object), std::move(message), refused}); }

  template <typename T>
  void keep(std::vector<T>& all, const T& t) {
    if (!find_by_name(all, t.name)) all.push_back(t);
  }

  void object(const json::value& v, const std::string& file, std::size_t index) {
    const auto head = read_head(v);
    if (!head) return report(fmt::format("{} document {}", file, index + 1), head.error().message, true);
    const auto label = fmt::format("{} {} ({})", head->kind, head->name, file);
    if (head->kind == "IPAddressPool") return take(label, *head, v, file, pools_, previous_.pools);
    if (head->kind == "L2Advertisement") return take(label, *head, v, file, l2_, previous_.l2);
    static const std::set<std::string_view> bgp = {"BGPPeer", "BGPAdvertisement", "BFDProfile", "Community"};
    if (bgp.contains(head->kind)) return report(label, "Fairlead does not speak BGP: this object is not acted upon", false);
    report(label, "kind: is not one that address pools are made of", false);
  }

  Result<Pool> read(const Head& h, Fields& spec, std::vector<std::string>& unknown, const Pool*) {
    FL_TRY(auto p, read_pool(spec, unknown));
    p.labels = h.labels;
    return p;
  }
  Result<L2Advertisement> read(const Head&, Fields& spec, std::vector<std::string>&, const L2Advertisement*) { return read_l2(spec); }

  template <typename T>
  void take(const std::string& label, const Head& h, const json::value& v, const std::string& file, std::vector<T>& into, const std::vector<T>& before) {
    if (find_by_name(into, h.name)) return report(label, "metadata.name: another object of this kind has this name", true);
    const auto* spec_value = v.get_object().if_contains("spec");
    static const json::object none;
    const T* last_good = find_by_name(before, h.name);
    const auto refuse = [&](const std::string& why) {
      report(label, last_good ? why + "; its last good form stays in force" : why, true);
      if (last_good) into.push_back(*last_good);
    };
    if (spec_value && !spec_value->is_object() && !spec_value->is_null()) return refuse("spec: must be an object");
    Fields spec(spec_value && spec_value->is_object() ? spec_value->get_object() : none, "spec");
    std::vector<std::string> unknown;
    auto made = read(h, spec, unknown, static_cast<const T*>(nullptr));
    if (!made) return refuse(made.error().message);
    for (auto& u : spec.unknown()) unknown.push_back(std::move(u));
    for (const auto& u : unknown) report(label, u + ": is not known here and has no effect", false);
    made->name = h.name;
    made->file = file;
    into.push_back(std::move(*made));
  }

  static const AddressRange* overlap(const Pool& a, const Pool& b) {
    for (const auto& x : a.ranges)
      for (const auto& y : b.ranges)
        if (x.overlaps(y)) return &x;
    return nullptr;
  }

  // In force before wins, then the name; a refused pool gets its last form back when that is in nobody's way.
  void resolve_overlaps() {
    std::stable_sort(pools_.begin(), pools_.end(), [&](const Pool& a, const Pool& b) {
      const auto rank = [&](const Pool& p) {
        const auto* was = find_by_name(previous_.pools, p.name);
        return std::pair(!was || was->ranges != p.ranges, p.name);
      };
      return rank(a) < rank(b);
    });
    std::vector<Pool> accepted;
    for (auto& p : pools_) {
      const auto in_the_way = [&](const Pool& q) {
        return std::find_if(accepted.begin(), accepted.end(), [&](const Pool& a) { return overlap(q, a) != nullptr; });
      };
      const auto other = in_the_way(p);
      if (other == accepted.end()) {
        accepted.push_back(std::move(p));
        continue;
      }
      const auto* was = find_by_name(previous_.pools, p.name);
      const bool restore = was && in_the_way(*was) == accepted.end();
      report(fmt::format("IPAddressPool {} ({})", p.name, p.file),
             fmt::format("spec.addresses: {} overlaps IPAddressPool {}{}", overlap(p, *other)->to_string(), other->name,
                         restore ? "; its last good form stays in force" : ""),
             true);
      if (restore) accepted.push_back(*was);
    }
    pools_ = std::move(accepted);
  }

  const PoolSet& previous_;
  std::vector<Pool> pools_;
  std::vector<L2Advertisement> l2_;
  PoolsRead out_;
};

}  // namespace

PoolsRead parse_pools(const std::vector<PoolText>& files, const PoolSet& previous) {
  Reader reader(previous);
  for (const auto& f : files) reader.file(f);
  return reader.finish();
}

}  // namespace fairlead::lb
