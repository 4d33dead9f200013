#include "controlplane/apiserver/custom/definition.h"

#include <algorithm>
#include <set>

#include "controlplane/apiserver/validation/names.h"
#include "kube/codec.h"

namespace fairlead::apiserver::custom {
namespace json = boost::json;
namespace {

using field::ErrorList;
using field::Path;

constexpr std::size_t kMaxVersions = 100;

// Reads members of one JSON object, and reports those that are of another type, or that nobody asked for.
class Reader {
 public:
  Reader(const json::value& v, Path at, ErrorList& errors) : at_(std::move(at)), errors_(errors) {
    object_ = v.if_object();
    if (!object_ && !v.is_null()) errors_.add({field::Type::type_invalid, at_.text(), kube::to_json(v), "must be an object"});
  }
  const json::value* find(std::string_view name) {
    const auto* v = object_ ? object_->if_contains(name) : nullptr;
    return v && !v->is_null() ? v : nullptr;
  }
  std::string text(std::string_view name) {
    const auto* v = find(name);
    if (!v) return {};
    if (v->is_string()) return std::string(v->get_string());
    wrong(name, *v, "a string");
    return {};
  }
  bool flag(std::string_view name) {
    const auto* v = find(name);
    if (!v) return false;
    if (v->is_bool()) return v->get_bool();
    wrong(name, *v, "true or false");
    return false;
  }
  std::int64_t number(std::string_view name) {
    const auto* v = find(name);
    if (!v) return 0;
    if (v->is_int64()) return v->get_int64();
    wrong(name, *v, "an integer");
    return 0;
  }
  const json::array& list(std::string_view name) {
    static const json::array empty;
    const auto* v = find(name);
    if (!v) return empty;
    if (const auto* a = v->if_array()) return *a;
    wrong(name, *v, "a list");
    return empty;
  }
  std::vector<std::string> texts(std::string_view name) {
    std::vector<std::string> out;
    for (const auto& v : list(name)) {
      if (v.is_string())
        out.emplace_back(v.get_string());
      else
        wrong(name, v, "a list of strings");
    }
    return out;
  }
  const Path& at() const { return at_; }

