#include "controlplane/apiserver/request_info.h"

#include "base/text.h"
#include "kube/selector.h"

namespace fairlead::apiserver {
namespace {

std::vector<std::string> segments(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    const auto slash = path.find('/');
    if (const auto part = path.substr(0, slash); !part.empty()) out.emplace_back(part);
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return out;
}

std::string verb_of(std::string_view method) {
  if (method == "POST") return "create";
  if (method == "GET" || method == "HEAD") return "get";
  if (method == "PUT") return "update";
  if (method == "PATCH") return "patch";
  if (method == "DELETE") return "delete";
  return "";
}

bool truthy(std::string_view v) { return v == "true" || v == "1" || v == "True" || v == "TRUE" || v == "t" || v == "T"; }

// A list or watch of one object by name is authorized as that object.
std::string name_from_field_selector(const http::Target& target) {
  const auto text = target.get("fieldSelector");
  if (!text) return {};
  const auto selector = kube::FieldSelector::parse(*text);
  return selector ? selector->required_value("metadata.name").value_or("") : "";
}

}  // namespace

RequestInfo parse_request_info(std::string_view method, const http::Target& target) {
  RequestInfo info;
  info.path = target.path;
  auto parts = segments(target.path);
  info.verb = lower(method);

  std::size_t i = 0;
  if (parts.size() >= 3 && parts[0] == "api") {
    info.version = parts[1];
    i = 2;
  } else if (parts.size() >= 4 && parts[0] == "apis") {
    info.group = parts[1];
    info.version = parts[2];
    i = 3;
  } else {
    return info;
  }
  info.is_resource = true;
  info.verb = verb_of(method);

  bool legacy_watch = false;
  if (parts[i] == "watch" && parts.size() > i + 1) {
    legacy_watch = true;
    ++i;
  }
  if (parts[i] == "namespaces" && parts.size() > i + 1) {
    info.ns = parts[i + 1];
    // "namespaces/x", "namespaces/x/status" and "namespaces/x/finalize" are about the namespace itself.
    const bool itself = parts.size() == i + 2 || (parts.size() == i + 3 && (parts[i + 2] == "status" || parts[i + 2] == "finalize"));
    if (!itself) i += 2;
  }
  info.resource = parts[i++];
  if (i < parts.size()) info.name = parts[i++];
  if (i < parts.size()) info.subresource = parts[i++];
  for (; i < parts.size(); ++i) info.rest.push_back(parts[i]);

  info.collection = info.name.empty();
  if (info.collection && info.verb == "get") {
    const auto watch = target.get("watch");
    info.verb = legacy_watch || (watch && (watch->empty() || truthy(*watch))) ? "watch" : "list";
    info.name = name_from_field_selector(target);
  } else if (info.collection && info.verb == "delete") {
    info.verb = "deletecollection";
  } else if (legacy_watch && info.verb == "get") {
    info.verb = "watch";
  }
  return info;
}

}  // namespace fairlead::apiserver
