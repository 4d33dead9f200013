#include "controlplane/apiserver/custom/strategies.h"

#include <algorithm>

#include "kube/codec.h"
#include "kube/time_text.h"

namespace fairlead::apiserver::custom {
namespace json = boost::json;
namespace {

using field::ErrorList;
using field::Path;
using kube::CustomObject;

json::object content_of(const CustomObject& o) {
  json::object out;
  for (const auto& [name, value] : o.members()) out.emplace(name, kube::member(o, name));
  return out;
}

// In the order of names at every depth, so that equal objects are equal bytes.
void set_content(CustomObject& o, const json::object& content) {
  o.clear_members();
  for (const auto& [name, value] : content) kube::set_member(o, name, kube::sorted(value));
}

void copy_member(const CustomObject& from, CustomObject& to, const char* name) {
  if (const auto it = from.members().find(name); it != from.members().end())
    (*to.mutable_members())[name] = it->second;
  else
    to.mutable_members()->erase(name);
}

bool same_members(const CustomObject& a, const CustomObject& b, std::string_view except) {
  const auto subset = [&](const CustomObject& x, const CustomObject& y) {
    return std::all_of(x.members().begin(), x.members().end(), [&](const auto& m) {
      if (m.first == except) return true;
      const auto it = y.members().find(m.first);
      return it != y.members().end() && it->second.raw() == m.second.raw();
    });
  };
  return subset(a, b) && subset(b, a);
}

// What may not change through the status subresource.
void keep_all_but_status(CustomObject& now, const CustomObject& before) {
  const auto status = kube::member(now, "status");
  now = before;
  kube::set_member(now, "status", kube::sorted(status));
}

// ---- definitions

class DefinitionStrategy final : public TypedStrategy<CustomObject> {
 public:
  bool tracks_generation() const override { return true; }
  bool spec_changed(const Message& now, const Message& before) const override {
    return kube::member(static_cast<const CustomObject&>(now), "spec") != kube::member(static_cast<const CustomObject&>(before), "spec");
  }
  void prune(Message& o, Warnings* strict) const override {
    auto& members = *static_cast<CustomObject&>(o).mutable_members();
    for (auto it = members.begin(); it != members.end();) {
      const bool known = it->first == "spec" || it->first == "status";
      if (!known && strict) strict->push_back(fmt::format("unknown field \"{}\"", it->first));
      it = known ? std::next(it) : members.erase(it);
    }
  }

 protected:
  void defaults(CustomObject& o) const override { default_definition(o); }
  void before_create(CustomObject& o) const override {
    json::array stored;
    ErrorList ignored;
    const auto d = read_definition(o, ignored);
    if (const auto* v = d.storage()) stored.emplace_back(v->name);
    kube::set_member(o, "status", json::object{{"acceptedNames", json::object{{"kind", ""}, {"plural", ""}}},
                                               {"conditions", json::array()},
                                               {"storedVersions", std::move(stored)}});
    hold(o);
  }
  void before_update(CustomObject& now, const CustomObject& before) const override {
    copy_member(before, now, "status");
    if (!now.metadata().has_deletiontimestamp()) hold(now);
    ErrorList ignored;
    const auto d = read_definition(now, ignored);
    if (const auto* v = d.storage()) note_stored(now, v->name);
  }
  void before_status_update(CustomObject& now, const CustomObject& before) const override { keep_all_but_status(now, before); }
  void check(const CustomObject& o, ErrorList& e) const override { (void)read_definition(o, e); }
  void check_update(const CustomObject& now, const CustomObject& before, ErrorList& e) const override {
    const auto d = read_definition(now, e);
    ErrorList ignored;
    const auto old = read_definition(before, ignored);
    const Path at("spec");
    const auto same = [&](const std::string& a, const std::string& b, const Path& p) { require_same(a == b, field::quote(a), p, e); };
    same(d.group, old.group, at.child("group"));
    same(d.names.plural, old.names.plural, at.child("names").child("plural"));
    same(d.names.kind, old.names.kind, at.child("names").child("kind"));
    const auto scope = [](const Definition& x) { return std::string(x.scope == kube::Scope::cluster ? "Cluster" : "Namespaced"); };
    same(scope(d), scope(old), at.child("scope"));
    check_stored_versions(now, d, e);
  }
  void check_status_update(const CustomObject& now, const CustomObject&, ErrorList& e) const override {
    ErrorList ignored;
    check_stored_versions(now, read_definition(now, ignored), e);
  }
  Warnings warn(const CustomObject& o) const override {
    ErrorList ignored;
    const auto d = read_definition(o, ignored);
    Warnings out;
    for (const auto& v : d.versions)
      for (const auto& path : v.schema.unknown_keywords()) out.push_back(fmt::format("unknown field \"{}\"", path));
    for (const auto& v : d.versions)
      if (v.schema.uses_rules()) out.push_back(fmt::format("version {}: x-kubernetes-validations are not evaluated by this server", v.name));
    if (d.webhook && d.versions.size() > 1)
      out.push_back(fmt::format("conversion webhooks are not called by this server: only version {} is served", d.storage() ? d.storage()->name : ""));
    return out;
  }

