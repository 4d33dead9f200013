#include "controlplane/apiserver/discovery.h"

#include <openssl/evp.h>

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <algorithm>
#include <vector>

#include "controlplane/apiserver/custom/definition.h"

namespace fairlead::apiserver {
namespace json = boost::json;
namespace {

// One version of a group, with its kinds.
struct GroupVersion {
  std::string group, version;
  std::vector<const kube::Kind*> kinds;
  std::string name() const { return group.empty() ? version : group + "/" + version; }
};
// A group with its versions in the order of preference.
struct Group {
  std::string name;
  std::vector<GroupVersion> versions;
};

// The built-in groups in the order of the table of kinds, then those of custom resources by name.
std::vector<Group> groups_of(const Resources& resources, const Resources::Custom& custom) {
  std::vector<Group> out;
  const auto add = [&](const kube::Kind& k) {
    auto group = std::find_if(out.begin(), out.end(), [&](const Group& g) { return g.name == k.group; });
    if (group == out.end()) group = out.insert(out.end(), {std::string(k.group), {}});
    for (auto& gv : group->versions)
      if (gv.version == k.version) return gv.kinds.push_back(&k);
    group->versions.push_back({std::string(k.group), std::string(k.version), {&k}});
  };
  for (const auto& r : resources.all()) add(*r->kind);
  for (const auto& k : kube::kinds())  // the ones that are questions, and bindings
    if (!k.list_prototype && (k.group == "authentication.k8s.io" || k.group == "authorization.k8s.io" || k.resource == "bindings")) add(k);
  const auto built_in = static_cast<std::ptrdiff_t>(out.size());
  for (const auto& r : custom)
    if (!resources.find(r->kind->group, r->kind->version, r->kind->resource)) add(*r->kind);
  std::sort(out.begin() + built_in, out.end(), [](const Group& a, const Group& b) { return a.name < b.name; });
  for (auto& g : out) {
    std::stable_sort(g.versions.begin(), g.versions.end(), [](const GroupVersion& a, const GroupVersion& b) {
      return custom::preferred_version(a.version, b.version);
    });
    for (auto& gv : g.versions) std::sort(gv.kinds.begin(), gv.kinds.end(), [](auto* a, auto* b) { return a->resource < b->resource; });
  }
  return out;
}

template <typename List>
json::array names(const List& list) {
  json::array out;
  for (const auto& s : list) out.emplace_back(std::string_view(s));
  return out;
}

std::string sha256_base64_prefix(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr);
  unsigned char base64[32];
  EVP_EncodeBlock(base64, digest, 8);
  return {reinterpret_cast<const char*>(base64), 12};
}

std::string hex_digest(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha512(), nullptr);
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02X}", digest[i]);
  return out;
}

std::pair<std::string_view, std::string_view> split_version(std::string_view gv) {
  const auto slash = gv.find('/');
  if (slash == std::string_view::npos) return {"", gv};
  return {gv.substr(0, slash), gv.substr(slash + 1)};
}

json::object legacy_resource(const kube::Kind& k) {
  json::object o;
  o["name"] = k.resource;
  o["singularName"] = k.singular;
  o["namespaced"] = k.namespaced();
  o["kind"] = k.kind;
  o["verbs"] = names(k.verbs);
  if (!k.short_names.empty()) o["shortNames"] = names(k.short_names);
  if (!k.categories.empty()) o["categories"] = names(k.categories);
  if (k.list_prototype) o["storageVersionHash"] = sha256_base64_prefix(fmt::format("{}/{}/{}", k.group, k.version, k.kind));
  return o;
}

json::object legacy_subresource(const kube::Kind& k, const kube::Subresource& s) {
  json::object o;
  o["name"] = fmt::format("{}/{}", k.resource, s.name);
  o["singularName"] = "";
  o["namespaced"] = k.namespaced();
  if (!s.group_version.empty()) {
    const auto [group, version] = split_version(s.group_version);
    o["group"] = group;
    o["version"] = version;
  }
  o["kind"] = s.kind.empty() ? k.kind : s.kind;
  o["verbs"] = names(s.verbs);
  return o;
}

json::object response_kind(std::string_view group, std::string_view version, std::string_view kind) {
  return {{"group", group}, {"version", version}, {"kind", kind}};
}

