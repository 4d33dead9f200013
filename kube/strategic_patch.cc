// Strategic merge patch: sig-api-machinery's "strategic-merge-patch.md", with the schema's merge keys.
#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include "kube/codec.h"
#include "kube/codec_internal.h"
#include "kube/patch.h"
#include "kube/schema.h"

namespace fairlead::kube {
namespace {

namespace json = boost::json;

constexpr std::string_view kPatch = "$patch";
constexpr std::string_view kRetainKeys = "$retainKeys";
constexpr std::string_view kSetOrder = "$setElementOrder/";
constexpr std::string_view kDeleteFrom = "$deleteFromPrimitiveList/";

bool is_directive(std::string_view key) {
  return key == kPatch || key == kRetainKeys || key.starts_with(kSetOrder) || key.starts_with(kDeleteFrom);
}

// What the schema says about a member. Without a schema, objects merge and lists are replaced.
struct Rule {
  const TypeInfo* type = nullptr;  // of the object, the list's items or the map's values
  bool merge = false;
  bool replace = false;
  std::string_view merge_key;
};

Rule rule_of(const TypeInfo* t, std::string_view name) {
  const Member* m = t && t->form == Form::object ? t->find(name) : nullptr;
  if (!m) return {};
  const FieldInfo& f = *m->field;
  Rule r{f.type, f.patch_merge, f.patch_replace, f.patch_merge_key};
  if (f.shape == Shape::map || f.shape == Shape::message_map)
    r.type = nullptr;  // entries merge by key, their values are replaced
  return r;
}

// What an item of a list is known by: the value of its merge key, or the item itself. Null when it has none.
const json::value* key_of_item(const json::value& item, std::string_view merge_key) {
  if (merge_key.empty()) return &item;
  const auto* o = item.if_object();
  return o ? o->if_contains(merge_key) : nullptr;
}

// Where in a list each key stands (the first place of several). By text, so that long lists cost no quadratic search.
using Places = std::unordered_map<std::string, std::ptrdiff_t>;

Places places_of(const json::array& list, std::string_view merge_key) {
  Places out;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (const auto* key = key_of_item(list[i], merge_key)) out.try_emplace(to_json(*key), static_cast<std::ptrdiff_t>(i));
  }
  return out;
}

std::ptrdiff_t place(const Places& places, const json::value& item, std::string_view merge_key) {
  const auto* key = key_of_item(item, merge_key);
  const auto it = key ? places.find(to_json(*key)) : places.end();
  return it == places.end() ? -1 : it->second;
}

// A list of objects while it is merged: found by key, deleted without moving the others.
class KeyedList {
 public:
  KeyedList(const json::array& items, std::string_view merge_key) : merge_key_(merge_key) {
    for (const auto& item : items) add(item);
  }
  void add(json::value item) {
    if (const auto* key = key_of_item(item, merge_key_)) places_[to_json(*key)].push_back(items_.size());
    items_.push_back(std::move(item));
  }
  json::value* find(const json::value& key) {
    const auto it = places_.find(to_json(key));
    return it == places_.end() || it->second.empty() ? nullptr : &*items_[it->second.front()];
  }
  void erase(const json::value& key) {
    const auto it = places_.find(to_json(key));
    if (it == places_.end()) return;
    for (const std::size_t i : it->second) items_[i].reset();
    it->second.clear();
  }
  json::array release() {
    json::array out;
    for (auto& item : items_) {
      if (item) out.push_back(std::move(*item));
    }
    return out;
  }

 private:
  std::string_view merge_key_;
  std::vector<std::optional<json::value>> items_;
  std::unordered_map<std::string, std::vector<std::size_t>> places_;
};

class Merger {
 public:
  Result<json::value> run(const json::value& target, const json::value& patch, const TypeInfo* t) {
    static const json::object empty;
    const auto* o = target.if_object();
    return object(o ? *o : empty, patch.get_object(), t);
  }

 private:
  template <typename... A>
  Failure bad(fmt::format_string<A...> f, A&&... a) {
    const std::string path = path_.text();
    return fail(ErrorCode::invalid_argument, "{}{}{}", path, path.empty() ? "" : ": ", fmt::format(f, std::forward<A>(a)...));
  }

  // ---- objects

  Result<json::value> object(const json::object& original, const json::object& patch, const TypeInfo* t) {
    if (const auto* directive = patch.if_contains(kPatch)) {
      const auto* word = directive->if_string();
      if (word && *word == "replace") return without_directives(patch);
      if (word && *word == "delete") return json::value(json::object());
      if (!word || *word != "merge") return bad("$patch must be \"replace\", \"delete\" or \"merge\"");
    }
    json::object out = original;
    FL_CHECK(retain_keys(out, patch));
    std::set<std::string_view> ordered;  // lists that were merged together with their order
    for (const auto& [key, value] : patch) {
      if (!std::string_view(key).starts_with(kSetOrder)) continue;
      const auto name = std::string_view(key).substr(kSetOrder.size());
      path_.push_name(name);
      FL_CHECK(merge_in_order(out, name, patch.if_contains(name), value, rule_of(t, name)));
      path_.pop();
      ordered.insert(name);
    }
    for (const auto& [key, value] : patch) {
      if (is_directive(key) || ordered.contains(std::string_view(key))) continue;
      path_.push_name(key);
      FL_CHECK(member(out, key, value, rule_of(t, key)));
      path_.pop();
    }
    for (const auto& [key, value] : patch) {
      if (!std::string_view(key).starts_with(kDeleteFrom)) continue;
      FL_CHECK(delete_from(out, std::string_view(key).substr(kDeleteFrom.size()), value));
    }
    return json::value(std::move(out));
  }

