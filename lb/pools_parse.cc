#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "kube/api.h"
#include "kube/codec.h"
#include "lb/pools_read.h"

namespace fairlead::lb {
namespace {

namespace json = boost::json;

struct Head {
  std::string kind, name, ns;
  std::map<std::string, std::string> labels;
};

Result<Head> read_head(const json::value& v) {
  if (!v.is_object()) return fail(ErrorCode::invalid_argument, "is not an object");
  const auto text = [](const json::object& o, std::string_view name) {
    const auto* m = o.if_contains(name);
    return m && m->is_string() ? std::string(m->get_string()) : std::string();
  };
  const auto& o = v.get_object();
  Head h{text(o, "kind"), {}, {}, {}};
  const auto version = text(o, "apiVersion");
  if (!version.starts_with("metallb.io/")) return fail(ErrorCode::invalid_argument, "apiVersion: {:?} is not of metallb.io", version);
  const auto* meta = o.if_contains("metadata");
  if (meta && meta->is_object()) {
    h.name = text(meta->get_object(), "name");
    h.ns = text(meta->get_object(), "namespace");
  }
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
      keep_file(pools_, previous_.pools, f.file);
      keep_file(l2_, previous_.l2, f.file);
      keep_file(peers_, previous_.peers, f.file);
      keep_file(bgp_, previous_.bgp, f.file);
      keep_file(communities_, previous_.communities, f.file);
      return;
    }
    for (std::size_t i = 0; i < documents->size(); ++i)
      if (!(*documents)[i].is_null()) object((*documents)[i], f.file, i);
  }

  PoolsRead finish() {
    resolve_overlaps();
    finish_bgp_advertisements();
    for (const auto& a : l2_) check_names("L2Advertisement", a, "spec.ipAddressPools", a.pools, pools_, "pool");
    for (const auto& a : bgp_) {
      check_names("BGPAdvertisement", a, "spec.ipAddressPools", a.pools, pools_, "pool");
      check_names("BGPAdvertisement", a, "spec.peers", a.peers, peers_, "BGPPeer");
    }
    sort(pools_);
    sort(l2_);
    sort(peers_);
    sort(bgp_);
    sort(communities_);
    out_.set = {std::move(pools_), std::move(l2_), std::move(peers_), std::move(bgp_), std::move(communities_)};
    return std::move(out_);
  }

 private:
  void report(std::string object, std::string message, bool refused) { out_.diagnostics.push_back({std::move(object), std::move(message), refused}); }

  template <typename T>
  static void keep_file(std::vector<T>& all, const std::vector<T>& before, const std::string& file) {
    for (const auto& t : before)
      if (t.file == file && !find_by_name(all, t.name)) all.push_back(t);
  }

  template <typename T>
  static void sort(std::vector<T>& all) {
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  }

  template <typename T>
  static void replace(std::vector<T>& all, std::optional<T> with, std::size_t& at) {
    if (with)
      all[at++] = std::move(*with);
    else
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(at));
  }

  template <typename A, typename T>
  void check_names(const char* kind, const A& a, const char* field, const std::set<std::string>& names, const std::vector<T>& all, const char* what) {
    for (const auto& n : names)
      if (!find_by_name(all, n)) report(object_label(kind, a.name, a.file), fmt::format("{}: there is no {} {}", field, what, n), false);
  }

  void object(const json::value& v, const std::string& file, std::size_t index) {
    const auto head = read_head(v);
    if (!head) return report(fmt::format("{} document {}", file, index + 1), head.error().message, true);
    const auto label = object_label(head->kind, head->name, file);
    if (head->kind == "IPAddressPool") return take(label, *head, v, file, pools_, previous_.pools);
    if (head->kind == "L2Advertisement") return take(label, *head, v, file, l2_, previous_.l2);
    if (head->kind == "BGPPeer") return take(label, *head, v, file, peers_, previous_.peers);
    if (head->kind == "BGPAdvertisement") return take(label, *head, v, file, bgp_, previous_.bgp);
    if (head->kind == "Community") return take(label, *head, v, file, communities_, previous_.communities);
    if (head->kind == "BFDProfile") return report(label, "BFD is not supported: this object is not acted upon", false);
    report(label, "kind: is not one that address pools are made of", false);
  }

  // The last argument says which kind is read.
  Result<Pool> read(const Head& h, ObjectFields& spec, Notes& notes, const Pool*) {
    FL_TRY(auto p, read_pool(spec, notes));
    p.labels = h.labels;
    return p;
  }
  Result<L2Advertisement> read(const Head&, ObjectFields& spec, Notes&, const L2Advertisement*) { return read_l2_advertisement(spec); }
  Result<BgpPeer> read(const Head& h, ObjectFields& spec, Notes& notes, const BgpPeer*) { return read_bgp_peer(spec, h.ns, notes); }
  Result<BgpAdvertisement> read(const Head&, ObjectFields& spec, Notes&, const BgpAdvertisement*) { return read_bgp_advertisement(spec); }
  Result<CommunityAliases> read(const Head&, ObjectFields& spec, Notes& notes, const CommunityAliases*) { return read_communities(spec, notes); }

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
    ObjectFields spec(spec_value && spec_value->is_object() ? spec_value->get_object() : none, "spec");
    Notes notes;
    auto made = read(h, spec, notes, static_cast<const T*>(nullptr));
    if (!made) return refuse(made.error().message);
    for (const auto& u : spec.unknown()) notes.push_back(u + ": is not known here and has no effect");
    for (auto& n : notes) report(label, std::move(n), false);
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
      report(object_label("IPAddressPool", p.name, p.file),
             fmt::format("spec.addresses: {} overlaps IPAddressPool {}{}", overlap(p, *other)->to_string(), other->name,
                         restore ? "; its last good form stays in force" : ""),
             true);
      if (restore) accepted.push_back(*was);
    }
    pools_ = std::move(accepted);
  }

  // What can be judged only beside the other kinds.
  void finish_bgp_advertisements() {
    const auto complete = [&](BgpAdvertisement& a) -> Result<> {
      FL_CHECK(resolve_communities(a, communities_));
      return check_aggregation(a, pools_);
    };
    for (std::size_t i = 0; i < bgp_.size();) {
      const auto good = complete(bgp_[i]);
      if (good) {
        ++i;
        continue;
      }
      // Its communities were resolved then; an alias that is gone keeps its last value here.
      const auto* was = find_by_name(previous_.bgp, bgp_[i].name);
      const bool restore = was && check_aggregation(*was, pools_);
      report(object_label("BGPAdvertisement", bgp_[i].name, bgp_[i].file), good.error().message + (restore ? "; its last good form stays in force" : ""), true);
      replace(bgp_, restore ? std::optional(*was) : std::nullopt, i);
    }
  }

  const PoolSet& previous_;
  std::vector<Pool> pools_;
  std::vector<L2Advertisement> l2_;
  std::vector<BgpPeer> peers_;
  std::vector<BgpAdvertisement> bgp_;
  std::vector<CommunityAliases> communities_;
  PoolsRead out_;
};

}  // namespace

std::string object_label(std::string_view kind, std::string_view name, std::string_view file) { return fmt::format("{} {} ({})", kind, name, file); }

PoolsRead parse_pools(const std::vector<PoolText>& files, const PoolSet& previous) {
  Reader reader(previous);
  for (const auto& f : files) reader.file(f);
  return reader.finish();
}

}  // namespace fairlead::lb