 private:
  static void hold(CustomObject& o) {
    auto& list = *o.mutable_metadata()->mutable_finalizers();
    if (std::find(list.begin(), list.end(), kCleanup) == list.end()) list.Add(kCleanup);
  }
  static json::array stored_versions(const CustomObject& o) {
    const auto status = kube::member(o, "status");
    const auto* s = status.if_object();
    const auto* list = s ? s->if_contains("storedVersions") : nullptr;
    return list && list->is_array() ? list->get_array() : json::array();
  }
  static void note_stored(CustomObject& o, const std::string& version) {
    auto list = stored_versions(o);
    if (std::find(list.begin(), list.end(), json::value(version)) != list.end()) return;
    list.emplace_back(version);
    auto status = kube::member(o, "status");
    if (!status.is_object()) status = json::object();
    status.as_object()["storedVersions"] = std::move(list);
    kube::set_member(o, "status", kube::sorted(status));
  }
  static void check_stored_versions(const CustomObject& o, const Definition& d, ErrorList& e) {
    const auto list = stored_versions(o);
    const auto at = Path("status").child("storedVersions");
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto name = list[i].is_string() ? std::string(list[i].get_string()) : std::string();
      const bool there = std::any_of(d.versions.begin(), d.versions.end(), [&](const Version& v) { return v.name == name; });
      if (!there) e.invalid(at.index(i), name, "must appear in spec.versions");
    }
  }
};

// ---- objects

class ObjectStrategy final : public TypedStrategy<CustomObject> {
 public:
  explicit ObjectStrategy(std::shared_ptr<const Version> version)
      : version_(std::move(version)), selectable_(version_->selectable.begin(), version_->selectable.end()) {}
  bool tracks_generation() const override { return true; }
  bool spec_changed(const Message& now, const Message& before) const override {
    return !same_members(static_cast<const CustomObject&>(now), static_cast<const CustomObject&>(before), version_->status ? "status" : "");
  }
  std::span<const std::string_view> selectable_fields() const override { return selectable_; }
  void prune(Message& o, Warnings* strict) const override {
    auto& object = static_cast<CustomObject&>(o);
    auto content = content_of(object);
    version_->schema.prune(content, strict);
    set_content(object, content);
  }

 protected:
  void defaults(CustomObject& o) const override {
    auto content = content_of(o);
    version_->schema.apply_defaults(content);
    set_content(o, content);
  }
  void before_create(CustomObject& o) const override {
    if (version_->status) o.mutable_members()->erase("status");
  }
  void before_update(CustomObject& now, const CustomObject& before) const override {
    if (version_->status) copy_member(before, now, "status");
  }
  void before_status_update(CustomObject& now, const CustomObject& before) const override { keep_all_but_status(now, before); }
  void check(const CustomObject& o, ErrorList& e) const override { version_->schema.validate(content_of(o), e); }
  void check_status_update(const CustomObject& now, const CustomObject&, ErrorList& e) const override { check(now, e); }
  Warnings warn(const CustomObject&) const override {
    if (version_->deprecation.empty()) return {};
    return {version_->deprecation};
  }
  void values(const CustomObject& o, std::vector<std::string>& out) const override {
    if (selectable_.empty()) return;
    const json::value content = content_of(o);
    for (const auto& path : version_->selectable_paths) {
      const auto* v = path.find(content);
      out.push_back(!v ? "" : v->is_string() ? std::string(v->get_string()) : kube::to_json(*v));
    }
  }