  Result<> retain_keys(json::object& out, const json::object& patch) {
    const auto* directive = patch.if_contains(kRetainKeys);
    if (!directive) return {};
    const auto* list = directive->if_array();
    if (!list) return bad("$retainKeys must be a list of strings");
    std::set<std::string_view> keep;
    for (const auto& v : *list) {
      const auto* s = v.if_string();
      if (!s) return bad("$retainKeys must be a list of strings");
      keep.insert(*s);
    }
    for (const auto& [key, value] : patch) {
      if (!is_directive(key) && !value.is_null() && !keep.contains(std::string_view(key))) {
        return bad("the list in $retainKeys must contain all members of the patch: \"{}\" is missing", std::string_view(key));
      }
    }
    json::object kept;
    for (auto& [key, value] : out) {
      if (keep.contains(std::string_view(key))) kept.emplace(key, std::move(value));
    }
    out = std::move(kept);
    return {};
  }

  Result<> member(json::object& out, std::string_view name, const json::value& patch, const Rule& rule) {
    if (patch.is_null()) {
      out.erase(name);
      return {};
    }
    json::value* old = out.if_contains(name);
    if (old && old->is_object() && patch.is_object() && !rule.replace) {
      FL_TRY(auto merged, object(old->get_object(), patch.get_object(), rule.type));
      *out.if_contains(name) = std::move(merged);
      return {};
    }
    if (patch.is_array() && rule.merge) {
      static const json::array empty;
      FL_TRY(auto merged, list(old && old->is_array() ? old->get_array() : empty, patch.get_array(), rule));
      out.insert_or_assign(name, std::move(merged));
      return {};
    }
    FL_TRY(auto fresh, without_directives(patch));
    out.insert_or_assign(name, std::move(fresh));
    return {};
  }

  // ---- lists

  Result<json::array> list(const json::array& original, const json::array& patch, const Rule& rule) {
    const bool objects = rule.type != nullptr;
    if (!objects) return primitives(original, patch);
    if (rule.merge_key.empty()) return bad("lists of objects without a merge key cannot be merged");
    // `{"$patch": "replace"}` anywhere in the list: the other items are the new list.
    const bool replace = std::any_of(patch.begin(), patch.end(), [](const json::value& item) {
      const auto* directive = directive_of(item);
      return directive && *directive == "replace";
    });
    KeyedList out(replace ? json::array() : original, rule.merge_key);
    for (std::size_t i = 0; i < patch.size(); ++i) {
      path_.push_index(i);
      FL_CHECK(list_item(out, patch[i], rule));
      path_.pop();
    }
    return out.release();
  }

  static const json::string* directive_of(const json::value& item) {
    const auto* o = item.if_object();
    const auto* directive = o ? o->if_contains(kPatch) : nullptr;
    return directive ? directive->if_string() : nullptr;
  }

  Result<> list_item(KeyedList& out, const json::value& item, const Rule& rule) {
    const auto* o = item.if_object();
    if (!o) return bad("must be an object");
    const auto* key = o->if_contains(rule.merge_key);
    if (const auto* directive = o->if_contains(kPatch)) {
      const auto* word = directive->if_string();
      if (word && *word == "replace") {
        if (o->size() == 1) return {};  // the marker alone
        FL_TRY(auto fresh, without_directives(item));
        out.add(std::move(fresh));
        return {};
      }
      if (word && *word == "delete") {
        if (!key) return bad("$patch: delete needs the merge key \"{}\"", rule.merge_key);
        out.erase(*key);
        return {};
      }
      if (!word || *word != "merge") return bad("$patch must be \"replace\", \"delete\" or \"merge\"");
    }
    if (!key || key->is_null()) return bad("does not contain the declared merge key: {}", rule.merge_key);
    json::value* old = out.find(*key);
    if (!old) {
      FL_TRY(auto fresh, without_directives(item));
      out.add(std::move(fresh));
      return {};
    }
    FL_TRY(*old, object(old->get_object(), *o, rule.type));
    return {};
  }

  Result<json::array> primitives(const json::array& original, const json::array& patch) {
    json::array out = original;
    Places seen = places_of(original, {});
    for (const auto& v : patch) {
      if (v.is_structured()) return bad("must be a list of plain values");
      if (seen.try_emplace(to_json(v), 0).second) out.push_back(v);
    }
    return out;
  }

