#include "controlplane/kubelet/pod_facts.h"

#include <map>

#include "kube/quantity.h"

namespace fairlead::kubelet {
namespace {

std::string join(const std::vector<std::string>& values) {
  std::string out;
  for (const std::string& v : values) out += (out.empty() ? "" : ",") + v;
  return out;
}

// key="value" lines, sorted, with the quoting that the API documents.
template <typename Map>
std::string format_map(const Map& map) {
  const std::map<std::string, std::string> sorted(map.begin(), map.end());
  std::string out;
  for (const auto& [k, v] : sorted) {
    if (!out.empty()) out += '\n';
    out += k + "=\"";
    for (const char c : v) {
      if (c == '"' || c == '\\') out += '\\';
      if (c == '\n')
        out += "\\n";
      else
        out += c;
    }
    out += '"';
  }
  return out;
}

// metadata.labels['key'] -> key
bool subscript(const std::string& path, const std::string& prefix, std::string& key) {
  if (path.size() < prefix.size() + 4 || path.compare(0, prefix.size(), prefix) != 0) return false;
  if (path.compare(prefix.size(), 2, "['") != 0 || path.compare(path.size() - 2, 2, "']") != 0) return false;
  key = path.substr(prefix.size() + 2, path.size() - prefix.size() - 4);
  return true;
}

template <typename Map>
std::string lookup(const Map& map, const std::string& key) {
  const auto it = map.find(key);
  return it == map.end() ? std::string() : it->second;
}

const corev1::Container* find_container(const corev1::Pod& pod, const std::string& name) {
  for (const auto& c : pod.spec().containers())
    if (c.name() == name) return &c;
  for (const auto& c : pod.spec().initcontainers())
    if (c.name() == name) return &c;
  return nullptr;
}

}  // namespace

Result<std::string> field_value(const corev1::Pod& pod, const std::string& path, const PodFacts& facts) {
  const auto& m = pod.metadata();
  std::string key;
  if (path == "metadata.name") return m.name();
  if (path == "metadata.namespace") return m.namespace_();
  if (path == "metadata.uid") return m.uid();
  if (path == "metadata.labels") return format_map(m.labels());
  if (path == "metadata.annotations") return format_map(m.annotations());
  if (subscript(path, "metadata.labels", key)) return lookup(m.labels(), key);
  if (subscript(path, "metadata.annotations", key)) return lookup(m.annotations(), key);
  if (path == "spec.nodeName") return facts.node_name;
  if (path == "spec.serviceAccountName") return pod.spec().serviceaccountname();
  if (path == "status.hostIP") return facts.host_ips.empty() ? std::string() : facts.host_ips.front();
  if (path == "status.hostIPs") return join(facts.host_ips);
  if (path == "status.podIP") return facts.pod_ips.empty() ? std::string() : facts.pod_ips.front();
  if (path == "status.podIPs") return join(facts.pod_ips);
  return fail(ErrorCode::invalid_argument, "unsupported fieldPath \"{}\"", path);
}

Result<std::string> resource_value(const corev1::Pod& pod, const corev1::ResourceFieldSelector& selector,
                                   const std::string& default_container, const PodFacts& facts) {
  const std::string& name = selector.containername().empty() ? default_container : selector.containername();
  const corev1::Container* container = find_container(pod, name);
  if (!container) return fail(ErrorCode::invalid_argument, "no container named \"{}\"", name);
  const std::string& path = selector.resource();
  const auto dot = path.find('.');
  const std::string kind = path.substr(0, dot);
  const std::string resource = dot == std::string::npos ? "" : path.substr(dot + 1);
  if ((kind != "limits" && kind != "requests") || (resource != "cpu" && resource != "memory" && resource != "ephemeral-storage"))
    return fail(ErrorCode::invalid_argument, "unsupported container resource \"{}\"", path);
  const auto& amounts = kind == "limits" ? container->resources().limits() : container->resources().requests();
  std::int64_t milli = 0;
  if (const auto it = amounts.find(resource); it != amounts.end()) {
    FL_TRY_CTX(const auto q, kube::Quantity::parse(it->second.string()), "resource {}", path);
    milli = q.milli();
  } else if (kind == "limits") {
    milli = resource == "cpu" ? facts.node_cpu_milli : resource == "memory" ? facts.node_memory_bytes * 1000 : 0;
  }
  std::int64_t divisor = 1000;
  if (!selector.divisor().string().empty()) {
    FL_TRY_CTX(const auto q, kube::Quantity::parse(selector.divisor().string()), "divisor of {}", path);
    if (q.milli() > 0) divisor = q.milli();
  }
  return std::to_string(milli / divisor + (milli % divisor > 0 ? 1 : 0));
}

std::string expand(const std::string& text, const std::function<const std::string*(const std::string&)>& lookup) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$' || i + 1 >= text.size()) {
      out += text[i];
    } else if (text[i + 1] == '$') {
      out += '$';
      ++i;
    } else if (text[i + 1] == '(') {
      const auto end = text.find(')', i + 2);
      const std::string* value = end == std::string::npos ? nullptr : lookup(text.substr(i + 2, end - i - 2));
      if (value) {
        out += *value;
        i = end;
      } else {
        out += '$';
      }
    } else {
      out += '$';
    }
  }
  return out;
}

}  // namespace fairlead::kubelet