 private:
  const std::shared_ptr<const Version> version_;
  const std::vector<std::string_view> selectable_;  // into version_
};

// ---- tables

json::value cell_of(const PrinterColumn& c, const json::value& object, WallTime now) {
  const auto* v = c.path.find(object);
  if (!v || v->is_null()) return nullptr;
  if (c.type == "string") return v->is_string() ? *v : json::value(kube::to_json(*v));
  if (c.type == "date") {
    const auto t = v->is_string() ? kube::parse_time(v->get_string()) : Result<kube::TimePoint>(fail(ErrorCode::invalid_argument, ""));
    if (!t) return "<invalid>";
    return json::value(human_duration(now - WallTime(std::chrono::seconds(t->seconds))));
  }
  if (c.type == "boolean") return v->is_bool() ? *v : json::value(nullptr);
  return v->is_number() ? *v : json::value(nullptr);
}

}  // namespace

std::unique_ptr<Strategy> definition_strategy() { return std::make_unique<DefinitionStrategy>(); }
std::unique_ptr<Strategy> object_strategy(std::shared_ptr<const Version> version) { return std::make_unique<ObjectStrategy>(std::move(version)); }

const TablePrinter& definition_printer() {
  static const TablePrinter p({kNameColumn, {"Created At", "date", "", "When the definition was stored first.", 0}},
                              [](const Message& o, WallTime, Row& r) {
                                const auto& m = meta_of(o);
                                r.cells = {m.name(), kube::format_time(m.creationtimestamp().seconds())};
                              });
  return p;
}

std::unique_ptr<TablePrinter> object_printer(std::shared_ptr<const Version> version) {
  std::vector<Column> columns = {kNameColumn};
  for (const auto& c : version->columns)
    columns.push_back({c.name, c.type, c.format, c.description.empty() ? "A column of the definition." : std::string_view(c.description), c.priority});
  const bool ages = version->columns.empty();
  if (ages) columns.push_back(kAgeColumn);
  return std::make_unique<TablePrinter>(std::move(columns), [version, ages](const Message& o, WallTime now, Row& row) {
    const auto& m = meta_of(o);
    row.cells.emplace_back(m.name());
    if (ages) return void(row.cells.emplace_back(age_of(m.creationtimestamp(), m.has_creationtimestamp(), now)));
    const auto object = kube::to_json_value(o);
    for (const auto& c : version->columns) row.cells.push_back(cell_of(c, object, now));
  });
}

void upgrade_definition(json::object& stored) {
  auto* version = stored.if_contains("apiVersion");
  auto* spec_value = stored.if_contains("spec");  // operator[] may move the members
  auto* spec = spec_value ? spec_value->if_object() : nullptr;
  if (!version || *version != json::value("apiextensions.k8s.io/v1beta1") || !spec) return;
  *version = "apiextensions.k8s.io/v1";
  const auto take = [&](const char* name) {
    auto* v = spec->if_contains(name);
    json::value out = v ? std::move(*v) : json::value(nullptr);
    spec->erase(name);
    return out;
  };
  const auto name = take("version"), schema = take("validation"), subresources = take("subresources"), columns = take("additionalPrinterColumns");
  auto versions = take("versions");
  if (!versions.is_array()) versions = json::array{json::object{{"name", name}, {"served", true}, {"storage", true}}};
  for (auto& v : versions.as_array()) {
    auto* o = v.if_object();
    if (!o) continue;
    if (!o->contains("schema") && schema.is_object()) o->emplace("schema", schema);
    if (!o->contains("subresources") && subresources.is_object()) o->emplace("subresources", subresources);
    if (!o->contains("additionalPrinterColumns") && columns.is_array()) o->emplace("additionalPrinterColumns", columns);
    auto* list = o->contains("additionalPrinterColumns") ? (*o)["additionalPrinterColumns"].if_array() : nullptr;
    for (std::size_t i = 0; list && i < list->size(); ++i) {
      auto* c = (*list)[i].if_object();
      if (!c || !c->contains("JSONPath")) continue;
      json::value path = std::move((*c)["JSONPath"]);
      c->erase("JSONPath");
      c->emplace("jsonPath", std::move(path));
    }
  }
  spec->emplace("versions", std::move(versions));
  auto* conversion = spec->contains("conversion") ? (*spec)["conversion"].if_object() : nullptr;
  if (!conversion || !conversion->contains("webhookClientConfig")) return;
  json::object webhook{{"clientConfig", (*conversion)["webhookClientConfig"]}};
  if (conversion->contains("conversionReviewVersions")) webhook["conversionReviewVersions"] = (*conversion)["conversionReviewVersions"];
  conversion->erase("webhookClientConfig");
  conversion->erase("conversionReviewVersions");
  conversion->emplace("webhook", std::move(webhook));
}

}  // namespace fairlead::apiserver::custom