json::object aggregated_resource(const kube::Kind& k) {
  json::object o;
  o["resource"] = k.resource;
  o["responseKind"] = response_kind(k.group, k.version, k.kind);
  o["scope"] = k.namespaced() ? "Namespaced" : "Cluster";
  o["singularResource"] = k.singular;
  o["verbs"] = names(k.verbs);
  if (!k.short_names.empty()) o["shortNames"] = names(k.short_names);
  if (!k.categories.empty()) o["categories"] = names(k.categories);
  json::array subs;
  for (const auto& s : k.subresources) {
    if (!s.served) continue;
    const auto [group, version] = s.group_version.empty() ? std::pair(k.group, k.version) : split_version(s.group_version);
    subs.push_back({{"subresource", s.name},
                    {"responseKind", response_kind(group, version, s.kind.empty() ? k.kind : s.kind)},
                    {"verbs", names(s.verbs)}});
  }
  if (!subs.empty()) o["subresources"] = std::move(subs);
  return o;
}

json::object group_object(const Group& group) {
  json::array list;
  for (const auto& gv : group.versions) list.push_back({{"groupVersion", gv.name()}, {"version", gv.version}});
  json::object o;
  o["name"] = group.name;
  o["preferredVersion"] = list.front();
  o["versions"] = std::move(list);
  return o;
}

json::object resource_list(const GroupVersion& gv) {
  json::array resources;
  for (const auto* k : gv.kinds) {
    resources.push_back(legacy_resource(*k));
    for (const auto& s : k->subresources)
      if (s.served) resources.push_back(legacy_subresource(*k, s));
  }
  return {{"kind", "APIResourceList"}, {"apiVersion", "v1"}, {"groupVersion", gv.name()}, {"resources", std::move(resources)}};
}

json::object aggregated_group(const Group& group) {
  json::array versions;
  for (const auto& gv : group.versions) {
    json::array resources;
    for (const auto* k : gv.kinds) resources.push_back(aggregated_resource(*k));
    versions.push_back({{"version", gv.version}, {"resources", std::move(resources)}, {"freshness", "Current"}});
  }
  json::object meta;
  if (!group.name.empty()) meta["name"] = group.name;
  meta["creationTimestamp"] = nullptr;
  return {{"metadata", std::move(meta)}, {"versions", std::move(versions)}};
}

}  // namespace

DiscoveryDocuments make_discovery(const Resources& resources, const std::string& server_address) {
  DiscoveryDocuments out;
  const auto custom = resources.custom();
  const json::array cidrs = {{{"clientCIDR", "0.0.0.0/0"}, {"serverAddress", server_address}}};
  json::array groups, core_items, group_items;
  for (const auto& g : groups_of(resources, *custom)) {
    for (const auto& gv : g.versions)
      out.legacy[g.name.empty() ? "/api/" + gv.version : fmt::format("/apis/{}/{}", g.name, gv.version)] = json::serialize(resource_list(gv));
    (g.name.empty() ? core_items : group_items).push_back(aggregated_group(g));
    if (g.name.empty()) continue;
    auto group = group_object(g);
    groups.push_back(group);
    group["kind"] = "APIGroup";
    group["apiVersion"] = "v1";
    out.legacy["/apis/" + g.name] = json::serialize(group);
  }
  const json::object versions = {
      {"kind", "APIVersions"}, {"versions", json::array{"v1"}}, {"serverAddressByClientCIDRs", cidrs}};
  out.legacy["/api"] = json::serialize(versions);
  const json::object group_list = {{"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", std::move(groups)}};
  out.legacy["/apis"] = json::serialize(group_list);
  const auto aggregated = [&](json::array items) {
    const json::object o = {{"kind", "APIGroupDiscoveryList"}, {"apiVersion", "apidiscovery.k8s.io/v2"}, {"metadata", json::object()},
                            {"items", std::move(items)}};
    return json::serialize(o);
  };
  out.aggregated["/api"] = aggregated(std::move(core_items));
  out.aggregated["/apis"] = aggregated(std::move(group_items));
  for (const auto& [path, text] : out.aggregated) out.etags[path] = "\"" + hex_digest(text) + "\"";
  return out;
}

std::string wants_aggregated(std::string_view accept) {
  // Only v2: v2beta1 has left upstream's defaults. Clients list several forms; JSON discovery is always the fallback.
  while (!accept.empty()) {
    const auto comma = accept.find(',');
    const auto part = accept.substr(0, comma);
    if (part.find("application/json") != std::string_view::npos && part.find("g=apidiscovery.k8s.io") != std::string_view::npos &&
        part.find("v=v2") != std::string_view::npos && part.find("v=v2beta1") == std::string_view::npos &&
        part.find("as=APIGroupDiscoveryList") != std::string_view::npos)
      return "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    if (comma == std::string_view::npos) break;
    accept.remove_prefix(comma + 1);
  }
  return {};
}

}  // namespace fairlead::apiserver
