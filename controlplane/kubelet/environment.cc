#include "controlplane/kubelet/environment.h"

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace fairlead::kubelet {
namespace {

bool valid_name(const std::string& name) {
  return !name.empty() && std::none_of(name.begin(), name.end(),
                                       [](char c) { return c == '=' || c == '\0' || static_cast<unsigned char>(c) < 0x20; });
}

// Set or replace, keeping the first position.
void put(Environment& env, const std::string& name, std::string value) {
  const auto it = std::find_if(env.begin(), env.end(), [&](const auto& e) { return e.first == name; });
  if (it == env.end())
    env.emplace_back(name, std::move(value));
  else
    it->second = std::move(value);
}

const std::string* find(const Environment& env, const std::string& name) {
  const auto it = std::find_if(env.begin(), env.end(), [&](const auto& e) { return e.first == name; });
  return it == env.end() ? nullptr : &it->second;
}

std::string upper(std::string name) {
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

Result<> add_env_from(const corev1::EnvFromSource& from, const EnvironmentObjects& objects, Environment& env) {
  const auto add = [&](const auto& data) {
    const std::map<std::string, std::string> sorted(data.begin(), data.end());
    for (const auto& [k, v] : sorted)
      if (valid_name(from.prefix() + k)) put(env, from.prefix() + k, v);
  };
  if (from.has_configmapref()) {
    const std::string& name = from.configmapref().localobjectreference().name();
    const auto it = objects.config_maps.find(name);
    if (it != objects.config_maps.end()) {
      add(it->second->data());
    } else if (!from.configmapref().optional()) {
      return fail(ErrorCode::not_found, "configmap \"{}\" not found", name);
    }
  }
  if (from.has_secretref()) {
    const std::string& name = from.secretref().localobjectreference().name();
    const auto it = objects.secrets.find(name);
    if (it != objects.secrets.end()) {
      add(it->second->data());
    } else if (!from.secretref().optional()) {
      return fail(ErrorCode::not_found, "secret \"{}\" not found", name);
    }
  }
  return {};
}

// A key of a ConfigMap or Secret. nullopt: absent and optional.
template <typename Object, typename Selector>
Result<std::optional<std::string>> key_value(const std::map<std::string, std::shared_ptr<const Object>>& objects,
                                             const Selector& selector, const char* kind) {
  const std::string& name = selector.localobjectreference().name();
  const auto it = objects.find(name);
  if (it == objects.end()) {
    if (selector.optional()) return std::optional<std::string>();
    return fail(ErrorCode::not_found, "{} \"{}\" not found", kind, name);
  }
  const auto key = it->second->data().find(selector.key());
  if (key == it->second->data().end()) {
    if (selector.optional()) return std::optional<std::string>();
    return fail(ErrorCode::not_found, "couldn't find key {} in {} {}", selector.key(), kind, name);
  }
  return std::optional<std::string>(key->second);
}

Result<std::optional<std::string>> value_from(const corev1::Pod& pod, const corev1::Container& container,
                                              const corev1::EnvVarSource& from, const EnvironmentObjects& objects,
                                              const PodFacts& facts) {
  if (from.has_fieldref()) {
    FL_TRY(std::string v, field_value(pod, from.fieldref().fieldpath(), facts));
    return std::optional<std::string>(std::move(v));
  }
  if (from.has_resourcefieldref()) {
    FL_TRY(std::string v, resource_value(pod, from.resourcefieldref(), container.name(), facts));
    return std::optional<std::string>(std::move(v));
  }
  if (from.has_configmapkeyref()) return key_value(objects.config_maps, from.configmapkeyref(), "configmap");
  if (from.has_secretkeyref()) return key_value(objects.secrets, from.secretkeyref(), "secret");
  return fail(ErrorCode::unimplemented, "the source of this variable is not supported");
}

}  // namespace

EnvironmentNeeds environment_needs(const corev1::Container& container) {
  EnvironmentNeeds out;
  for (const auto& f : container.envfrom()) {
    if (f.has_configmapref()) out.config_maps.insert(f.configmapref().localobjectreference().name());
    if (f.has_secretref()) out.secrets.insert(f.secretref().localobjectreference().name());
  }
  for (const auto& e : container.env()) {
    if (e.valuefrom().has_configmapkeyref())
      out.config_maps.insert(e.valuefrom().configmapkeyref().localobjectreference().name());
    if (e.valuefrom().has_secretkeyref()) out.secrets.insert(e.valuefrom().secretkeyref().localobjectreference().name());
  }
  return out;
}

std::map<std::string, std::string> service_variables(const std::vector<std::shared_ptr<const corev1::Service>>& services,
                                                     const std::string& ns, bool links) {
  std::map<std::string, std::string> out;
  for (const auto& s : services) {
    const bool master = s->metadata().namespace_() == "default" && s->metadata().name() == "kubernetes";
    if (!master && (!links || s->metadata().namespace_() != ns)) continue;
    const std::string& ip = s->spec().clusterip();
    if (ip.empty() || ip == "None" || s->spec().ports_size() == 0) continue;
    const std::string prefix = upper(s->metadata().name());
    const std::string host = ip.find(':') == std::string::npos ? ip : "[" + ip + "]";
    out[prefix + "_SERVICE_HOST"] = ip;
    out[prefix + "_SERVICE_PORT"] = std::to_string(s->spec().ports(0).port());
    for (const auto& p : s->spec().ports()) {
      const std::string protocol = p.protocol().empty() ? "TCP" : p.protocol();
      const std::string scheme = lower(protocol);
      const std::string url = fmt::format("{}://{}:{}", scheme, host, p.port());
      if (&p == &s->spec().ports(0)) out[prefix + "_PORT"] = url;
      if (!p.name().empty()) out[prefix + "_SERVICE_PORT_" + upper(p.name())] = std::to_string(p.port());
      const std::string port = fmt::format("{}_PORT_{}_{}", prefix, p.port(), protocol);
      out[port] = url;
      out[port + "_PROTO"] = scheme;
      out[port + "_PORT"] = std::to_string(p.port());
      out[port + "_ADDR"] = ip;
    }
  }
  return out;
}

Result<Environment> make_environment(const corev1::Pod& pod, const corev1::Container& container,
                                     const EnvironmentObjects& objects, const PodFacts& facts) {
  Environment own;
  const bool links = !pod.spec().has_enableservicelinks() || pod.spec().enableservicelinks();
  const auto services = service_variables(objects.services, pod.metadata().namespace_(), links);
  for (const auto& f : container.envfrom()) FL_CHECK(add_env_from(f, objects, own));
  for (const auto& e : container.env()) {
    if (!e.has_valuefrom()) {
      put(own, e.name(), expand(e.value(), [&](const std::string& name) -> const std::string* {
            if (const std::string* v = find(own, name)) return v;
            const auto it = services.find(name);
            return it == services.end() ? nullptr : &it->second;
          }));
      continue;
    }
    FL_TRY_CTX(auto value, value_from(pod, container, e.valuefrom(), objects, facts), "env {}", e.name());
    if (value) put(own, e.name(), std::move(*value));
  }
  Environment out(services.begin(), services.end());
  for (auto& [name, value] : own) put(out, name, std::move(value));
  return out;
}

}  // namespace fairlead::kubelet
