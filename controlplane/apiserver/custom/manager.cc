#include "controlplane/apiserver/custom/manager.h"

#include <algorithm>
#include <set>

#include "base/log.h"
#include "controlplane/apiserver/bootstrap.h"
#include "controlplane/apiserver/custom/strategies.h"
#include "controlplane/apiserver/discovery.h"
#include "controlplane/apiserver/openapi_documents.h"
#include "kube/codec.h"

namespace fairlead::apiserver::custom {

namespace json = boost::json;
using kube::CustomObject;

// One definition as it is served: the collection of its objects, and one resource for each version of it.
struct Collection {
  std::string uid;
  std::int64_t generation = 0;
  bool terminating = false;
  std::shared_ptr<Resource> stored;  // of the version in the store; the cache refers to it
  std::shared_ptr<WatchCache> cache;
  std::vector<std::shared_ptr<const Resource>> served;
  std::vector<OpenApiVersion> openapi;
};

struct CustomResources::Seen {
  std::shared_ptr<const CustomObject> object;
  Definition definition;
  std::string wrong;  // why it cannot be served; empty: it can
  const std::string& name() const { return object->metadata().name(); }
  bool deleting() const { return object->metadata().has_deletiontimestamp(); }
};

namespace {

constexpr auto kLookAgain = std::chrono::seconds(30);
constexpr auto kLookAgainWhileEmptying = std::chrono::seconds(1);

// What a served resource needs to live.
struct Parts {
  std::shared_ptr<const kube::Kind> kind, storage_kind;
  std::shared_ptr<const Version> version;
  std::unique_ptr<TablePrinter> printer;
  std::shared_ptr<Resource> stored;  // the cache refers to it
};

std::shared_ptr<const kube::Kind> kind_for(const Definition& d, const Version& v) {
  kube::CustomKind k;
  k.group = d.group;
  k.version = v.name;
  k.kind = d.names.kind;
  k.resource = d.names.plural;
  k.singular = d.names.singular;
  k.scope = d.scope;
  k.short_names = d.names.short_names;
  k.categories = d.names.categories;
  k.status = v.status;
  return kube::make_custom_kind(std::move(k));
}

std::shared_ptr<Resource> resource_for(const Core& core, const Definition& d, std::shared_ptr<const Version> version) {
  auto parts = std::make_shared<Parts>();
  parts->version = version;
  parts->kind = kind_for(d, *version);
  parts->storage_kind = kind_for(d, *d.storage());
  parts->printer = object_printer(version);
  auto r = std::make_shared<Resource>();
  r->kind = parts->kind.get();
  r->storage_kind = parts->storage_kind.get();
  r->prefix = fmt::format("{}/{}/{}/", core.options.storage_prefix, d.group, d.names.plural);
  r->strategy = object_strategy(version);
  r->printer = parts->printer.get();
  r->json_only = true;
  // What is in the store may be of another version, or older than the schema.
  r->from_storage = [strategy = r->strategy.get()](const Message& stored, Message& served) {
    served.CopyFrom(stored);
    strategy->prune(served, nullptr);
    strategy->apply_defaults(served);
  };
  r->to_storage = [](const Message& served, Message& stored) { stored.CopyFrom(served); };
  r->parts = std::move(parts);
  return r;
}

// ---- conditions

struct Condition {
  std::string type;
  bool status = false;
  std::string reason, message;
};

bool set_condition(json::array& list, const Condition& c, WallTime now) {
  const json::value status = c.status ? "True" : "False";
  json::object* found = nullptr;
  for (auto& item : list)
    if (auto* o = item.if_object(); o && o->contains("type") && (*o)["type"] == json::value(c.type)) found = o;
  if (!found) found = &list.emplace_back(json::object{{"type", c.type}}).get_object();
  auto& o = *found;
  if (o["status"] == status && o["reason"] == json::value(c.reason) && o["message"] == json::value(c.message)) return false;
  if (o["status"] != status)
    o["lastTransitionTime"] = kube::to_json_value(to_time(now));
  o["status"] = status;
  o["reason"] = c.reason;
  o["message"] = c.message;
  return true;
}

bool is_established(const CustomObject& crd) {
  const auto status = kube::member(crd, "status");
  const auto* s = status.if_object();
  const auto* list = s && s->contains("conditions") ? s->at("conditions").if_array() : nullptr;
  if (!list) return false;
  return std::any_of(list->begin(), list->end(), [](const json::value& c) {
    const auto* o = c.if_object();
    return o && o->contains("type") && o->contains("status") && o->at("type") == json::value("Established") &&
           o->at("status") == json::value("True");
  });
}

// The status that tells the outcome; false: it says so already.
bool fill_status(CustomObject& crd, const Definition& d, const std::string& conflict, bool deleting, WallTime now) {
  auto status = kube::member(crd, "status");
  if (!status.is_object()) status = json::object();
  auto& s = status.as_object();
  json::array conditions;
  if (const auto* list = s.if_contains("conditions"); list && list->is_array()) conditions = list->get_array();
  bool changed = false;
  const bool free = conflict.empty();
  changed |= set_condition(conditions, {"NamesAccepted", free, free ? "NoConflicts" : "NameConflict", free ? "no conflicts found" : conflict}, now);
  if (free || !is_established(crd))
    changed |= set_condition(conditions,
                             {"Established", free, free ? "InitialNamesAccepted" : "NotAccepted",
                              free ? "the initial names have been accepted" : "not all names are accepted"},
                             now);
  if (deleting)
    changed |= set_condition(conditions,
                             {"Terminating", true, "InstanceDeletionInProgress", "CustomResource deletion is in progress"}, now);
  const json::value names = names_json(d.names);
  if (free && kube::sorted(s["acceptedNames"]) != kube::sorted(names)) {
    s["acceptedNames"] = names;
    changed = true;
  }
  if (!changed) return false;
  s["conditions"] = std::move(conditions);
  kube::set_member(crd, "status", kube::sorted(status));
  return true;
}

// Of definitions of one group the older one has a name.
std::string conflict_of(const Definition& d, std::set<std::string>& taken) {
  std::vector<std::string> names = {d.names.plural, d.names.singular};
  names.insert(names.end(), d.names.short_names.begin(), d.names.short_names.end());
  const std::vector<std::string> kinds = {d.names.kind, d.names.list_kind};
  const auto resource = [&](const std::string& n) { return fmt::format("{}/resource/{}", d.group, n); };
  const auto kind = [&](const std::string& n) { return fmt::format("{}/kind/{}", d.group, n); };
  for (const auto& n : names)
    if (taken.count(resource(n))) return fmt::format("\"{}\" is already in use", n);
  for (const auto& n : kinds)
    if (taken.count(kind(n))) return fmt::format("\"{}\" is already in use", n);
  for (const auto& n : names) taken.insert(resource(n));
  for (const auto& n : kinds) taken.insert(kind(n));
  return {};
}

}  // namespace

CustomResources::CustomResources(Core& core)
    : core_(core), resource_(*core.resources.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")) {}
CustomResources::~CustomResources() = default;

// Those that have their names first, then the older ones: a name that was given stays.
std::vector<CustomResources::Seen> CustomResources::definitions() const {
  std::vector<Seen> out;
  const auto all = Selection::make(resource_, "", "", {}, {});
  for (const auto& e : resource_.cache->list(*all).items) {
    Seen s;
    s.object = std::shared_ptr<const CustomObject>(static_cast<const CustomObject*>(decode_entry(resource_, *e).release()));
    field::ErrorList errors;
    s.definition = read_definition(*s.object, errors);
    if (!errors.empty()) s.wrong = errors[0].text();
    out.push_back(std::move(s));
  }
  const auto rank = [](const Seen& s) {
    return std::pair(kube::defined_kind(*s.object) == nullptr, s.object->metadata().creationtimestamp().seconds());
  };
  std::stable_sort(out.begin(), out.end(), [&](const Seen& a, const Seen& b) { return rank(a) < rank(b); });
  return out;
}

// True: what is served has changed.
Task<bool> CustomResources::serve(const Seen& seen) {
  const auto& meta = seen.object->metadata();
  auto& slot = collections_[seen.name()];
  if (slot && slot->uid == meta.uid() && slot->generation == meta.generation() && slot->terminating == seen.deleting()) co_return false;
  auto next = std::make_shared<Collection>();
  next->uid = meta.uid();
  next->generation = meta.generation();
  next->terminating = seen.deleting();
  const auto& d = seen.definition;
  next->stored = resource_for(core_, d, std::make_shared<const Version>(*d.storage()));
  // A deletion changes nothing but whether objects may be created.
  const bool keep_cache = slot && slot->uid == next->uid && next->terminating && !slot->terminating;
  if (keep_cache) {
    next->stored = slot->stored;
    next->cache = slot->cache;
  } else {
    next->cache = std::make_shared<WatchCache>(*next->stored, core_.clock, CacheOptions{});
    const auto old = slot ? slot->cache : nullptr;
    if (old) core_.feeder->remove(old);
    auto added = co_await core_.feeder->add(next->cache);
    if (!added) {
      log::warn("custom resources {}: {}", seen.name(), added.error().message);
      core_.feeder->remove(next->cache);
      collections_.erase(seen.name());
      co_return true;
    }
  }
  for (const auto& v : d.versions) {
    if (!v.served || (d.webhook && !v.storage)) continue;
    auto r = resource_for(core_, d, std::make_shared<const Version>(v));
    r->cache = next->cache;
    r->no_create = next->terminating;
    std::const_pointer_cast<Parts>(std::static_pointer_cast<const Parts>(r->parts))->stored = next->stored;
    next->openapi.push_back({kind_for(d, v), v.schema_json});
    next->served.push_back(std::move(r));
  }
  const auto replaced = std::exchange(slot, next);
  if (replaced && replaced->cache != next->cache) replaced->cache->close();
  log::info("custom resources {}: served, generation {}", seen.name(), meta.generation());
  co_return true;
}

void CustomResources::publish() {
  Resources::Custom all;
  std::vector<OpenApiVersion> openapi;
  for (const auto& [name, c] : collections_) {
    all.insert(all.end(), c->served.begin(), c->served.end());
    openapi.insert(openapi.end(), c->openapi.begin(), c->openapi.end());
  }
  core_.resources.set_custom(std::move(all));
  core_.publish_documents(std::move(openapi));
}

Task<> CustomResources::write_conditions(const Seen& seen, std::string conflict) {
  const auto now = core_.clock.wall();
  const bool deleting = seen.deleting();
  auto probe = *seen.object;
  if (!fill_status(probe, seen.definition, conflict, deleting, now)) co_return;
  const auto definition = seen.definition;
  const Registry::Edit edit = [definition, conflict, deleting, now](const Message* current) -> ApiResult<Registry::Object> {
    auto next = clone(*current);
    (void)fill_status(static_cast<CustomObject&>(*next), definition, conflict, deleting, now);
    return next;
  };
  auto done = co_await core_.registry->update(resource_, "", seen.name(), Registry::Part::internal, edit, as_apiserver());
  if (!done && done.error().reason != "NotFound") log::warn("status of definition {}: {}", seen.name(), done.error().message);
}

// Deletes the objects of a definition; true when there are none left.
Task<bool> CustomResources::empty(const Seen& seen) {
  const auto it = collections_.find(seen.name());
  if (it == collections_.end()) co_return true;  // never served: no objects
  const auto resource = it->second->stored;
  const auto all = Selection::make(*resource, "", "", {}, {});
  auto listed = co_await core_.storage->list(*resource, *all, "", 0, 0);
  if (!listed) co_return false;
  metav1::DeleteOptions how;
  how.set_propagationpolicy("Background");
  for (const auto& e : listed->items) {
    auto gone = co_await core_.registry->remove(*resource, e->ns, e->name, how, as_apiserver());
    if (!gone && gone.error().reason != "NotFound") log::warn("delete {} {}/{}: {}", seen.name(), e->ns, e->name, gone.error().message);
  }
  auto left = co_await core_.storage->list(*resource, *all, "", 1, 0);
  co_return left && left->items.empty();
}

Task<> CustomResources::let_go(const Seen& seen) {
  const Registry::Edit edit = [](const Message* current) -> ApiResult<Registry::Object> {
    auto next = clone(*current);
    auto& list = *mutable_meta_of(*next).mutable_finalizers();
    list.erase(std::remove(list.begin(), list.end(), kCleanup), list.end());
    return next;
  };
  auto done = co_await core_.registry->update(resource_, "", seen.name(), Registry::Part::main, edit, as_apiserver());
  if (!done && done.error().reason != "NotFound") log::warn("definition {}: {}", seen.name(), done.error().message);
}

Task<> CustomResources::settle() {
  const auto seen = definitions();
  bool changed = false;
  std::set<std::string> taken, names;
  std::vector<std::pair<const Seen*, std::string>> served;
  for (const auto& s : seen) {
    names.insert(s.name());
    if (!s.wrong.empty()) {
      if (!collections_.count(s.name())) log::warn("definition {} is not served: {}", s.name(), s.wrong);
      continue;
    }
    auto conflict = conflict_of(s.definition, taken);
    if (conflict.empty() && co_await serve(s)) changed = true;
    served.emplace_back(&s, std::move(conflict));
  }
  for (auto it = collections_.begin(); it != collections_.end();) {
    if (names.count(it->first)) {
      ++it;
      continue;
    }
    core_.feeder->remove(it->second->cache);
    it->second->cache->close();
    log::info("custom resources {}: not served any more", it->first);
    it = collections_.erase(it);
    changed = true;
  }
  if (changed) publish();
  // What is said to be established is served already.
  for (const auto& [s, conflict] : served) co_await write_conditions(*s, conflict);
  for (const auto& s : seen) {
    if (!s.deleting()) continue;
    const bool gone = co_await empty(s);
    if (gone) co_await let_go(s);
  }
}

Task<> CustomResources::run() {
  const auto executor = co_await net::this_coro::executor;
  while (!core_.stopping) {
    WatchCache::WatchSpec spec{*Selection::make(resource_, "", "", {}, {}), 0, true};
    auto watcher = resource_.cache->watch(executor, std::move(spec));
    bool followed = watcher.has_value();
    while (followed && !core_.stopping) {
      co_await settle();
      const bool emptying = std::any_of(collections_.begin(), collections_.end(), [](const auto& c) { return c.second->terminating; });
      const auto wait = emptying ? std::chrono::nanoseconds(kLookAgainWhileEmptying) : std::chrono::nanoseconds(kLookAgain);
      co_await (*watcher)->wait_until(std::chrono::steady_clock::now() + wait);
      followed = !(*watcher)->drain().closed;
    }
    if (core_.stopping) co_return;
    auto slept = co_await sleep_for(std::chrono::milliseconds(100));
    if (!slept) co_return;
  }
}

}  // namespace fairlead::apiserver::custom