 private:
  void wrong(std::string_view name, const json::value& v, std::string_view want) {
    errors_.add({field::Type::type_invalid, at_.child(name).text(), kube::to_json(v), fmt::format("must be {}", want)});
  }
  const json::object* object_ = nullptr;
  Path at_;
  ErrorList& errors_;
};

void add_all(const Complaints& complaints, const std::string& value, const Path& at, ErrorList& out) {
  for (const auto& c : complaints) out.invalid(at, value, c);
}

std::string lower(std::string s) {
  for (char& c : s)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return s;
}

void check_names(const Names& n, const Path& at, ErrorList& e) {
  if (n.plural.empty()) e.required(at.child("plural"));
  else add_all(check_dns1035_label(n.plural), n.plural, at.child("plural"), e);
  if (!n.singular.empty()) add_all(check_dns1035_label(n.singular), n.singular, at.child("singular"), e);
  if (n.kind.empty()) e.required(at.child("kind"));
  else add_all(check_dns1035_label(lower(n.kind)), n.kind, at.child("kind"), e);
  if (!n.list_kind.empty()) add_all(check_dns1035_label(lower(n.list_kind)), n.list_kind, at.child("listKind"), e);
  if (!n.kind.empty() && n.kind == n.list_kind) e.invalid(at.child("listKind"), n.list_kind, "kind and listKind may not be the same");
  for (std::size_t i = 0; i < n.short_names.size(); ++i)
    add_all(check_dns1035_label(n.short_names[i]), n.short_names[i], at.child("shortNames").index(i), e);
  for (std::size_t i = 0; i < n.categories.size(); ++i)
    add_all(check_dns1035_label(n.categories[i]), n.categories[i], at.child("categories").index(i), e);
}

void read_columns(Version& v, Reader& version, ErrorList& e) {
  const auto& list = version.list("additionalPrinterColumns");
  for (std::size_t i = 0; i < list.size(); ++i) {
    Reader r(list[i], version.at().child("additionalPrinterColumns").index(i), e);
    PrinterColumn c;
    c.name = r.text("name");
    c.type = r.text("type");
    c.format = r.text("format");
    c.description = r.text("description");
    c.priority = static_cast<int>(r.number("priority"));
    const auto path = r.text("jsonPath");
    if (c.name.empty()) e.required(r.at().child("name"));
    if (c.type.empty())
      e.required(r.at().child("type"));
    else if (c.type != "integer" && c.type != "number" && c.type != "string" && c.type != "boolean" && c.type != "date")
      e.invalid(r.at().child("type"), c.type, "must be one of boolean,date,integer,number,string");
    if (path.empty()) {
      e.required(r.at().child("jsonPath"));
      continue;
    }
    auto parsed = JsonPath::parse(path);
    if (!parsed) {
      e.invalid(r.at().child("jsonPath"), path, parsed.error().message);
      continue;
    }
    c.path = std::move(*parsed);
    v.columns.push_back(std::move(c));
  }
}

void read_selectable(Version& v, Reader& version, ErrorList& e) {
  const auto& list = version.list("selectableFields");
  for (std::size_t i = 0; i < list.size(); ++i) {
    Reader r(list[i], version.at().child("selectableFields").index(i), e);
    const auto text = r.text("jsonPath");
    auto parsed = JsonPath::parse(text);
    if (text.empty() || !parsed) {
      e.invalid(r.at().child("jsonPath"), text, text.empty() ? "is an invalid path" : parsed.error().message);
      continue;
    }
    v.selectable.push_back(text.substr(1));
    v.selectable_paths.push_back(std::move(*parsed));
  }
}

Version read_version(const json::value& text, const Path& at, const Definition& d, ErrorList& e) {
  Reader r(text, at, e);
  Version v;
  v.name = r.text("name");
  v.served = r.flag("served");
  v.storage = r.flag("storage");
  if (v.name.empty()) e.required(at.child("name"));
  else add_all(check_dns1035_label(v.name), v.name, at.child("name"), e);
  for (const auto* name : {"served", "storage"})
    if (!r.find(name)) e.required(at.child(name));
  if (r.flag("deprecated")) {
    v.deprecation = r.text("deprecationWarning");
    if (v.deprecation.empty()) v.deprecation = fmt::format("{}/{} {} is deprecated", d.group, v.name, d.names.kind);
  }
  if (const auto* subresources = r.find("subresources")) {
    Reader s(*subresources, at.child("subresources"), e);
    v.status = s.find("status") != nullptr;
  }
  const auto schema_at = at.child("schema").child("openAPIV3Schema");
  const auto* schema = r.find("schema");
  const auto* properties = schema ? Reader(*schema, at.child("schema"), e).find("openAPIV3Schema") : nullptr;
  if (!properties) {
    e.required(schema_at, "schemas are required");
  } else {
    v.schema = Schema::compile(*properties, schema_at, e);
    v.schema_json = *properties;
  }
  read_columns(v, r, e);
  read_selectable(v, r, e);
  return v;
}

void check_versions(const Definition& d, const Path& at, ErrorList& e) {
  const auto stored = std::count_if(d.versions.begin(), d.versions.end(), [](const Version& v) { return v.storage; });
  if (stored != 1) e.invalid_json(at, "null", "must have exactly one version marked as storage version");
  std::set<std::string> seen;
  for (const auto& v : d.versions)
    if (!seen.insert(v.name).second) {
      e.invalid_json(at, "null", "must contain unique version names");
      return;
    }
}

void read_conversion(Definition& d, const json::value& text, const Path& at, ErrorList& e) {
  Reader r(text, at, e);
  const auto strategy = r.text("strategy");
  d.webhook = strategy == "Webhook";
  if (strategy != "None" && strategy != "Webhook") e.not_supported(at.child("strategy"), strategy, {"None", "Webhook"});
  const auto* webhook = r.find("webhook");
  if (d.webhook && !webhook) e.required(at.child("webhook"), "required when strategy is set to \"Webhook\"");
  if (!d.webhook && webhook) e.forbidden(at.child("webhook"), "should not be set when strategy is not set to \"Webhook\"");
  if (!webhook || !d.webhook) return;
  Reader w(*webhook, at.child("webhook"), e);
  if (!w.find("clientConfig")) e.required(at.child("webhook").child("clientConfig"), "required when strategy is set to \"Webhook\"");
  if (w.list("conversionReviewVersions").empty()) e.required(at.child("webhook").child("conversionReviewVersions"));
}

// Kubernetes' order: (kind of version, major, minor), larger is preferred.
struct Rank {
  int stage = 0;  // 3 "v1", 2 "v1beta1", 1 "v1alpha1", 0 others
  long major = 0, minor = 0;
};
Rank rank_of(std::string_view v) {
  Rank r;
  std::size_t i = 1;
  const auto digits = [&](long& out) {
    const auto start = i;
    while (i < v.size() && v[i] >= '0' && v[i] <= '9' && i - start < 9) out = out * 10 + (v[i++] - '0');
    return i > start;
  };
  if (!v.starts_with('v') || !digits(r.major)) return {};
  if (i == v.size()) return {3, r.major, 0};
  const auto stage = v.substr(i).starts_with("beta") ? 2 : v.substr(i).starts_with("alpha") ? 1 : 0;
  if (stage == 0) return {};
  i += stage == 2 ? 4 : 5;
  if (!digits(r.minor) || i != v.size()) return {};
  r.stage = stage;
  return r;
}

}  // namespace

bool preferred_version(std::string_view a, std::string_view b) {
  const auto x = rank_of(a), y = rank_of(b);
  if (x.stage != y.stage) return x.stage > y.stage;
  if (x.stage == 0) return a < b;
  return x.major != y.major ? x.major > y.major : x.minor > y.minor;
}

const Version* Definition::storage() const {
  for (const auto& v : versions)
    if (v.storage) return &v;
  return nullptr;
}

Names read_names(const json::value& v) {
  ErrorList ignored;
  Reader r(v, Path(), ignored);
  return {r.text("plural"), r.text("singular"), r.text("kind"), r.text("listKind"), r.texts("shortNames"), r.texts("categories")};
}

json::object names_json(const Names& n) {
  json::object out{{"plural", n.plural}, {"kind", n.kind}};
  if (!n.singular.empty()) out["singular"] = n.singular;
  if (!n.list_kind.empty()) out["listKind"] = n.list_kind;
  if (!n.short_names.empty()) out["shortNames"] = json::array(n.short_names.begin(), n.short_names.end());
  if (!n.categories.empty()) out["categories"] = json::array(n.categories.begin(), n.categories.end());
  return out;
}

void default_definition(kube::CustomObject& crd) {
  auto spec = kube::member(crd, "spec");
  auto* s = spec.if_object();
  if (!s) return;
  if (!s->contains("conversion")) (*s)["conversion"] = json::object{{"strategy", "None"}};
  if (auto* names = s->contains("names") ? (*s)["names"].if_object() : nullptr) {
    const auto kind = names->contains("kind") && (*names)["kind"].is_string() ? std::string((*names)["kind"].get_string()) : "";
    if (!kind.empty() && !names->contains("singular")) (*names)["singular"] = lower(kind);
    if (!kind.empty() && !names->contains("listKind")) (*names)["listKind"] = kind + "List";
  }
  kube::set_member(crd, "spec", kube::sorted(spec));
}

Definition read_definition(const kube::CustomObject& crd, ErrorList& e) {
  const Path at("spec");
  const auto spec = kube::member(crd, "spec");
  Reader r(spec, at, e);
  Definition d;
  d.group = r.text("group");
  if (d.group.empty())
    e.required(at.child("group"));
  else if (add_all(check_dns1123_subdomain(d.group), d.group, at.child("group"), e); d.group.find('.') == std::string::npos)
    e.invalid(at.child("group"), d.group, "should be a domain with at least one dot");
  const auto scope = r.text("scope");
  d.scope = scope == "Cluster" ? kube::Scope::cluster : kube::Scope::namespaced;
  if (scope.empty())
    e.required(at.child("scope"));
  else if (scope != "Cluster" && scope != "Namespaced")
    e.not_supported(at.child("scope"), scope, {"Cluster", "Namespaced"});
  if (const auto* names = r.find("names")) {
    Reader n(*names, at.child("names"), e);
    d.names = {n.text("plural"), n.text("singular"), n.text("kind"), n.text("listKind"), n.texts("shortNames"), n.texts("categories")};
  }
  check_names(d.names, at.child("names"), e);
  if (r.flag("preserveUnknownFields"))
    e.invalid_json(at.child("preserveUnknownFields"), "true",
                   "must be false in order to use defaults in the schema; set x-kubernetes-preserve-unknown-fields in it instead");
  const auto& versions = r.list("versions");
  if (versions.size() > kMaxVersions) {
    e.too_many(at.child("versions"), versions.size(), kMaxVersions);
    return d;
  }
  for (std::size_t i = 0; i < versions.size(); ++i) d.versions.push_back(read_version(versions[i], at.child("versions").index(i), d, e));
  check_versions(d, at.child("versions"), e);
  if (const auto* conversion = r.find("conversion")) read_conversion(d, *conversion, at.child("conversion"), e);
  const auto name = d.names.plural + "." + d.group;
  if (crd.metadata().name() != name)
    e.invalid(Path("metadata").child("name"), crd.metadata().name(), "must be spec.names.plural+\".\"+spec.group");
  std::stable_sort(d.versions.begin(), d.versions.end(), [](const Version& a, const Version& b) { return preferred_version(a.name, b.name); });
  return d;
}

}  // namespace fairlead::apiserver::custom