  Result<> delete_from(json::object& out, std::string_view name, const json::value& values) {
    path_.push_name(name);
    const auto* list = values.if_array();
    if (!list) return bad("$deleteFromPrimitiveList must be a list");
    auto* old = out.if_contains(name);
    if (old && old->is_array()) {
      const Places gone = places_of(*list, {});
      json::array kept;
      for (auto& v : old->get_array()) {
        if (place(gone, v, {}) < 0) kept.push_back(std::move(v));
      }
      *old = std::move(kept);
    }
    path_.pop();
    return {};
  }

  // ---- the order of a merged list

  Result<> merge_in_order(json::object& out, std::string_view name, const json::value* patch, const json::value& order,
                          const Rule& rule) {
    static const json::array empty;
    const auto* wanted = order.if_array();
    if (!wanted) return bad("$setElementOrder must be a list");
    if (!rule.merge) return bad("$setElementOrder is only for lists that are merged");
    if (patch && !patch->is_array() && !patch->is_null()) return bad("must be a list");
    if (patch && patch->is_null()) {
      out.erase(name);
      return {};
    }
    const json::value* old = out.if_contains(name);
    const json::array original = old && old->is_array() ? old->get_array() : empty;
    if (!old && !patch) return {};
    const json::array& changes = patch ? patch->get_array() : empty;
    FL_CHECK(check_order(changes, *wanted, rule.merge_key));
    FL_TRY(const auto merged, list(original, changes, rule));
    out.insert_or_assign(name, in_order(merged, original, *wanted, rule.merge_key));
    return {};
  }

  // Every item of the patch must be in the order, and in that order.
  Result<> check_order(const json::array& patch, const json::array& wanted, std::string_view merge_key) {
    const Places places = places_of(wanted, merge_key);
    std::ptrdiff_t last = -1;
    for (const auto& item : patch) {
      const auto* key = key_of_item(item, merge_key);
      if (directive_of(item) || !key) continue;  // a missing key is reported by the merge
      const auto at = place(places, item, merge_key);
      if (at < 0) return bad("the item {} of the patch is not in $setElementOrder", to_json(*key));
      if (at < last) return bad("the order of the patch does not match $setElementOrder at {}", to_json(*key));
      last = at;
    }
    return {};
  }

  // Items that the order names come in that order. The others keep their place relative to them as far as the original
  // list says where that is.
  static json::array in_order(const json::array& merged, const json::array& original, const json::array& wanted,
                              std::string_view merge_key) {
    struct Item {
      const json::value* value;
      std::ptrdiff_t wanted, before;  // places in the two lists, -1: not there
    };
    const Places wanted_places = places_of(wanted, merge_key), places_before = places_of(original, merge_key);
    std::vector<Item> named, others;
    for (const auto& v : merged) {
      const Item item{&v, place(wanted_places, v, merge_key), place(places_before, v, merge_key)};
      (item.wanted >= 0 ? named : others).push_back(item);
    }
    std::stable_sort(named.begin(), named.end(), [](const Item& a, const Item& b) { return a.wanted < b.wanted; });
    std::stable_sort(others.begin(), others.end(), [](const Item& a, const Item& b) { return a.before < b.before; });
    json::array out;
    std::size_t i = 0, j = 0;
    while (i < others.size() || j < named.size()) {
      const bool both = i < others.size() && j < named.size();
      const bool other_first =
          both ? others[i].before >= 0 && named[j].before >= 0 && others[i].before < named[j].before : i < others.size();
      out.push_back(other_first ? *others[i++].value : *named[j++].value);
    }
    return out;
  }

  // ---- a value of the patch that meets nothing in the object: its directives and nulls have nothing to act on

  Result<json::value> without_directives(const json::value& v) {
    if (const auto* a = v.if_array()) {
      json::array out;
      for (const auto& item : *a) {
        const auto* directive = directive_of(item);
        if (directive && (*directive == "delete" || (*directive == "replace" && item.get_object().size() == 1))) continue;
        FL_TRY(auto clean, without_directives(item));
        out.push_back(std::move(clean));
      }
      return json::value(std::move(out));
    }
    const auto* o = v.if_object();
    if (!o) return v;
    json::object out;
    for (const auto& [key, value] : *o) {
      if (is_directive(key) || value.is_null()) continue;
      const auto* inner = value.if_object();
      const auto* directive = inner ? directive_of(value) : nullptr;
      if (directive && *directive == "delete") continue;
      FL_TRY(auto clean, without_directives(value));
      out.emplace(key, std::move(clean));
    }
    return json::value(std::move(out));
  }
  Result<json::value> without_directives(const json::object& o) { return without_directives(json::value(o)); }

  FieldPath path_;
};

}  // namespace

Result<json::value> strategic_patch(const json::value& target, const json::value& patch,
                                    const google::protobuf::Descriptor& schema) {
  if (!patch.is_object()) return fail(ErrorCode::invalid_argument, "a strategic merge patch must be an object");
  return Merger().run(target, patch, &type_info(schema));
}

}  // namespace fairlead::kube
